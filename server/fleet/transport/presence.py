"""Which nodes are there: a node counts as online for two of its heartbeat intervals after it was last heard."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

PATIENCE = 2.0
"""Heartbeat intervals without a sign of life; Flower's HEARTBEAT_PATIENCE."""
MIN_INTERVAL_SECONDS = 10.0
MAX_INTERVAL_SECONDS = 1_800.0
DEFAULT_INTERVAL_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class _Sign:
    heard_at: float
    interval_seconds: float


class Presence:
    """When each node was last heard; thread-safe.

    Parameters
    ----------
    clock
        Monotonic seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._signs: dict[int, _Sign] = {}
        self._changed = threading.Condition()

    def heard(self, node_id: int, interval_seconds: float | None = None) -> None:
        """Note a sign of life, with the heartbeat interval that the node promises; None keeps the last one."""
        with self._changed:
            known = self._signs.get(node_id)
            if interval_seconds is None:
                interval_seconds = DEFAULT_INTERVAL_SECONDS if known is None else known.interval_seconds
            self._signs[node_id] = _Sign(self._clock(), interval_seconds)
            self._changed.notify_all()

    def left(self, node_id: int) -> None:
        """Note that a node said goodbye, or was struck off."""
        with self._changed:
            self._signs.pop(node_id, None)
            self._changed.notify_all()

    def gone(self, node_ids: Iterable[int]) -> list[int]:
        """Return those of some nodes that were not heard lately, in the same order."""
        now, signs = self._clock(), self._signs  # without the lock: a sign is never changed
        return [
            node_id
            for node_id in node_ids
            if (sign := signs.get(node_id)) is None or now - sign.heard_at > PATIENCE * sign.interval_seconds
        ]

    def is_online(self, node_id: int) -> bool:
        """Whether the node was heard lately."""
        return not self.gone([node_id])

    def online(self) -> list[int]:
        """All nodes that were heard lately, by number."""
        with self._changed:
            return sorted(self._signs.keys() - self.gone(self._signs))

    def wait_for(self, count: int, timeout_seconds: float) -> list[int]:
        """Sleep until so many nodes are online, no longer than the timeout, and return those that are."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.online()) >= count, timeout_seconds)
            return self.online()
