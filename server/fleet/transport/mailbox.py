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
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

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
    """One message to one node.

    Parameters
    ----------
    message_id
        Name of the message: the SHA-256 of its root object, lower-case hex.
    node_id
        Whom it is for.
    envelope, tree
        What the transport hands out first; opaque here.
    object_ids
        The objects that the node may fetch.
    expires_at
        When nobody waits for it any more, seconds of the mailbox's clock.
    """

    message_id: str
    node_id: int
    envelope: bytes
    tree: bytes
    object_ids: tuple[str, ...]
    expires_at: float


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A complete reply: its root object, and the content of every object by name."""

    message_id: str
    reply_id: str
    envelope: bytes
    objects: dict[str, bytes]


@dataclass
class _Parcel:
    """A reply whose objects are still arriving."""

    reply_id: str
    envelope: bytes
    session: str
    missing: set[str]
    objects: dict[str, bytes] = field(default_factory=dict)
    size: int = 0


@dataclass
class _Entry:
    letter: Letter
    confirmed: bool = False
    deliveries: int = 0
    parcel: _Parcel | None = None

    @property
    def answered(self) -> bool:
        return self.parcel is not None and not self.parcel.missing


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
        self._entries: dict[str, _Entry] = {}
        self._inbox: dict[int, dict[str, None]] = {}  # node -> its messages, oldest first
        self._objects: dict[str, bytes] = {}  # shared: a table that goes to everyone is kept once
        self._uses: Counter[str] = Counter()
        self._changed = threading.Condition()

    # what the server's own code does

    def post(self, letter: Letter, objects: Mapping[str, Callable[[], bytes]]) -> None:
        """Put a message into a node's inbox; objects are made only where the mailbox does not have them yet."""
        with self._changed:
            if letter.message_id in self._entries:
                return
            for name in letter.object_ids:
                if name not in self._objects:
                    self._objects[name] = objects[name]()
                self._uses[name] += 1
            self._entries[letter.message_id] = _Entry(letter)
            self._inbox.setdefault(letter.node_id, {})[letter.message_id] = None

    def take(self, message_ids: Iterable[str]) -> list[Reply]:
        """Hand out the replies that are complete, each once."""
        with self._changed:
            replies = []
            for message_id in message_ids:
                entry = self._entries.get(message_id)
                if entry is not None and entry.parcel is not None and entry.answered:
                    parcel = entry.parcel
                    replies.append(
                        Reply(
                            message_id=message_id,
                            reply_id=parcel.reply_id,
                            envelope=parcel.envelope,
                            objects=parcel.objects,
                        )
                    )
                    self._drop(message_id)
            return replies

    def withdraw(self, message_ids: Iterable[str]) -> None:
        """Forget messages; replies that come later are dropped."""
        with self._changed:
            for message_id in list(message_ids):
                self._drop(message_id)

    def expired(self, message_ids: Iterable[str]) -> list[str]:
        """Those of the messages that are unknown, or too old to be answered."""
        with self._changed:
            now = self._clock()
            return [
                name for name in message_ids if (e := self._entries.get(name)) is None or e.letter.expires_at <= now
            ]

    def sweep(self) -> list[str]:
        """Forget messages that expired a while ago and were never asked about, and name them.

        A node that does not come back would otherwise keep its round's table in memory for ever.
        """
        with self._changed:
            end = self._clock() - SWEEP_AFTER_SECONDS
            old = [name for name, entry in self._entries.items() if entry.letter.expires_at <= end]
            for name in old:
                self._drop(name)
            return old

    def wait(self, message_ids: Collection[str], timeout_seconds: float) -> None:
        """Sleep until one of the messages is answered, but no longer than the timeout."""
        with self._changed:
            self._changed.wait_for(lambda: any(self._is_answered(name) for name in message_ids), timeout_seconds)

    def _is_answered(self, message_id: str) -> bool:
        entry = self._entries.get(message_id)
        return entry is not None and entry.answered

    # what nodes do

    def next_for(self, node_id: int) -> Letter | None:
        """Hand out the node's oldest message that it has not confirmed."""
        with self._changed:
            now = self._clock()
            for message_id in list(self._inbox.get(node_id, ())):
                entry = self._entries[message_id]
                if entry.letter.expires_at <= now:
                    self._drop(message_id)
                elif not entry.confirmed and entry.parcel is None and entry.deliveries < MAX_DELIVERIES:
                    entry.deliveries += 1
                    return entry.letter
            return None

    def object_for(self, node_id: int, object_id: str) -> bytes | None:
        """Hand out an object of one of the node's own messages; None for any other."""
        with self._changed:
            for message_id in self._inbox.get(node_id, ()):
                if object_id in self._entries[message_id].letter.object_ids:
                    return self._objects[object_id]
            return None

    def confirm(self, node_id: int, message_id: str) -> None:
        """Note that the node has the whole message; it is not handed out again."""
        with self._changed:
            if message_id in self._inbox.get(node_id, ()):
                self._entries[message_id].confirmed = True

    def begin_again(self, node_id: int) -> None:
        """Put back what the node had confirmed and not answered: it was started anew."""
        with self._changed:
            for message_id in self._inbox.get(node_id, ()):
                entry = self._entries[message_id]
                if not entry.answered:
                    entry.confirmed, entry.parcel = False, None

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
            entry = self._entries.get(message_id) if message_id in self._inbox.get(node_id, ()) else None
            if entry is None or entry.answered or entry.letter.expires_at <= self._clock():
                return "", []
            if entry.parcel is None or entry.parcel.reply_id != reply_id:
                entry.parcel = _Parcel(reply_id, envelope, secrets.token_hex(16), names)
            return entry.parcel.session, sorted(entry.parcel.missing)

    def add_object(self, node_id: int, session: str, object_id: str, content: bytes) -> bool:
        """Add an object to an open reply; False where it does not belong there.

        Raises
        ------
        MailError
            If the content is not what its name says, or the reply grows too large; the reply is then discarded.
        """
        with self._changed:
            for message_id in self._inbox.get(node_id, ()):
                entry = self._entries[message_id]
                parcel = entry.parcel
                if parcel is None or not session or parcel.session != session:
                    continue
                if object_id not in parcel.missing:
                    return object_id in parcel.objects
                if hashlib.sha256(content).hexdigest() != object_id:
                    raise MailError("an object's content does not have its name's hash")
                if parcel.size + len(content) > self._max_reply_bytes:
                    entry.parcel = None
                    raise MailError(f"a reply of more than {self._max_reply_bytes} bytes")
                parcel.objects[object_id] = content
                parcel.size += len(content)
                parcel.missing.discard(object_id)
                if not parcel.missing:
                    self._changed.notify_all()
                return True
            return False

    def _drop(self, message_id: str) -> None:
        entry = self._entries.pop(message_id, None)
        if entry is None:
            return
        inbox = self._inbox[entry.letter.node_id]
        del inbox[message_id]
        if not inbox:
            del self._inbox[entry.letter.node_id]
        for name in entry.letter.object_ids:
            self._uses[name] -= 1
            if not self._uses[name]:
                del self._uses[name], self._objects[name]
        self._changed.notify_all()
