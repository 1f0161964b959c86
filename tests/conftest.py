"""What every test shares: quiet libraries, one thread, reproducible Hypothesis, and real data where there is some."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Before anything imports Flower, Ray or a numerical library: they read these once.
os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1", RAY_USAGE_STATS_ENABLED="0")
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"):
    os.environ.setdefault(variable, "1")

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


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
