"""What a person said, in rows of a table: what was had again is newest, and what is disliked is not liked."""

from hypothesis import given
from hypothesis import strategies as st

from .conftest import preferences_of

SAID = st.lists(st.tuples(st.sampled_from(["had", "like", "dislike", "hide"]), st.integers(0, 5)), max_size=20)


@given(SAID)
def test_no_item_is_both_in_the_history_and_disliked_and_none_is_there_twice(said):
    told = preferences_of(said)
    items = told.items.tolist()
    assert len(set(items)) == len(items)
    assert not set(items) & set(told.disliked)
    assert told.liked <= set(items)
    assert set(told.known.tolist()) == {*items, *told.disliked, *told.hidden}


def test_a_like_makes_an_item_the_newest_of_the_history():
    assert preferences_of([("had", 1), ("had", 2), ("like", 1)]).items.tolist() == [2, 1]


def test_a_facet_is_pinned_or_muted():
    told = preferences_of([("pin", "genre: War"), ("mute", "genre: Horror"), ("pin", "decade: 1990s")])
    assert (told.pinned, told.muted) == (("genre: War", "decade: 1990s"), ("genre: Horror",))
