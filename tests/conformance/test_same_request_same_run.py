"""The same request comes to the same run through every door: options, file, objects, Python, Flower, sweep, fleet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from click.exceptions import Exit

import palate
from palate.cli.main import main
from palate.server.fleet.config import checked_config as checked_fleet
from palate.server.fleet.config import to_toml
from palate.server.fleet.planning import LARGEST_ROSTER
from palate.server.resolving import AUTO
from palate.server.values import flat, values_of
from palate.simulation import run_folder
from palate.simulation.config import SimulationConfig, checked_config
from palate.simulation.flower_run import read_run_config
from palate.simulation.frontier import Sweep
from palate.simulation.prepare import prepare
from palate.simulation.resolving import resolve

SECTIONS = {name: field.annotation for name, field in SimulationConfig.model_fields.items()}
REQUESTS: list[dict[str, Any]] = [
    {},
    {"epsilon": 2.0, "schedule": {"rounds": 5}},
    {"epsilon": 2.0, "training": {"model": "gmf", "regularisation": 7.0}, "privacy": {"popularity_share": 0.3}},
    {"unit": "interaction", "epsilon": 4.0},
    {"unit": "both", "seed": 3},
    {"unit": "none", "training": {"model": "gmf", "regularisation": 10.0}},
    {"unit": "none", "schedule": {"dim": 6}},
]


def by_options(asked: dict[str, Any], take: Callable[[list[str]], SimulationConfig]) -> SimulationConfig:
    own = {"data": "--data", "unit": "--unit", "epsilon": "--epsilon", "seed": "--seed", "schedule.rounds": "--rounds",
           "schedule.dim": "--dim", "training.model": "--model"}  # fmt: skip
    words: list[str] = []
    for name, value in flat(asked).items():
        words += [own[name], str(value)] if name in own else ["--set", f"{name}={value}"]
    return take(words)


def by_file(asked: dict[str, Any], take: Callable[[list[str]], SimulationConfig]) -> SimulationConfig:
    Path("run.toml").write_text(tomli_w.dumps(asked))
    return take(["--config", "run.toml"])


def by_objects(asked: dict[str, Any]) -> SimulationConfig:
    """Sections as objects, made from what is asked of them alone."""
    return SimulationConfig(
        **{name: SECTIONS[name](**value) if isinstance(value, dict) else value for name, value in asked.items()}
    )


def by_python(asked: dict[str, Any]) -> SimulationConfig:
    others = {name: value for name, value in asked.items() if name not in ("data", "unit", "epsilon", "seed")}
    named = {name: asked[name] for name in ("unit", "epsilon", "seed") if name in asked}
    return palate.plan(palate.load(asked["data"]), **named, settings=others).asked


def by_flower(asked: dict[str, Any]) -> SimulationConfig:
    return read_run_config({**flat(asked), "run-dir": "runs/here"})[0]


def by_sweep(asked: dict[str, Any]) -> SimulationConfig:
    sweep = Sweep(
        data=(asked["data"],),
        units=(asked.get("unit", "user"),) if asked.get("unit") != "none" else ("user",),
        epsilons=(float("inf"),) if asked.get("unit") == "none" else (asked.get("epsilon", 8.0),),
        seeds=(asked.get("seed", 1),),
        values=asked,
    )
    (point,) = sweep.points()
    every = SimulationConfig.model_fields["baselines"].default
    return point.model_copy(update={"baselines": every})  # a sweep computes references of its own


def by_resuming(asked: dict[str, Any]) -> SimulationConfig:
    Path("folder").mkdir()
    run_folder.claim(Path("folder"), checked_config(asked))
    return run_folder.read_config(Path("folder"))


@pytest.mark.parametrize("request_", REQUESTS, ids=str)
def test_the_same_request_is_the_same_run_through_every_door(request_, small_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    taken: list[SimulationConfig] = []

    def run(config: SimulationConfig, *rest: object, **more: object) -> None:
        taken.append(config)
        raise Exit(0)

    monkeypatch.setattr("palate.simulation.federation.simulate", run)

    def take(words: list[str]) -> SimulationConfig:
        assert main(["simulate", *words]) == 0
        return taken.pop()

    asked = {"data": str(small_data), **request_}
    expected = checked_config(asked)
    settled, _ = resolve(expected, prepare(expected))
    doors = {
        "options": by_options(asked, take),
        "file": by_file(asked, take),
        "objects": by_objects(asked),
        "Python": by_python(asked),
        "flwr run": by_flower(asked),
        "sweep": by_sweep(asked),
        "resuming": by_resuming(asked),
    }
    for door, config in doors.items():
        assert config == expected, door
        assert config.to_toml() == expected.to_toml(), door
        assert resolve(config, prepare(config))[0] == settled, door


@pytest.mark.parametrize(
    "asked", [{}, {"epsilon": 1.0}, {"schedule": {"rounds": 7}}, {"optimiser": {"step_size": 0.1}}]
)
@pytest.mark.parametrize("devices", [20, 200, 6040, 60_000])
def test_a_fleet_runs_what_a_simulation_of_its_size_runs(asked, devices, monkeypatch, settings):
    fleet_asked = {"name": "f", "run": "f-1", "listen": {"address": "h:1"}, "cohort": {"devices": devices}, **asked}
    if devices > LARGEST_ROSTER:
        fleet_asked["helper"] = {"key": "ab" * 32}
    fleet = values_of(checked_fleet(fleet_asked))
    config = checked_config({"data": settings().data, **asked})
    prepared = prepare(config)
    monkeypatch.setattr("palate.simulation.resolving.cohort_size", lambda population, participation: devices)
    monkeypatch.setattr(type(prepared.interactions.catalogue), "num_items", 1000)
    settled = values_of(resolve(config, prepared)[0])
    shared = [name for name in fleet if name.partition(".")[0] in ("schedule", "training", "optimiser", "release")]
    for name in [*shared, "epsilon", "delta", *AUTO]:
        assert fleet[name] == settled[name], name
    assert f"planned: {devices:,} devices at" in to_toml(fleet_asked)
