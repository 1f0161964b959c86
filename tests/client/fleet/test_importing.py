"""Files into the history: whatever the format, all of it or nothing, and nothing lost."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime

import polars as pl
import pytest

from palate.client.fleet.catalogue import Catalogue
from palate.client.fleet.importing import import_file
from palate.client.vault import Vault
from palate.client.vault.history import History
from palate.errors import DataError

CATALOGUE = Catalogue(("i1", "i2", "i3"), ("Heat (1995)", "Ran, or: Chaos", "Heat (1986)"))


@pytest.fixture
def history(tmp_path):
    with Vault.create(tmp_path / "vault", keyring="file") as vault:
        yield History(vault)


def entries(history):
    return [(entry.item, entry.value, entry.time) for _, entry in history.in_order()]


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_items_titles_ratings_and_times_come_in_from_csv(history, tmp_path):
    text = 'title,rating,time,else\nHeat (1995),4.5,20,x\n"Ran, or: Chaos",,10,\nUnheard of,3,,\n'
    path = written(tmp_path / "a.csv", text)
    done = import_file(path, history, CATALOGUE)
    assert (done.rows, done.added, done.known, done.unknown, done.examples) == (3, 3, 2, 1, ("Unheard of",))
    # Without a time, an entry stays behind the one before it.
    assert entries(history) == [("i2", 1.0, 10), ("title:Unheard of", 3.0, None), ("i1", 4.5, 20)]


def test_timestamp_is_another_name_of_time_and_columns_passed_over_are_named(history, tmp_path):
    done = import_file(
        written(tmp_path / "a.csv", "userId,item,timestamp,ta\x1bgs\n7,i1,20,x\n7,i2,10,y\n"), history, CATALOGUE
    )
    assert entries(history) == [("i2", 1.0, 10), ("i1", 1.0, 20)]
    assert done.passed_over == ("userId", "ta\N{REPLACEMENT CHARACTER}gs")
    both = import_file(written(tmp_path / "b.csv", "item,time,timestamp\ni3,5,6\n"), history, CATALOGUE)
    assert both.passed_over == ("timestamp",)
    assert ("i3", 1.0, 5) in entries(history)


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "json", "jsonl"])
def test_every_format_gives_the_same_history(history, tmp_path, kind):
    rows = [{"item": "i2", "rating": 2.0, "time": 7}, {"item": "zz", "rating": 5.0, "time": 9}]
    path = tmp_path / f"a.{kind}"
    frame = pl.DataFrame(rows)
    {
        "csv": lambda: frame.write_csv(path),
        "tsv": lambda: frame.write_csv(path, separator="\t"),
        "parquet": lambda: frame.write_parquet(path),
        "json": lambda: written(path, json.dumps(rows)),
        "jsonl": lambda: written(path, "\n".join(map(json.dumps, rows))),
    }[kind]()
    import_file(path, history, CATALOGUE)
    assert entries(history) == [("i2", 2.0, 7), ("zz", 5.0, 9)]


def test_numbers_are_item_keys_as_they_are_written(history, tmp_path):
    import_file(written(tmp_path / "a.csv", "item\n007\n"), history, None)
    frame = pl.DataFrame({"item": [12]})
    frame.write_parquet(tmp_path / "a.parquet")
    import_file(tmp_path / "a.parquet", history, None)
    assert [item for item, *_ in entries(history)] == ["007", "12"]


@pytest.mark.parametrize(
    ("moment", "seconds"),
    [
        ("1700000000", 1_700_000_000),
        ("1700000000.9", 1_700_000_000),
        ("1700000000123", 1_700_000_000),
        ("1700000000123456", 1_700_000_000),
        ("1700000000123456789", 1_700_000_000),
        ("2023-11-14T22:13:20", 1_700_000_000),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000),
        ("2023-11-14", 1_699_920_000),
    ],
)
def test_times_are_seconds_or_parts_of_them_or_iso_8601(history, tmp_path, moment, seconds):
    import_file(written(tmp_path / "a.csv", f"item,time\ni1,{moment}\n"), history, CATALOGUE)
    assert entries(history) == [("i1", 1.0, seconds)]


def test_dates_of_parquet_files_are_moments_in_utc(history, tmp_path):
    moments = [datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)]
    pl.DataFrame({"item": ["i1"], "time": moments}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"item": ["i2"], "time": [date(2023, 11, 14)]}).write_parquet(tmp_path / "b.parquet")
    import_file(tmp_path / "a.parquet", history, CATALOGUE)
    import_file(tmp_path / "b.parquet", history, CATALOGUE)
    assert {item: time for item, _, time in entries(history)} == {"i1": 1_700_000_000, "i2": 1_699_920_000}


def test_a_file_that_comes_twice_adds_nothing(history, tmp_path):
    path = written(tmp_path / "a.csv", "item,time\ni1,1\ni1,1\ni1,2\nzz,3\n")
    assert import_file(path, history, CATALOGUE).added == 3
    again = import_file(path, history, CATALOGUE)
    assert (again.rows, again.added, again.unknown) == (4, 0, 0)
    assert len(entries(history)) == 3


def test_a_later_catalogue_finds_what_was_kept_for_it(history, tmp_path):
    import_file(written(tmp_path / "a.csv", "title\nHeat (1995)\nNot yet\n"), history, None)
    later = Catalogue(("x", "y"), ("Not yet", "Heat (1995)"))
    assert later.rows_of(item for item, *_ in entries(history)).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("a.csv", "item,rating\ni1,4\ni2,high\n", "row 2: could not convert"),
        ("a.csv", "item,rating\ni1,nan\n", "row 1: the rating is not a finite number"),
        ("a.csv", "item,time\ni1,yesterday\n", "row 1: the time is neither"),
        ("a.csv", "item,time\ni1,-5\n", "row 1: the time"),
        ("a.csv", "item,time\ni1,inf\n", "row 1: the time"),
        ("a.csv", "item,time\ni1,1e20\n", "row 1: the time is later"),
        ("a.csv", "item\n\"\"\n", "row 1: an item's key"),
        ("a.csv", f"item\n{'x' * 201}\n", "row 1: an item's key"),
        ("a.csv", "name,stars\nx,1\n", "name, stars, and neither item nor title"),
        ("a.json", '{"item": ', "cannot be read as json"),
        ("a.parquet", "PAR1 not really", "cannot be read as parquet"),
        ("a.txt", "item\ni1\n", "not of a kind"),
        ("a.csv", "", "cannot be read as csv"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_imported_changes_nothing(history, tmp_path, name, text, match):
    with pytest.raises(DataError, match=match):
        import_file(written(tmp_path / name, text), history, CATALOGUE)
    assert entries(history) == []


def test_a_missing_file_is_named(history, tmp_path):
    with pytest.raises(DataError, match=r"no\.csv cannot be read: No such file"):
        import_file(tmp_path / "no.csv", history, None)
