"""A person's preferences on their own device, as rows of the current table; never sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from palate.client.vault.history import History, Interaction, Mark
from palate.data.ratings import weight_of
from palate.errors import ConfigError
from palate.models.arrays import Float32Array, Int32Array, Int64Array

Setting = Literal["pin", "mute"]
"""More of a facet, or less of it."""


@dataclass(frozen=True, eq=False)
class Preferences:
    """What counts now.

    Attributes
    ----------
    items
        Rows of what the person had or liked, without repeats, oldest first, int32 [n].
    strengths
        How much each of them counts, in (0, 1], float32 [n]; all alike where None.
    liked
        Those of them that were liked outright.
    disliked
        Rows that were disliked, or rated low, oldest first; none of them is in `items`.
    hidden
        Rows not to be shown.
    pinned, muted
        Names of facets; none is in both.
    """

    items: Int32Array
    strengths: Float32Array | None = None
    liked: frozenset[int] = frozenset()
    disliked: tuple[int, ...] = ()
    hidden: frozenset[int] = frozenset()
    pinned: tuple[str, ...] = ()
    muted: tuple[str, ...] = ()

    @cached_property
    def known(self) -> Int64Array:
        """Rows that are not recommended: had, disliked or hidden, in ascending order."""
        return np.array(sorted({*self.items.tolist(), *self.disliked, *self.hidden}), dtype=np.int64)


def read_preferences(
    interactions: Iterable[Interaction],
    marks: Mapping[str, Mark],
    settings: Mapping[str, Setting],
    rows: Mapping[str, int],
) -> tuple[Preferences, int]:
    """Read what counts, in rows of a table, from what the vault keeps, by keys of the catalogue.

    The vault names items by their public keys, which outlive a catalogue. What the catalogue of today does not list is
    kept in the vault and counted here, not dropped in silence. An item that was had again is the newest of the history.

    Parameters
    ----------
    interactions
        Oldest first; those that came as feedback are likes.
    marks
        What is disliked or hidden, by key.
    settings
        Facets that are pinned or muted, by name.
    rows
        Row of each key of the catalogue.

    Returns
    -------
    preferences, unknown
        What counts now, and how many of the items are not in this catalogue.
    """
    items: dict[int, float] = {}  # a dict keeps the order of insertion
    marked: dict[Mark, dict[int, None]] = {"dislike": {}, "hide": {}}
    liked, unknown = set(), set()
    for entry in interactions:
        row = rows.get(entry.item)
        if row is None:
            unknown.add(entry.item)
            continue
        items.pop(row, None)
        items[row] = entry.value
        if entry.source == "feedback":
            liked.add(row)
    for key, mark in marks.items():
        row = rows.get(key)
        if row is None:
            unknown.add(key)
        else:
            marked[mark][row] = None
    disliked = {row: None for row, value in items.items() if value < 0} | marked["dislike"]
    kept = {row: weight_of(value) for row, value in items.items() if row not in disliked}
    found = Preferences(
        items=np.array([*kept], dtype=np.int32),
        strengths=np.array([*kept.values()], dtype=np.float32),
        liked=frozenset(liked - disliked.keys()),
        disliked=tuple(disliked),
        hidden=frozenset(marked["hide"]),
        pinned=tuple(name for name, setting in settings.items() if setting == "pin"),
        muted=tuple(name for name, setting in settings.items() if setting == "mute"),
    )
    return found, len(unknown)


def record(
    history: History, action: Literal["had", "like", "dislike", "hide", "forget"], item: str, *, time: int | None
) -> int:
    """Keep a piece of feedback in the vault.

    Parameters
    ----------
    history
        Of an open vault.
    action
        What was said about the item.
    item
        Its key.
    time
        Seconds since 1970.

    Returns
    -------
    int
        Steps that undo it: pass them to `History.undo`. 0 where it was so already.

    Raises
    ------
    ConfigError
        If the action is unknown.
    """
    marked = history.marks().get(item)
    if action == "hide" and marked == "dislike":  # it is not shown as it is; one mark would take the other's place
        return 0
    if action in ("dislike", "hide"):
        history.mark(item, action)
        return int(marked != action)
    if action == "forget":
        removed = history.remove_item(item)
        history.mark(item, None)
        return int(removed > 0) + int(marked is not None)
    if action not in ("had", "like"):
        raise ConfigError(f"feedback {action!r} is unknown", hint="use had, like, dislike, hide or forget")
    steps = 1
    if marked is not None and (action == "like" or marked == "hide"):
        history.mark(item, None)
        steps += 1
    history.add(item, 1.0, time, "feedback" if action == "like" else "hand")
    return steps
