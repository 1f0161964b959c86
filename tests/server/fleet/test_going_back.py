"""A leader and the newest report of each device: who went back is left out and told; a lost file locks nobody out."""

from __future__ import annotations

import secrets

import pytest

from palate.privacy.aggregators.messages import Upload, chain_of
from palate.privacy.aggregators.sealing import Suite
from palate.server.fleet.watching import DeviceFailed


def test_a_device_that_went_back_is_left_out_and_told(make_fleet):
    fleet = make_fleet(helper=True, schedule={"rounds": 4, "dim": 3})
    made = {}

    def heads(place, number):
        """Device 3 is put back before round 2: it knows its report of round 0 alone."""
        known = [made[place, each] for each in range(number - 1, -1, -1) if (place, each) in made]
        known = known[-1:] if place == 3 and number >= 2 else known
        made[place, number] = secrets.token_bytes(32)
        return made[place, number], chain_of(b"", known)

    for place, device in enumerate(fleet.devices):
        device.heads = lambda number, place=place: heads(place, number)
    happened = []
    fleet.operation(watcher=happened.append).run()
    name = fleet.devices[3].name
    failed = [(each.number, each.why) for each in happened if isinstance(each, DeviceFailed) and each.device == name]
    assert failed[0] == (
        2,
        "LedgerWentBack: the device does not know its newest report: it was put back from a copy, or runs beside one",
    )
    assert fleet.devices[3].notices == [3, 4]
    assert all(not device.notices for device in fleet.devices if device.name != name)
    assert [each.survivors for each in fleet.state.rounds()] == [8, 8, 7, 7, 7]


@pytest.mark.parametrize("lost", [lambda path: path.unlink(), lambda path: path.write_bytes(b"x")])
def test_without_the_newest_reports_the_next_ones_are_taken_as_they_are(make_fleet, lost):
    fleet = make_fleet(helper=True)
    for device in fleet.devices:
        device.heads = lambda number: (secrets.token_bytes(32), bytes(64))
    protocol = fleet.operation()._protocol
    membership = protocol.prepare([device.name for device in fleet.devices])._membership
    report = Upload.from_bytes(fleet_report(fleet), Suite.X25519).report
    protocol.heads.keep({report.device: report.to_bytes()}, membership)
    again = type(protocol.heads)(protocol.heads.path)
    assert again.marks(membership)[report.device] == report.ledger_head[:8]
    again.went_back.add(report.device)
    assert again.shown(membership) == {report.device: report.to_bytes()}
    lost(again.path)
    assert type(again)(again.path).marks(membership) == {}


def fleet_report(fleet) -> bytes:
    """A report of the first device, from a round that it takes part in."""
    fleet.operation().run()
    return next(iter(fleet.devices[0].kept.values()))
