"""Exports against catalogues of films, books, music and games: nearly all known titles are found, and no wrong ones."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from palate.client.fleet.import_text import import_lines
from palate.client.fleet.importing import plan_import
from palate.client.vault import Vault
from palate.client.vault.history import History
from palate.data.catalogue import Catalogue
from palate.data.options import ReadOptions
from palate.errors import DataError

FILMS = {
    "1": ("Heat (1995)", 1995),
    "2": ("Heat (1986)", 1986),
    "3": ("Matrix, The (1999)", 1999),
    "4": ("Amelie (Fabuleux destin d'Am\u00e9lie Poulain, Le) (2001)", 2001),
    "5": ("Psycho (1960)", 1960),
    "6": ("Psycho (1998)", 1998),
    "7": ("Star Wars: Episode IV - A New Hope (1977)", 1977),
    "8": ("City of Lost Children, The (Cit\u00e9 des enfants perdus, La) (1995)", 1995),
    "9": ("Good, The Bad and The Ugly, The (1966)", 1966),
    "10": ("Rocky II (1979)", 1979),
}
OTHERS = {
    "b1": ("The Salt Road (Harbour, #2)", 0),
    "0123456789": ("Dust", 0),
    "a1": ("Reed", 0),
    "t1": ("Reed - Fog", 0),
    "1979": ("Harbour Lights - Ebb", 0),
    "g1": ("Portal", 0),
    "s1": ("Lamp, blue", 0),
}


def catalogue(items):
    titles, years = zip(*items.values(), strict=True)
    return replace(Catalogue.of(tuple(items)), titles=titles, years=np.array(years, dtype=np.int32))


@pytest.fixture
def history(tmp_path):
    with Vault.create(tmp_path / "vault", keyring="file") as vault:
        yield History(vault)


@pytest.fixture
def imported(history, tmp_path):
    def run(content, items, name="export", **how):
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        plan = plan_import(path, history, catalogue(items), **how)
        plan.write(history)
        return plan, {entry.item: (entry.value, entry.time) for _, entry in history.in_order()}

    return run


def letterboxd(*films):
    rows = [f'2024-01-02,"{name}",{year},https://boxd.it/x,4\n' for name, year in films]
    return "Date,Name,Year,Letterboxd URI,Rating\n" + "".join(rows)


def test_films_are_found_as_letterboxd_writes_them_and_remakes_by_their_year(imported):
    written = [
        ("Heat", 1995),
        ("The Matrix", 1999),
        ("Am\u00e9lie", 2001),
        ("Psycho", 1998),
        ("Star Wars", 1977),
        ("The City of Lost Children", 1995),
        ("The Good, the Bad and the Ugly", 1966),
        ("Rocky II", 1979),
        ("Psycho", 1983),
        ("The Matrix", 2021),
    ]
    plan, found = imported(letterboxd(*written), FILMS)
    assert (plan.exact, plan.likely, plan.unknown) == (8, 0, 2)
    assert set(found) == {"1", "3", "4", "6", "7", "8", "9", "10", "title:Psycho (1983)", "title:The Matrix (2021)"}


def test_a_year_beside_or_within_a_title_is_the_same(imported):
    _, beside = imported("title,year\nHeat,1986\nPsycho,1960\n", FILMS)
    assert set(beside) == {"2", "5"}
    plan, within = imported("title\nHeat (1986)\nPsycho (1960)\n", FILMS)
    assert (plan.unchanged, set(within)) == (2, {"2", "5"})


def test_likely_titles_are_kept_as_unknown_ones_if_the_owner_says_so(imported):
    text = letterboxd(("Heat", 1996), ("Psycho", 1960))
    plan, found = imported(text, FILMS, likely=False)
    assert (plan.exact, plan.likely, plan.unknown, set(found)) == (1, 0, 1, {"5", "title:Heat (1996)"})
    plan, found = imported(text, FILMS)
    assert (plan.likely, plan.changed, set(found)) == (1, 1, {"1", "5"})


def test_a_column_of_movies_may_hold_titles(imported):
    _, found = imported("movie,rating\npsycho (1960),4\n7,3\n", FILMS)
    assert set(found) == {"5", "title:7"}
    _, found = imported("movie,rating\nHeat(1986),4\n7,3\n", FILMS)
    assert set(found) == {"5", "title:7", "2", "7"}


def test_an_original_title_makes_a_film_likely(imported):
    text = (
        "Const,Your Rating,Date Rated,Title,Original Title,Year\n"
        "tt1,9,2024-01-02,Die Stadt der verlorenen Kinder,La cit\u00e9 des enfants perdus,1995\n"
        "tt2,9,2024-01-02,Die Stadt,La cit\u00e9 des enfants perdus,1970\n"
    )
    plan, found = imported(text, FILMS)
    assert (plan.exact, plan.likely, plan.unknown) == (0, 1, 1)
    assert set(found) == {"8", "title:Die Stadt (1970)"}


def test_books_are_found_by_title_without_their_series_or_by_isbn(imported):
    header = "Title,Author,ISBN,ISBN13,My Rating,Date Read,Date Added,Exclusive Shelf\n"
    rows = (
        '"The Salt Road (Harbour, #2)",Ada Bell,"=""""","=""""",4,2022/11/24,2022/10/25,read\n'
        'Dust: A Novel,A. Bell,"=""0123456789""","=""""",0,,2022/10/26,read\n'
    )
    plan, found = imported(header + rows, OTHERS)
    assert (plan.exact, plan.unknown) == (2, 0)
    assert found == {"b1": (1.75, 1669248000), "0123456789": (1.0, 1666742400)}


def test_plays_count_once_and_a_track_is_never_taken_for_a_key(imported):
    plays = [
        {"endTime": f"2024-01-0{day} 20:15", "artistName": artist, "trackName": track, "msPlayed": 200000}
        for day, artist, track in [
            (2, "Reed", "Fog"),
            (3, "Reed", "Fog"),
            (4, "Nobody", "1979"),
            (5, "Reed", "New one"),
        ]
    ]
    plan, found = imported(json.dumps(plays), OTHERS)
    assert set(found) == {"t1", "title:Nobody - 1979", "a1"}
    assert found["t1"] == (1.0, 1704312900)
    assert (plan.rows, plan.exact, plan.likely, plan.unknown) == (4, 1, 1, 1)


def test_games_and_orders_are_found(imported):
    _, found = imported('[{"appid": 1979, "name": "Portal\u2122", "playtime_forever": 5}]', OTHERS)
    assert set(found) == {"g1"}
    orders = (
        "Order ID,Order Date,ASIN,Order Status,Product Name\n"
        '1,2024-01-02T20:15:00Z,B1,Closed,"Lamp, blue"\n2,2024-01-02T20:15:00Z,0123456789,Closed,Some book\n'
    )
    _, found = imported(orders, OTHERS)
    assert set(found) == {"g1", "s1", "0123456789"}


def test_the_preview_says_what_was_found_and_what_is_left_out(imported):
    rows = "Dust,A. Bell,4,read\nLater,A. Bell,0,to-read\nUnheard of,A,1,read\n,A,1,read\n"
    shelf = f"Title,Author,My Rating,Exclusive Shelf\n{rows}"
    plan, _ = imported(shelf, OTHERS, name="shelf.csv")
    assert import_lines(plan, has_catalogue=True) == [
        "shelf.csv: Goodreads library",
        "3 rows about 2 items",
        "  1 in the catalogue",
        "    Dust",
        "  1 not in it; kept, and looked for again in a later one",
        "    Unheard of",
        "left out: 1 row, on the shelf to-read",
        "rows passed over: 1",
        "  line 5: no item",
        "2 new, 0 changed, 0 as they were",
    ]
    assert "this device belongs to no fleet yet" in "\n".join(import_lines(plan, has_catalogue=False))


def test_an_import_that_takes_nothing_is_an_error_and_says_why(imported, history):
    with pytest.raises(DataError, match="none of its 1 rows can be used: 1 times on the shelf to-read"):
        imported("Title,Author,My Rating,Exclusive Shelf\nLater,A. Bell,0,to-read\n", OTHERS)
    assert history.in_order() == []


@pytest.mark.parametrize(("order", "time"), [("day", 1585872000), ("month", 1583280000)])
def test_dates_that_have_two_readings_are_said_and_settled_by_an_option(imported, order, time):
    text = "Title,Date\nHeat (1995),03/04/2020\nPsycho (1960),03/04/2020\n"
    plan, found = imported(text, FILMS)
    assert "say --day-first or --month-first" in "".join(plan.notes)
    assert found["1"] == (1.0, 1583280000)
    plan, found = imported(text, FILMS, options=ReadOptions(date_order=order))
    assert plan.notes == ()
    assert plan.changed == (2 if order == "day" else 0)


def test_what_no_catalogue_had_is_found_when_it_grows(imported, history):
    imported(letterboxd(("Heat", 1986), ("Psycho", 1998)), OTHERS)
    keys = [entry.item for _, entry in history.in_order()]
    assert keys == ["title:Heat (1986)", "title:Psycho (1998)"]
    films = catalogue(FILMS)
    assert [films.ids[row] for row in films.rows_of(keys)] == ["2", "6"]


def test_nearly_all_of_a_thousand_real_films_are_found_as_others_write_them(shared_data, history, tmp_path):
    from palate.data.items import read_items
    from palate.data.titles import title_year

    films, _ = read_items(shared_data / "ml-1m" / "movies.dat.gz")
    films = films.take(range(0, films.num_items, 4))
    written = []
    for title, year in zip(films.titles, films.years.tolist(), strict=True):
        name = title_year(title)[0].partition(" (")[0]
        first, comma, article = name.rpartition(", ")
        written.append((f"{article} {first}" if comma and article in ("The", "A", "An") else name, year))
    path = tmp_path / "ratings.csv"
    path.write_text(letterboxd(*((name.replace('"', '""'), year) for name, year in written)), encoding="utf-8")
    plan = plan_import(path, history, films)
    keys = [entry.item for entry in plan.entries]
    assert plan.exact >= 0.95 * films.num_items
    assert len(keys) == films.num_items, "two films were taken for one"
    assert [key for key, own in zip(keys, films.ids, strict=True) if key != own and not key.startswith("title:")] == []


@pytest.fixture(scope="session")
def cases(shared_data):
    folder = shared_data.parent / "cases"
    if not folder.is_dir():
        pytest.skip("there is no folder of cases beside that of the datasets")
    return folder


@pytest.mark.parametrize(
    ("case", "exact", "dropped"),
    [
        ("02-real-exports/NetflixViewingHistory.csv", 1, 0),
        ("02-real-exports/generic-Title.csv", 1, 0),
        ("02-real-exports/goodreads_library_export.csv", 0, 0),
        ("02-real-exports/imdb-ratings.csv", 1, 0),
        ("02-real-exports/letterboxd-ratings.csv", 4, 0),
        ("03-title-matching/lower.csv", 3, 0),
        ("07-one-bad-row/i-NA.csv", 1, 0),
        ("07-one-bad-row/i-ddmm.csv", 1, 0),
        ("07-one-bad-row/i-empty.csv", 1, 1),
        ("07-one-bad-row/i-quote.csv", 1, 0),
        ("07-one-bad-row/i-usdate.csv", 1, 0),
    ],
)
def test_files_of_people_are_taken(cases, history, case, exact, dropped):
    plan = plan_import(cases / case, history, catalogue(FILMS))
    assert (plan.exact, plan.dropped) == (exact, dropped)
    assert plan.added == plan.exact + plan.likely + plan.unknown
