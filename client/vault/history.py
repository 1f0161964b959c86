"""History: what the owner watched, read or bought, what they dislike or hide, and how to take a step back.

Interactions lie in sealed blocks of 64, found by their number, so that adding one seals one block anew and a thief
learns from the number of rows no more than the length of a history to the next 64. Items go by their key in the public
catalogue, which outlives versions of it; row numbers do not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, get_args

from palate.client.vault.errors import EntryRefused
from palate.client.vault.purposes import HISTORY
from palate.client.vault.records import Record
from palate.client.vault.store import Vault

Source = Literal["import", "hand", "feedback"]
Mark = Literal["dislike", "hide"]

BLOCK = 64
UNDO_STEPS = 32
MAX_KEY_LENGTH = 200
MAX_TIME = (1 << 53) - 1

_BLOCK = "block-"
_SOURCES: Final = get_args(Source)
_MARK_KINDS: Final = get_args(Mark)


def _compact(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, separators=(",", ":"), allow_nan=False).encode("ascii")


_JOURNAL: Final = Record[dict[str, Any]](HISTORY, "journal", _compact)
_MARKS: Final = Record[dict[str, Mark]](HISTORY, "marks", _compact)


@dataclass(frozen=True, kw_only=True)
class Interaction:
    """One entry of a history.

    Attributes
    ----------
    item
        Key of the item in the public catalogue, 1 to 200 printable characters.
    value
        What it says about the item: 1.0 for "it happened", 1 to 2 for a rating, below 0 for a dislike
        (`palate.data.ratings`); finite.
    time
        Seconds since 1970, or None where nobody knows.
    source
        Where it comes from: a file, the owner's hand, or feedback on a recommendation.

    Raises
    ------
    EntryRefused
        If a field is none of that.
    """

    item: str
    value: float = 1.0
    time: int | None = None
    source: Source = "hand"

    def __post_init__(self) -> None:
        _check_item(self.item)
        if type(self.value) not in {int, float} or not math.isfinite(self.value):
            raise EntryRefused("the value of an interaction is not a finite number", hint="give a rating, or 1.0")
        if self.time is not None and (type(self.time) is not int or not 0 <= self.time <= MAX_TIME):
            raise EntryRefused("the time of an interaction is not 0 ... 2^53-1 whole seconds", hint="leave it out")
        if self.source not in _SOURCES:
            raise EntryRefused(f"the source of an interaction is none of {', '.join(_SOURCES)}", hint="use one of them")


class History:
    """The owner's interactions and marks in a vault; every change is one transaction and can be undone.

    Parameters
    ----------
    vault
        An open vault.
    """

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def __repr__(self) -> str:
        return "History(<sealed>)"

    def add(self, item: str, value: float = 1.0, time: int | None = None, source: Source = "hand") -> int:
        """Add one interaction and return its number; raises as `Interaction`."""
        return self.add_many([Interaction(item=item, value=value, time=time, source=source)])[0]

    def add_many(self, interactions: Iterable[Interaction], *, replacing: Iterable[int] = ()) -> list[int]:
        """Add interactions as one step, in this order.

        Parameters
        ----------
        interactions
            What to add.
        replacing
            Numbers of those that they take the place of; `undo` brings them back.

        Returns
        -------
        list of int
            Their numbers, which are never used again.
        """
        interactions = list(interactions)
        if not interactions:
            return []
        with self._vault.transaction():
            replaced = self._take(replacing)
            journal = self._journal()
            first = int(journal["next"])
            numbered = {first + place: asdict(entry) for place, entry in enumerate(interactions)}
            self._insert(numbered)
            journal["next"] = first + len(interactions)
            step = {"did": "add", "first": first, "count": len(interactions)}
            self._note(journal, {**step, "entries": replaced} if replaced else step)
            return list(numbered)

    def remove_item(self, item: str) -> int:
        """Take all interactions with an item out, as one step, and return how many there were."""
        with self._vault.transaction():
            taken = self._take([number for number, entry in self._all().items() if entry["item"] == item])
            if taken:
                self._note(self._journal(), {"did": "remove", "entries": taken})
            return len(taken)

    def mark(self, item: str, kind: Mark | None) -> None:
        """Dislike or hide an item, or with None neither any more.

        Raises
        ------
        EntryRefused
            If the item's key cannot be one, or the kind is unknown.
        """
        _check_item(item)
        if kind is not None and kind not in _MARK_KINDS:
            raise EntryRefused(f"a mark is none of {', '.join(_MARK_KINDS)}", hint="use one of them, or None")
        with self._vault.transaction():
            before = self._set_mark(item, kind)
            if before != kind:
                self._note(self._journal(), {"did": "mark", "item": item, "before": before})

    def marks(self) -> dict[str, Mark]:
        """Return what is disliked or hidden, by item."""
        return _MARKS.read(self._vault) or {}

    def in_order(self) -> list[tuple[int, Interaction]]:
        """List interactions with their numbers, oldest first.

        One without a time stands right behind the one it was added after.
        """
        latest, placed = -1, []
        for number, entry in sorted(self._all().items()):
            latest = latest if entry["time"] is None else entry["time"]
            placed.append((latest, number, Interaction(**entry)))
        return [(number, entry) for _, number, entry in sorted(placed, key=lambda row: row[:2])]

    def undo(self, steps: int = 1) -> bool:
        """Take back the last changes, all of them or none: what took several steps is not left half done.

        Parameters
        ----------
        steps
            How many; an import is one. The last 32 are kept.

        Returns
        -------
        bool
            Whether there were as many to take back.
        """
        with self._vault.transaction():
            journal = self._journal()
            if len(journal["steps"]) < steps:
                return False
            for _ in range(steps):
                self._revert(journal["steps"].pop())
            _JOURNAL.write(self._vault, journal)
            return True

    def forget_steps(self) -> None:
        """Drop what `undo` needs; what was removed is then nowhere in the vault any more."""
        with self._vault.transaction():
            journal = self._journal()
            journal["steps"] = []
            _JOURNAL.write(self._vault, journal)
        self._vault.scrub()

    def _revert(self, step: Mapping[str, Any]) -> None:
        match step["did"]:
            case "add":
                self._take(range(step["first"], step["first"] + step["count"]))
                self._insert({int(number): entry for number, entry in step.get("entries", {}).items()})
            case "remove":
                self._insert({int(number): entry for number, entry in step["entries"].items()})
            case "mark":
                self._set_mark(step["item"], step["before"])

    def _note(self, journal: dict[str, Any], step: Mapping[str, Any]) -> None:
        journal["steps"] = [*journal["steps"], step][-UNDO_STEPS:]
        _JOURNAL.write(self._vault, journal)

    def _journal(self) -> dict[str, Any]:
        return _JOURNAL.read(self._vault) or {"next": 0, "steps": []}

    def _set_mark(self, item: str, kind: Mark | None) -> Mark | None:
        marks = self.marks()
        before = marks.pop(item, None)
        if kind is not None:
            marks[item] = kind
        if before != kind:
            _MARKS.write(self._vault, marks)
        return before

    def _insert(self, numbered: Mapping[int, Mapping[str, Any]]) -> None:
        for place in sorted({number // BLOCK for number in numbered}):
            block = _block(place).read(self._vault) or {}
            block |= {str(number): entry for number, entry in numbered.items() if number // BLOCK == place}
            _block(place).write(self._vault, block)

    def _take(self, numbers: Iterable[int]) -> dict[str, Any]:
        """Take entries out of their blocks; those that are not there are passed over."""
        numbers = list(numbers)
        taken: dict[str, Any] = {}
        for place in sorted({number // BLOCK for number in numbers}):
            block = _block(place).read(self._vault) or {}
            found = {str(n): block.pop(str(n)) for n in numbers if n // BLOCK == place and str(n) in block}
            taken |= found
            if found and block:
                _block(place).write(self._vault, block)
            elif found:
                _block(place).drop(self._vault)
        return taken

    def _all(self) -> dict[int, dict[str, Any]]:
        blocks = [block for name, block in self._vault.entries(HISTORY).items() if name.startswith(_BLOCK)]
        return {int(number): entry for block in blocks for number, entry in json.loads(block).items()}


def _block(place: int) -> Record[dict[str, Any]]:
    return Record(HISTORY, f"{_BLOCK}{place:06d}", _compact)


def _check_item(item: str) -> None:
    if not isinstance(item, str) or not 1 <= len(item) <= MAX_KEY_LENGTH or not item.isprintable():
        raise EntryRefused(
            f"an item's key is not 1 to {MAX_KEY_LENGTH} printable characters", hint="take it from the catalogue"
        )
