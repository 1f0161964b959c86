"""Groups of users: who belongs where."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from palate.simulation.bands import accuracy_by, by_activity, by_label, by_popularity


def groups_of_users(groups):
    """The one group of each user; every user is in exactly one."""
    assert (np.sum(list(groups.values()), axis=0) == 1).all()
    return [list(groups)[place] for place in np.argmax(list(groups.values()), axis=0)]


def test_activity_bands_are_quartiles_named_by_their_range():
    found = by_activity(np.arange(1, 9))
    names = ["1 to 2 interactions", "3 to 4 interactions", "5 to 6 interactions", "7 to 8 interactions"]
    assert groups_of_users(found) == [name for name in names for _ in range(2)]
    assert list(found) == names


def test_users_of_equal_activity_stay_together():
    found = by_activity(np.array([1, 1, 1, 1, 1, 9]))
    assert groups_of_users(found) == 5 * ["1 interaction"] + ["9 interactions"]


@given(hnp.arrays(np.int64, st.integers(1, 50), elements=st.integers(0, 12)))
def test_more_active_users_are_never_in_a_lower_band_and_no_band_is_empty(lengths):
    found = by_activity(lengths)
    places = np.array([list(found).index(name) for name in groups_of_users(found)])
    assert (np.diff(places[np.argsort(lengths)]) >= 0).all()
    assert all(inside.any() for inside in found.values())


def test_popularity_bands_are_cut_at_half_and_four_fifths_of_the_interactions():
    counts = np.array([1, 30, 20, 9, 20, 20, 0])
    found = by_popularity(counts, np.arange(7, dtype=np.int32))
    assert groups_of_users(found) == ["tail", "head", "head", "tail", "mid", "mid", "tail"]


def test_one_item_with_everything_is_head():
    found = by_popularity(np.array([0, 10, 0]), np.array([1, 0], dtype=np.int32))
    assert groups_of_users(found) == ["head", "tail"]


def test_groups_without_users_are_left_out():
    groups = by_popularity(np.array([10, 1]), np.array([0, 0], dtype=np.int32))
    ranks = np.array([0, 50], dtype=np.int32)
    bands = accuracy_by(groups, ranks, ranks, top_k=10)
    assert [(band.label, band.sampled.hit_rate.value, band.users) for band in bands] == [("head", 0.5, 2)]


def test_labels_group_equal_texts():
    found = by_label(["b", "a", "b"])
    assert (list(found), groups_of_users(found)) == (["a", "b"], ["b", "a", "b"])
