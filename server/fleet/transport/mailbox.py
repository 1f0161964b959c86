"""Messages on their way to devices, and the devices' replies on their way back: a post office of opaque bytes.

A message is an envelope and a tree of content-addressed objects, after Flower's inflatable objects (flwr 1.41). A node
sees its own messages only, and learns nothing of what others have sent: stock storage is shared, so that "which of my
objects do you have already" tells whether another device's reply contains the same bytes.

A message is handed out again until the node confirms it, because an answer can be lost on a flaky link, and again
after the node has begun anew, because it may have been killed at work.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

MAX_DELIVERIES = 8
"""How often a message is handed to a node that never confirms it."""
SWEEP_AFTER_SECONDS = 300.0
"""How long after its time a message can still be asked about."""
MAX_OBJECTS = 4_096
"""Objects in one reply; a reply of arrays needs about one for each 5 MiB, and a few for each record."""


class MailError(Exception):
    """A node's request that the mailbox refuses; the text is safe to send."""


@dataclass(frozen=True, kw_only=True)
class Letter:
    """One message as one node gets it.

    Parameters
    ----------
    message_id
        Name of the message: the SHA-256 of its root object, lower-case hex.
    envelope, tree
        What the transport hands out first; opaque here.
    root
        The root object.
    object_ids
        The other objects that the node may fetch.
    """

    message_id: str
    envelope: bytes
    tree: bytes
    root: bytes
    object_ids: tuple[str, ...]


class Broadcast(Protocol):
    """One message to one or many nodes, whose letters differ in whom they are for and are made when they are asked for.

    Attributes
    ----------
    object_ids
        The objects that all of its nodes may fetch.
    expires_at
        When nobody waits for it any more, seconds of the mailbox's clock.
    """

    @property
    def object_ids(self) -> tuple[str, ...]:
        """Names of the objects that all letters share."""

    @property
    def expires_at(self) -> float:
        """When nobody waits for it any more."""

    def letter_for(self, node_id: int) -> Letter:
        """Make the letter to one node; the same bytes every time."""


