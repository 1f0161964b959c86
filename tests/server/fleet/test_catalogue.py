"""The fleet's catalogue: any order in, one order out; what is wrong with a file, and what is guessed, is said."""

from __future__ import annotations

import polars as pl
import pytest

from palate.errors import DataError
from palate.server.fleet.catalogue import content_of, make_catalogue, read_catalogue
from palate.server.fleet.config import Content

CSV = "item,title,genres,year,text\nb,Beta, Comedy|Drama ,2001,so funny\na,,,,\nc,Gamma,Drama,1985.0,\n"


def test_a_csv_and_the_same_parquet_make_the_same_file(tmp_path):
    (tmp_path / "items.csv").write_text(CSV)
    frame = pl.DataFrame(
        {
            "item": ["c", "a", "b"],
            "title": ["Gamma", None, "Beta"],
            "genres": [["Drama"], [], ["Drama", "Comedy"]],
            "year": [1985, None, 2001],
            "text": ["", "", "so funny"],
        }
    )
    frame.write_parquet(tmp_path / "items.parquet")
    first, _ = make_catalogue(tmp_path / "items.csv", tmp_path / "one.parquet")
    make_catalogue(tmp_path / "items.parquet", tmp_path / "two.parquet")
    assert first.ids == ("a", "b", "c")
    assert first.titles == ("a", "Beta", "Gamma")
    assert first.genres == ((), ("Comedy", "Drama"), ("Drama",))
    assert first.years.tolist() == [0, 2001, 1985]
    assert first.texts == ("", "so funny", "")
    assert read_catalogue(tmp_path / "one.parquet")[1] == read_catalogue(tmp_path / "two.parquet")[1]


def test_keys_stay_text(tmp_path):
    (tmp_path / "items.csv").write_text("item\n007\n07\n")
    assert make_catalogue(tmp_path / "items.csv", tmp_path / "out.parquet")[0].ids == ("007", "07")


def test_content_columns_are_there_unless_they_are_not_wanted(tmp_path):
    rows = "".join(f"i{n},Title {n},{'Drama' if n % 2 else 'Comedy'},{1990 + n},word{n % 3}\n" for n in range(40))
    (tmp_path / "items.csv").write_text("item,title,genres,year,text\n" + rows)
    catalogue, _ = make_catalogue(tmp_path / "items.csv", tmp_path / "out.parquet")
    assert content_of(catalogue, Content(text_dim=0)).columns.shape[0] == 40
    assert content_of(catalogue, Content(text_dim=0)).columns.shape[1] > 0
    assert content_of(catalogue, Content(use=False)).columns.shape == (40, 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("thing,title\n1,a\n", "no column looks like the item; it has thing, title"),
        ("item,title\n,x\n", "has no items"),
        ("item,title\n", "no rows"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path, text, words):
    (tmp_path / "items.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        make_catalogue(tmp_path / "items.csv", tmp_path / "out.parquet")


def test_rows_that_cannot_be_used_are_passed_over_and_said(tmp_path):
    (tmp_path / "items.csv").write_text("item,title,year\na,A,-3\na,again,1990\n,x,1990\n")
    catalogue, notes = make_catalogue(tmp_path / "items.csv", tmp_path / "out.parquet")
    assert (catalogue.ids, catalogue.years.tolist()) == (("a",), [0])
    assert [note.partition(", each ")[2] for note in notes] == ["has no key (4)", "has the key of an earlier one (3)"]


def test_missing_and_damaged_files_are_said_so(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        make_catalogue(tmp_path / "no.csv", tmp_path / "out.parquet")
    with pytest.raises(DataError, match="is missing"):
        read_catalogue(tmp_path / "no.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="damaged Parquet"):
        make_catalogue(tmp_path / "bad.parquet", tmp_path / "out.parquet")
    with pytest.raises(DataError, match="damaged Parquet"):
        read_catalogue(tmp_path / "bad.parquet")
