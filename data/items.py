"""Read the public facts of items from a file or a frame: title, genres, year, description.

This is the only reader of items in Palate. A row that cannot be used is skipped and noted.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from palate.data.catalogue import Catalogue
from palate.data.files import UNLIMITED, Limits
from palate.data.options import ReadOptions
from palate.data.tables import EXAMPLES, Source, Table, read_table
from palate.data.values import ROLE_NAMES, as_text, find_column, named_column, shorten
from palate.errors import DataError

_ROLES: Final = ("item", "title", "genres", "year", "description", "url")
_NO_GENRES = frozenset(("", "unknown", "(no genres listed)"))
_OTHER_SEPARATORS = (";", ",")
_YEAR = r"\b((?:1[89]|20)\d\d)\b"


def read_items(
    source: Source | Table, options: ReadOptions | None = None, *, keys_alone: bool = False, limits: Limits = UNLIMITED
) -> tuple[Catalogue, tuple[str, ...]]:
    """Read a file or a frame that describes items.

    Parameters
    ----------
    source
        As in `palate.data.tables.read_table`; one column has the items' keys, others may have title, genres (parted by
        "|"), year, description and url.
    options
        `item_column`, `title_column`, `columns` and `strict` are used; what is None is guessed.
    keys_alone
        Whether a list of keys of which nothing is known will do.
    limits
        How large a file may be.

    Returns
    -------
    tuple
        The described items in the file's order (the first row of a key wins), and notes on what was guessed or passed
        over.

    Raises
    ------
    DataError
        If the file cannot be read, has no item column or no items, or `strict` meets a bad row.
    """
    options = options or ReadOptions()
    table = source if isinstance(source, Table) else read_table(source, columns=options.column_names, limits=limits)
    found = _choose_columns(table, options, keys_alone=keys_alone)
    text = {role: as_text(table.frame[name]) for role, name in found.items()}
    nothing = pl.Series([""] * len(table.frame), dtype=pl.String)
    frame = pl.DataFrame({role: text.get(role, nothing) for role in _ROLES}).with_columns(table.lines.alias("line"))
    genres, genres_note = _parted(frame["genres"], words=found.get("genres") in table.lists)
    frame = frame.with_columns(genres.alias("genres"))
    named = frame.filter(pl.col("item") != "")
    unique = named.unique("item", keep="first", maintain_order=True)
    twice = named.filter(pl.col("item").is_first_distinct().not_())["line"].to_list()
    passed_over = {
        "has a wrong number of fields": list(table.malformed),
        "has no key": frame.filter(pl.col("item") == "")["line"].to_list(),
        "has the key of an earlier one": twice,
    }
    if options.strict and any(passed_over.values()):
        line, words = min((lines[0], words) for words, lines in passed_over.items() if lines)
        raise DataError(f"{table.name}, {table.unit} {line} {words}", hint="correct the file, or leave out --strict")
    if unique.is_empty():
        raise DataError(f"{table.name} has no items", hint="give every item a key of its own")
    notes = [*table.notes, *([f"{table.name}: {genres_note}"] if genres_note else [])]
    for words, lines in passed_over.items():
        if lines:
            first = ", ".join(map(str, lines[:EXAMPLES])) + (" ..." if len(lines) > EXAMPLES else "")
            notes.append(f"{table.name}: {len(lines):,} {table.unit}s skipped, each {words} ({first})")
    return _described(unique), tuple(notes)


def _choose_columns(table: Table, options: ReadOptions, *, keys_alone: bool) -> dict[str, str]:
    """Role -> column: what was asked for, else the best guess; only the item must be there."""
    names = table.frame.columns
    asked = {
        "item": named_column(table.name, names, "item", options.item_column),
        "title": named_column(table.name, names, "title", options.title_column),
    }
    guesses = ROLE_NAMES | {"item": f"{ROLE_NAMES['item']} id"}
    free = [name for name in names if name not in asked.values()]
    chosen = {role: asked.get(role) or find_column(free, guesses[role]) for role in _ROLES}
    found = {role: name for role, name in chosen.items() if name is not None}
    if "item" not in found:
        raise DataError(
            f"{table.name}: no column looks like the item; it has {shorten(names)}",
            hint="name it with --item-column; if the first line is no header: --columns item,title,genres",
        )
    if not keys_alone and not any(role in found for role in ("title", "genres", "description")):
        raise DataError(
            f"{table.name} says nothing about its items; it has {shorten(names)}",
            hint="add a column title, genres or description",
        )
    return found


def _parted(column: pl.Series, *, words: bool) -> tuple[pl.Series, str]:
    """Genre names of each item, List(String), and a note where they are parted by something else than "|"."""
    if words:
        return column.str.split(" "), ""
    if not column.str.contains("|", literal=True).any():
        given = max(int((column != "").sum()), 1)
        for separator in _OTHER_SEPARATORS:
            if column.str.contains(separator, literal=True).sum() > given // 5:
                return column.str.split(separator), f"genres were parted at {separator!r}, as none has a '|'"
    return column.str.split("|"), ""


def _described(frame: pl.DataFrame) -> Catalogue:
    title = pl.when(pl.col("title") != "").then("title").when(pl.col("description") != "").then("description")
    in_title = pl.col("title").str.extract(r"^.*\(((?:1[89]|20)\d\d)\b[^)]*\)", 1)
    earlier = pl.col("year").str.extract(r"^(1[0-7]\d\d)(?:\.0*)?$", 1)
    frame = frame.with_columns(
        title.otherwise("item").alias("title"),
        pl.coalesce(pl.col("year").str.extract(_YEAR, 1), earlier, in_title, pl.lit("0")).alias("year"),
        (pl.col("description") + " " + pl.col("url")).str.strip_chars().alias("text"),
    )
    return Catalogue(
        ids=tuple(frame["item"].to_list()),
        titles=tuple(frame["title"].to_list()),
        genres=tuple(
            tuple(sorted({genre.strip() for genre in genres} - _NO_GENRES)) for genres in frame["genres"].to_list()
        ),
        years=frame["year"].cast(pl.Int32).to_numpy().copy(),
        texts=tuple(frame["text"].to_list()),
    )
