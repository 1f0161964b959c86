"""Reading: every bad row is dropped, counted and located; every bad file ends in one line."""

import gzip

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palate.data.options import ReadOptions
from palate.data.reading import read_interactions, read_rows
from palate.data.tables import read_table
from palate.errors import DataError, PalateError

GOOD = "user,item,rating,timestamp\n1,10,5,100\n1,11,4,200\n2,10,3,300\n"


@pytest.fixture
def write(tmp_path):
    def _write(content: str | bytes, name: str = "data.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return _write


def rows_of(path, **options):
    return read_rows(path, ReadOptions(**options)).frame.drop("line").rows()


def test_plain_csv_is_read_with_guessed_columns(write):
    raw = read_rows(write(GOOD))
    assert raw.frame.rows() == [(2, "1", "10", 5.0, 100.0), (3, "1", "11", 4.0, 200.0), (4, "2", "10", 3.0, 300.0)]
    assert raw.has_time
    assert raw.is_timestamp
    assert raw.report.rows_read == 3


@pytest.mark.parametrize(
    ("header", "separator"),
    [
        ("userId,movieId,rating,timestamp", ","),
        ("UserID::MovieID::Rating::Timestamp", "::"),
        ("user_id:token\titem_id:token\trating:float\ttimestamp:float", "\t"),
        ("Reviewer ID;ASIN;Stars;Date", ";"),
        ("customer|sku|score|ts", "|"),
    ],
)
def test_common_headers_and_separators_are_recognised(write, header, separator):
    body = "".join(separator.join(row) + "\n" for row in (("a", "x", "5", "1"), ("b", "y", "4", "2")))
    assert rows_of(write(header + "\n" + body)) == [("a", "x", 5.0, 1.0), ("b", "y", 4.0, 2.0)]


def test_ids_keep_leading_zeros_and_stay_text(write):
    assert rows_of(write("user,item\n007,0012\n7,12\n")) == [("007", "0012"), ("7", "12")]


def test_named_columns_win_over_guesses(write):
    path = write("user,item,who,what\nu,i,a,x\nu,i,b,y\n")
    assert rows_of(path, user_column="who", item_column="what") == [("a", "x"), ("b", "y")]


def test_wrong_column_names_the_columns_there_are(write):
    with pytest.raises(DataError, match="has no column 'usr'; it has user, item, rating, timestamp") as caught:
        read_rows(write(GOOD), ReadOptions(user_column="usr"))
    assert caught.value.hint == "did you mean --user-column user?"


def test_one_column_for_two_roles_is_refused(write):
    with pytest.raises(DataError, match="two roles"):
        read_rows(write(GOOD), ReadOptions(user_column="item", item_column="item"))


def test_numbers_without_a_header_are_read_by_what_they_look_like_and_no_row_is_eaten(write):
    raw = read_rows(write("1,2,5\n1,3,4\n"))
    assert raw.frame.rows() == [(1, "1", "2", 5.0), (2, "1", "3", 4.0)]
    assert raw.report.notes == ("data.csv has no header line; it was read with --columns user,item,rating",)


def test_what_no_header_and_no_value_tells_is_asked_for_by_position(write):
    path = write("ann,Heat,x\nbob,Ran,y\n")
    with pytest.raises(DataError, match="no column looks like the user; it has ann, Heat, x") as caught:
        read_rows(path)
    assert "--columns user,item,rating,time names the fields in order" in caught.value.hint
    assert rows_of(path, columns="user,item,-") == [("ann", "Heat"), ("bob", "Ran")]
    assert rows_of(path, columns="user,item") == [("ann", "Heat"), ("bob", "Ran")]
    with pytest.raises(DataError, match="3 fields a line, and 4 columns were named"):
        read_rows(path, ReadOptions(columns="user,item,rating,time"))


def test_a_column_without_a_name_is_named_by_its_position(write):
    path = write("1,2,3,4\n1,3,4,4\n")
    assert rows_of(path, user_column="2", item_column="4") == [("2", "4"), ("3", "4")]


def test_bad_rows_are_counted_with_their_lines(write):
    path = write(
        "user,item,rating,timestamp\n"
        "1,10,5,100\n"
        "1,11,4\n"  # line 3: too few fields
        ",12,4,100\n"  # line 4: no user
        "\n"
        "1,13,good,100\n"  # line 6: not a number
        "1,14,nan,100\n"  # line 7
        "1,15,4,inf\n"  # line 8
        "1,16,4,\n"  # line 9: no time
        "1,17,4,100,9\n"  # line 10: too many fields
        "2,10,1,100\n"
    )
    raw = read_rows(path)
    assert raw.frame["line"].to_list() == [2, 11]
    report = raw.report
    assert (report.rows_read, report.malformed, report.missing, report.not_finite) == (9, 3, 2, 2)
    assert report.example_lines == {"malformed": (3, 6, 10), "missing": (4, 9), "not_finite": (7, 8)}


def test_strict_names_the_first_bad_line(write):
    with pytest.raises(DataError, match=r"data\.csv, line 3: wrong number of fields.*2 such rows"):
        read_rows(write("user,item\n1,2\n1\n1,3\n,4\n"), ReadOptions(strict=True))


def test_strict_accepts_a_clean_file(write):
    assert len(rows_of(write(GOOD), strict=True)) == 3


def test_quoted_fields_may_hold_separators_and_lines(write):
    path = write('user,item,rating\n"a, b",x,1\n"c\nd",y,2\ne,z\nf,"w ""q""",3\n')
    raw = read_rows(path)
    assert raw.frame.rows() == [(2, "a, b", "x", 1.0), (3, "c\nd", "y", 2.0), (6, "f", 'w "q"', 3.0)]
    assert raw.report.example_lines == {"malformed": (5,)}


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2023-11-14T22:13:20", 1_700_000_000.0),
        ("2023-11-14 22:13:20", 1_700_000_000.0),
        ("2023-11-14T22:13:20Z", 1_700_000_000.0),
        ("2023-11-15T00:13:20+02:00", 1_700_000_000.0),
        ("2023-11-14", 1_699_920_000.0),
        ("1700000000", 1_700_000_000.0),
        ("1700000000000", 1_700_000_000.0),
        ("1700000000000000000", 1_700_000_000.0),
    ],
)
def test_times_are_seconds_whatever_they_were(write, value, seconds):
    frame = read_rows(write(f"user,item,time\na,x,{value}\nb,y,{value}\n")).frame
    assert frame["moment"].to_list() == [seconds, seconds]


