"""Evaluate new items: how well a run recommends items that nobody had while it learned.

Every person who took a new item later is asked to find it, from what they had before, in two lists of a hundred: among
other new items, where nothing but content can tell them apart, and among the whole catalogue, where a new item competes
with what everybody knows. The exact figures of a random order are given, too. Everything here needs all histories at
once: it exists in simulations only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from palate.errors import ConfigError, RunError
from palate.models.histories import Histories
from palate.models.learning.kernel import fit_heads, popularity_sum, scorer_of
from palate.models.new_items import introduce
from palate.models.popularity import saturating_column
from palate.models.scores.registry import serving_training
from palate.models.table import ItemTable
from palate.models.training import LocalTraining
from palate.privacy import files
from palate.simulation.baselines.content_only import fit_on_public_columns
from palate.simulation.config import SimulationConfig
from palate.simulation.datasets.arrivals import Arrivals
from palate.simulation.datasets.splits import HeldOut, draw_negatives
from palate.simulation.evaluation import Evaluation, Scorer, evaluate
from palate.simulation.finished import heads_of, table_of
from palate.simulation.prepare import EVALUATION_SEED, Prepared, prepare
from palate.simulation.run_folder import RESOLVED, located, read_config

RESULT = "new_items.json"
"""The file of a run folder that holds what is found here."""

NEGATIVES = 99
TOP_K = 10

PALATE, AS_TRAINED, CONTENT_ONLY = "palate", "palate, untouched table", "popularity and content"
"""Models in the result: the run's with new rows for new items; with the rows that training left; nothing learned."""

PROTOCOL = (
    "newest of a person's new items, from what they had before it; ties against the model; one item a person; "
    "the items are drawn by a fixed seed"
)


def measured(folder: Path) -> dict[str, Any] | None:
    """Return the new-item results of a finished run, from its file or computed; None where it tests none.

    Raises
    ------
    RunError
        If the run has not finished, is damaged, or its data is not what it was.
    """
    path = folder / RESULT
    config = read_config(folder, RESOLVED)
    if not config.new_items:
        return None
    if path.exists():
        try:
            kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunError(f"{path} is damaged", hint="delete it to compute it again") from error
        return kept
    config = located(folder, config)
    prepared = prepare(config)
    table = table_of(folder, config, prepared)
    found = measure(folder, config, prepared, table)
    files.replace(path, json.dumps(found, indent=2, allow_nan=False).encode(), mode=files.SHARED)
    return found


def measure(folder: Path, config: SimulationConfig, prepared: Prepared, table: ItemTable) -> dict[str, Any]:
    """Rank new items with a trained table, with what training left of their rows, and with nothing learned.

    Raises
    ------
    ConfigError
        If the run tests no new items.
    """
    arrivals = prepared.arrivals
    if arrivals is None:
        raise ConfigError("0 items of this run are new", hint="palate simulate --new-items 0.05")
    serving = serving_training(config.training, noised_head=config.protects_interactions)

    def scorer(rows: ItemTable) -> Scorer:
        heads = heads_of(folder, config, rows, prepared.interactions.num_users)
        return scorer_of(rows, fit_heads(rows, arrivals.before, heads, serving), serving)

    introduced = introduce(table, arrivals.items)
    scorers = {
        PALATE: scorer(introduced),
        AS_TRAINED: scorer(table),
        CONTENT_ONLY: _content_only(prepared, arrivals, config.training),
    }
    lists = ranked_among(arrivals, prepared.interactions.num_items, seed=EVALUATION_SEED)
    lengths = {among: held_out.negatives.shape[1] + 1 for among, held_out in lists.items()}
    rankings: dict[str, Any] = {
        among: {"candidates": length, "random": random_order(length), "models": {}} for among, length in lengths.items()
    }
    shown = {}
    for name, each in scorers.items():
        for among, held_out in lists.items():
            whole = among == "catalogue"  # people's own lists are needed once
            found = evaluate(each, held_out, prepared.split.full_train, top_k=TOP_K, with_full=whole)
            rankings[among]["models"][name] = found.metrics().to_dict()
        shown[name] = _share_shown(found, arrivals)
    return {
        "share": config.new_items,
        "items": len(arrivals.items),
        "people": int(np.count_nonzero(arrivals.target >= 0)),
        "protocol": PROTOCOL,
        "reader": prepared.reader,
        "rankings": rankings,
        "share_of_lists": {"of_catalogue": len(arrivals.items) / prepared.interactions.num_items, "models": shown},
    }


def ranked_among(arrivals: Arrivals, num_items: int, *, seed: int) -> dict[str, HeldOut]:
    """Draw what every target is ranked against: "new" items or any of the "catalogue", none of which a person ever had.

    Where there are fewer than `NEGATIVES` other new items for somebody, everybody's list is shorter.
    """
    rng = np.random.default_rng(seed)
    num_new = len(arrivals.items)
    tested = np.flatnonzero(arrivals.target >= 0)
    place = np.full(num_items, -1, dtype=np.int32)
    place[arrivals.items] = np.arange(num_new, dtype=np.int32)
    numbered = place[arrivals.everything.items]
    new = numbered >= 0
    own_new = Histories.grouped(arrivals.everything.owners[new], numbered[new], len(arrivals.target))
    unseen_new = int((num_new - own_new.lengths[tested]).min())
    unseen = int((num_items - arrivals.everything.lengths[tested]).min())
    among_new = draw_negatives(own_new, tested, num_new, min(NEGATIVES, unseen_new), rng)
    among_all = draw_negatives(arrivals.everything, tested, num_items, min(NEGATIVES, unseen), rng)
    drawn = {"new": arrivals.items[among_new].astype(np.int32), "catalogue": among_all}
    lists = {}
    for among, negatives in drawn.items():
        everybody = np.full((len(arrivals.target), negatives.shape[1]), -1, dtype=np.int32)
        everybody[tested] = negatives
        lists[among] = HeldOut(arrivals.target, everybody)
    return lists


def random_order(candidates: int) -> dict[str, float]:
    """Exact mean hit rate and NDCG of a random order of so many items."""
    first = min(TOP_K, candidates)
    gains = 1.0 / np.log2(np.arange(first) + 2.0)
    return {f"hr@{TOP_K}": first / candidates, f"ndcg@{TOP_K}": float(gains.sum()) / candidates}


def _content_only(prepared: Prepared, arrivals: Arrivals, training: LocalTraining) -> Scorer:
    """Each person's ridge on exact popularity and content, new items at mean popularity: nothing learned together."""
    history, num_items = prepared.split.full_train, prepared.interactions.num_items
    column = saturating_column(popularity_sum(history, num_items))
    nothing = np.zeros((num_items, 0), dtype=np.float32)
    table = introduce(ItemTable(column[:, None], nothing), arrivals.items)
    return fit_on_public_columns(arrivals.before, table.fixed[:, 0], prepared.content.columns, training)


def _share_shown(found: Evaluation, arrivals: Arrivals) -> float:
    """Share of the places in people's lists that go to new items."""
    if found.top_items is None:
        return 0.0
    shown = found.top_items[found.top_items >= 0]
    return float(np.isin(shown, arrivals.items).mean()) if len(shown) else 0.0
