"""Exports that people have: a small faithful sample of each, with invented people, read as what it is."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path

import pytest

from palate.data.files import Limits
from palate.data.options import ReadOptions
from palate.data.personal import read_personal
from palate.data.reading import read_rows
from palate.errors import DataError

LIMITS = Limits(max_bytes=1 << 20, max_rows=1000)
IMDB = (
    "Const,Your Rating,Date Rated,Title,Original Title,URL,Title Type,IMDb Rating,Runtime (mins),Year,Genres,Num Votes,"
    "Release Date,Directors\n"
    'tt0113277,9,2024-03-15,Heat,Heat,https://www.imdb.com/title/x/,Movie,8.3,170,1995,"Crime, Drama",1,1995,M\n'
    "tt0118799,10,2024-03-16,Life Is Beautiful,La vita è bella,https://x,Movie,8.6,116,1997,Drama,1,1997,R\n"
)
GOODREADS = (
    "Book Id,Title,Author,Author l-f,Additional Authors,ISBN,ISBN13,My Rating,Average Rating,Publisher,Binding,"
    "Number of Pages,Year Published,Original Publication Year,Date Read,Date Added,Bookshelves,"
    "Bookshelves with positions,Exclusive Shelf,My Review,Spoiler,Private Notes,Read Count,Owned Copies\n"
    '11,"The Salt Road (Harbour, #2)",Ada Bell,"Bell, Ada",,"=""0123456789""","=""9780123456786""",4,3.9,Quay,'
    'Paperback,300,2012,2011,2022/11/24,2022/10/25,,,read,"Fine.<br/>""Yes""\nand more",,,1,0\n'
    '12,Dust,A. Bell,"Bell, A.",,"=""""","=""""",0,3.9,Quay,Paperback,300,2012,2011,,2022/10/26,,,read,,,,1,0\n'
    '13,Later,A. Bell,"Bell, A.",,"=""""","=""""",0,3.9,Quay,Paperback,300,2012,2011,,2022/10/27,,,to-read,,,,0,0\n'
)
NETFLIX_ALL = (
    "Profile Name,Start Time,Duration,Attributes,Title,Supplemental Video Type,Device Type,Bookmark,Latest Bookmark,"
    "Country\n"
    "Mina,2024-01-02 20:15:00,01:50:00,,Heat,,TV,01:50:00,01:50:00,DE (Germany)\n"
    "Mina,2024-01-02 22:15:00,00:00:30,,Heat: Trailer,TRAILER,TV,00:00:30,00:00:30,DE (Germany)\n"
    "Tom,2024-01-03 20:15:00,00:45:00,,Quiet Harbour: Season 2: Fog,,TV,00:45:00,00:45:00,DE (Germany)\n"
)
MOVIE = {"title": "Heat", "year": 1995, "ids": {"trakt": 7, "slug": "heat-1995", "imdb": "tt0113277", "tmdb": 949}}
SHOW = {"title": "Quiet Harbour", "year": 2019, "ids": {"trakt": 8, "imdb": None}}
TRAKT = [
    {"rated_at": "2024-01-02T20:15:00.000Z", "rating": 8, "type": "movie", "movie": MOVIE},
    {"rated_at": "2024-01-03T20:15:00.000Z", "rating": 6, "type": "show", "show": SHOW},
    {"rated_at": "2024-01-04T20:15:00.000Z", "rating": 2, "type": "episode", "episode": {"season": 1}, "show": SHOW},
]
MYANIMELIST = """<?xml version="1.0" encoding="UTF-8" ?>
<!-- a comment -->
<myanimelist>
  <myinfo><user_name>mina</user_name><user_export_type>1</user_export_type></myinfo>
  <anime><series_animedb_id>1</series_animedb_id><series_title><![CDATA[Cats & Fog]]></series_title>
    <my_start_date>2024-01-02</my_start_date><my_finish_date>0000-00-00</my_finish_date>
    <my_score>9</my_score><my_status>Completed</my_status></anime>
  <anime><series_title>Harbour &amp; Sea</series_title><my_finish_date>2024-02-03</my_finish_date>
    <my_score>0</my_score><my_status>Watching</my_status></anime>
  <anime><series_title>Later</series_title><my_finish_date>0000-00-00</my_finish_date>
    <my_score>0</my_score><my_status>Plan to Watch</my_status></anime>
</myanimelist>
"""
CLIPPINGS = (
    "\ufeffThe Salt Road (Bell, Ada)\r\n"
    "- Your Highlight on page 9 | Location 100-101 | Added on Sunday, 4 June 2023 12:18:46\r\n\r\nA line.\r\n"
    "==========\r\n"
    "Dust (A. Bell)\r\n- Your Note on page 12 | Location 123 | Added on Monday, March 13, 2023 3:19:56 PM\r\n\r\nx\r\n"
    "==========\r\n"
    "Der Hafen (Bell, Ada)\r\n- Ihre Markierung bei Position 7 | Hinzugefügt am Montag, 25. September 2023 22:42:15\r\n"
    "\r\nx\r\n==========\r\n"
    "no entry at all\r\n==========\r\n"
)
SPOTIFY = [
    {"endTime": "2024-01-02 20:15", "artistName": "Reed", "trackName": "Fog", "msPlayed": 200000},
    {"endTime": "2024-01-02 20:16", "artistName": "Reed", "trackName": "Skipped", "msPlayed": 1200},
]
EXTENDED = [
    {
        "ts": "2024-01-02T20:15:00Z",
        "ms_played": 200000,
        "ip_addr": "203.0.113.7",
        "master_metadata_track_name": "1979",
        "master_metadata_album_artist_name": "Reed",
        "spotify_track_uri": "spotify:track:x",
        "episode_show_name": None,
    },
    {
        "ts": "2024-01-03T20:15:00Z",
        "ms_played": 900000,
        "master_metadata_track_name": None,
        "master_metadata_album_artist_name": None,
        "episode_show_name": "Harbour Talk",
    },
]
LASTFM = (
    "uts,utc_time,artist,artist_mbid,album,album_mbid,track,track_mbid\n"
    '"1704226500","02 Jan 2024, 20:15","Reed","","Harbour","","Fog",""\n'
)
STEAM = {
    "response": {
        "game_count": 2,
        "games": [
            {"appid": 400, "name": "Portal™", "playtime_forever": 90, "rtime_last_played": 1704226500},
            {"appid": 401, "name": "Unplayed", "playtime_forever": 0, "rtime_last_played": 0},
        ],
    }
}
AMAZON = (
    "Website,Order ID,Order Date,Purchase Order Number,Currency,Unit Price,ASIN,Product Condition,Quantity,"
    "Order Status,Product Name\n"
    'Amazon.de,306-1,2024-01-02T20:15:00Z,Not Applicable,EUR,"1,219.49",B000000001,New,1,Closed,"Lamp, blue"\n'
    "Amazon.de,306-2,2024-01-03T20:15:00Z,Not Applicable,EUR,9,B000000002,New,1,Cancelled,Kettle\n"
    "Amazon.de,306-3,Not Available,Not Applicable,EUR,9,B000000003,New,1,Closed,Chair\n"
)
JAN_2 = 1704226500.0  # 2 January 2024, 20:15

