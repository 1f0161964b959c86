"""Exports of those who read: Goodreads and Kindle."""

from __future__ import annotations

import re
from collections.abc import Iterator

import polars as pl

from palate.data.importers import Importer, first_given, unless, values_of
from palate.data.ratings import RatingScale
from palate.data.records import Record
from palate.data.values import moments

_SERIES = r"\s*\([^()]*#\s*[\d.\-]+[^()]*\)$"
"""The series behind a title: "(Before the Coffee Gets Cold, #2)"."""


def _goodreads(frame: pl.DataFrame) -> pl.DataFrame:
    isbn = [values_of(frame, name).str.extract(r"(\d{9,12}[\dXx])", 1).fill_null("") for name in ("ISBN13", "ISBN")]
    title = pl.col("Title")
    return frame.select(
        title.str.replace(_SERIES, "").alias("title"),
        pl.concat_list(title, title + " by " + values_of(frame, "Author")).alias("other"),
        pl.concat_list(isbn).alias("code"),
        unless(pl.col("My Rating"), "0").alias("rating"),
        first_given(frame, "Date Read", "Date Added").alias("time"),
    )


GOODREADS = Importer(
    name="goodreads",
    description="Goodreads library",
    scale=RatingScale(1.0, 5.0),
    needs=frozenset({"Title", "Author", "My Rating", "Exclusive Shelf"}),
    inside=("goodreads*.csv",),
    left_out={"on the shelf to-read": pl.col("Exclusive Shelf") == "to-read"},
    convert=_goodreads,
)
"""goodreads_library_export.csv (My Books, Import and export): Book Id, Title, Author, ISBN and ISBN13 as ="...", My
Rating from 0, not rated, to 5, Date Read, Date Added, Exclusive Shelf (read, currently-reading, to-read) and others.

The years are left out: that of an edition is not the book's, and catalogues have either.
help.goodreads.com, "How do I import or export my books?", and the sample in the tests.
"""


def _clippings(text: str) -> Iterator[Record]:
    """Entries of My Clippings.txt: title and author, what and when, text; a line of ten "=" ends each."""
    line = 1
    for entry in re.split(r"^={10}[ \t]*\n?", text, flags=re.MULTILINE):
        lines = entry.split("\n")
        at = next((place for place, own in enumerate(lines) if own.strip("\ufeff \t")), None)
        if at is not None:
            about = lines[at + 1].strip() if at + 1 < len(lines) else ""
            is_entry = about.startswith("-")
            yield line + at, {"title": lines[at].strip("\ufeff \t"), "about": about} if is_entry else None
        line += entry.count("\n") + 1


def _kindle(frame: pl.DataFrame) -> pl.DataFrame:
    title, about = pl.col("title"), pl.col("about")
    # "Added on Sunday, 4 June 2020 12:18:46", "Hinzugef\u00fcgt am Montag, 25. September 2023 22:42:15"
    added = about.str.extract(r"\|[^|]*?(\d{1,2}\.? \pL{3,} \d{4}[^|]*|\pL{3,} \d{1,2}, \d{4}[^|]*)$", 1)
    added = added.str.replace(r"^(\d{1,2})\.", "$1").str.strip_chars().fill_null("")
    found = frame.select(
        title.str.replace(r"\s*\([^()]*\)$", "").alias("title"),
        pl.concat_list(title, title.str.replace(r"^(.*?)[:(].*$", "$1").str.strip_chars()).alias("other"),
        added.alias("time"),
    )
    read, _ = moments(found["time"])
    return found.with_columns(pl.when(read.is_not_null()).then("time").otherwise(pl.lit("")).alias("time"))


KINDLE = Importer(
    name="kindle",
    description="Kindle clippings",
    files=("*.txt",),
    records=_clippings,
    holds="\n==========",
    needs=frozenset({"title", "about"}),
    inside=("*clippings*.txt",),
    convert=_kindle,
)
"""documents/My Clippings.txt of a Kindle: "Title (Author)", "- Your Highlight on page 9 | Added on Sunday, 4 June 2020
12:18:46", an empty line, the text, a line of ten "=". A book counts once, at its newest clipping; the text is not kept.

Dates in other languages than English and German are not read. Nobody describes the format officially; the shape is
that of samples in a dozen readers of it.
"""
