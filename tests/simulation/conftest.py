"""Small made-up data, and runs on it that take a fraction of a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palate.simulation.config import SimulationConfig, checked_config, merge
from palate.simulation.federation import simulate
from palate.simulation.progress import SilentWatcher

NUM_USERS, NUM_ITEMS = 36, 40


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with interactions.csv (36 people, 4 to 14 of 40 items each, with times) and items.csv."""
    rng = np.random.default_rng(3)
    share = 1.0 / np.arange(1, NUM_ITEMS + 1)
    lines, moment = ["user,item,timestamp"], 1_600_000_000
    for user in range(NUM_USERS):
        for item in rng.choice(NUM_ITEMS, size=rng.integers(4, 15), replace=False, p=share / share.sum()):
            moment += 60
            lines.append(f"person{user},thing{item},{moment}")
    folder = tmp_path_factory.mktemp("data") / "small"
    folder.mkdir()
    (folder / "interactions.csv").write_text("\n".join(lines) + "\n")
    genres = ("Comedy", "Drama", "Space|Drama")
    described = [f"thing{item},Thing {item},{genres[item % 3]},{1960 + item}" for item in range(NUM_ITEMS)]
    (folder / "items.csv").write_text("\n".join(["item,title,genres,year", *described]) + "\n")
    return folder


@pytest.fixture(scope="session")
def settings(small_data: Path) -> Callable[..., SimulationConfig]:
    """Build a small configuration; arguments are nested values that win, as in a TOML file."""

    def build(**changes: Any) -> SimulationConfig:
        base = {
            "data": str(small_data),
            "unit": "none",
            "baselines": (),
            "shards": 3,
            "tune": False,
            "schedule": {"rounds": 3, "dim": 4},
            "training": {"hidden": 3, "batch_size": 4, "regularisation": 5.0},
        }
        return checked_config(merge(base, changes))

    return build


@pytest.fixture(scope="session")
def run() -> Callable[[SimulationConfig, Path], dict[str, Any]]:
    """Run a simulation in silence."""
    return lambda config, folder: simulate(config, folder, SilentWatcher())
