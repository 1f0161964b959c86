"""The Parquet files of a run: the catalogue, and every user's rank and recommendations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from palate.data.catalogue import Catalogue
from palate.data.files import UNLIMITED
from palate.data.parquet import read_parquet
from palate.errors import DataError
from palate.simulation.evaluation import Evaluation
from palate.simulation.report.files import damaged, file_bytes

PARTS = ("validation", "test")
RANKINGS = ("sampled", "full")


@dataclass(frozen=True, eq=False)
class RankedUsers:
    """One part of evaluation.parquet.

    Attributes
    ----------
    user_ids
        Original user ids as text, [m].
    evaluation
        Ranks and lists of these users, in the same order.
    """

    user_ids: tuple[str, ...]
    evaluation: Evaluation


def read_items(folder: Path) -> Catalogue:
    """items.parquet as a catalogue; descriptions (`texts`) are not kept in a run and are "".

    Raises
    ------
    RunError
        If it is missing or damaged, or an item is repeated.
    """
    try:
        data = (folder / "items.parquet").read_bytes()
    except OSError as error:
        raise damaged(folder, "items.parquet", error.strerror or str(error)) from error
    try:
        return Catalogue.from_parquet(data, hint="repeat the run")
    except DataError as error:
        raise damaged(folder, "items.parquet", error.message) from error


def read_evaluation(folder: Path, num_items: int, top_k: int) -> dict[str, RankedUsers]:
    """evaluation.parquet by part; a part without users is absent.

    Parameters
    ----------
    folder
        The run folder.
    num_items
        Size of the catalogue.
    top_k
        Length of the lists.

    Raises
    ------
    RunError
        If it is missing or damaged, or an index points outside the catalogue.
    """
    name = "evaluation.parquet"
    data = file_bytes(folder, name)
    found = {}
    try:
        # From memory: what is damaged must not be looked at lazily. polars panics on some damaged Parquet.
        columns = ("part", "user_id", "user", "target", "rank_sampled", "rank_full", "top_items")
        frame = read_parquet(name, data, UNLIMITED, columns).select(
            pl.col("part", "user_id").cast(pl.String),
            pl.col("user", "target", "rank_sampled", "rank_full").cast(pl.Int32),
            pl.col("top_items").cast(pl.List(pl.Int32)).list.to_array(top_k),
        )
        if any(frame.null_count().row(0)) or not set(frame["part"].unique()) <= set(PARTS):
            raise ValueError("values are missing, or a part is neither validation nor test")
        for part in PARTS:
            rows = frame.filter(pl.col("part") == part).sort("user")
            if rows.height:
                evaluation = Evaluation(
                    users=rows["user"].to_numpy(),
                    target=rows["target"].to_numpy(),
                    rank_sampled=rows["rank_sampled"].to_numpy(),
                    rank_full=rows["rank_full"].to_numpy(),
                    top_items=rows["top_items"].to_numpy(),
                    top_k=top_k,
                )
                _require_indices(evaluation, num_items)
                found[part] = RankedUsers(tuple(rows["user_id"]), evaluation)
    except DataError as error:
        raise damaged(folder, name, error.message) from error
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        raise damaged(folder, name, str(error)) from error
    return found


def _require_indices(evaluation: Evaluation, num_items: int) -> None:
    """Refuse what cannot index users, items or ranks."""
    bounds = (
        ("user", evaluation.users, 0, None),
        ("target", evaluation.target, 0, num_items),
        ("rank_sampled", evaluation.rank_sampled, 0, None),
        ("rank_full", evaluation.rank_full, 0, num_items),
        ("top_items", evaluation.top_items, -1, num_items),
    )
    for column, values, low, high in bounds:
        # A missing number inside a list would have made the column floats.
        if (
            values is None
            or values.dtype != np.int32
            or values.min() < low
            or (high is not None and values.max() >= high)
        ):
            raise ValueError(f"{column} is out of range")
    if len(np.unique(evaluation.users)) != len(evaluation.users):
        raise ValueError("a user is listed twice")
