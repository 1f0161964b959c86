"""Files into the history: whatever the format, every row that can be used, and nothing lost."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest

from palate.client.fleet.importing import plan_import
from palate.client.vault import Vault
from palate.client.vault.history import History
from palate.data.catalogue import Catalogue
from palate.errors import DataError

CATALOGUE = replace(Catalogue.of(("i1", "i2", "i3")), titles=("Heat (1995)", "Ran, or: Chaos", "Heat (1986)"))


@pytest.fixture
def history(tmp_path):
    with Vault.create(tmp_path / "vault", keyring="file") as vault:
        yield History(vault)


def import_file(path, history, catalogue, **how):
    plan = plan_import(path, history, catalogue, **how)
    plan.write(history)
    return plan


def entries(history):
    return [(entry.item, entry.value, entry.time) for _, entry in history.in_order()]


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_items_titles_ratings_and_times_come_in_from_csv(history, tmp_path):
    text = 'title,rating,time,else\nHeat (1995),4.5,20,x\n"Ran, or: Chaos",,10,\nUnheard of,3,,\n'
    path = written(tmp_path / "a.csv", text)
    done = import_file(path, history, CATALOGUE)
    assert (done.rows, done.added, done.exact, done.unknown) == (3, 3, 2, 1)
    assert done.examples["unknown"] == (("Unheard of", ""),)
    # Without a time, an entry stays behind the one before it.
    assert entries(history) == [("i2", 1.0, 10), ("title:Unheard of", 1.5, None), ("i1", 1.875, 20)]


def test_timestamp_is_another_name_of_time_and_columns_passed_over_are_named(history, tmp_path):
    done = import_file(
        written(tmp_path / "a.csv", "price,item,timestamp,ta\x1bgs\n7,i1,20,x\n7,i2,10,y\n"), history, CATALOGUE
    )
    assert entries(history) == [("i2", 1.0, 10), ("i1", 1.0, 20)]
    assert done.passed_over == ("price", "ta\N{REPLACEMENT CHARACTER}gs")
    both = import_file(written(tmp_path / "b.csv", "item,time,timestamp\ni3,5,6\n"), history, CATALOGUE)
    assert both.passed_over == ("time",)
    assert ("i3", 1.0, 6) in entries(history)


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
    assert entries(history) == [("i2", -0.75, 7), ("zz", 2.0, 9)]


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
    assert import_file(path, history, CATALOGUE).added == 2
    again = import_file(path, history, CATALOGUE)
    assert (again.rows, again.added, again.changed, again.unchanged) == (4, 0, 0, 2)
    assert entries(history) == [("i1", 1.0, 2), ("zz", 1.0, 3)]


def test_a_newer_export_changes_entries_and_one_undo_brings_the_older_ones_back(history, tmp_path):
    path = tmp_path / "a.csv"
    import_file(written(path, "title,rating,time\nHeat (1995),2,10\nNot yet,3,11\n"), history, CATALOGUE)
    before = entries(history)
    done = import_file(written(path, "title,rating,time\nHeat (1995),5,20\nNot yet,3,11\n"), history, CATALOGUE)
    assert (done.added, done.changed, done.unchanged) == (0, 1, 1)
    assert entries(history) == [("title:Not yet", 1.5, 11), ("i1", 2.0, 20)]
    assert history.undo()
    assert entries(history) == before


def test_an_older_export_fills_gaps_but_never_takes_a_newer_rating_back(history, tmp_path):
    import_file(written(tmp_path / "a.csv", "title,rating,time\nHeat (1995),5,20\n"), history, CATALOGUE)
    import_file(written(tmp_path / "b.csv", "title,rating,time\nHeat (1995),2,10\n"), history, CATALOGUE)
    import_file(written(tmp_path / "c.csv", "title,time\nHeat (1995),30\n"), history, CATALOGUE)
    assert entries(history) == [("i1", 2.0, 30)]


def test_what_was_kept_by_its_title_is_the_same_entry_once_the_catalogue_has_it(history, tmp_path):
    path = written(tmp_path / "a.csv", "title,time\nHeat (1995),10\n")
    import_file(path, history, None)
    assert entries(history) == [("title:Heat (1995)", 1.0, 10)]
    done = import_file(path, history, CATALOGUE)
    assert (done.added, done.changed) == (0, 1)
    assert entries(history) == [("i1", 1.0, 10)]


def test_entries_by_hand_are_left_alone(history, tmp_path):
    history.add("i1", 1.0, 5)
    import_file(written(tmp_path / "a.csv", "title,rating,time\nHeat (1995),4,10\n"), history, CATALOGUE)
    assert entries(history) == [("i1", 1.0, 5), ("i1", 1.75, 10)]


def test_a_plan_changes_nothing_until_it_is_written(history, tmp_path):
    plan = plan_import(written(tmp_path / "a.csv", "title\nHeat (1995)\n"), history, CATALOGUE)
    assert plan.added == 1
    assert entries(history) == []


def test_a_key_of_another_numbering_is_not_taken_for_an_item_of_this_catalogue(history, tmp_path):
    text = "item,title\ni1,Something else entirely\ni2,Heat (1986)\ni3,Heat\n"
    import_file(written(tmp_path / "a.csv", text), history, CATALOGUE)
    assert [item for item, *_ in entries(history)] == ["title:Something else entirely", "i3"]


def test_a_later_catalogue_finds_what_was_kept_for_it(history, tmp_path):
    import_file(written(tmp_path / "a.csv", "title\nHeat (1995)\nNot yet\n"), history, None)
    later = replace(Catalogue.of(("x", "y")), titles=("Not yet", "Heat (1995)"))
    assert later.rows_of(item for item, *_ in entries(history)).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("i1,high,", "the rating is no number"),
        ("i1,inf,", "the rating is not finite"),
        ("i1,4,yesterday", "the time is neither a number nor a date"),
        ("i1,4,-5", "the time of an interaction is not 0 ... 2^53-1 whole seconds"),
        (",4,", "no item"),
        ("i1", "wrong number of fields"),
        (f"{'x' * 201},4,", "an item's key is not 1 to 200 printable characters"),
    ],
)
def test_one_odd_row_is_passed_over_and_listed_with_its_line_and_the_reason(history, tmp_path, row, reason):
    done = import_file(written(tmp_path / "a.csv", f"item,rating,time\ni2,4,7\n{row}\ni3,5,\n"), history, CATALOGUE)
    assert [item for item, *_ in entries(history)] == ["i2", "i3"]
    assert (done.rows, done.added, done.dropped) == (3, 2, 1)
    assert done.reasons == (f"line 3: {reason}",)


def test_of_many_odd_rows_the_first_are_listed_and_all_are_counted(history, tmp_path):
    done = import_file(written(tmp_path / "a.csv", "item,rating\ni1,4\n" + "i2,high\n" * 50), history, CATALOGUE)
    assert (done.dropped, len(done.reasons), done.reasons[-1]) == (50, 20, "line 22: the rating is no number")


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("a.csv", "item,rating\ni1,high\n", "none of its 1 rows can be used: 1 times the rating is no number"),
        ("a.csv", f"item,rating\n{'x' * 201},4\n", "none of its 1 rows can be imported; line 2: an item's key"),
        ("a.csv", "price,stars\nx,1\n", "no column looks like the item or its title; it has price, stars"),
        ("a.json", '{"item": ', "holds no JSON objects"),
        ("a.parquet", "PAR1 not really", "damaged Parquet"),
        ("a.csv", "", "is empty"),
    ],
)
def test_a_file_that_cannot_be_imported_changes_nothing(history, tmp_path, name, text, match):
    with pytest.raises(DataError, match=match) as caught:
        import_file(written(tmp_path / name, text), history, CATALOGUE)
    assert caught.value.hint
    assert entries(history) == []


def test_rows_without_a_rating_count_as_had_and_that_is_said(history, tmp_path):
    done = import_file(written(tmp_path / "a.csv", "title,rating\nHeat (1995),NA\nNone such,-\n"), history, CATALOGUE)
    assert entries(history) == [("i1", 1.0, None), ("title:None such", 1.0, None)]
    assert done.notes == ("2 rows have no rating; they count as had",)


def test_titles_are_matched_as_people_write_them(history, tmp_path):
    films = replace(
        Catalogue.of(("m", "a", "h", "g")),
        titles=("Matrix, The (1999)", "Am\u00e9lie (2001)", "Heat (1995)", "Heat (1986)"),
        years=np.array([1999, 2001, 1995, 1986], dtype=np.int32),
    )
    titles = ["The Matrix", "the matrix (1999)", "Amelie", "Heat (1986)", "heat", "The Matrix (2021)"]
    path = written(tmp_path / "a.csv", "title,time\n" + "".join(f'"{title}",{at}\n' for at, title in enumerate(titles)))
    import_file(path, history, films)
    found = [item for item, *_ in entries(history)]
    assert found == ["m", "a", "g", "title:heat", "title:The Matrix (2021)"]


def test_the_rows_of_one_of_several_users_can_be_taken(history, tmp_path):
    path = written(tmp_path / "a.csv", "user,item\nann,i1\nbob,i2\n")
    done = import_file(path, history, CATALOGUE, user="bob")
    assert [item for item, *_ in entries(history)] == ["i2"]
    assert (done.rows, done.notes) == (1, ())
    done = import_file(path, history, CATALOGUE)
    assert "rows of 2 users in user, and all were taken" in done.notes[0]
    with pytest.raises(DataError, match="no rows of user 'eve'"):
        import_file(path, history, CATALOGUE, user="eve")


@pytest.mark.parametrize("limit", ["MAX_FILE_BYTES", "MAX_ROWS"])
def test_a_file_that_is_too_large_is_refused(history, tmp_path, monkeypatch, limit):
    monkeypatch.setattr(f"palate.client.fleet.importing.{limit}", 8)
    with pytest.raises(DataError, match="more than 8"):
        import_file(written(tmp_path / "a.csv", "item\n" + "i1\n" * 9), history, CATALOGUE)
    assert entries(history) == []


def test_a_missing_file_is_named(history, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        import_file(tmp_path / "no.csv", history, None)
