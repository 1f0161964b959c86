"""Files of every kind that people bring: each is read whole, and what had to be guessed is said."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from datetime import UTC, datetime

import polars as pl
import pytest

from palate.data.files import Limits
from palate.data.items import read_items
from palate.data.options import ReadOptions
from palate.data.reading import read_interactions, read_rows
from palate.data.tables import read_table
from palate.errors import DataError

ROWS = [("a", "Amélie", 4.5, 1_700_000_000.0), ("b", "Café", 3.0, 1_700_000_100.0), ("a", "Café", 2.0, 1_700_000_200.0)]
HEADER = ("user", "item", "rating", "time")


def text_of(separator: str = ",", header: tuple[str, ...] = HEADER) -> str:
    rows = [header, *((user, item, str(rating), str(int(time))) for user, item, rating, time in ROWS)]
    return "".join(separator.join(row) + "\n" for row in rows)


def zipped(content: str, name: str = "mine.csv", *more: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
        archive.writestr("__MACOSX/._mine.csv", "x")
        for other in more:
            archive.writestr(other, "x")
    return file.getvalue()


OBJECTS = [dict(zip(HEADER, row, strict=True)) for row in ROWS]
KINDS = {
    "csv": text_of().encode(),
    "semicolon": text_of(";").encode(),
    "tab": text_of("\t").encode(),
    "bar": text_of("|").encode(),
    "double colon": text_of("::").encode(),
    "blank": text_of(" ").encode(),
    "blanks in the header": text_of(", ").encode(),
    "separator at the end": text_of().replace("\n", ",\n").encode(),
    "windows lines": text_of().replace("\n", "\r\n").encode(),
    "old mac lines": text_of().replace("\n", "\r").encode(),
    "byte order mark": b"\xef\xbb\xbf" + text_of().encode(),
    "latin-1": text_of().encode("latin-1"),
    "utf-16": text_of().encode("utf-16"),
    "utf-16 without a mark": text_of().encode("utf-16-le"),
    "utf-16 big-endian without a mark": text_of().encode("utf-16-be"),
    "gzip": gzip.compress(text_of().encode()),
    "zip": zipped(text_of()),
    "json": json.dumps(OBJECTS).encode(),
    "pretty json": json.dumps(OBJECTS, indent=2).encode(),
    "json lines": "\n".join(map(json.dumps, OBJECTS)).encode(),
    "json lines, gzipped": gzip.compress("\n".join(map(json.dumps, OBJECTS)).encode()),
    "recbole": text_of("\t", ("user_id:token", "item_id:token", "rating:float", "timestamp:float")).encode(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_rows(tmp_path, kind):
    path = tmp_path / "file"  # recognised by content
    path.write_bytes(KINDS[kind])
    raw = read_rows(path)
    assert raw.frame.drop("line").rows() == ROWS
    assert (raw.report.rows_read, raw.report.malformed) == (3, 0)
    assert bool(raw.report.notes) == (kind in ("latin-1", "utf-16 without a mark", "utf-16 big-endian without a mark"))


def written(tmp_path, content: str | bytes, name: str = "file.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("lines", [True, False])
def test_fields_that_first_appear_late_in_json_are_read(tmp_path, lines):
    rows = [{"user": "u", "item": f"i{n}"} for n in range(150)] + [
        {"user": "v", "item": "i1", "rating": 4.5, "time": 7}
    ]
    path = written(tmp_path, "\n".join(map(json.dumps, rows)) if lines else json.dumps(rows))
    table = read_table(path)
    assert table.frame.columns == ["user", "item", "rating", "time"]
    assert table.frame.row(150) == ("v", "i1", "4.5", "7")
    assert read_rows(path).report.missing == 150  # no rating, no time


def test_types_of_a_json_field_are_widened_and_never_cut(tmp_path):
    rows = [
        {"item": 7},
        {"item": 7.5},
        {"item": "007"},
        {"item": True},
        {"item": ["a", "b"]},
        {"item": None},
        {"item": 2**70},
    ]
    found = read_table(written(tmp_path, json.dumps(rows))).frame["item"].to_list()
    assert found == ["7", "7.5", "007", "true", "a|b", "", str(2**70)]


def test_one_damaged_line_of_json_costs_itself(tmp_path):
    text = '{"user": "a", "item": "x"}\n{"user": "a", "item": \n[1]\n{"user": "b", "item": "x"}\n'
    raw = read_rows(written(tmp_path, text))
    assert raw.frame["line"].to_list() == [1, 4]
    assert raw.dropped.rows() == [(2, "wrong number of fields"), (3, "wrong number of fields")]


def test_a_zip_archive_of_several_files_names_them(tmp_path):
    with pytest.raises(DataError, match=r"holds 2 files: mine\.csv, other\.csv"):
        read_table(written(tmp_path, zipped("x", "mine.csv", "other.csv")))
    with pytest.raises(DataError, match="is a spreadsheet"):
        read_table(written(tmp_path, zipped("x", "[Content_Types].xml")))
    with pytest.raises(DataError, match="cannot be read"):
        read_table(written(tmp_path, zipped(text_of())[:60]))


@pytest.mark.parametrize(
    "content",
    [text_of().encode() * 99, gzip.compress(text_of().encode() * 99), zipped(text_of() * 99)],
    ids=["plain", "gzip", "zip"],
)
def test_a_file_too_large_is_refused_packed_or_not(tmp_path, content):
    with pytest.raises(DataError, match="more than 1,000 bytes"):
        read_table(written(tmp_path, content), limits=Limits(max_bytes=1000))


@pytest.mark.parametrize("kind", ["csv", "quoted", "json", "parquet"])
def test_a_file_of_too_many_rows_is_refused(tmp_path, kind):
    frame = pl.DataFrame({"user": ["a"] * 9, "item": ["x"] * 9})
    path = tmp_path / "file"
    {
        "csv": lambda: frame.write_csv(path),
        "quoted": lambda: frame.write_csv(path, quote_style="always"),
        "json": lambda: frame.write_ndjson(path),
        "parquet": lambda: frame.write_parquet(path),
    }[kind]()
    assert read_table(path, limits=Limits(max_rows=9)).rows_read == 9
    with pytest.raises(DataError, match="more than 8 rows"):
        read_table(path, limits=Limits(max_rows=8))


def moments_of(tmp_path, *values: str, **options):
    rows = "".join(f'u{at},x,"{value}"\n' for at, value in enumerate(values))
    raw = read_rows(written(tmp_path, "user,item,time\n" + rows), ReadOptions(**options))
    days = [datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M") for moment in raw.frame["moment"]]
    return [day.removesuffix(" 00:00") for day in days], raw.report.notes


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("13/02/2020", "2020-02-13"), ("2/13/2020", "2020-02-13"), ("13.02.2020", "2020-02-13"),
        ("13-02-2020", "2020-02-13"), ("2020/02/13", "2020-02-13"), ("20200213", "2020-02-13"),
        ("13 Feb 2020", "2020-02-13"), ("13-Feb-2020", "2020-02-13"), ("February 13, 2020", "2020-02-13"),
        ("Thu, 13 Feb 2020 10:11:12 GMT", "2020-02-13 10:11"), ("2/13/20 9:15 PM", "2020-02-13 21:15"),
        ("13/02/2020 12:30 AM", "2020-02-13 00:30"), ("2020-02-13T23:15:00+01:00", "2020-02-13 22:15"),
        ("1581552000", "2020-02-13"), ("1581552000000", "2020-02-13"), ("1581552000.0", "2020-02-13"),
        ("13/02/99", "1999-02-13"), ("13/02/68", "2068-02-13"),
    ],
)  # fmt: skip
def test_dates_in_every_usual_form(tmp_path, value, read):
    days, notes = moments_of(tmp_path, value, value)
    assert days == [read, read]
    assert notes == ()


def test_day_or_month_first_is_decided_by_the_column_as_a_whole(tmp_path):
    assert moments_of(tmp_path, "7/6/20", "5/30/20") == (["2020-07-06", "2020-05-30"], ())
    assert moments_of(tmp_path, "7/6/20", "30/5/20") == (["2020-06-07", "2020-05-30"], ())
    assert moments_of(tmp_path, "1/2/2020", "2/1/2020", date_order="day")[0] == ["2020-02-01", "2020-01-02"]


def test_dates_that_could_be_either_are_said(tmp_path):
    days, notes = moments_of(tmp_path, "7/6/20", "1/2/20")
    assert days == ["2020-07-06", "2020-01-02"]
    assert "could be day or month first; they were read month first" in notes[0]
    assert "--date-order" in notes[0]
    days, notes = moments_of(tmp_path, "7.6.2020", "1.2.2020")
    assert days == ["2020-06-07", "2020-02-01"]
    assert "read day first" in notes[0]
    days, notes = moments_of(tmp_path, "7/6/20", "5/30/20", "2/28/20", "13/02/2020")
    assert days == ["2020-07-06", "2020-05-30", "2020-02-28", "2020-02-13"]
    assert "1 of its dates are day first, 2 month first" in notes[0]


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        (("1,234", "1,234,567"), [1234.0, 1234567.0]),
        (("4,5", "3"), [4.5, 3.0]),
        (("1.234,5", "12"), [1234.5, 12.0]),
        (("1,234.5", "12"), [1234.5, 12.0]),
    ],
)
def test_numbers_with_commas_are_read_and_said(tmp_path, values, numbers):
    rows = "".join(f'u{at},x,"{value}"\n' for at, value in enumerate(values))
    raw = read_rows(written(tmp_path, "user,item,rating\n" + rows))
    assert raw.frame["rating"].to_list() == numbers
    assert raw.report.notes[0].startswith("rating was read with ")


def test_placeholders_are_missing_and_never_a_number(tmp_path):
    raw = read_rows(written(tmp_path, "user,item,rating\na,x,NA\na,y,-\na,z,4\nb,z,null\n"))
    assert raw.frame.rows() == [(4, "a", "z", 4.0)]
    assert raw.dropped["trouble"].unique().to_list() == ["no rating"]


def test_a_stray_quote_costs_at_most_its_own_line(tmp_path):
    raw = read_rows(written(tmp_path, 'user,item\na,12 "Angry Men\nb,x\na,"open\nb,"y, z"\n'))
    assert raw.frame.rows() == [(2, "a", '12 "Angry Men'), (3, "b", "x"), (5, "b", "y, z")]
    assert raw.dropped.rows() == [(4, "wrong number of fields")]


def test_check_ins_without_a_header_are_guessed_with_every_row(tmp_path):
    rows = [f"{n % 3}\t2010-10-{10 + n}T23:55:27Z\t30.23{n}\t-97.79{n}\t{22886 + n}\n" for n in range(9)]
    raw = read_rows(written(tmp_path, "".join(rows), "checkins.txt"))
    assert (raw.report.rows_read, len(raw.frame)) == (9, 9)
    assert raw.frame.row(0)[1:3] == ("0", "22886")
    assert raw.report.notes == ("checkins.txt has no header line; it was read with --columns user,time,-,-,item",)


def test_reviews_as_json_lines_are_guessed(tmp_path):
    rows = [
        {
            "review_id": f"r{n}",
            "user_id": f"u{n % 2}",
            "business_id": f"b{n}",
            "stars": 4.0,
            "text": "x\ny",
            "date": day,
        }
        for n, day in enumerate(("2018-07-07 22:09:11", "2018-07-08 22:09:11"))
    ]
    raw = read_rows(written(tmp_path, "\n".join(map(json.dumps, rows)), "review.json"))
    assert raw.frame.row(0) == (1, "u0", "b0", 4.0, 1_531_001_351.0)


def test_a_recbole_folder_is_read_as_its_headers_say(tmp_path):
    from palate.simulation.datasets.presets import load

    folder = tmp_path / "rb"
    folder.mkdir()
    inter = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    inter += "".join(f"{u}\t{i}\t4\t{100 + u + i}\n" for u in range(3) for i in range(4))
    (folder / "rb.inter").write_text(inter)
    item = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    item += "".join(f'{i}\tMovie "{i}"\t{1960 + i}\tAnimation Comedy\n' for i in range(4))
    (folder / "rb.item").write_text(item)
    data = load(folder)
    assert len(data.item) == 12
    assert data.catalogue.titles[0] == 'Movie "0"'
    assert data.catalogue.genres[0] == ("Animation", "Comedy")
    assert data.catalogue.years.tolist() == [1960, 1961, 1962, 1963]


def test_a_title_column_names_the_items_where_no_other_does(tmp_path):
    data = read_interactions(written(tmp_path, "user,title\na,Heat\na,Ran\nb,Heat\n"))
    assert data.catalogue.titles == ("Heat", "Ran")


def test_lists_of_genres_may_be_lists(tmp_path):
    rows = [{"id": "1", "title": "A", "genres": ["Crime", "Drama"]}, {"id": "2", "title": "B", "genres": []}]
    path = written(tmp_path, json.dumps(rows))
    assert read_items(path)[0].genres == (("Crime", "Drama"), ())
    pl.DataFrame(rows).write_parquet(tmp_path / "items.parquet")
    assert read_items(tmp_path / "items.parquet")[0].genres == (("Crime", "Drama"), ())


def test_names_given_for_a_file_that_has_them_are_refused(tmp_path):
    with pytest.raises(DataError, match="names its columns itself"):
        read_rows(written(tmp_path, json.dumps(OBJECTS)), ReadOptions(columns="user,item"))
