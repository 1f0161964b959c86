"""The vault's keys as rows, and feedback that can be taken back."""

import pytest

from palate.client.recommending.preferences import read_preferences, record
from palate.client.vault import Vault
from palate.client.vault.history import History, Interaction
from palate.errors import ConfigError

ROWS = {"a": 0, "b": 1, "c": 2, "d": 3}


@pytest.fixture
def history(tmp_path):
    with Vault.create(tmp_path / "device", keyring="file") as vault:
        yield History(vault)


def said_by(history):
    found, _ = read_preferences((entry for _, entry in history.in_order()), history.marks(), {}, ROWS)
    return found.items.tolist(), sorted(found.liked), found.disliked, sorted(found.hidden)


def test_what_the_vault_holds_is_read_in_rows_and_strangers_are_counted():
    found, unknown = read_preferences(
        [Interaction(item="b"), Interaction(item="gone"), Interaction(item="a", source="feedback")],
        {"c": "dislike", "d": "hide", "lost": "hide"},
        {"genre: War": "mute"},
        ROWS,
    )
    assert unknown == 2
    assert found.items.tolist() == [1, 0]
    assert found.liked == {0}
    assert (found.disliked, found.hidden) == ((2,), {3})
    assert found.muted == ("genre: War",)


@pytest.mark.parametrize("action", ["had", "like", "dislike", "hide", "forget"])
@pytest.mark.parametrize("before", [(), ("had",), ("dislike",), ("hide",), ("had", "hide"), ("like", "dislike")])
def test_every_feedback_is_undone_by_the_steps_that_it_names(history, action, before):
    for said in before:
        record(history, said, "b", time=None)
    earlier = said_by(history)
    history.undo(record(history, action, "b", time=7))
    assert said_by(history) == earlier


def test_feedback_means_what_it_says(history):
    record(history, "dislike", "b", time=1)
    assert said_by(history) == ([], [], (1,), [])
    record(history, "like", "b", time=2)
    assert said_by(history) == ([1], [1], (), [])
    record(history, "hide", "b", time=3)
    assert said_by(history) == ([1], [1], (), [1])
    record(history, "forget", "b", time=4)
    assert said_by(history) == ([], [], (), [])


def test_hiding_what_is_disliked_unsays_nothing(history):
    record(history, "dislike", "b", time=1)
    assert record(history, "hide", "b", time=2) == 0
    assert said_by(history) == ([], [], (1,), [])


def test_unknown_feedback_is_refused(history):
    with pytest.raises(ConfigError, match="unknown"):
        record(history, "adore", "b", time=None)
