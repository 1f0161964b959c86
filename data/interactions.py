"""Rows of a file -> interactions: minimum rating, one row for a user-item pair, k-core, dense ids, time order.

Users and items are numbered by first appearance in the file, as pandas.factorize does; NCF's numbering
of MovieLens 1M (He et al. 2017) is the same. The original ids are text and are kept with the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from palate.data.catalogue import Catalogue
from palate.data.options import ReadOptions
from palate.data.ratings import RatingScale
from palate.data.tables import EXAMPLES
from palate.errors import DataError
from palate.models.arrays import Float32Array, Int32Array, Int64Array


@dataclass(frozen=True)
class CleaningReport:
    """What was dropped on the way in, and where: rows are counted, the first few line numbers kept.

    `notes` are sentences for the reader on what else was decided, such as a guessed encoding.
    """

    rows_read: int
    malformed: int = 0
    missing: int = 0
    not_finite: int = 0
    duplicates: int = 0
    below_core: int = 0
    below_rating: int = 0
    notes: tuple[str, ...] = ()
    example_lines: dict[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class RawInteractions:
    """Usable rows of a file, in its order.

    Attributes
    ----------
    frame
        Columns `line` Int64, `user` and `item` String, and where the file has them `rating` and `moment` Float64; one
        person's rows may lack `user`, and have `title` instead of `item` or beside it, and `code` and `other`
        List(String): keys that catalogues may have, and other titles.
    has_time
        Whether there is a `moment`: a timestamp in seconds since 1970 or a rank.
    is_timestamp
        Whether `moment` is a time rather than a rank.
    report
        Rows dropped so far.
    columns
        Which column of the file was read as user, item, title, rating and time.
    other_columns
        Columns that nothing was taken from.
    dropped
        Rows that were skipped: `line` Int64 and `trouble` String, the reason in words.
    unit
        "line" or "row": what `line` counts.
    export
        What kind of export it is; "" for a plain table.
    scale
        Of the ratings, where the export says it.
    left_out
        Rows of an export that are no part of a history: why, in words -> how many.
    """

    frame: pl.DataFrame
    has_time: bool
    is_timestamp: bool
    report: CleaningReport
    columns: dict[str, str] = field(default_factory=dict)
    other_columns: tuple[str, ...] = ()
    dropped: pl.DataFrame = field(default_factory=pl.DataFrame)
    unit: str = "row"
    export: str = ""
    scale: RatingScale | None = None
    left_out: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Interactions:
    """Cleaned interactions, sorted by user and then from oldest to newest.

    Attributes
    ----------
    name
        Name of the dataset.
    user, item
        Dense indices, int32 [num_interactions].
    rating
        float32 [num_interactions], or None where the data has none.
    users
        Original user ids as text, [num_users].
    catalogue
        The items.
    has_time
        Whether the order inside a user is known (timestamp or rank); if not it means nothing.
    report
        What cleaning dropped.
    demographics
        Public-report-only groups of users, e.g. {"gender": ("F", "M", ...)}; values as text, [num_users] each.
    time_range
        Oldest and newest timestamp in seconds since 1970 (UTC), or None where there are no timestamps.
    source
        The file that was read; "" for data made by code.
    moment
        Number of each interaction's moment, int32 [num_interactions]: it rises from row to row, and only interactions
        of one person at the same time share one. None where no time is known, and read as "no ties".
    """

    name: str
    user: Int32Array
    item: Int32Array
    rating: Float32Array | None
    users: tuple[str, ...]
    catalogue: Catalogue
    has_time: bool
    report: CleaningReport
    demographics: dict[str, tuple[str, ...]] = field(default_factory=dict)
    time_range: tuple[float, float] | None = None
    source: str = ""
    moment: Int32Array | None = None

    @property
    def num_users(self) -> int:
        """Number of users."""
        return len(self.users)

    @property
    def num_items(self) -> int:
        """Number of items in the catalogue (also those without interactions)."""
        return self.catalogue.num_items


def clean(
    raw: RawInteractions, *, name: str, options: ReadOptions | None = None, described: Catalogue | None = None
) -> Interactions:
    """Apply the cleaning rules and encode.

    Parameters
    ----------
    raw
        Rows as read.
    name
        Name of the dataset.
    options
        `min_rating`, `min_user` and `min_item` are used; 1 where None.
    described
        What is known of items, in any order; the result keeps the items that occur.

    Raises
    ------
    DataError
        If fewer than two users or two items are left, or nobody has two interactions.
    """
    options = options or ReadOptions()
    frame, report = raw.frame, raw.report
    if options.min_rating is not None:
        if "rating" not in frame.columns:
            raise DataError(
                f"min_rating={options.min_rating:g} needs ratings, and {name} has no rating column",
                hint="name it with --rating-column, or leave out --min-rating",
            )
        low = int((frame["rating"] < options.min_rating).sum())
        frame = frame.filter(pl.col("rating") >= options.min_rating)
        report = replace(report, below_rating=low)

    ids = {role: frame[role].unique(maintain_order=True) for role in ("user", "item")}
    frame = frame.with_columns(
        *(pl.col(role).cast(pl.Enum(distinct)).to_physical().cast(pl.Int64) for role, distinct in ids.items()),
        pl.col("moment") if raw.has_time else pl.lit(0.0).alias("moment"),
    )
    newest = newest_of_each_pair(frame)
    core = k_core(newest, min_user=options.min_user or 1, min_item=options.min_item or 1)
    older = frame.join(newest, on="line", how="anti")["line"]
    report = replace(
        report,
        duplicates=len(older),
        below_core=len(newest) - len(core),
        example_lines=report.example_lines | ({"duplicates": tuple(older[:EXAMPLES])} if len(older) else {}),
    )
    core = core.sort("user", "moment", maintain_order=True)  # ties stay in file order
    present_users, user = np.unique(core["user"], return_inverse=True)
    present_items, item = np.unique(core["item"], return_inverse=True)
    _refuse_too_small(name, user, len(present_users), len(present_items), options)
    time = core["moment"].to_numpy()
    later = (np.diff(user) != 0) | (np.diff(time) != 0)
    return Interactions(
        name=name,
        user=user.astype(np.int32),
        item=item.astype(np.int32),
        rating=core["rating"].to_numpy().astype(np.float32) if "rating" in core.columns else None,
        users=tuple(ids["user"].gather(present_users)),
        catalogue=Catalogue.of(tuple(ids["item"].gather(present_items)), described),
        has_time=raw.has_time,
        report=report,
        time_range=(float(time.min()), float(time.max())) if raw.is_timestamp else None,
        moment=np.concatenate([[0], np.cumsum(later)]).astype(np.int32) if raw.has_time else None,
    )


def newest_of_each_pair(frame: pl.DataFrame) -> pl.DataFrame:
    """Keep the newest row of each user-item pair, the last in the file among equally new ones, oldest first."""
    ordered = frame.sort("moment", maintain_order=True)
    return ordered.unique(["user", "item"], keep="last", maintain_order=True)


def k_core(frame: pl.DataFrame, *, min_user: int, min_item: int) -> pl.DataFrame:
    """Keep the most rows among which every user has `min_user` and every item `min_item`, in their order."""
    while True:
        kept = frame.filter(pl.len().over("user") >= min_user).filter(pl.len().over("item") >= min_item)
        if len(kept) == len(frame):
            return kept
        frame = kept


def _refuse_too_small(name: str, user: Int64Array, num_users: int, num_items: int, options: ReadOptions) -> None:
    rules = ", ".join(
        f"{rule} {value:g}"
        for rule, value in (
            ("min_user", options.min_user),
            ("min_item", options.min_item),
            ("min_rating", options.min_rating),
        )
        if value is not None
    )
    after = f" after {rules}" if rules else ""
    hint = "lower the limits" if rules else "a federated recommender learns from what several people share"
    if num_users < 2:
        raise DataError(f"{name} has {num_users} users{after}; at least 2 are needed", hint=hint)
    if num_items < 2:
        raise DataError(f"{name} has {num_items} items{after}; at least 2 are needed", hint=hint)
    if np.bincount(user).max() < 2:
        raise DataError(
            f"{name}: none of {num_users} users has 2 interactions{after}, so nothing can be held out", hint=hint
        )
