"""MovieLens' own files, which have no header line (Harper & Konstan 2015)."""

from __future__ import annotations

import polars as pl

from palate.data.importers import Importer
from palate.data.ratings import RatingScale

# The order of the flags in u.item (u.genre of MovieLens 100K).
_GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)


def _flags_to_genres(frame: pl.DataFrame) -> pl.DataFrame:
    flags = [pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in _GENRES]
    return frame.select("item", "title", "date", pl.concat_str(flags, separator="|", ignore_nulls=True).alias("genres"))


RATINGS = Importer(
    name="movielens-ratings",
    description="ratings.dat of MovieLens 1M and 10M",
    scale=RatingScale(0.5, 5.0),
    files=("ratings.dat",),
    header=("user", "item", "rating", "timestamp"),
    separator="::",
)
RATINGS_100K = Importer(
    name="movielens-100k-ratings",
    description="u.data of MovieLens 100K",
    scale=RatingScale(1.0, 5.0),
    files=("u.data",),
    header=("user", "item", "rating", "timestamp"),
    separator="\t",
)
MOVIES = Importer(
    name="movielens-movies",
    description="movies.dat of MovieLens 1M and 10M",
    files=("movies.dat",),
    header=("item", "title", "genres"),
    separator="::",
    quiet=True,
)
MOVIES_100K = Importer(
    name="movielens-100k-movies",
    description="u.item of MovieLens 100K",
    files=("u.item",),
    header=("item", "title", "date", "video date", "link", *_GENRES),
    separator="|",
    convert=_flags_to_genres,
    quiet=True,
)
USERS = Importer(
    name="movielens-users",
    description="users.dat of MovieLens 1M",
    files=("users.dat",),
    header=("user", "gender", "age", "occupation", "zip"),
    separator="::",
)
USERS_100K = Importer(
    name="movielens-100k-users",
    description="u.user of MovieLens 100K",
    files=("u.user",),
    header=("user", "age", "gender", "occupation", "zip"),
    separator="|",
)