EXPORTS = {
    "ratings.csv of Letterboxd": (
        "Date,Name,Year,Letterboxd URI,Rating\n2024-01-02,Heat,1995,https://boxd.it/1,3.5\n",
        "Letterboxd",
        [("Heat (1995)", 3.5, 1704153600.0)],
        {},
    ),
    "diary.csv of Letterboxd": (
        "Date,Name,Year,Letterboxd URI,Rating,Rewatch,Tags,Watched Date\n"
        "2024-01-05,Heat,1995,https://boxd.it/1,,Yes,,2024-01-02\n",
        "Letterboxd",
        [("Heat (1995)", None, 1704153600.0)],
        {},
    ),
    "NetflixViewingHistory.csv": (
        'Title,Date\n"Quiet Harbour: Season 1: Fog","13/02/2020"\n"Dune: Part Two","2/1/20"\n',
        "Netflix viewing history",
        [("Quiet Harbour", None, 1581552000.0), ("Dune: Part Two", None, 1577923200.0)],
        {},
    ),
    "ViewingActivity.csv": (
        NETFLIX_ALL,
        "Netflix viewing activity",
        [("Heat", None, JAN_2), ("Quiet Harbour", None, JAN_2 + 86400)],
        {"a trailer or an extra": 1},
    ),
    "IMDb": (
        IMDB,
        "IMDb ratings",
        [("Heat (1995)", 9.0, 1710460800.0), ("Life Is Beautiful (1997)", 10.0, 1710547200.0)],
        {},
    ),
    "IMDb list": (
        "Position,Const,Created,Modified,Description,Title,Original Title,Year,Your Rating,Date Rated\n"
        "1,tt1,2024-01-01,2024-01-01,,Heat,Heat,1995,,\n2,tt2,2024-01-01,2024-01-01,,Ran,Ran,1985,8,2024-01-02\n",
        "IMDb list or watchlist",
        [("Ran (1985)", 8.0, 1704153600.0)],
        {"on a list without a rating": 1},
    ),
    "Trakt ratings": (
        json.dumps(TRAKT),
        "Trakt ratings",
        [("Heat (1995)", 8.0, JAN_2), ("Quiet Harbour (2019)", 6.0, JAN_2 + 86400)],
        {"a rating of a season or an episode": 1},
    ),
    "Trakt watched": (
        json.dumps([{"plays": 3, "last_watched_at": "2024-01-02T20:15:00.000Z", "movie": MOVIE}]),
        "Trakt watched",
        [("Heat (1995)", None, JAN_2)],
        {},
    ),
    "Trakt history": (
        json.dumps(
            [{"id": 1, "watched_at": "2024-01-02T20:15:00.000Z", "action": "watch", "type": "movie", "movie": MOVIE}]
        ),
        "Trakt history",
        [("Heat (1995)", None, JAN_2)],
        {},
    ),
    "MyAnimeList": (
        MYANIMELIST,
        "MyAnimeList",
        [("Cats & Fog", 9.0, 1704153600.0), ("Harbour & Sea", None, 1706918400.0)],
        {"planned": 1},
    ),
    "Goodreads": (
        GOODREADS,
        "Goodreads library",
        [("The Salt Road", 4.0, 1669248000.0), ("Dust", None, 1666742400.0)],
        {"on the shelf to-read": 1},
    ),
    "My Clippings.txt": (
        CLIPPINGS,
        "Kindle clippings",
        [("The Salt Road", None, 1685881126.0), ("Dust", None, 1678720796.0), ("Der Hafen", None, 1695681735.0)],
        {},
    ),
    "Spotify": (
        json.dumps(SPOTIFY),
        "Spotify streaming history",
        [("Reed - Fog", None, JAN_2)],
        {"played for less than 30 seconds": 1},
    ),
    "Spotify, extended": (
        json.dumps(EXTENDED),
        "Spotify extended streaming history",
        [("Reed - 1979", None, JAN_2), ("Harbour Talk", None, JAN_2 + 86400)],
        {},
    ),
    "Last.fm": (LASTFM, "Last.fm scrobbles", [("Reed - Fog", None, JAN_2)], {}),
    "Steam": (json.dumps(STEAM), "Steam library", [("Portal™", None, JAN_2)], {"never played": 1}),
    "Steam as a table": (
        "appid,name,playtime_forever\n400,Portal,90\n401,Unplayed,0\n",
        "Steam library",
        [("Portal", None, None)],
        {"never played": 1},
    ),
    "Amazon": (AMAZON, "Amazon orders", [("Lamp, blue", None, JAN_2), ("Chair", None, None)], {"cancelled": 1}),
    "Amazon's report": (
        "Order Date,Order ID,Title,Category,ASIN/ISBN\n01/31/20,1-1,Lamp,HOME,B000000001\n",
        "Amazon order history report",
        [("Lamp", None, 1580428800.0)],
        {},
    ),
}


