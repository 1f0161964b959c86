"""Exports of those who watch: Letterboxd, Netflix, IMDb, Trakt and MyAnimeList.

Ratings stay on the scale of the export. What somebody plans, lists or collects is not had, and is left out.
"""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from palate.data.importers import Importer, first_given, unless, values_of
from palate.data.ratings import RatingScale
from palate.data.records import Record, xml_records

# "Show: Season 2: Episode", "Show: Limited Series: Episode"; a word like Part also stands in titles of films, so it
# counts only where an episode follows.
_SEASON = (
    r"(?i:(?:season|series|staffel|saison|temporada|stagione|seizoen|s\x{e6}son|s\x{e4}song|sezon) \d+|\x{7b2c} ?\d+)"
)
_PART = r"(?i:part|volume|vol\.|chapter|book|teil|partie|parte|collection|limited series|miniseries|mini-series)"
_EPISODE = rf"^(.+?): (?:{_SEASON}[^:]*(?::.*)?|{_PART}\b[^:]*:.*)$"

_EMPTY_DATES = ("", "0000-00-00")


def _shows(titles: pl.Expr) -> pl.Expr:
    """Titles with the show in the place of its episodes."""
    return pl.coalesce(titles.str.extract(_EPISODE, 1), titles)


def _letterboxd(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(
        pl.col("Name").alias("title"),
        pl.col("Year").alias("year"),
        values_of(frame, "Rating").alias("rating"),
        first_given(frame, "Watched Date", "Date").alias("time"),
    )


LETTERBOXD_WATCHLIST = Importer(
    name="letterboxd-watchlist",
    description="Letterboxd watchlist",
    files=("*watchlist*.csv",),
    needs=frozenset({"Name", "Year", "Letterboxd URI"}),
    left_out={"on the watchlist": pl.lit(True)},
    convert=_letterboxd,
)
"""watchlist.csv of Letterboxd: Date, Name, Year, Letterboxd URI, the same columns as watched.csv."""

LETTERBOXD = Importer(
    name="letterboxd",
    description="Letterboxd",
    scale=RatingScale(0.5, 5.0),
    needs=frozenset({"Name", "Year", "Letterboxd URI"}),
    inside=("ratings*.csv", "watched*.csv", "diary*.csv"),
    convert=_letterboxd,
)
"""ratings.csv, watched.csv and diary.csv of Letterboxd's zip archive (Settings, Data, Export your data).

All have Date, Name, Year and Letterboxd URI; ratings and diary have Rating, half stars from 0.5 to 5, the diary has
Watched Date. letterboxd.com/about/importing-data describes the columns.
"""

NETFLIX = Importer(
    name="netflix",
    description="Netflix viewing history",
    needs=frozenset({"Title", "Date"}),
    alone=True,
    inside=("*viewinghistory*.csv",),
    convert=lambda frame: frame.select(_shows(pl.col("Title")).alias("title"), pl.col("Date").alias("time")),
)
"""NetflixViewingHistory.csv (Account, Viewing activity, Download all; help.netflix.com/node/101917): Title, Date.

The date is written as the account's country does, without a time. An episode is "Show: Season 2: Episode".
"""

NETFLIX_ACTIVITY = Importer(
    name="netflix-activity",
    description="Netflix viewing activity",
    needs=frozenset({"Profile Name", "Start Time", "Title", "Supplemental Video Type"}),
    inside=("viewingactivity*.csv",),
    left_out={"a trailer or an extra": pl.col("Supplemental Video Type").fill_null("") != ""},
    convert=lambda frame: frame.select(
        pl.col("Profile Name").alias("user"),
        _shows(pl.col("Title")).alias("title"),
        pl.col("Start Time").alias("time"),
    ),
)
"""ViewingActivity.csv of all that Netflix keeps (Account, Download your personal information).

Profile Name, Start Time (UTC), Duration, Attributes, Title, Supplemental Video Type and others; a trailer or a hook has
a Supplemental Video Type. Profiles are read as users: one is chosen with --user.
"""


def _imdb(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(
        pl.col("Title").alias("title"),
        values_of(frame, "Original Title").alias("other"),
        values_of(frame, "Year").alias("year"),
        pl.col("Your Rating").alias("rating"),
        first_given(frame, "Date Rated", "Created").alias("time"),
        pl.col("Const").alias("code"),
    )


IMDB_LIST = Importer(
    name="imdb-list",
    description="IMDb list or watchlist",
    scale=RatingScale(1.0, 10.0),
    needs=frozenset({"Const", "Position", "Your Rating", "Title"}),
    left_out={"on a list without a rating": pl.col("Your Rating").fill_null("") == ""},
    convert=_imdb,
)
"""A list or the watchlist of IMDb: the columns of ratings.csv, and Position, Created, Modified and Description."""

IMDB = Importer(
    name="imdb",
    description="IMDb ratings",
    scale=RatingScale(1.0, 10.0),
    needs=frozenset({"Const", "Your Rating", "Title"}),
    inside=("*ratings*.csv",),
    convert=_imdb,
)
"""ratings.csv of IMDb (Your ratings, Export): Const, Your Rating from 1 to 10, Date Rated, Title, Original Title, URL,
Title Type, IMDb Rating, Runtime (mins), Year, Genres, Num Votes, Release Date, Directors; older ones lack Original
Title. Columns as in exports that other importers are tested with.
"""


def _trakt(frame: pl.DataFrame) -> pl.DataFrame:
    def inner(path: str) -> pl.Expr:
        found = [
            pl.when(pl.col(kind).str.starts_with("{")).then(pl.col(kind)).str.json_path_match(f"$.{path}")
            for kind in ("movie", "show")
            if kind in frame.columns
        ]
        return pl.coalesce(*found, pl.lit("")) if found else pl.repeat("", pl.len())

    return frame.select(
        inner("title").alias("title"),
        inner("year").alias("year"),
        inner("ids.imdb").alias("code"),
        values_of(frame, "rating").alias("rating"),
        first_given(frame, "rated_at", "watched_at", "last_watched_at", "listed_at", "collected_at").alias("time"),
    )


TRAKT_RATINGS = Importer(
    name="trakt-ratings",
    description="Trakt ratings",
    scale=RatingScale(1.0, 10.0),
    needs=frozenset({"rated_at", "rating", "type"}),
    inside=("ratings[-_]*.json",),
    left_out={"a rating of a season or an episode": pl.col("type").is_in(["season", "episode"])},
    convert=_trakt,
)
"""ratings-movies.json and ratings-shows.json of Trakt (Settings, Data): objects with rated_at, rating from 1 to 10,
type, and movie or show with title, year and ids. The shape is that of its API, trakt.docs.apiary.io (Sync, Get
ratings).
"""

TRAKT_WATCHED = Importer(
    name="trakt-watched",
    description="Trakt watched",
    needs=frozenset({"last_watched_at", "plays"}),
    inside=("watched[-_]*.json",),
    convert=_trakt,
)
"""watched-movies.json and watched-shows.json of Trakt: plays, last_watched_at, movie or show (Sync, Get watched)."""

TRAKT_HISTORY = Importer(
    name="trakt-history",
    description="Trakt history",
    needs=frozenset({"watched_at", "action"}),
    inside=("history*.json", "watched-history*.json"),
    convert=_trakt,
)
"""history.json of Trakt: watched_at, action, type, and movie, or episode with its show (Sync, Get history)."""

TRAKT_LISTS = Importer(
    name="trakt-watchlist",
    description="Trakt watchlist",
    needs=frozenset({"listed_at", "type"}),
    inside=("lists-watchlist*.json", "watchlist*.json"),
    left_out={"on a list": pl.lit(True)},
    convert=_trakt,
)
"""The watchlist and lists of Trakt: listed_at, type, and movie or show (Sync, Get watchlist)."""


def _myanimelist_records(text: str) -> Iterable[Record]:
    return xml_records(text, ("anime", "manga"))


MYANIMELIST = Importer(
    name="myanimelist",
    description="MyAnimeList",
    scale=RatingScale(1.0, 10.0),
    records=_myanimelist_records,
    holds="<myanimelist",
    needs=frozenset({"series_title", "my_status"}),
    left_out={"planned": pl.col("my_status").is_in(["Plan to Watch", "Plan to Read", "6"])},
    inside=("animelist*.xml", "mangalist*.xml"),
    convert=lambda frame: frame.select(
        first_given(frame, "series_title", "manga_title").alias("title"),
        unless(values_of(frame, "my_score"), "0").alias("rating"),
        pl.coalesce(
            *(
                pl.when(~values_of(frame, name).is_in(_EMPTY_DATES)).then(values_of(frame, name))
                for name in ("my_finish_date", "my_start_date")
            ),
            pl.lit(""),
        ).alias("time"),
    ),
)
"""The export of MyAnimeList (panel.php?go=export), XML, usually gzipped: anime or manga elements with series_title or
manga_title, my_score from 0, not scored, to 10, my_status, my_start_date and my_finish_date (0000-00-00 where unknown).

There is no official description; the columns are those of the unofficial specification "MyAnimeList XML" of the
malxml projects, and of exports that other importers are tested with.
"""
