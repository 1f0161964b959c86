"""A history keeps order and numbers, and every change of it can be taken back."""

from __future__ import annotations

import math
from dataclasses import asdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palate.client.vault import HISTORY, Vault
from palate.client.vault.errors import EntryRefused
from palate.client.vault.history import BLOCK, UNDO_STEPS, History, Interaction


@pytest.fixture
def history(vault):
    return History(vault)


def items(history):
    return [entry.item for _, entry in history.in_order()]


def test_what_is_added_comes_back_in_order_after_opening_again(vault, folder, history):
    assert history.add("film-1", 4.5, 1_700_000_000, "import") == 0
    assert history.add("größe", 1) == 1
    vault.close()
    with Vault.open(folder) as again:
        assert History(again).in_order() == [
            (0, Interaction(item="film-1", value=4.5, time=1_700_000_000, source="import")),
            (1, Interaction(item="größe", value=1.0, time=None, source="hand")),
        ]


def test_time_orders_and_what_has_none_stays_behind_its_predecessor(history):
    for item, time in [("c", 30), ("c+", None), ("a", 10), ("a+", None), ("b", 20), ("b too", 20)]:
        history.add(item, time=time)
    assert items(history) == ["a", "a+", "b", "b too", "c", "c+"]


def test_without_any_times_the_order_is_that_of_adding(history):
    history.add_many([Interaction(item=f"{number}") for number in range(3 * BLOCK)])
    assert items(history) == [f"{number}" for number in range(3 * BLOCK)]


@pytest.mark.parametrize(
    "fields",
    [
        {"item": ""}, {"item": "x" * 201}, {"item": "a\nb"}, {"item": 5}, {"value": math.nan}, {"value": math.inf},
        {"value": "4"}, {"value": True}, {"time": -1}, {"time": 1.5}, {"time": 2**53}, {"source": "server"},
    ],
)  # fmt: skip
def test_what_is_no_interaction_is_refused(history, fields):
    with pytest.raises(EntryRefused) as caught:
        Interaction(**{"item": "a", **fields})
    assert caught.value.hint
    assert "x" * 201 not in caught.value.message
    assert history.in_order() == []


def test_an_import_is_all_or_nothing_and_one_step_back(vault, history):
    history.add("before")

    def broken():
        yield Interaction(item="a")
        raise EntryRefused("line 2", hint="")

    with pytest.raises(EntryRefused):
        history.add_many(broken())
    assert items(history) == ["before"]
    assert history.add_many([]) == []
    history.add_many([Interaction(item=f"{number}", source="import") for number in range(200)])
    assert len(items(history)) == 201
    assert history.undo()
    assert items(history) == ["before"]
    assert list(vault.entries(HISTORY)) == ["block-000000", "journal"]


def test_removing_takes_all_of_an_item_and_is_one_step(history):
    history.add_many([Interaction(item=item) for item in "abcb"])
    assert history.remove_item("a") == 1
    assert items(history) == ["b", "c", "b"]
    assert history.remove_item("b") == 2
    assert history.remove_item("b") == 0
    assert items(history) == ["c"]
    assert history.undo(2)
    assert items(history) == ["a", "b", "c", "b"]


def test_a_number_is_never_given_twice(history):
    history.add("a")
    history.undo()
    assert history.add("b") == 1


def test_marks_can_be_set_changed_lifted_and_taken_back(history):
    history.mark("a", "dislike")
    history.mark("b", "hide")
    history.mark("a", "hide")
    history.mark("a", "hide")  # changes nothing, and is no step
    assert history.marks() == {"a": "hide", "b": "hide"}
    history.mark("b", None)
    assert history.marks() == {"a": "hide"}
    assert history.undo(2)
    assert history.marks() == {"a": "dislike", "b": "hide"}
    assert not history.undo(3)
    assert history.marks() == {"a": "dislike", "b": "hide"}
    assert history.undo(2)
    assert history.marks() == {}
    with pytest.raises(EntryRefused):
        history.mark("a", "love")
    with pytest.raises(EntryRefused):
        history.mark("", "hide")


def test_so_many_steps_are_kept_and_no_more(history):
    for number in range(UNDO_STEPS + 5):
        history.add(f"{number}")
    assert not history.undo(UNDO_STEPS + 1)
    assert history.undo(UNDO_STEPS)
    assert items(history) == ["0", "1", "2", "3", "4"]


def test_what_was_removed_is_nowhere_once_the_steps_are_dropped(vault, history):
    history.add("secret film")
    history.add("other")
    history.remove_item("secret film")
    assert "secret film" in str(vault.export())
    history.forget_steps()
    assert "secret film" not in str(vault.export())
    assert not history.undo()
    assert items(history) == ["other"]


changes = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("abc"), st.none() | st.integers(0, 50)),
        st.tuples(st.just("import"), st.integers(1, 150)),
        st.tuples(st.just("remove_item"), st.sampled_from(["a", "b", "1"])),
        st.tuples(st.just("mark"), st.sampled_from("ab"), st.sampled_from(["hide", "dislike", None])),
    ),
    max_size=8,
)


@given(changes=changes)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_taking_back_leads_through_every_earlier_state(vault, changes):
    for name in vault.entries(HISTORY):
        vault.delete(HISTORY, name)
    history = History(vault)

    def state():
        return [(number, asdict(entry)) for number, entry in history.in_order()], history.marks()

    states = [state()]
    for change in changes:
        match change:
            case ("add", item, time):
                history.add(item, time=time)
            case ("import", count):
                history.add_many([Interaction(item=f"{number}") for number in range(count)])
            case ("remove_item", item):
                history.remove_item(item)
            case ("mark", item, kind):
                history.mark(item, kind)
        if state() != states[-1]:
            states.append(state())
    while len(states) > 1:
        assert state() == states.pop()
        assert history.undo()
    assert state() == states[0] == ([], {})
    assert not history.undo()
