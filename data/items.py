"""What is publicly known of the items: title, genres, year, description.

Reads MovieLens' movies.dat and u.item as GroupLens publishes them, and any table with an item column and
some of title, genres (parted by "|"), year, description, url.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from palate.data.catalogue import Catalogue
from palate.data.tables import Source, Table, as_text, find_column, read_table, shorten
from palate.errors import DataError

# The order of the flags in u.item (u.genre of MovieLens 100K).
_U_ITEM_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
_NO_GENRES = frozenset(("", "unknown", "(no genres listed)"))
_GUESSES = {
    "item": "item itemid movieid movie filmid productid product asin parentasin articleid trackid songid artistid "
    "bookid isbn sku stockcode poiid businessid id",
    "title": "title movietitle name itemname productname",
    "genres": "genres genre categories category class tags",
    "year": "year releaseyear releasedate date",
    "description": "description overview summary text abstract plot",
    "url": "url path link",
}


def read_items(source: Source, *, strict: bool = False) -> tuple[Catalogue, tuple[str, ...]]:
    """Read a file or a frame that describes items.

    Returns
    -------
    tuple
        The described items in the file's order (first description of an id wins), and notes on dropped lines.

    Raises
    ------
    DataError
        If the file cannot be read, has no item column, or `strict` meets a bad line.
    """
    plain_name = Path(source).name.removesuffix(".gz") if isinstance(source, str | Path) else ""
    if plain_name == "movies.dat":
        table = read_table(source, columns=("item", "title", "genres"), separator="::")
    elif plain_name == "u.item":
        columns = ("item", "title", "date", "video date", "link", *_U_ITEM_GENRES)
        table = _flags_to_genres(read_table(source, columns=columns, separator="|"))
    else:
        table = read_table(source)
    if table.malformed and strict:
        raise DataError(
            f"{table.name}, {table.unit} {table.malformed[0]}: wrong number of fields",
            hint="mend the file, or leave out --strict",
        )
    known_latin1 = plain_name in ("movies.dat", "u.item")  # as GroupLens publishes them: nothing was guessed
    notes = () if known_latin1 else table.notes
    if table.malformed:
        notes = (
            *notes,
            f"{len(table.malformed)} lines of {table.name} were dropped, the first is {table.malformed[0]}",
        )
    return _described(table), notes


def _described(table: Table) -> Catalogue:
    names = table.frame.columns
    found = {role: find_column(names, candidates) for role, candidates in _GUESSES.items()}
    if found["item"] is None:
        raise DataError(
            f"{table.name}: no column looks like the item; it has {shorten(names)}",
            hint="call the column item; title, genres, year and description are optional",
        )
    if not any(found[role] for role in ("title", "genres", "description")):
        raise DataError(
            f"{table.name} says nothing about its items; it has {shorten(names)}",
            hint="add a column title, genres or description",
        )
    frame = pl.DataFrame(
        {
            role: as_text(table.frame[name]) if name else pl.Series([""] * len(table.frame))
            for role, name in found.items()
        }
    )
    frame = frame.filter(pl.col("item") != "").unique("item", keep="first", maintain_order=True)
    title = pl.when(pl.col("title") != "").then("title").when(pl.col("description") != "").then("description")
    in_title = pl.col("title").str.extract(r"^.*\(((?:1[89]|20)\d\d)\b[^)]*\)", 1)
    frame = frame.with_columns(
        title.otherwise("item").alias("title"),
        pl.coalesce(pl.col("year").str.extract(r"\b((?:1[89]|20)\d\d)\b", 1), in_title, pl.lit("0")).alias("year"),
        (pl.col("description") + " " + pl.col("url")).str.strip_chars().alias("text"),
        pl.col("genres").str.split("|").alias("genres"),
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


def _flags_to_genres(table: Table) -> Table:
    flags = [pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in _U_ITEM_GENRES]
    genres = pl.concat_str(flags, separator="|", ignore_nulls=True).alias("genres")
    frame = table.frame.select("item", "title", "date", genres)
    return Table(table.name, frame, table.lines, table.unit, table.rows_read, table.malformed, table.notes)
