"""The fleet's catalogue: the public list of items, and the content columns that follow from it.

It is the operator's own list and has nothing to do with what anybody consumed; devices get the same file and find
their items in it by key. Rows are ordered by key, so that the order says nothing either.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from palate.data.content import Content, ContentConfig, content_features
from palate.errors import DataError
from palate.models.arrays import Int32Array
from palate.server.fleet import config as fleet_config

MAX_ITEMS = 2_000_000
_TEXTS = ("item", "title", "text")


@dataclass(frozen=True, eq=False)
class FleetCatalogue:
    """Public facts about the items, in the order of the item table's rows.

    Attributes
    ----------
    items
        Keys of the items, ascending, [num_items].
    titles, genres, texts
        Titles (the key where none is known), genre names, descriptions ("" where unknown), [num_items].
    years
        Year of appearance, 0 where unknown, int32 [num_items].
    sha256
        Hash of the file, in hexadecimal.
    """

    items: tuple[str, ...]
    titles: tuple[str, ...]
    genres: tuple[tuple[str, ...], ...]
    years: Int32Array
    texts: tuple[str, ...]
    sha256: str = field(default="")

    def content(self, options: fleet_config.Content) -> Content:
        """Return the item table's content columns, float32 [num_items, k]."""
        if not options.use:
            return Content(np.zeros((len(self.items), 0), dtype=np.float32), ())
        return content_features(
            genres=self.genres,
            years=self.years,
            texts=self.texts,
            titles=self.titles,
            config=ContentConfig(text_dim=options.text_dim),
        )


def take_in(source: Path, target: Path) -> FleetCatalogue:
    """Read a CSV or Parquet file of items, and write the fleet's own copy.

    Parameters
    ----------
    source
        Columns `item`, and where known `title`, `genres` (parted by "|", or a list), `year` and `text`.
    target
        The fleet's catalogue.parquet.

    Raises
    ------
    DataError
        If the file cannot be read, has no or too many items, or names one twice.
    """
    frame = _read(source)
    if "item" not in frame.columns:
        raise DataError(
            f"{source} has no column item, only {', '.join(frame.columns[:8])}",
            hint="name the columns item, title, genres, year, text; only item is needed",
        )
    for name in _TEXTS:
        column = pl.col(name).cast(pl.String).str.strip_chars() if name in frame.columns else pl.lit("")
        frame = frame.with_columns(column.fill_null("").alias(name))
    if not 1 <= frame.height <= MAX_ITEMS:
        raise DataError(f"{source} has {frame.height} items, 1 to {MAX_ITEMS:,} are accepted", hint="check the file")
    if (frame["item"] == "").any():
        raise DataError(f"{source} has an item without a key", hint="give every item a key of its own")
    twice = frame.filter(pl.col("item").is_duplicated())["item"]
    if len(twice):
        raise DataError(f"{source} names item {twice[0]!r} more than once", hint="give every item a key of its own")
    frame = frame.with_columns(
        pl.when(pl.col("title") == "").then(pl.col("item")).otherwise(pl.col("title")).alias("title"),
        _genres(frame).alias("genres"),
        _years(frame, source).alias("year"),
    )
    frame.select("item", "title", "genres", "year", "text").sort("item").write_parquet(target)
    return read_catalogue(target)


def read_catalogue(path: Path) -> FleetCatalogue:
    """Read the fleet's own copy.

    Raises
    ------
    DataError
        If it is missing or damaged.
    """
    try:
        content = path.read_bytes()
        frame = pl.read_parquet(content)
        items = tuple(frame["item"].to_list())
        genres = tuple(tuple(own) for own in frame["genres"].to_list())
        years = frame["year"].cast(pl.Int32).to_numpy()
        titles, texts = tuple(frame["title"].to_list()), tuple(frame["text"].to_list())
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing", hint="make the fleet with palate server init --catalogue FILE") from error
    except (OSError, pl.exceptions.PolarsError, TypeError) as error:
        raise DataError(f"{path} is damaged", hint="restore it from a backup") from error
    return FleetCatalogue(items, titles, genres, years, texts, hashlib.sha256(content).hexdigest())


def _read(source: Path) -> pl.DataFrame:
    try:
        if source.suffix == ".parquet":
            return pl.read_parquet(source)
        return pl.read_csv(source, infer_schema=False, separator="\t" if source.suffix == ".tsv" else ",")
    except FileNotFoundError as error:
        raise DataError(f"{source} does not exist", hint="check the path") from error
    except (OSError, pl.exceptions.PolarsError) as error:
        first = str(error).partition("\n")[0]
        raise DataError(f"{source} cannot be read: {first}", hint="give a CSV or Parquet file") from error


def _genres(frame: pl.DataFrame) -> pl.Series:
    """Sorted genre names of each item."""
    if "genres" not in frame.columns:
        return pl.Series([[]] * frame.height, dtype=pl.List(pl.String))
    column = frame["genres"]
    own = column.to_list() if isinstance(column.dtype, pl.List) else [str(text or "").split("|") for text in column]
    cleaned = [sorted({str(name).strip() for name in names or ()} - {""}) for names in own]
    return pl.Series(cleaned, dtype=pl.List(pl.String))


def _years(frame: pl.DataFrame, source: Path) -> pl.Series:
    if "year" not in frame.columns:
        return pl.Series([0] * frame.height, dtype=pl.Int32)
    years = frame["year"].cast(pl.Float64, strict=False).fill_nan(0.0).fill_null(0.0)
    bad = years.filter((years < 0) | (years > 9999))
    if len(bad):
        raise DataError(f"{source} has an item of the year {bad[0]:g}", hint="leave the year empty where unknown")
    return years.cast(pl.Int32)