def test_unreadable_times_are_refused_with_an_example(write):
    with pytest.raises(DataError, match="neither numbers nor dates, for example last week"):
        read_rows(write("user,item,time\na,x,last week\nb,y,yesterday\n"))


def test_ranks_are_an_order_and_not_a_time(write):
    raw = read_rows(write("user,item,order\na,x,-1\na,y,0\n"))
    assert raw.has_time
    assert not raw.is_timestamp
    assert raw.frame["moment"].to_list() == [-1.0, 0.0]


def test_gzip_parquet_and_csv_read_alike(write, tmp_path):
    expected = rows_of(write(GOOD))
    assert rows_of(write(gzip.compress(GOOD.encode()), "data.csv.gz")) == expected
    table = pl.DataFrame(
        {"user": [1, 1, 2], "item": [10.0, 11.0, 10.0], "rating": [5, 4, 3], "timestamp": [100, 200, 300]}
    )
    table.write_parquet(tmp_path / "data.parquet")
    assert rows_of(tmp_path / "data.parquet") == expected


def test_parquet_dates_and_gaps_are_understood(tmp_path):
    path = tmp_path / "data.parquet"
    table = pl.DataFrame({"user": [1.0, None, 3.0], "item": ["a", "b", "c"], "when": ["2023-11-14T22:13:20"] * 3})
    table.with_columns(pl.col("when").str.to_datetime()).write_parquet(path)
    raw = read_rows(path, ReadOptions(time_column="when"))
    assert raw.frame.rows() == [(1, "1", "a", 1.7e9), (3, "3", "c", 1.7e9)]
    assert raw.report.example_lines == {"missing": (2,)}


def test_latin1_is_read_and_noted(write):
    raw = read_rows(write("user,item\na,Café\nb,Thé\n".encode("latin-1")))
    assert raw.frame["item"].to_list() == ["Café", "Thé"]
    assert raw.report.notes == ("data.csv is not UTF-8 (line 2); it was read as Latin-1",)


