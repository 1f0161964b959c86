"""Palate's own models, datasets, baselines and importers pass the suite that is shipped for those of other packages."""

from __future__ import annotations

import json

import pytest

from palate.data.importers import IMPORTERS
from palate.models.scores.registry import SCORE_MODELS
from palate.simulation.baselines.registry import BASELINES
from palate.testing import (
    BaselineConformance,
    Conformance,
    DatasetConformance,
    ImporterConformance,
    ModelConformance,
)

FLAGS = "|".join("1" if place in (2, 7) else "0" for place in range(19))
WHEN = "2024-01-02T20:15:00.000Z"
TRAKT = {"movie": {"title": "Heat", "year": 1995, "ids": {"trakt": 1, "imdb": "tt0113277"}}}
IMDB = "Const,Your Rating,Date Rated,Title,Year\n"
LETTERBOXD = (
    "Date,Name,Year,Letterboxd URI,Rating,Rewatch,Tags,Watched Date\n"
    "2024-01-03,Heat,1995,https://boxd.it/1,4.5,,,2024-01-02\n"
)
SAMPLES = {
    "movielens-ratings": ("ratings.dat", "1::20::5::978300760\n2::21::3::978300761\n"),
    "movielens-100k-ratings": ("u.data", "1\t20\t5\t978300760\n2\t21\t3\t978300761\n"),
    "movielens-movies": ("movies.dat", "20::Heat (1995)::Action|Crime\n21::Clue (1985)::Comedy\n"),
    "movielens-100k-movies": ("u.item", f"20|Heat (1995)|01-Jan-1995||http://x|{FLAGS}\n"),
    "movielens-users": ("users.dat", "1::F::25::10::48067\n2::M::56::16::70072\n"),
    "movielens-100k-users": ("u.user", "1|24|M|technician|85711\n2|53|F|other|94043\n"),
    "letterboxd-watchlist": (
        "watchlist.csv",
        "Date,Name,Year,Letterboxd URI\n2024-01-02,Heat,1995,https://boxd.it/1\n",
    ),
    "letterboxd": ("diary.csv", LETTERBOXD),
    "netflix": ("NetflixViewingHistory.csv", "Title,Date\nHeat,7/6/20\nQuiet Harbour: Season 1: Fog,7/5/20\n"),
    "netflix-activity": (
        "ViewingActivity.csv",
        "Profile Name,Start Time,Title,Supplemental Video Type\nMina,2024-01-02 20:15:00,Heat,\n",
    ),
    "imdb-list": ("watchlist.csv", f"Position,{IMDB}1,tt0113277,9,2024-01-02,Heat,1995\n"),
    "imdb": ("ratings.csv", f"{IMDB}tt0113277,9,2024-01-02,Heat,1995\n"),
    "trakt-ratings": ("ratings-movies.json", json.dumps([TRAKT | {"rated_at": WHEN, "rating": 9, "type": "movie"}])),
    "trakt-watched": ("watched-movies.json", json.dumps([TRAKT | {"last_watched_at": WHEN, "plays": 2}])),
    "trakt-history": ("history.json", json.dumps([TRAKT | {"watched_at": WHEN, "action": "watch", "type": "movie"}])),
    "trakt-watchlist": ("watchlist.json", json.dumps([TRAKT | {"listed_at": WHEN, "type": "movie"}])),
    "myanimelist": (
        "animelist.xml",
        "<myanimelist><anime><series_title>Heat</series_title><my_status>Completed</my_status></anime></myanimelist>",
    ),
    "goodreads": ("goodreads_library_export.csv", "Title,Author,My Rating,Exclusive Shelf\nDust,A. Bell,4,read\n"),
    "kindle": ("My Clippings.txt", "Dust (A. Bell)\n- Your Note | Added on Sunday, 4 June 2020\n\nx\n==========\n"),
    "spotify": (
        "StreamingHistory_music_0.json",
        json.dumps([{"endTime": "2024-01-02 20:15", "artistName": "Reed", "trackName": "Fog", "msPlayed": 99000}]),
    ),
    "spotify-extended": (
        "Streaming_History_Audio_2024_0.json",
        json.dumps(
            [
                {
                    "ts": WHEN,
                    "ms_played": 99000,
                    "master_metadata_track_name": "Fog",
                    "master_metadata_album_artist_name": "Reed",
                }
            ]
        ),
    ),
    "lastfm": ("recenttracks.csv", "uts,artist,album,track\n1700000000,Reed,Harbour,Fog\n"),
    "steam": (
        "steam.json",
        json.dumps({"response": {"games": [{"appid": 7, "name": "Fog", "playtime_forever": 90}]}}),
    ),
    "amazon-orders": (
        "Retail.OrderHistory.1.csv",
        "Order ID,Order Date,ASIN,Order Status,Product Name\n1-2,2024-01-02T20:15:00Z,B000000001,Closed,Lamp\n",
    ),
    "amazon-report": ("order history.csv", "Order Date,Order ID,Title,ASIN/ISBN\n01/02/20,1-2,Lamp,B000000001\n"),
}


def suites() -> list[type[Conformance]]:
    """One class for each part, as another package would write it."""
    models = [type(name, (ModelConformance,), {"part": name}) for name in SCORE_MODELS]
    baselines = [type(name, (BaselineConformance,), {"part": name}) for name in BASELINES]
    importers = [
        type(name, (ImporterConformance,), {"part": name, "file": SAMPLES[name][0], "sample": SAMPLES[name][1]})
        for name in IMPORTERS
    ]
    return [*models, *baselines, *importers, type("demo", (DatasetConformance,), {"part": "demo"})]


CASES = [
    pytest.param(check, id=f"{suite.__name__}-{name}") for suite in suites() for name, check in suite.checks().items()
]


@pytest.mark.parametrize("check", CASES)
def test_a_built_in_part_keeps_a_promise(check):
    check()
