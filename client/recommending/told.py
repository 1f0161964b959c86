"""From what the vault keeps to what the models understand, and back: keys of the catalogue against rows of a table.

The vault names items by their public keys, which outlive a catalogue; the models name them by row. What the catalogue
of today does not list is kept in the vault and counted here, not dropped in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from palate.client.recommending.preferences import Event, Preferences, preferences
from palate.client.vault.history import History, Interaction, Mark
from palate.errors import ConfigError

Setting = Literal["pin", "mute"]


@dataclass(frozen=True)
class Told:
    """What the vault holds, in rows.

    Attributes
    ----------
    preferences
        What counts now.
    unknown
        How many of the items are not in this catalogue.
    """

    preferences: Preferences
    unknown: int


def told(
    interactions: Iterable[Interaction],
    marks: Mapping[str, Mark],
    settings: Mapping[str, Setting],
    rows: Mapping[str, int],
) -> Told:
    """Read what counts.

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
    return Told(preferences(events), len(unknown))


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
