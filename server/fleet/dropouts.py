"""Why a device drops out of a round: codes, which the state keeps, and words for them, which people read.

Codes from 100 on are a device's own (`palate.privacy.wire`), and the others the server's. Whatever else a device sends
as a code has no words of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from palate.privacy.wire import BAD_PLAN, FAILED, REFUSED, ROUND_GONE, TAMPERED

UNREADABLE: Final = 1
"""Code for a reply that is not a fleet message."""
UNEXPECTED: Final = 2
"""Code for an answer to another question, or one that is larger than any answer to this one."""
REFUSED_HERE: Final = 3
"""Code for an answer that secure aggregation does not take."""
LATE: Final = 4
"""Code for no answer within the deadline."""
GONE: Final = 5
"""Flower's code for a node that is offline, or for a message that has expired."""
EXCLUDED: Final = 6
"""Code for a report that the helper left out."""
REMOVED: Final = 9
"""Code for a device that is not enrolled any more."""

_WORDS: Final = {
    UNREADABLE: "an answer that cannot be read",
    UNEXPECTED: "an answer to another question",
    REFUSED_HERE: "an answer that a check refuses",
    LATE: "no answer in time",
    GONE: "offline",
    EXCLUDED: "left out by the helper",
    REMOVED: "removed from the fleet",
    BAD_PLAN: "it did not understand the message",
    FAILED: "its computation failed",
    REFUSED: "its owner's limits or its ledger refuse",
    ROUND_GONE: "it was restarted, and has no keys for the round",
    TAMPERED: "a check of what others sent failed there",
}

AWAY: Final = frozenset({LATE, GONE, ROUND_GONE})
"""Codes of devices that were not there, or came back without the round's keys: nobody is to blame."""


def words_of(code: int) -> str:
    """Say in words why a device dropped out."""
    return _WORDS.get(code, "an error without a name")


def counted(codes: Iterable[int]) -> dict[str, int]:
    """Count devices by why they dropped out, the most frequent first; 0 is no reason."""
    return dict(Counter(words_of(code) for code in codes if code).most_common())
