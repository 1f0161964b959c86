"""What every test shares: quiet libraries, one thread, reproducible Hypothesis, and real data where there is some."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

NUM_USERS, NUM_ITEMS = 36, 40

# Before anything imports Flower, Ray or a numerical library: they read these once.
os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1", RAY_USAGE_STATS_ENABLED="0")
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"):
    os.environ.setdefault(variable, "1")

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


LONG = os.environ.get("PALATE_LONG", "0") not in {"", "0"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a campaign its length: a short sample in `make test`, all of it in `make test-long`.

    `@pytest.mark.campaign(short=3, long=100)` runs a test once for every `draw`, or once with `repeats` of so many.
    """
    marker = metafunc.definition.get_closest_marker("campaign")
    if marker is None:
        return
    length = int(marker.kwargs["long" if LONG else "short"])
    if "draw" in metafunc.fixturenames:
        metafunc.parametrize("draw", range(length))
    else:
        metafunc.parametrize("repeats", [length], ids=[""])


@pytest.fixture(autouse=True, scope="session")
def _own_memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what is remembered of baselines out of the user's cache folder."""
    from palate.simulation.baselines import remembering

    folder = tmp_path_factory.mktemp("baselines")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remembering, "folder", lambda: folder)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real datasets that PALATE_DATA names; a test that needs it is skipped without one."""
    named = os.environ.get("PALATE_DATA")
    if not named:
        pytest.skip("PALATE_DATA is not set: name a folder of datasets to run the tests on real data")
    folder = Path(named).resolve()
    if not folder.is_dir():
        pytest.skip(f"PALATE_DATA is not a folder: {folder}")
    return folder


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with interactions.csv (36 people, 4 to 14 of 40 items each, with times) and items.csv."""
    import numpy as np

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


@pytest.fixture(scope="session", name="settings")
def small_settings(small_data: Path) -> Callable[..., Any]:
    """Build a small configuration; arguments are nested values that win, as in a TOML file."""

    from palate.server.values import merge
    from palate.simulation.config import SimulationConfig, checked_config

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
