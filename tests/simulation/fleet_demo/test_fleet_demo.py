"""A fleet of real processes: kills at random steps, and what must hold all the same."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from palate.cli.server_demo import demo
from palate.errors import ConfigError
from palate.privacy.wire import FleetStep
from palate.server.fleet.summary import rounds_of
from palate.simulation.fleet_demo.checks import examine
from palate.simulation.fleet_demo.folders import build, choose
from palate.simulation.fleet_demo.person import seen_of, titles_for
from palate.simulation.fleet_demo.running import FleetRun, Kill, plan_kills

RECORDING = (sys.executable, str(Path(__file__).with_name("recording_palate.py")))
AMONG_PEERS = FleetStep.MASK, FleetStep.CONFIRM, FleetStep.REVEAL
UNDER_TWO = FleetStep.REPORT, FleetStep.REPORT, FleetStep.REPORT


@pytest.mark.parametrize("steps", [AMONG_PEERS, UNDER_TWO])
def test_a_third_of_the_devices_and_the_server_die_and_every_sum_is_exactly_the_survivors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: tuple[FleetStep, FleetStep, FleetStep]
):
    records = tmp_path / "records"
    records.mkdir()
    monkeypatch.setenv("PALATE_TEST_RECORDS", str(records))
    catalogue, people = choose(6, seed=1)
    stage = build(
        tmp_path / "fleet", catalogue, people, rounds=2, epsilon=8.0, smallest=3, with_helper=steps is UNDER_TWO
    )
    names = list(stage.devices)
    kills = [
        Kill(device=names[0], server_round=0, step=steps[0], seconds=0.0, returns=True),
        Kill(device=names[1], server_round=0, step=steps[1], seconds=0.0, returns=False),
        Kill(device="", server_round=1, step=steps[2], seconds=0.05, returns=True),
    ]
    told: list[str] = []
    running = FleetRun(stage, kills, told.append, device_program=RECORDING, server_program=RECORDING)
    outcome = running.run(timeout_seconds=900, progress=lambda _: None)
    assert [accident.device for accident in outcome.kills] == [names[0], names[1], ""]
    assert max(outcome.idle_memory_mb) <= 250
    rounds = [each for each in rounds_of(stage.fleet) if each["status"] == "done"]
    assert len(rounds) == 2
    homes = {name: folder.home.name for name, folder in stage.devices.items()}
    for each in rounds:
        found = np.load(records / f"sum-{each['round']}.npz")
        vectors = [np.load(records / f"vector-{each['round']}-{homes[name]}.npy") for name in found["survivors"]]
        assert len(vectors) == each["survivors"] >= 3  # of six two are killed, and on a busy machine one may be late
        expected = np.sum([vector.astype(np.uint64) for vector in vectors], axis=0, dtype=np.uint64) % (
            1 << int(found["bits"])
        )
        np.testing.assert_array_equal(found["total"], expected.astype(np.uint32))
    assert [check.words for check in examine(stage) if not check.held] == []
    alive = names[2]
    assert len(titles_for(stage.devices[alive])) == 5
    seen, others = seen_of(stage.fleet, alive), seen_of(stage.fleet, names[1])
    assert others.reports < seen.reports <= 2, "the second device was killed for good in round 0"
    assert seen.bytes_up > 0


def test_accidents_are_drawn_alike_from_a_seed_and_hit_the_share_that_was_asked_for():
    names = [f"d{number}" for number in range(20)]
    drawn = plan_kills(names, rounds=5, share=0.3, server=False, seed=3)
    assert drawn == plan_kills(names, rounds=5, share=0.3, server=False, seed=3)
    assert drawn != plan_kills(names, rounds=5, share=0.3, server=False, seed=4)
    assert len({accident.device for accident in drawn}) == 6
    assert sum(accident.returns for accident in drawn) == 3
    assert all(0 <= accident.server_round < 5 for accident in drawn)
    with_server = plan_kills(names, rounds=5, share=0.0, server=True, seed=3)
    assert [(accident.device, accident.returns) for accident in with_server] == [("", True)]


def test_more_devices_than_people_are_refused():
    with pytest.raises(ConfigError, match="5000 devices, but the demo data has"):
        choose(5000, seed=1)


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path):
    (tmp_path / "mine").write_text("x")
    alone = typer.Typer(pretty_exceptions_enable=False)
    alone.command("demo")(demo)
    found = CliRunner().invoke(alone, ["--folder", str(tmp_path), "--json"])
    assert isinstance(found.exception, ConfigError)
    assert (tmp_path / "mine").read_text() == "x"