def rows(raw):
    found = raw.frame.to_dicts()
    return [(row.get("title"), row.get("rating"), row.get("moment")) for row in found]


def read(path: Path, **options):
    return read_personal(path, ReadOptions(**options), LIMITS)


def zipped(files: dict[str, str]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


@pytest.mark.parametrize("export", EXPORTS)
def test_an_export_is_recognised_by_its_content_whatever_its_name(tmp_path, export):
    content, kind, expected, left_out = EXPORTS[export]
    path = tmp_path / ("my file.txt" if content.startswith("\ufeff") else "my file")
    path.write_bytes(content.encode())
    found = read(path)
    [raw] = found.files.values()
    assert raw.export == kind
    assert rows(raw) == expected
    assert found.left_out == raw.left_out == left_out
    path.write_bytes(gzip.compress(content.encode()))
    assert rows(*read(path).files.values()) == expected


def test_codes_and_other_titles_help_to_find_an_item(tmp_path):
    def columns(export):
        (tmp_path / "x").write_text(EXPORTS[export][0], encoding="utf-8")
        [raw] = read(tmp_path / "x").files.values()
        return {name: raw.frame[name].to_list() for name in ("code", "other") if name in raw.frame.columns}

    assert columns("IMDb") == {"code": [["tt0113277"], ["tt0118799"]], "other": [["Heat"], ["La vita è bella"]]}
    assert columns("Goodreads")["code"] == [["9780123456786", "0123456789"], []]
    assert columns("Last.fm")["other"] == [["Fog - Reed", "Fog", "Reed"]]
    assert columns("Trakt ratings")["code"] == [["tt0113277"], []]
    assert columns("Amazon")["code"] == [["B000000001"], ["B000000003"]]


def test_odd_entries_of_a_kindle_are_counted_with_their_lines(tmp_path):
    (tmp_path / "My Clippings.txt").write_bytes(CLIPPINGS.encode())
    [raw] = read(tmp_path / "My Clippings.txt").files.values()
    assert raw.dropped.rows() == [(16, "wrong number of fields")]


LETTERBOXD = {
    "diary.csv": EXPORTS["diary.csv of Letterboxd"][0],
    "ratings.csv": EXPORTS["ratings.csv of Letterboxd"][0],
    "watched.csv": "Date,Name,Year,Letterboxd URI\n",
    "watchlist.csv": "Date,Name,Year,Letterboxd URI\n2024-01-02,Ran,1985,https://boxd.it/2\n",
    "profile.csv": "Date Joined,Username\n2020-01-01,mina\n",
    "deleted/diary.csv": "Date,Name,Year,Letterboxd URI\n2024-01-02,Gone,1985,https://boxd.it/3\n",
    "likes/ratings.csv": "Date,Name,Year,Letterboxd URI\n2024-01-02,Liked,1985,https://boxd.it/3\n",
}


@pytest.mark.parametrize("packed", [True, False])
def test_of_an_archive_and_of_a_folder_the_known_files_are_read(tmp_path, packed):
    path = tmp_path / "letterboxd"
    if packed:
        path.write_bytes(zipped({f"letterboxd-mina/{name}": text for name, text in LETTERBOXD.items()}))
    else:
        for name, text in LETTERBOXD.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_text(text, encoding="utf-8")
    found = read(path)
    assert [name.rpartition("/")[2] for name in found.files] == ["diary.csv", "ratings.csv"]
    assert found.left_out == {"on the watchlist": 1}
    assert any(name.endswith("profile.csv") for name in found.not_read)
    assert ["watched.csv" in note for note in found.notes] == [True]


def test_an_archive_of_movielens_gives_titles_to_keys(tmp_path):
    path = tmp_path / "ml.zip"
    files = {
        "ml/ratings.dat": "1::20::5::978300760\n2::21::3::978300761\n",
        "ml/movies.dat": "20::Heat (1995)::Crime\n21::Clue (1985)::Comedy\n",
        "ml/users.dat": "1::F::25::10::48067\n",
        "ml/README": "words",
    }
    path.write_bytes(zipped(files))
    found = read(path)
    assert list(found.files) == ["ml/ratings.dat"]
    assert found.titles == {"20": "Heat (1995)", "21": "Clue (1985)"}
    assert found.notes == ()
    assert set(found.not_read) == {"ml/users.dat", "ml/README"}


def test_a_folder_of_recbole_gives_titles_to_keys(tmp_path):
    (tmp_path / "rb").mkdir()
    (tmp_path / "rb" / "rb.inter").write_text("user_id:token\titem_id:token\trating:float\nu\t7\t4\n")
    (tmp_path / "rb" / "rb.item").write_text("item_id:token\tmovie_title:token_seq\n7\tHeat\n")
    found = read(tmp_path / "rb")
    assert (list(found.files), found.titles) == (["rb.inter"], {"7": "Heat"})


def test_scrobbles_without_a_header_line_are_named_by_columns(tmp_path):
    (tmp_path / "mina.csv").write_text('Reed,Harbour,Fog,"02 Jan 2024 20:15"\n', encoding="utf-8")
    [raw] = read(tmp_path / "mina.csv", columns="artist,album,track,date").files.values()
    assert (raw.export, rows(raw)) == ("Last.fm scrobbles", [("Reed - Fog", None, JAN_2)])


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a.txt": "x", "b.txt": "y"}, "holds no file that is known as an export; it has a.txt, b.txt"),
        ({"watchlist.csv": LETTERBOXD["watchlist.csv"]}, "none of its 1 rows can be used: 1 times on the watchlist"),
        (
            {"watchlist.csv": LETTERBOXD["watchlist.csv"], "movies.csv": "item,title\n1,Heat\n"},
            "has no history: 1 on the watchlist",
        ),
        ({"[Content_Types].xml": "x", "b.xml": "y"}, "is a spreadsheet"),
    ],
)
def test_an_archive_without_a_history_is_refused_in_words(tmp_path, files, words):
    (tmp_path / "a.zip").write_bytes(zipped(files))
    with pytest.raises(DataError, match=words) as caught:
        read(tmp_path / "a.zip")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("movie,watched\nHeat of night,2024-01-02\nRan,2024-01-02\n", {}, [("Heat of night", None), ("Ran", None)]),
        ("Heat (1995)\nRan (1985)\nTwo Words (1999)\n", {"columns": "title"}, [("Heat (1995)", None)]),
        ("Film;My Rating\nHeat it;4,5\n", {}, [("Heat it", 4.5)]),
    ],
)
def test_a_plain_list_of_titles_is_read(tmp_path, text, options, expected):
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    [raw] = read(tmp_path / "a.csv", **options).files.values()
    assert [(title, rating) for title, rating, _ in rows(raw)][: len(expected)] == expected