class Place(NamedTuple):
    """Where a letter is: the number of its broadcast, which whoever posts it chooses, and its node."""

    number: int
    node_id: int


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A complete reply: its root object, and the content of every object by name."""

    place: Place
    reply_id: str
    envelope: bytes
    objects: dict[str, bytes]


@dataclass(slots=True)
class _Parcel:
    """A reply whose objects are still arriving."""

    reply_id: str
    envelope: bytes
    session: str
    missing: set[str]
    objects: dict[str, bytes] = field(default_factory=dict)
    size: int = 0


@dataclass(slots=True)
class _Handling:
    """What a node that was handed its letter has done with it."""

    confirmed: bool = False
    deliveries: int = 0
    parcel: _Parcel | None = None

    @property
    def answered(self) -> bool:
        return self.parcel is not None and not self.parcel.missing


@dataclass(frozen=True)
class _Posted:
    """A broadcast with the nodes that have not answered it: tens of bytes for each that has not asked for it yet."""

    broadcast: Broadcast
    waiting: dict[int, _Handling | None]


class Mailbox:
    """Thread-safe store of messages and replies, in memory: after a crash the caller sends again.

    Parameters
    ----------
    max_reply_bytes
        What one reply may hold.
    clock
        Monotonic seconds.
    """

    def __init__(self, *, max_reply_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_reply_bytes = max_reply_bytes
        self._clock = clock
        self._posted: dict[int, _Posted] = {}  # oldest first
        self._answered: dict[Place, None] = {}  # in the order in which they came
        self._objects: dict[str, bytes] = {}  # shared: a table that goes to everyone is kept once
        self._uses: Counter[str] = Counter()
        self._changed = threading.Condition()

    # what the server's own code does

    def post(
        self, number: int, broadcast: Broadcast, node_ids: Iterable[int], objects: Mapping[str, Callable[[], bytes]]
    ) -> None:
        """Put a message into the inboxes of nodes; objects are made only where the mailbox does not have them yet."""
        with self._changed:
            for name in broadcast.object_ids:
                if name not in self._objects:
                    self._objects[name] = objects[name]()
                self._uses[name] += 1
            self._posted[number] = _Posted(broadcast, dict.fromkeys(node_ids))

    def take(self, places: Container[Place]) -> Reply | None:
        """Hand out the oldest of the replies that are complete, once; None if there is none."""
        with self._changed:
            place = next((place for place in self._answered if place in places), None)
            handling = None if place is None else self._handling(place)
            if place is None or handling is None or handling.parcel is None:
                return None
            parcel = handling.parcel
            self._drop(place)
            return Reply(place=place, reply_id=parcel.reply_id, envelope=parcel.envelope, objects=parcel.objects)

    def withdraw(self, places: Iterable[Place]) -> None:
        """Forget messages; replies that come later are dropped."""
        with self._changed:
            for place in list(places):
                self._drop(place)

    def unanswered(self) -> list[tuple[int, float, list[int]]]:
        """List all broadcasts: the number, the seconds left to answer, and the nodes that have not."""
        with self._changed:
            now = self._clock()
            return [
                (
                    number,
                    posted.broadcast.expires_at - now,
                    [node for node, handling in posted.waiting.items() if handling is None or not handling.answered],
                )
                for number, posted in self._posted.items()
            ]

    def sweep(self) -> list[int]:
        """Forget messages that expired a while ago and were never asked about, and name their broadcasts.

        A node that does not come back would otherwise keep its round's table in memory for ever.
        """
        with self._changed:
            end = self._clock() - SWEEP_AFTER_SECONDS
            old = [number for number, posted in self._posted.items() if posted.broadcast.expires_at <= end]
            for number in old:
                for node_id in list(self._posted[number].waiting):
                    self._drop(Place(number, node_id))
            return old

    def is_open(self, number: int) -> bool:
        """Whether any node of a broadcast has neither answered it nor been given up."""
        with self._changed:
            return number in self._posted

    def wait(self, places: Container[Place], timeout_seconds: float) -> None:
        """Sleep until one of the messages is answered, but no longer than the timeout."""
        with self._changed:
            self._changed.wait_for(lambda: any(place in places for place in self._answered), timeout_seconds)

    # what nodes do

    def next_for(self, node_id: int) -> Letter | None:
        """Hand out the node's oldest message that it has not confirmed."""
        with self._changed:
            now = self._clock()
            for number, posted in list(self._inbox(node_id)):
                if posted.broadcast.expires_at <= now:
                    self._drop(Place(number, node_id))
                    continue
                handling = posted.waiting[node_id]
                if handling is None:
                    handling = posted.waiting[node_id] = _Handling()
                if not handling.confirmed and handling.parcel is None and handling.deliveries < MAX_DELIVERIES:
                    handling.deliveries += 1
                    return posted.broadcast.letter_for(node_id)
            return None

    def object_for(self, node_id: int, object_id: str) -> bytes | None:
        """Hand out an object of one of the node's own messages; None for any other."""
        with self._changed:
            for _, posted in self._inbox(node_id):
                if object_id in posted.broadcast.object_ids:
                    return self._objects[object_id]
            found = self._named(node_id, object_id)
            return None if found is None else found[1].root

    def confirm(self, node_id: int, message_id: str) -> None:
        """Note that the node has the whole message; it is not handed out again."""
        with self._changed:
            found = self._named(node_id, message_id)
            handling = None if found is None else self._handling(found[0])
            if handling is not None:
                handling.confirmed = True

    def begin_again(self, node_id: int) -> None:
        """Put back what the node had confirmed and not answered: it was started anew."""
        with self._changed:
            for _, posted in self._inbox(node_id):
                handling = posted.waiting[node_id]
                if handling is not None and not handling.answered:
                    handling.confirmed, handling.parcel = False, None

    def begin_reply(
        self, node_id: int, message_id: str, reply_id: str, envelope: bytes, object_ids: Collection[str]
    ) -> tuple[str, list[str]]:
        """Open a reply, and say which objects are missing; ("", []) where nobody waits for it.

        The same reply may be opened again after an interruption. The first complete one counts.

        Raises
        ------
        MailError
            If the reply has too many objects.
        """
        names = set(object_ids)
        if not names or len(names) > MAX_OBJECTS:
            raise MailError(f"a reply of {len(names)} objects; 1 to {MAX_OBJECTS} are taken")
        with self._changed:
            found = self._named(node_id, message_id)
            if found is None:
                return "", []
            place, _ = found
            posted = self._posted[place.number]
            handling = posted.waiting[node_id]
            if handling is None:
                handling = posted.waiting[node_id] = _Handling()
            if handling.answered or posted.broadcast.expires_at <= self._clock():
                return "", []
            if handling.parcel is None or handling.parcel.reply_id != reply_id:
                handling.parcel = _Parcel(reply_id, envelope, secrets.token_hex(16), names)
            return handling.parcel.session, sorted(handling.parcel.missing)

    def add_object(self, node_id: int, session: str, object_id: str, content: bytes) -> bool:
        """Add an object to an open reply; False where it does not belong there.

        Raises
        ------
        MailError
            If the content is not what its name says, or the reply grows too large; the reply is then discarded.
        """
        with self._changed:
            for number, posted in self._inbox(node_id):
                handling = posted.waiting[node_id]
                parcel = None if handling is None else handling.parcel
                if handling is None or parcel is None or not session or parcel.session != session:
                    continue
                if object_id not in parcel.missing:
                    return object_id in parcel.objects
                if hashlib.sha256(content).hexdigest() != object_id:
                    raise MailError("an object's content does not have its name's hash")
                if parcel.size + len(content) > self._max_reply_bytes:
                    handling.parcel = None
                    raise MailError(f"a reply of more than {self._max_reply_bytes} bytes")
                parcel.objects[object_id] = content
                parcel.size += len(content)
                parcel.missing.discard(object_id)
                if not parcel.missing:
                    self._answered[Place(number, node_id)] = None
                    self._changed.notify_all()
                return True
            return False

    def _inbox(self, node_id: int) -> Iterator[tuple[int, _Posted]]:
        """Yield the broadcasts that wait for a node, oldest first."""
        return ((number, posted) for number, posted in self._posted.items() if node_id in posted.waiting)

    def _named(self, node_id: int, message_id: str) -> tuple[Place, Letter] | None:
        """Find a letter of a node by its name."""
        for number, posted in self._inbox(node_id):
            letter = posted.broadcast.letter_for(node_id)
            if letter.message_id == message_id:
                return Place(number, node_id), letter
        return None

    def _handling(self, place: Place) -> _Handling | None:
        posted = self._posted.get(place.number)
        return None if posted is None else posted.waiting.get(place.node_id)

    def _drop(self, place: Place) -> None:
        posted = self._posted.get(place.number)
        if posted is None or place.node_id not in posted.waiting:
            return
        del posted.waiting[place.node_id]
        self._answered.pop(place, None)
        if not posted.waiting:
            del self._posted[place.number]
            for name in posted.broadcast.object_ids:
                self._uses[name] -= 1
                if not self._uses[name]:
                    del self._uses[name], self._objects[name]
        self._changed.notify_all()
