"""What a person said, folded: the last word wins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.client.recommending.preferences import ITEM_ACTIONS, Event, preferences
from palate.errors import ConfigError

EVENTS = st.lists(st.builds(Event, st.sampled_from(sorted(ITEM_ACTIONS)), st.integers(0, 5)), max_size=20)


@given(EVENTS)
def test_no_item_is_both_in_the_history_and_disliked_and_none_is_there_twice(events):
    told = preferences(events)
    items = told.items.tolist()
    assert len(set(items)) == len(items)
    assert not set(items) & set(told.disliked)
    assert told.liked <= set(items)
    assert set(told.known.tolist()) == {*items, *told.disliked, *told.hidden}


def test_the_last_word_about_an_item_wins():
    told = preferences([Event("had", 1), Event("dislike", 1), Event("had", 1), Event("hide", 2), Event("like", 2)])
    assert told.disliked == (1,)
    assert told.items.tolist() == [2]
    assert told.liked == {2}
    assert not told.hidden


def test_a_like_makes_an_item_the_newest_of_the_history():
    assert preferences([Event("had", 1), Event("had", 2), Event("like", 1)]).items.tolist() == [2, 1]


def test_a_facet_is_pinned_or_muted():
    events = [Event("pin", facet="genre: War"), Event("mute", facet="genre: War"), Event("pin", facet="decade: 1990s")]
    told = preferences(events)
    assert (told.pinned, told.muted) == (("decade: 1990s",), ("genre: War",))


@pytest.mark.parametrize("wrong", [("had", -1, ""), ("pin", 3, ""), ("like", 2, "genre: War"), ("love", 2, "")])
def test_an_event_that_is_about_nothing_or_two_things_is_refused(wrong):
    with pytest.raises(ConfigError, match="feedback"):
        Event(*wrong)