def test_windows_line_ends_and_byte_order_mark_do_not_matter(write):
    assert rows_of(write(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())) == rows_of(write(GOOD, "unix.csv"))
    assert rows_of(write(GOOD.encode("utf-16"), "utf16.csv")) == rows_of(write(GOOD, "unix.csv"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"user,item\n", "no rows"),
        (b"user,user,item\n1,2,3\n", "more than once"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "not a text"),
        (b"PAR1 and then nothing", "damaged Parquet"),
        (b"\x1f\x8b\x08broken", "damaged gzip"),
        (gzip.compress(b"user,item\n1,2\n" * 99, mtime=0)[:-20], "damaged gzip"),  # no time in a test's name
        (b"user,item\n1\n2\n", "none of the 2 rows has the 2 fields user, item"),
        (b"user,item\n,\n ,x\n", "none of its 2 rows can be used"),
        (b'user,item\n"1,2\n' + b"x" * 200_000, "none of the 2 rows has the 2 fields"),
    ],
)
def test_unusable_files_end_in_one_line_and_a_hint(write, content, message):
    with pytest.raises(DataError, match=message) as caught:
        read_rows(write(content))
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_missing_file_and_folder_are_told_apart(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_rows(tmp_path / "nothing.csv")
    with pytest.raises(DataError, match="is a folder"):
        read_rows(tmp_path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=100).map(lambda junk: b"user,item,rating,timestamp\n" + junk),
        st.binary(max_size=60).map(gzip.compress),
        st.binary(max_size=100).map(lambda junk: b"PAR1" + junk + b"PAR1"),
        st.text(alphabet='ab01,;|\t:"\n\r.- né', max_size=120).map(lambda text: ("user,item,time\n" + text).encode()),
    )
)
def test_no_bytes_end_in_a_traceback(tmp_path, content):
    path = tmp_path / "fuzz"
    path.write_bytes(content)
    refusal, raw = None, None
    try:
        raw = read_rows(path)
    except PalateError as error:
        refusal = error
    if raw is None:
        assert refusal.hint
        assert "\n" not in refusal.message
    else:
        dropped = raw.report.malformed + raw.report.missing + raw.report.not_finite
        assert len(raw.frame) + dropped == raw.report.rows_read


FIELD = st.text(alphabet="abc 01.é-", max_size=5)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(FIELD, min_size=1, max_size=4).filter(lambda row: ",".join(row).strip()), min_size=1))
def test_fast_path_equals_the_csv_module(tmp_path, rows):
    plain = "user,item,rating\nu,i,0\n" + "".join(",".join(row) + "\n" for row in rows)
    (tmp_path / "plain.csv").write_text(plain)
    (tmp_path / "quoted.csv").write_text(plain.replace("user", '"user"', 1))
    fast, slow = read_table(tmp_path / "plain.csv"), read_table(tmp_path / "quoted.csv")
    assert fast.frame.rows() == slow.frame.rows()
    assert fast.lines.to_list() == slow.lines.to_list()
    assert fast.malformed == slow.malformed


def test_a_frame_is_read_like_the_file(write):
    frame = pl.DataFrame({"user": [1, 1, 2], "item": [10, 11, 10], "rating": [5, 4, 3], "timestamp": [100, 200, 300]})
    from_file, from_frame = read_interactions(write(GOOD)), read_interactions(frame)
    assert from_frame.users == from_file.users
    assert from_frame.catalogue.ids == from_file.catalogue.ids
    for name in ("user", "item", "rating"):
        np.testing.assert_array_equal(getattr(from_frame, name), getattr(from_file, name))


@pytest.mark.parametrize("library", ["pandas", "pyarrow"])
def test_frames_of_other_libraries_are_read_too(write, library):
    module = pytest.importorskip(library, reason="optional: frames of other libraries")
    columns = {"user": ["007", "007", "b"], "item": [1.0, 2.0, 1.0], "rating": [5.0, None, 3.0]}
    frame = module.DataFrame(columns) if library == "pandas" else module.table(columns)
    raw = read_rows(frame)
    assert raw.frame.rows() == [(1, "007", "1", 5.0), (3, "b", "1", 3.0)]
    assert raw.report.missing == 1


def test_what_is_neither_file_nor_frame_is_refused():
    with pytest.raises(DataError, match="neither a file nor a frame"):
        read_interactions(42)