def test_an_export_of_one_person_is_no_table_for_a_simulation(tmp_path):
    (tmp_path / "a.csv").write_text(EXPORTS["IMDb"][0], encoding="utf-8")
    with pytest.raises(DataError, match="is one person's export") as caught:
        read_rows(tmp_path / "a.csv")
    assert caught.value.hint == "palate client import takes it"


@pytest.mark.parametrize(
    ("titles", "years", "expected"),
    [
        ("Heat", "1995", "Heat (1995)"),
        ("Heat (1995)", "1995", "Heat (1995)"),
        ("Heat (1995)", "1996", "Heat (1995)"),
        ("Heat 1995", "1995", "Heat 1995"),
        ("Blade Runner 2049", "2017", "Blade Runner 2049 (2017)"),
        ("1917", "2019", "1917 (2019)"),
        ("Heat", "soon", "Heat"),
        ("Heat", "1995.0", "Heat (1995)"),
    ],
)
def test_a_year_beside_a_title_becomes_a_part_of_it(tmp_path, titles, years, expected):
    (tmp_path / "a.csv").write_text(f"title,year\n{titles},{years}\nRan,1985\n", encoding="utf-8")
    [raw] = read(tmp_path / "a.csv").files.values()
    assert raw.frame["title"][0] == expected
