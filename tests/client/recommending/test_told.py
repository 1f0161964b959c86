"""The vault's keys as rows, and feedback that can be taken back."""

import pytest

from palate.client.recommending.told import record, told
from palate.client.vault.history import Interaction
from palate.models.errors import ConfigError

ROWS = {"a": 0, "b": 1, "c": 2, "d": 3}


class Memory:
    """A history in memory that counts its steps, as the vault's journal does."""

    def __init__(self) -> None:
        self.entries: list[Interaction] = []
        self.marked: dict[str, str] = {}
        self.steps: list[tuple] = []

    def _note(self) -> None:
        self.steps.append((list(self.entries), dict(self.marked)))

    def add(self, item, value=1.0, time=None, source="hand"):
        self._note()
        self.entries.append(Interaction(item=item, value=value, time=time, source=source))
        return len(self.entries)

    def remove_item(self, item):
        kept = [entry for entry in self.entries if entry.item != item]
        removed = len(self.entries) - len(kept)
        if removed:
            self._note()
        self.entries = kept
        return removed

    def mark(self, item, kind):
        if self.marked.get(item) != kind:
            self._note()
        self.marked.pop(item, None)
        if kind:
            self.marked[item] = kind

    def marks(self):
        return dict(self.marked)

    def undo(self, steps: int) -> None:
        for _ in range(steps):
            self.entries, self.marked = self.steps.pop()

    def told(self):
        found = told(self.entries, self.marked, {}, ROWS).preferences
        return found.items.tolist(), sorted(found.liked), found.disliked, sorted(found.hidden)


def test_what_the_vault_holds_is_read_in_rows_and_strangers_are_counted():
    found = told(
        [Interaction(item="b"), Interaction(item="gone"), Interaction(item="a", source="feedback")],
        {"c": "dislike", "d": "hide", "lost": "hide"},
        {"genre: War": "mute"},
        ROWS,
    )
    assert found.unknown == 2
    assert found.preferences.items.tolist() == [1, 0]
    assert found.preferences.liked == {0}
    assert (found.preferences.disliked, found.preferences.hidden) == ((2,), {3})
    assert found.preferences.muted == ("genre: War",)


@pytest.mark.parametrize("action", ["had", "like", "dislike", "hide", "forget"])
@pytest.mark.parametrize("before", [(), ("had",), ("dislike",), ("hide",), ("had", "hide"), ("like", "dislike")])
def test_every_feedback_is_undone_by_the_steps_that_it_names(action, before):
    store = Memory()
    for said in before:
        record(store, said, "b", time=None)
    earlier = store.told()
    store.undo(record(store, action, "b", time=7))
    assert store.told() == earlier


def test_feedback_means_what_it_says():
    store = Memory()
    record(store, "dislike", "b", time=1)
    assert store.told() == ([], [], (1,), [])
    record(store, "like", "b", time=2)
    assert store.told() == ([1], [1], (), [])
    record(store, "hide", "b", time=3)
    assert store.told() == ([1], [1], (), [1])
    record(store, "forget", "b", time=4)
    assert store.told() == ([], [], (), [])


def test_unknown_feedback_is_refused():
    with pytest.raises(ConfigError, match="unknown"):
        record(Memory(), "adore", "b", time=None)
