"""Cleaning: what is kept is what the rules say, in the order that the split relies on."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.data.interactions import CleaningReport, RawInteractions, clean, k_core, newest_of_each_pair
from palate.data.options import ReadOptions
from palate.errors import ConfigError, DataError


def raw(rows, *, timed=True):
    """Rows (user, item, rating, moment)."""
    frame = pl.DataFrame(rows, schema=["user", "item", "rating", "moment"], orient="row").with_columns(
        pl.col("rating", "moment").cast(pl.Float64), pl.int_range(2, len(rows) + 2, dtype=pl.Int64).alias("line")
    )
    return RawInteractions(frame if timed else frame.drop("moment"), timed, timed, CleaningReport(rows_read=len(rows)))


ROWS = [("u", "b", 5, 30), ("v", "a", 4, 5), ("u", "a", 1, 10), ("u", "c", 3, 10), ("v", "b", 2, 7)]


def test_ids_are_numbered_by_first_appearance_and_rows_sorted_by_user_and_time():
    data = clean(raw(ROWS), name="t")
    assert data.users == ("u", "v")
    assert data.catalogue.ids == ("b", "a", "c")
    assert data.user.tolist() == [0, 0, 0, 1, 1]
    assert data.item.tolist() == [1, 2, 0, 1, 0]  # a and c tie and keep the file's order
    assert data.rating.tolist() == [1, 3, 5, 4, 2]
    assert data.time_range == (5.0, 30.0)
    assert (data.user.dtype, data.item.dtype, data.rating.dtype) == (np.int32, np.int32, np.float32)


def test_without_times_the_order_is_the_files():
    data = clean(raw(ROWS, timed=False), name="t")
    assert data.item.tolist() == [0, 1, 2, 1, 0]
    assert not data.has_time
    assert data.time_range is None


def test_latest_of_duplicates_is_kept_and_the_others_located():
    data = clean(raw([*ROWS, ("u", "b", 2, 1), ("v", "b", 3, 7)]), name="t")
    assert data.report.duplicates == 2
    assert data.report.example_lines["duplicates"] == (6, 7)  # the older row; of equally old ones the earlier line
    assert data.rating.tolist() == [1, 3, 5, 4, 3]


def test_minimum_rating_drops_before_everything_else():
    data = clean(raw([*ROWS, ("u", "b", 1, 99)]), name="t", options=ReadOptions(min_rating=2))
    assert data.report.below_rating == 2
    assert data.report.duplicates == 0
    assert len(data.item) == 4


def test_minimum_rating_without_ratings_is_refused():
    bare = raw(ROWS)
    bare = RawInteractions(bare.frame.drop("rating"), True, True, bare.report)
    with pytest.raises(DataError, match="no rating column"):
        clean(bare, name="t", options=ReadOptions(min_rating=2))


def test_k_core_is_iterated_and_counted():
    # w has two items, but one of them is w's alone: the item goes, then w, then nothing else.
    rows = [("u", "a", 1, 1), ("u", "b", 1, 2), ("v", "a", 1, 1), ("v", "b", 1, 2), ("w", "a", 1, 1), ("w", "z", 1, 2)]
    data = clean(raw(rows), name="t", options=ReadOptions(min_user=2, min_item=2))
    assert data.users == ("u", "v")
    assert data.catalogue.ids == ("a", "b")
    assert data.report.below_core == 2


pairs = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40, unique=True)


@given(pairs, st.integers(1, 4), st.integers(1, 4))
def test_k_core_keeps_exactly_the_largest_core(rows, min_user, min_item):
    frame = pl.DataFrame(rows, schema={"user": pl.Int64, "item": pl.Int64}, orient="row")
    kept = k_core(frame, min_user=min_user, min_item=min_item)
    alive = set(rows)
    while True:  # one row at a time: slow and plainly right
        bad = {
            (u, i)
            for u, i in alive
            if sum(u == other for other, _ in alive) < min_user or sum(i == other for _, other in alive) < min_item
        }
        if not bad:
            break
        alive -= {next(iter(bad))}
    assert kept.rows() == [row for row in rows if row in alive]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=30))
def test_one_row_of_each_pair_survives_and_it_is_the_newest(rows):
    frame = pl.DataFrame(rows, schema=dict.fromkeys(("user", "item", "moment"), pl.Int64), orient="row")
    kept = newest_of_each_pair(frame.with_row_index("at"))
    best = {}
    for at, (u, i, when) in enumerate(rows):
        if (u, i) not in best or when >= rows[best[u, i]][2]:
            best[u, i] = at
    assert sorted(kept["at"].to_list()) == sorted(best.values())


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("u", "a", 1, 1), ("u", "b", 1, 2)], "1 users"),
        ([("u", "a", 1, 1), ("v", "a", 1, 2)], "1 items"),
        ([("u", "a", 1, 1), ("v", "b", 1, 2)], "nothing can be held out"),
    ],
)
def test_data_without_anything_shared_is_refused(rows, message):
    with pytest.raises(DataError, match=message):
        clean(raw(rows), name="t")


def test_limits_that_leave_nothing_are_named():
    with pytest.raises(DataError, match="0 users after min_user 50") as caught:
        clean(raw(ROWS), name="t", options=ReadOptions(min_user=50))
    assert caught.value.hint == "lower the limits"


def test_options_out_of_range_name_the_flag():
    with pytest.raises(ConfigError, match="--min-user 0"):
        ReadOptions.checked(min_user=0)
    with pytest.raises(ConfigError, match="--min-rating nan"):
        ReadOptions.checked(min_rating=float("nan"))


def test_given_options_win_over_defaults():
    merged = ReadOptions(min_user=3).over(ReadOptions(min_user=5, min_item=7, strict=True))
    assert (merged.min_user, merged.min_item, merged.strict) == (3, 7, True)
