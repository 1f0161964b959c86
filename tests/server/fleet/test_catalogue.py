"""The fleet's catalogue: any order in, one order out; what is wrong with a file is said, and nothing is guessed."""

from __future__ import annotations

import polars as pl
import pytest

from palate.errors import DataError
from palate.server.fleet.catalogue import read_catalogue, take_in
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
    first = take_in(tmp_path / "items.csv", tmp_path / "one.parquet")
    second = take_in(tmp_path / "items.parquet", tmp_path / "two.parquet")
    assert first.items == ("a", "b", "c")
    assert first.titles == ("a", "Beta", "Gamma")
    assert first.genres == ((), ("Comedy", "Drama"), ("Drama",))
    assert first.years.tolist() == [0, 2001, 1985]
    assert first.texts == ("", "so funny", "")
    assert first.sha256 == second.sha256 == read_catalogue(tmp_path / "one.parquet").sha256


def test_keys_stay_text(tmp_path):
    (tmp_path / "items.csv").write_text("item\n007\n07\n")
    assert take_in(tmp_path / "items.csv", tmp_path / "out.parquet").items == ("007", "07")


def test_content_columns_are_there_unless_they_are_not_wanted(tmp_path):
    rows = "".join(f"i{n},Title {n},{'Drama' if n % 2 else 'Comedy'},{1990 + n},word{n % 3}\n" for n in range(40))
    (tmp_path / "items.csv").write_text("item,title,genres,year,text\n" + rows)
    catalogue = take_in(tmp_path / "items.csv", tmp_path / "out.parquet")
    assert catalogue.content(Content(text_dim=0)).columns.shape[0] == 40
    assert catalogue.content(Content(text_dim=0)).columns.shape[1] > 0
    assert catalogue.content(Content(use=False)).columns.shape == (40, 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("film,title\n1,a\n", "no column item, only film, title"),
        ("item\na\na\n", "'a' more than once"),
        ("item,title\n,x\n", "without a key"),
        ("item,title\n", "has 0 items"),
        ("item,year\na,-3\n", "year -3"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path, text, words):
    (tmp_path / "items.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        take_in(tmp_path / "items.csv", tmp_path / "out.parquet")


def test_missing_and_damaged_files_are_said_so(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        take_in(tmp_path / "no.csv", tmp_path / "out.parquet")
    with pytest.raises(DataError, match="is missing"):
        read_catalogue(tmp_path / "no.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="cannot be read"):
        take_in(tmp_path / "bad.parquet", tmp_path / "out.parquet")
    with pytest.raises(DataError, match="is damaged"):
        read_catalogue(tmp_path / "bad.parquet")
