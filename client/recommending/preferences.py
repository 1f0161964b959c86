"""What a person told their own device, as a list of events; what counts now is a fold over it, so undo drops the last.

Nothing here is ever sent. An event names an item by its row in the table, or a facet by its name (`facets.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from palate.client.vault.history import History, Interaction, Mark
from palate.errors import ConfigError
from palate.models.arrays import Int32Array, Int64Array

Action = Literal["had", "like", "dislike", "hide", "pin", "mute"]
"""About an item: `had` it, `like`, `dislike`, `hide` (do not show, learn nothing). About a facet: `pin` (more of it),
`mute` (less of it). What is taken back or forgotten leaves no event."""

Setting = Literal["pin", "mute"]

ITEM_ACTIONS = frozenset({"had", "like", "dislike", "hide"})


@dataclass(frozen=True)
class Event:
    """One thing that a person said.

    Attributes
    ----------
    action
        What was said.
    item
        Row of the item, for actions about items.
    facet
        Name of the facet, for actions about facets.
    """

    action: Action
    item: int = -1
    facet: str = ""

    def __post_init__(self) -> None:
        if self.action not in get_args(Action):
            raise ConfigError(
                f"feedback is {self.action!r}, which is none that is known", hint=f"use {', '.join(get_args(Action))}"
            )
        about_item = self.action in ITEM_ACTIONS
        if about_item != (self.item >= 0) or about_item == bool(self.facet):
            raise ConfigError(
                f"feedback {self.action!r} has item {self.item} and facet {self.facet!r}, it needs just one of them",
                hint="name an item to had, like, dislike and hide; a facet to pin and mute",
            )


@dataclass(frozen=True, eq=False)
class Preferences:
    """What counts now.

    Attributes
    ----------
    items
        Rows of what the person had or liked, without repeats, oldest first, int32 [n].
    liked
        Those of them that were liked outright.
    disliked
        Rows that were disliked, oldest first; none of them is in `items`.
    hidden
        Rows not to be shown.
    pinned, muted
        Names of facets; none is in both.
    """

    items: Int32Array
    liked: frozenset[int] = frozenset()
    disliked: tuple[int, ...] = ()
    hidden: frozenset[int] = frozenset()
    pinned: tuple[str, ...] = ()
    muted: tuple[str, ...] = ()

    @cached_property
    def known(self) -> Int64Array:
        """Rows that are not recommended: had, disliked or hidden, in ascending order."""
        return np.array(sorted({*self.items.tolist(), *self.disliked, *self.hidden}), dtype=np.int64)


def preferences(events: Iterable[Event]) -> Preferences:
    """Fold events, oldest first, into what counts now; the last word about an item or a facet wins.

    Having had an item again, or liking what one had, makes it the newest of the history: that is the taste of now.
    Having had a disliked item again does not unsay the dislike; `like` does.
    """
    kept: dict[int, None] = {}  # a dict keeps the order of insertion
    liked: set[int] = set()
    disliked: dict[int, None] = {}
    hidden: set[int] = set()
    facets: dict[str, str] = {}
    for event in events:
        item = event.item
        if event.action in ("pin", "mute"):
            facets.pop(event.facet, None)
            facets[event.facet] = event.action
        elif event.action == "hide":
            hidden.add(item)
        elif event.action == "had":
            if item not in disliked:
                kept.pop(item, None)
                kept[item] = None
        else:
            kept.pop(item, None)
            disliked.pop(item, None)
            liked.discard(item)
            hidden.discard(item)
            if event.action == "like":
                kept[item] = None
                liked.add(item)
            else:
                disliked[item] = None
    return Preferences(
        items=np.array(list(kept), dtype=np.int32),
        liked=frozenset(liked),
        disliked=tuple(disliked),
        hidden=frozenset(hidden),
        pinned=tuple(name for name, action in facets.items() if action == "pin"),
        muted=tuple(name for name, action in facets.items() if action == "mute"),
    )


def read_preferences(
    interactions: Iterable[Interaction],
    marks: Mapping[str, Mark],
    settings: Mapping[str, Setting],
    rows: Mapping[str, int],
) -> tuple[Preferences, int]:
    """Read what counts, in rows of a table, from what the vault keeps, by keys of the catalogue.

    The vault names items by their public keys, which outlive a catalogue. What the catalogue of today does not list is
    kept in the vault and counted here, not dropped in silence.

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
    events, unknown = [], set()
    for entry in interactions:
        if entry.item in rows:
            events.append(Event("like" if entry.source == "feedback" else "had", rows[entry.item]))
        else:
            unknown.add(entry.item)
    for item, mark in marks.items():
        if item in rows:
            events.append(Event(mark, rows[item]))
        else:
            unknown.add(item)
    events += [Event(setting, facet=facet) for facet, setting in settings.items()]
    return preferences(events), len(unknown)


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
