"""The helper itself: what a leader may ask, answered one question at a time from the ledger on disk."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from palate.privacy.aggregators.admission import Certificate, Parties, Register, Revocation
from palate.privacy.aggregators.call import witness_name
from palate.privacy.aggregators.errors import RegisterRefused
from palate.privacy.aggregators.helper import MOST_WORDS, Helper
from palate.privacy.aggregators.messages import Answer
from palate.privacy.aggregators.registering import (
    LiveKey,
    Statement,
    check_admissible,
    check_register,
    check_renewal,
    completed,
)
from palate.privacy.aggregators.sealing import Suite
from palate.privacy.ledger.checkpoint import TreeHead, open_checkpoint
from palate.privacy.ledger.note import Note, NoteKey
from palate.server.helper.anchor import LedgerEnd
from palate.server.helper.book import SqliteBook
from palate.server.helper.link import Answered, Countersigned

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


@dataclass(eq=False)
class HelperService:
    """A `palate.server.helper.link.HelperLink` in the helper's own process; thread-safe.

    Attributes
    ----------
    fleet, key, parties
        Name of the fleet, the helper's signing key, and the keys of all.
    book
        Its ledger.
    suite
        How seeds of new rounds are sealed.
    round_key_seconds
        How long a round's key lasts.
    most_devices
        Most devices of a register.
    most_words
        Most words of a round's vector.
    clock
        Seconds since 1970.
    progress
        Told how many reports of how many are done.
    """

    fleet: str
    key: Ed25519PrivateKey = field(repr=False)
    parties: Parties
    book: SqliteBook
    suite: Suite = Suite.X25519
    round_key_seconds: int = 7 * 86_400
    most_devices: int = 100_000
    most_words: int = MOST_WORDS
    clock: Callable[[], int] = lambda: int(time.time())
    progress: Progress | None = None

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._verified: set[bytes] = set()
        self._helper = Helper(self.fleet, self.key, self.parties, self.book, self.most_words)

    def close(self) -> None:
        """Finish the question that is under way, and close the ledger."""
        with self._lock:
            self.book.close()

    def round_key(self, run: str, server_round: int) -> bytes:
        """Return the signed key of a round."""
        with self._lock:
            end = self.clock() + self.round_key_seconds
            made = self.book.new_round_key(run, server_round, self.suite, not_after=end)
        log.info("round key %d is for round %d of run %s", made.index, server_round, run)
        return made.to_bytes()

    def countersign(self, register: bytes, certificates: Sequence[bytes], revocation: bytes = b"") -> Countersigned:
        """Check a register and a revocation, one of which may be empty; sign them where it admits, and keep them."""
        if len(certificates) > self.most_devices:
            raise RegisterRefused(
                f"{len(certificates)} devices, this helper takes {self.most_devices}",
                hint="raise most_devices in helper.toml",
            )
        with self._lock:
            out = self._revoked(revocation) if revocation else b""
            if not register:
                return Countersigned(b"", out)
            whole = self._completed(Register.from_bytes(register))
            entries = check_register(
                whole,
                certificates,
                parties=self.parties,
                newest=self.book.newest_register(),
                live=self.book.live_keys(),
                verified=self._verified,
            )
            self._verified.intersection_update(certificates)  # those that are not in it any more are forgotten
            self.book.keep_register(whole, entries)
        log.info("register %d is checked: %d devices, root %s", whole.epoch, whole.size, whole.root.hex()[:16])
        return Countersigned(whole.to_bytes(), out)

    def admit(self, certificates: Sequence[Certificate]) -> list[Certificate]:
        """Sign, as one of the two that admit, for devices that the helper's operator has checked: all or none.

        Raises
        ------
        RegisterRefused
            If a third party admits, the leader has not signed, or a device or a key has another.
        """
        if self.parties.authority is not None:
            raise RegisterRefused("a third party admits devices in this fleet", hint="ask the authority")
        signed = []
        with self._lock, self.book.admitting() as keep:
            live, revoked = self.book.live_keys(), self.book.revoked()
            for each in certificates:
                whole = self._completed(each)
                holder = self.book.holder(whole.identity_key)
                before = live.get(whole.device)
                check_admissible(whole, live=before, holder=holder, revoked=revoked, now=self.clock())
                if not self.book.has_certificate(whole):
                    keep(whole)
                live[whole.device] = LiveKey(whole.generation, whole.identity_key)
                signed.append(whole)
        self._verified.update(each.to_bytes() for each in signed)
        return signed

    def renew(self, certificates: Sequence[bytes]) -> list[bytes]:
        """Sign longer admissions of devices that were admitted here, without asking the operator again.

        Raises
        ------
        RegisterRefused
            If one is for another key, for a device that is revoked or was never admitted, or lasts too long.
        """
        asked = [Certificate.from_bytes(each) for each in certificates]
        with self._lock:
            live, revoked = self.book.live_keys(), self.book.revoked()
        for each in asked:
            check_renewal(each, live=live.get(each.device), revoked=revoked, now=self.clock())
        return [each.to_bytes() for each in self.admit(asked)]

    def answer(self, request: bytes) -> Answered:
        """Answer a round's request, or refuse it; raises as `Helper.answer`."""
        with self._lock:
            answer = self._helper.answer(request, now=self.clock(), progress=self.progress)
            head = self._helper.head_after(answer)
        made = Answer.from_bytes(answer)
        why = Counter(reason.name.lower().replace("_", " ") for _, reason in made.excluded)
        left_out = "".join(f", {count} left out: {reason}" for reason, count in sorted(why.items()))
        log.info("answer %d: %d of %d reports%s", made.sequence, made.accepted, made.reports, left_out)
        return Answered(answer, head.to_bytes())

    def head(self) -> bytes:
        """Return the signed head of the ledger as it is now."""
        with self._lock:
            return self._helper.head().to_bytes()

    def end(self) -> LedgerEnd:
        """Return where the helper's ledger ends."""
        with self._lock:
            return self.book.end()

    def log_size(self) -> int:
        """Return the number of leaves of the leader's log that the helper saw last."""
        return self.end().log_size

    def cosign(self, checkpoint: bytes, proof: Callable[[int], Sequence[bytes]]) -> bytes:
        """Cosign a checkpoint that extends the last one."""
        return self.cosign_with(checkpoint, proof(self.log_size()))

    def cosign_with(self, checkpoint: bytes, hashes: Sequence[bytes]) -> bytes:
        """Cosign a checkpoint with a proof that it extends the last one that the helper saw.

        Raises
        ------
        Rollback, Fork, BadProof, BadNote
            If it does not, or the leader did not sign it.
        """
        leader = NoteKey(self.fleet, Ed25519PublicKey.from_public_bytes(self.parties.leader))
        head = open_checkpoint(checkpoint, leader)
        with self._lock:
            end = self.book.end()
            if (head.size, head.root) != (end.log_size, end.log_root):  # the same again needs no proof
                head.check_extends(TreeHead(self.fleet, end.log_size, end.log_root), hashes)
                self.book.keep_checkpoint(head.size, head.root)
            self.book.anchor()
        log.info("cosigned the log with %d leaves", head.size)
        note = Note.decode(checkpoint)
        own = tuple(line for line in note.signatures if line.name == leader.name)  # other lines were not checked
        return Note(note.text, own).cosigned(self.key, witness_name(self.fleet), time=self.clock()).encode()

    def sweep(self) -> None:
        """Destroy the private halves of keys that have expired."""
        with self._lock:
            self.book.sweep()

    def most_registered(self) -> int:
        """Return the most devices of a register that an offer may still name."""
        with self._lock:
            return self.book.most_registered()

    def _revoked(self, data: bytes) -> bytes:
        """Check a revocation, keep it, and return it with all signatures."""
        given = self._completed(Revocation.from_bytes(data))
        given.check_after(self.book.newest_revocation())
        self.book.keep_revocation(given)
        log.info("revocation %d is checked: %d keys are out", given.number, len(given.keys))
        return given.to_bytes()

    def _completed(self, statement: Statement) -> Statement:
        return completed(statement, fleet=self.fleet, parties=self.parties, key=self.key)
