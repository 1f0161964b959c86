"""Random kill points over leader, helper and devices together, also with backups that are put back.

Whatever is killed or restored, and wherever: no collected round is lost, nobody is charged twice for one, and no second
set of one round is ever unmasked. All of it is checked from outside, on what left each party and on their files.
"""

from __future__ import annotations

from contextlib import closing
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from palate.privacy.ledger.body import Intent
from palate.privacy.ledger.verify import verify_ledger
from palate.server.fleet.backup import check_folder
from palate.server.fleet.folder import read_key
from palate.server.fleet.operation import FINISHED
from palate.server.fleet.state import FleetState, RoundStatus
from palate.server.fleet.transparency import TransparencyLog

from .whole_fleet import HELPER, LEADER, WholeFleet

POINTS = {LEADER: 95, HELPER: 36, "device": 43}
"""About how many points a party has in an undisturbed run."""


def charges(path: Path, name: str, key) -> dict[int, int]:
    """What a ledger was charged, by round; each round once."""
    events = verify_ledger(path, name, key, allow_open=True).events
    found = [(event.round, event.charge_nano) for event in events if isinstance(event, Intent)]
    assert len({number for number, _ in found}) == len(found), "a round was charged twice"
    return dict(found)


def check(fleet: WholeFleet, why: str) -> None:
    """Check all that must hold, wherever who was killed."""
    # No second set of one round: one answer for one offer, and each report in one sum.
    for found in fleet.answers.values():
        assert len(found) == 1, "the helper gave two answers for one offer"
    for device in fleet.devices:
        if not device.restored:
            assert all(len(reports) == 1 for reports in device.reports.values()), "a device made two reports"
            sums = [number for number, accepted, _ in fleet.sums.values() if device.number in accepted]
            assert len(set(sums)) == len(sums), "two sums of one round have a device in them"
    # What the leader holds belongs together, and each of its sums is the plain sum of whom the helper accepted.
    folder = fleet.leader_folder
    check_folder(folder)
    key = read_key(folder.server_key)
    log = TransparencyLog(folder.log, "books", key)
    with closing(FleetState(folder.state)) as state:
        rounds = state.rounds()
    done = [each for each in rounds if each.status in (RoundStatus.APPLIED, RoundStatus.DONE)]
    collected = set()
    for each in done:
        leaf = log.leaf("books-1", each.number)
        answer = bytes.fromhex(leaf["survivors"])
        number, accepted, total = fleet.sums[answer]
        assert (number, leaf["total"]) == (each.number, sha256(total).hexdigest())
        assert len(accepted) == each.survivors >= 2
        collected.add(answer)
    # No collected round is lost: what the helper answered is in the table, but for what came after a backup.
    lost = {fleet.sums[answer][0] for answer in {*fleet.sums} - collected}
    if why == FINISHED and not fleet.leader_restored:
        assert not lost, "an answered round is not in the table"
    # Nobody is charged twice, and the server does not say less than its devices were charged.
    prices = charges(folder.ledger, "server", key.public_key())
    assert {each.number for each in rounds if each.status is not RoundStatus.OPEN} <= {*prices}
    for device in fleet.devices:
        own = charges(device.folder.ledger, "device", device.member.keys.ledger.public_key())
        if not device.restored:
            assert {*device.reports} <= {*own}, "a report left before it was charged"
        if not fleet.leader_restored:
            assert own.items() <= prices.items()
        elif why == FINISHED:
            assert all(number in prices or number > max(prices) for number in own)
    if why == FINISHED:
        assert len(done) == 2


@pytest.mark.campaign(short=8, long=200)
def test_kill_points_over_all_parties_lose_no_round_charge_none_twice_and_unmask_no_second_set(
    tmp_path, monkeypatch, record_property, draw
):
    rng = np.random.default_rng([1, draw])
    fleet = WholeFleet(tmp_path, monkeypatch)
    kills = draw_kills(fleet, rng)

    def back(party: str) -> bool:
        """Whether an older state of a party is put back now."""
        return (tmp_path / f"{party}.backup").exists() and rng.random() < 0.5

    def leader() -> None:
        again(LEADER)
        if back(LEADER):
            fleet.put_leader_back()

    def device(killed) -> bool:
        again(killed.name)
        if killed.backup.exists() and rng.random() < 0.5:
            killed.put_back()
        fleet.points.dead.discard(killed.name)
        with fleet.points.acting(None):
            killed.start()
        return bool(rng.random() < 0.6)

    real = fleet.helper_killed

    def helper() -> None:
        real()
        again(HELPER)
        if back(HELPER):
            with fleet.points.acting(None):
                fleet.put_helper_back(without_anchor=rng.random() < 0.3)

    def again(party: str) -> None:
        """Kill it once more, some draws."""
        if kills and rng.random() < 0.5:
            fleet.points.kill_at[party] = fleet.points.counts[party] + kills.pop()

    fleet.helper_killed = helper
    for each in fleet.devices:
        each.revive = device
    try:
        why = fleet.run(leader)
        fleet.points.party = None
        check(fleet, why)
        for name, value in fleet.story().items():  # for whoever counts: --junit-xml
            record_property(name, value)
        record_property("ended", why)
    finally:
        fleet.helper_killed = real
        fleet.points.party = None
        fleet.points.dead.clear()
        fleet.close()


def draw_kills(fleet: WholeFleet, rng: np.random.Generator) -> list[int]:
    """Draw who is killed where, and when backups are made before that; return the distances of later kills."""
    parties = {LEADER: POINTS[LEADER], HELPER: POINTS[HELPER]}
    parties |= {each.name: POINTS["device"] for each in fleet.devices}
    names = sorted(parties)
    for party in rng.choice(names, size=rng.integers(1, 4), replace=False):
        at = int(rng.integers(1, parties[party]))
        fleet.points.kill_at[str(party)] = at
        if rng.random() < 0.6:
            fleet.points.back_up_at[str(party)] = int(rng.integers(0, at))
    return [int(each) for each in rng.integers(1, 60, size=4)]
