"""However nodes are run, the same people learn the same table: one by one, in shards, and on Flower's engine."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from palate.models.scores.registry import SCORE_MODELS
from palate.server.optimisers import OPTIMISERS
from palate.server.store import TABLE_FORMAT, read_tensors
from palate.simulation.config import checked_config
from palate.simulation.federation import simulate
from palate.simulation.progress import Watcher

NUM_USERS, NUM_ITEMS = 12, 20
CASES = [(name, objective) for name, model in sorted(SCORE_MODELS.items()) for objective in sorted(model.objectives)]
RANKS = ("part", "user", "target", "rank_sampled", "rank_full", "top_items")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few people with 1 to 12 of 20 items each."""
    rng = np.random.default_rng(8)
    lines = ["user,item,timestamp"]
    for user in range(NUM_USERS):
        for moment, item in enumerate(rng.permutation(NUM_ITEMS)[: 1 + user % 12]):
            lines.append(f"u{user},i{item},{moment + 1}")
    path = tmp_path_factory.mktemp("data") / "few.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def outcome(
    data: Path, folder: Path, training: dict[str, Any], *, optimiser: str = "average", share: float = 1.0, **how: Any
) -> tuple[np.ndarray, list[tuple[Any, ...]]]:
    """Learned columns after two rounds, the second with the heads of the first, and every rank and list."""
    config = checked_config(
        {
            "data": str(data),
            "unit": "none",
            "baselines": (),
            "tune": False,
            "schedule": {"rounds": 2, "dim": 4, "participation": share},
            "training": {"hidden": 3, "batch_size": 3, "epochs": 2, "regularisation": 3.0, **training},
            "optimiser": {"name": optimiser, "momentum": 0.3, "step_size": 1.0 if optimiser == "average" else 0.3},
            **how,
        }
    )
    simulate(config, folder, Watcher())
    learned = read_tensors(folder / "item_table.safetensors", TABLE_FORMAT)[0]["learned"]
    ranks = pl.read_parquet(folder / "evaluation.parquet").select(RANKS).rows()
    return learned, ranks


@pytest.mark.parametrize(("model", "objective"), CASES)
def test_devices_one_by_one_and_any_number_of_shards_agree(tmp_path, data, model, objective):
    training = {"model": model, "objective": objective}
    expected, ranks = outcome(data, tmp_path / "one", training, shards=1)
    assert np.abs(expected).max() > 0.1
    for name, how in (
        ("more shards than people", {"shards": 99}),
        ("devices", {"engine": "devices"}),
    ):
        learned, found = outcome(data, tmp_path / name, training, **how)
        np.testing.assert_allclose(learned, expected, atol=1e-5, err_msg=name)
        assert found == ranks, name


@pytest.mark.parametrize(
    ("optimiser", "objective"), [*((name, "whole") for name in sorted(OPTIMISERS)), ("average", "bce")]
)
def test_they_agree_under_every_server_optimiser_with_some_devices_absent(tmp_path, data, optimiser, objective):
    training = {"model": "neumf", "objective": objective}
    expected, ranks = outcome(data, tmp_path / "one", training, optimiser=optimiser, share=0.6, shards=1)
    for name, how in (("shards", {"shards": 4}), ("devices", {"engine": "devices"})):
        learned, found = outcome(data, tmp_path / name, training, optimiser=optimiser, share=0.6, **how)
        # whitening amplifies the rounding of float32 sums by the spread of the aggregate's singular values
        np.testing.assert_allclose(learned, expected, atol=1e-4 if optimiser == "curvature" else 1e-5)
        assert found == ranks


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'palate[ray]'")
def test_flowers_engine_on_ray_agrees_exactly_with_the_vectorised_federation(tmp_path, data):
    training = {"model": "neumf", "objective": "whole"}
    expected, ranks = outcome(data, tmp_path / "here" / "run", training, shards=2)
    learned, found = outcome(data, tmp_path / "ray" / "run", training, shards=2, engine="flower")
    np.testing.assert_array_equal(learned, expected)
    assert found == ranks
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "run" / "rounds.jsonl").read_text().splitlines()]
        for name in ("here", "ray")
    ]
    assert losses[0] == losses[1]
