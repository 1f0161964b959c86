"""`palate.load`: a dataset by name, file, folder or frame, read and cleaned as `palate simulate` reads it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import polars as pl

from palate.data.interactions import Interactions
from palate.data.options import DateOrder, ReadOptions
from palate.data.reading import read_interactions
from palate.errors import ConfigError
from palate.simulation.datasets.describe import Description, describe
from palate.simulation.datasets.presets import IN_MEMORY
from palate.simulation.datasets.presets import load as load_interactions
from palate.simulation.prepare import hold
from palate.simulation.report.rendering import cell
from palate.simulation.report.tables import facts_grid

if TYPE_CHECKING:
    from narwhals.typing import IntoDataFrame

Source: TypeAlias = "str | PathLike[str] | IntoDataFrame"
"""A name, a file, a folder; or a polars, pandas or Arrow frame."""


@dataclass(frozen=True, eq=False)
class Data:
    """Cleaned interactions and what is publicly known of the items.

    Attributes
    ----------
    source
        The name, file or folder that it was loaded from; for a frame, "frame-" and digits made from its content.
    options
        How it was read and cleaned.
    held
        The interactions as the simulation takes them: dense indices, sorted by user and from oldest to newest.

    Examples
    --------
    >>> data = palate.load("ratings.csv", items="movies.csv", min_user=5)
    >>> data.num_users, data.num_items, len(data)
    >>> data.items.head()
    """

    source: str
    options: ReadOptions
    held: Interactions = field(repr=False)

    def __len__(self) -> int:
        """Count the interactions."""
        return len(self.held.item)

    @property
    def num_users(self) -> int:
        """Number of users."""
        return self.held.num_users

    @property
    def num_items(self) -> int:
        """Number of items in the catalogue, also those without interactions."""
        return self.held.num_items

    @property
    def users(self) -> tuple[str, ...]:
        """Ids of the users as the data has them, text [num_users]."""
        return self.held.users

    @property
    def items(self) -> pl.DataFrame:
        """What is publicly known of the items, one row each: item, title, genres and year, 0 where it is unknown."""
        return self.held.catalogue.to_frame(texts=False)

    @property
    def interactions(self) -> pl.DataFrame:
        """The interactions as ids, user and item (and rating where there are any), oldest first within a user."""
        held = self.held
        columns = {
            "user": pl.Series(held.users, dtype=pl.String).gather(held.user),
            "item": pl.Series(held.catalogue.ids, dtype=pl.String).gather(held.item),
        }
        if held.rating is not None:
            columns["rating"] = pl.Series(held.rating)
        return pl.DataFrame(columns)

    def describe(self) -> Description:
        """Count what there is to count: activity, popularity, genres, and what cleaning dropped."""
        return describe(self.held)

    def hold(self) -> None:
        """Let runs in this process use what was loaded, and not read it again: what the facade does before a run."""
        hold(self.source, self.options, self.held)

    def _repr_html_(self) -> str:
        """Show the dataset in a notebook."""
        found = self.describe()
        facts = {
            "people": f"{found.users:,}",
            "items": f"{found.items:,}, {found.described_items:,} of them described",
            "interactions": f"{found.interactions:,} ({found.density:.2%} of all pairs)",
            "of a person": f"{found.per_user['median']:g} in the middle, {found.per_user['max']:g} at most",
            "order": found.order if found.time_range is None else " to ".join(found.time_range),
            "split": found.protocol,
            "most popular": "; ".join(found.sample_titles),
        }
        if found.licence:
            facts["licence"] = found.licence
        return cell(f"Data: {found.name}", [facts_grid("", "", facts)])


def load(
    source: Source,
    *,
    items: Source | None = None,
    user_column: str | None = None,
    item_column: str | None = None,
    title_column: str | None = None,
    rating_column: str | None = None,
    time_column: str | None = None,
    columns: str | None = None,
    date_order: DateOrder | None = None,
    min_user: int | None = None,
    min_item: int | None = None,
    min_rating: float | None = None,
    strict: bool = False,
) -> Data:
    """Load a dataset: a name that `palate data list` shows, a file, a folder, or a frame.

    A frame stays in memory; no run saves it. To open the run in another session, load the same frame first.

    Parameters
    ----------
    source
        A preset such as "demo" or "ml-100k"; a CSV, TSV or Parquet file; a folder with interactions.csv and,
        optionally, items.csv; or a polars, pandas or Arrow frame with a row for each interaction.
    items
        File or frame that describes the items: title, genres, year, description.
    user_column, item_column, title_column, rating_column, time_column
        Names of the columns, or their positions where a file has no header line; guessed where they are not given.
    columns
        Names of the columns of a file without a header line, in order, as "user,item,-,time"; "-" skips one.
    date_order
        What comes first in dates such as 7/6/2020: "day" or "month"; the column decides where it can.
    min_user, min_item
        Fewest interactions that a user and an item must keep.
    min_rating
        Lowest rating that counts as an interaction; all count without it.
    strict
        Refuse a file with a bad row, instead of dropping the row.

    Raises
    ------
    palate.errors.DataError
        If there is no such dataset, it is not on this machine, or it cannot be used.
    palate.errors.ConfigError
        If an option is out of range.

    Examples
    --------
    >>> palate.load("demo")
    >>> palate.load(polars.read_csv("ratings.csv"))
    >>> palate.load("sales.csv", user_column="customer", item_column="sku", min_user=5)
    """
    described = Path(items) if isinstance(items, str | PathLike) else items
    options = ReadOptions.checked(
        user_column=user_column,
        item_column=item_column,
        title_column=title_column,
        rating_column=rating_column,
        time_column=time_column,
        columns=columns,
        date_order=date_order,
        items=described if isinstance(described, Path) else None,
        min_user=min_user,
        min_item=min_item,
        min_rating=min_rating,
        strict=strict,
    )
    rows = Path(source) if isinstance(source, str | PathLike) else source
    if isinstance(rows, Path) and (described is None or isinstance(described, Path)):
        name = str(source)
        found = load_interactions(name, options=options)
    elif isinstance(rows, Path) and not rows.is_file():
        raise ConfigError(
            f"{source} is no file, so its items cannot be a frame",
            hint="give the file of interactions, or a file of items",
        )
    else:
        found = read_interactions(rows, items=described, options=options, name="frame")
        name = IN_MEMORY + _digest(found)
        found = replace(found, name=name)
    return Data(name, options, found)


def _digest(found: Interactions) -> str:
    """Twelve hexadecimal digits that name a dataset by its content, rows and items alike."""
    digest, known = hashlib.sha256(found.user.tobytes() + found.item.tobytes()), found.catalogue
    for text in (found.users, known.ids, known.titles, known.genres, known.years.tolist(), known.texts):
        digest.update(repr(text).encode())
    return digest.hexdigest()[:12]
