"""A small made-up run folder, written as `palate simulate` writes it: invented films, 120 people, two models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import tomli_w
from safetensors.numpy import save_file

from palate.data.catalogue import Catalogue
from palate.data.interactions import CleaningReport, Interactions
from palate.models.table import ItemTable
from palate.models.training import LocalTraining
from palate.simulation.datasets.splits import leave_one_out
from palate.simulation.evaluation import Evaluation, Summary, evaluate, summarise
from palate.simulation.prepare import catalogue_hash

NUM_USERS, NUM_ITEMS, DIM = 120, 150, 4
RNG = np.random.default_rng(7)
TASTE = RNG.normal(size=(NUM_USERS, DIM)).astype(np.float32)
FILMS = RNG.normal(size=(NUM_ITEMS, DIM)).astype(np.float32)
APPEAL = np.sort(RNG.exponential(size=NUM_ITEMS))[::-1].astype(np.float32)


class Taste:
    """Scores with the taste that made the data, blurred by noise."""

    def __init__(self, noise: float, taste: float = 1.0) -> None:
        self.noise, self.taste = noise, taste

    def scores(self, users: np.ndarray) -> np.ndarray:
        blur = np.random.default_rng(3).normal(size=(NUM_USERS, NUM_ITEMS)).astype(np.float32)
        return self.taste * TASTE[users] @ FILMS.T + APPEAL + self.noise * blur[users]


def _interactions(prefix: str) -> Interactions:
    rng = np.random.default_rng(11)
    user, item = [], []
    for person in range(NUM_USERS):
        length = 3 + person % 30
        liking = TASTE[person] @ FILMS.T + APPEAL + rng.gumbel(size=NUM_ITEMS)
        user += [person] * length
        item += rng.permutation(np.argsort(-liking)[:length]).tolist()
    titles = tuple(f"Film {number} <b>&" for number in range(NUM_ITEMS))
    catalogue = Catalogue(
        ids=tuple(f"{prefix}{number}" for number in range(NUM_ITEMS)),
        titles=titles,
        genres=tuple(("Comedy",) if number % 2 else ("Drama", "Space") for number in range(NUM_ITEMS)),
        years=np.array([1960 + number % 60 if number % 7 else 0 for number in range(NUM_ITEMS)], dtype=np.int32),
        texts=("",) * NUM_ITEMS,
    )
    return Interactions(
        name="demo",
        user=np.array(user, dtype=np.int32),
        item=np.array(item, dtype=np.int32),
        rating=None,
        users=tuple(f"viewer-{person:03}" for person in range(NUM_USERS)),
        catalogue=catalogue,
        has_time=True,
        report=CleaningReport(rows_read=len(user)),
        demographics={"age": tuple("18-24" if person % 3 else "25-34" for person in range(NUM_USERS))},
    )


def write_run(
    folder: Path, *, noise: float = 0.5, prefix: str = "f", rounds: int = 6, result: dict[str, Any] | None = None
) -> SimpleNamespace:
    """Write a finished run and return what `open_finished` would return for it."""
    interactions = _interactions(prefix)
    split = leave_one_out(interactions, num_negatives=99, seed=1)
    scorer = Taste(noise)
    content = FILMS

    def judged(model: Taste) -> tuple[dict[str, Evaluation], dict[str, Summary]]:
        parts = {"validation": (split.validation, split.train), "test": (split.test, split.full_train)}
        found = {name: evaluate(model, held_out, past) for name, (held_out, past) in parts.items()}
        summaries = {
            name: summarise(
                found[name], train=past, num_items=NUM_ITEMS, content=content, groups=interactions.demographics
            )
            for name, (_, past) in parts.items()
        }
        return found, summaries

    evaluations, summaries = judged(scorer)
    plain = {name: summary.to_dict() for name, summary in summaries.items()}
    baselines: dict[str, Any] = {
        name: {
            "label": label,
            "citation": "Somebody (2001), A paper",
            "cpu_seconds": 0.4,
            "skipped": None,
            **{part: summary.to_dict() for part, summary in judged(model)[1].items()},
        }
        for name, label, model in (
            ("popularity", "Popularity", Taste(0.0, taste=0.0)),
            ("item_knn", "Item kNN", Taste(1.5)),
        )
    }
    baselines["ease"] = {"label": "EASE", "citation": "Steck (2019)", "skipped": "150 items, at most 100 are practical"}

    folder.mkdir(parents=True)
    config = {"data": "demo", "unit": "none", "seed": 1, "training": {"model": "linear", "noise": noise}}
    (folder / "config.toml").write_text(tomli_w.dumps(config))
    environment = {
        "python": "3.11.9",
        "platform": "Linux",
        "cpu_count": 2,
        "packages": {"numpy": "2.0"},
        "palate": "0.1.0",
        "started_at": "2026-01-02T03:04:05Z",
    }
    (folder / "environment.json").write_text(json.dumps(environment))
    lines = [
        {
            "round": number,
            "purpose": "train" if number else "popularity",
            "loss": 0.7 * 0.8**number if number else None,
            "validation": {"hr@10": 0.8 - 0.4 * 0.6**number, "ndcg@10": 0.5 - 0.3 * 0.6**number},
            "devices": NUM_USERS,
            "cpu_seconds": 0.25,
            "wall_seconds": 0.2,
            "users_per_second": 600.0,
            "bytes_down": 4096,
            "bytes_up": 2048,
            "update_rms": 0.01,
            "table": "ab" * 32,
        }
        for number in range(rounds + 1)
    ]
    (folder / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    catalogue = interactions.catalogue
    pl.DataFrame(
        {
            "item": catalogue.ids,
            "title": catalogue.titles,
            "genres": [list(names) for names in catalogue.genres],
            "year": catalogue.years,
        }
    ).write_parquet(folder / "items.parquet")
    table = ItemTable(APPEAL[:, None], FILMS)
    save_file(
        {"fixed": table.fixed, "learned": table.learned, "popularity": APPEAL},
        folder / "item_table.safetensors",
        metadata={
            "format": "palate-item-table/1",
            "run": "demo-run",
            "round": str(rounds),
            "hash": table.content_hash,
            "columns": json.dumps(["popularity"]),
            "catalogue": catalogue_hash(catalogue),
        },
    )
    pl.concat(
        evaluation.to_frame().with_columns(
            part=pl.lit(part), user_id=pl.Series([interactions.users[user] for user in evaluation.users])
        )
        for part, evaluation in evaluations.items()
    ).write_parquet(folder / "evaluation.parquet")
    written = {
        "run": folder.name,
        "data": "demo",
        "model": "linear",
        "unit": "none",
        "epsilon": None,
        "delta": None,
        "rounds": rounds,
        "seed": 1,
        "validation": {name: plain["validation"][name] for name in ("sampled", "full")},
        "test": {name: plain["test"][name] for name in ("sampled", "full")},
        "cpu_seconds": {"total": 3.5, "per_round_median": 0.25},
        "peak_memory_mb": 412.5,
        "protection": "no privacy",
        "guarantee": None,
        "protocol": "leave-one-out by time, 99 negatives",
        "dataset": {
            "users": NUM_USERS,
            "items": NUM_ITEMS,
            "interactions": len(interactions.item),
            "density": len(interactions.item) / NUM_USERS / NUM_ITEMS,
            "has_time": True,
            "candidates": 100,
        },
        "summary": plain,
        "baselines": baselines,
        "bytes_per_device": {"down": 4096, "up": 2048},
        "best_round": rounds,
        **(result or {}),
    }
    (folder / "result.json").write_text(json.dumps(written))
    return SimpleNamespace(
        config=SimpleNamespace(data="demo", unit="none", promises={}, training=LocalTraining(model="gmf")),
        interactions=interactions,
        split=split,
        table=table,
        column_names=("popularity",),
        trained_head=lambda user: None,
    )


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., SimpleNamespace]:
    """Write runs under tmp_path by name; returns what `open_finished` would."""
    return lambda name="demo-run", **options: write_run(tmp_path / name, **options)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """One run that tests only read: `.folder`, and `.finished` as from `open_finished`."""
    folder = tmp_path_factory.mktemp("runs") / "demo-run"
    return SimpleNamespace(folder=folder, finished=write_run(folder))
