"""The fleet's memory on a disk that is full or broken: said in words, and nothing is half there."""

from __future__ import annotations

import pytest

from palate.errors import EnvironmentProblem, RunError
from palate.privacy.wire import FleetStep
from palate.server.fleet.state import FleetState, Round, RoundStatus

BEGUN = Round(
    number=0,
    run="f-1",
    purpose="popularity",
    status=RoundStatus.OPEN,
    roster_size=2,
    plan_hash="0" * 64,
    offer=b"o",
    started_at=1.0,
)


@pytest.fixture
def state(tmp_path):
    state = FleetState(tmp_path / "fleet.sqlite")
    state.begin_round(BEGUN, ["a", "b"])
    yield state
    state.close()


def test_a_full_disk_is_said_so_and_leaves_no_half_message(state):
    (pages,) = state._db.execute("PRAGMA page_count").fetchone()
    state._db.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(EnvironmentProblem, match="full") as problem:
        state.record(0, FleetStep.MASK, "a", b"y" * 1_000_000)
    assert "palate server resume" in problem.value.hint
    assert list(state.events(0)) == []
    assert {member.up for member in state.members(0)} == {0}
    state._db.execute("PRAGMA max_page_count = 100000")
    assert state.record(0, FleetStep.MASK, "a", b"y" * 1_000_000)
    assert [len(event.body) for event in state.events(0)] == [1_000_000]


def test_a_broken_disk_is_said_so_whatever_is_asked(state, tmp_path):
    state.record(0, FleetStep.ADVERTISE, "a", b"advert")
    state.close()
    path = tmp_path / "fleet.sqlite"
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xa5" * (len(whole) - 4096))
    broken = FleetState(path)  # its first page is intact
    for ask in (broken.rounds, broken.unfinished, lambda: list(broken.events(0)), broken.stop_requested):
        with pytest.raises(RunError, match="cannot be used") as problem:
            ask()
        assert "from one backup" in problem.value.hint
    broken.close()


def test_a_fleet_of_an_earlier_format_is_refused_by_name_and_left_as_it_is(state, tmp_path):
    state._db.execute("PRAGMA user_version = 4")
    state.close()
    for _ in range(2):
        with pytest.raises(RunError, match=r"fleet\.sqlite is of format 4, this version reads 5") as refused:
            FleetState(tmp_path / "fleet.sqlite")
        assert refused.value.hint == "use the version of Palate that wrote it"
