"""How a leader reaches a helper that is not in its process: over HTTPS with a pinned certificate, or by files."""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.errors import PalateError
from palate.privacy import files
from palate.privacy.aggregators.admission import Parties
from palate.privacy.https import TRY_LATER, AnswerTooLarge, Caller, NoAnswer, NotTrusted, trusting
from palate.privacy.ledger.checkpoint import TreeHead
from palate.privacy.ledger.errors import BadProof
from palate.privacy.ledger.framing import framed, number
from palate.privacy.ledger.note import Note
from palate.server.helper.cards import HelperCard
from palate.server.helper.link import Answered, Countersigned, HelperNotTrusted, HelperUnreachable
from palate.server.helper.queries import Query, Question, parts_of
from palate.server.helper.replies import read_reply

MEDIA_TYPE: Final = "application/octet-stream"
BODY_HEADER: Final = "palate-body"
SIGNATURE_HEADER: Final = "palate-signature"
ROOT: Final = "/v1/helper/"
KEYS_ENDING: Final = ".keys"
"""Of files with round keys that a helper has issued ahead."""

_ANSWER_SECONDS = 600.0
_MAX_REPLY_BYTES = 1 << 28


class _QueryLink(ABC):
    """A `HelperLink` over questions and replies.

    Parameters
    ----------
    parties, key
        The keys of all, and the leader's own.
    """

    def __init__(self, parties: Parties, key: Ed25519PrivateKey) -> None:
        self._parties, self._key = parties, key

    def round_key(self, run: str, server_round: int) -> bytes:
        """Return the signed key of a round."""
        (key,) = self._ask(Question.ROUND_KEY, run.encode("ascii"), number(server_round))
        return key

    def countersign(self, register: bytes, certificates: Sequence[bytes], revocation: bytes = b"") -> Countersigned:
        """Have the helper check a register, and keep it for the offers that will name it."""
        return Countersigned(*self._ask(Question.REGISTER, register, revocation, *certificates))

    def renew(self, certificates: Sequence[bytes]) -> list[bytes]:
        """Have the helper sign longer admissions of devices that it has admitted."""
        return self._ask(Question.RENEW, *certificates)

    def answer(self, request: bytes) -> Answered:
        """Ask for the sum of masks of one round."""
        return Answered(*self._ask(Question.ANSWER, request))

    def head(self) -> bytes:
        """Return the signed head of the helper's ledger as it is now."""
        (head,) = self._ask(Question.HEAD)
        return head

    def cosign(self, checkpoint: bytes, proof: Callable[[int], Sequence[bytes]]) -> bytes:
        """Have the helper, as witness, cosign a checkpoint of the leader's log."""
        (cosigned,) = self._ask(Question.COSIGN, checkpoint, *proof(self.log_size()))
        return cosigned

    def log_size(self) -> int:
        """Return the number of leaves of the leader's log that the helper saw last."""
        (size,) = self._ask(Question.LOG_SIZE)
        return int.from_bytes(size, "big")

    def _ask(self, question: Question, *parts: bytes) -> list[bytes]:
        return read_reply(self._send(Query.signed(question, parts, parties=self._parties, key=self._key)))

    @abstractmethod
    def _send(self, query: Query) -> bytes:
        """Return the reply's bytes; raises HelperUnreachable where none comes in time."""


class HttpsLink(_QueryLink):
    """A helper's service. It trusts the certificate of the helper's card and no other, and no proxy.

    Parameters
    ----------
    card
        The helper's.
    parties, key
        The keys of all, and the leader's own.
    patience_seconds
        How long to go on asking a helper that does not answer; each question has the same bytes.
    sleep
        Waits so many seconds.
    """

    def __init__(
        self,
        card: HelperCard,
        parties: Parties,
        key: Ed25519PrivateKey,
        *,
        patience_seconds: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(parties, key)
        self._card, self._patience, self._sleep = card, patience_seconds, sleep
        self._caller = Caller(card.address, trusting(card.certificate), answer_seconds=_ANSWER_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._caller.close()

    def _send(self, query: Query) -> bytes:
        began = time.monotonic()
        for bound in _doubling(0.5, 30.0):
            try:
                return self._once(query)
            except HelperUnreachable:
                if time.monotonic() - began >= self._patience:
                    raise
                self._sleep(random.uniform(0.0, bound))
        raise AssertionError("the waits never end")

    def _once(self, query: Query) -> bytes:
        headers = {
            "content-type": MEDIA_TYPE,
            "accept-encoding": "identity",
            BODY_HEADER: sha256(query.body).hexdigest(),
            SIGNATURE_HEADER: query.signature.hex(),
        }
        address = self._card.address
        try:
            answer = self._caller.post(ROOT + query.question, query.body, lambda: headers, max_bytes=_MAX_REPLY_BYTES)
        except NotTrusted:
            raise HelperNotTrusted(
                f"{address} shows another certificate than the helper's card",
                hint="do not go on before its operator has explained that; a new address needs a new card",
            ) from None
        except NoAnswer as error:
            raise HelperUnreachable(
                f"the helper at {address} does not answer ({error})",
                hint="is palate helper start running there? the same question will be asked again",
            ) from None
        except AnswerTooLarge:
            raise HelperUnreachable(f"{address} sends too much", hint="is it the helper?") from None
        if answer.status >= 500 or answer.status in TRY_LATER:
            raise HelperUnreachable(
                f"the helper at {address} answers {answer.status}", hint="see its log; it will be asked again"
            )
        if answer.status != 200:
            raise HelperNotTrusted(
                f"the helper at {address} refuses {query.question}: {answer.status}",
                hint="the cards of leader and helper must name each other: palate helper trust leader.card",
            )
        return answer.body


class FileLink(_QueryLink):
    """A helper on a machine without a network: questions become files, and somebody carries the replies back.

    Parameters
    ----------
    folder
        Where `NAME.query` is written, `NAME.reply` is waited for, and round keys issued ahead lie (`*.keys`).
    parties, key
        The keys of all, and the leader's own.
    wait_seconds
        How long to wait for a reply.
    sleep
        Waits so many seconds.
    """

    def __init__(
        self,
        folder: Path,
        parties: Parties,
        key: Ed25519PrivateKey,
        *,
        wait_seconds: float = 0.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(parties, key)
        self._folder, self._wait, self._sleep = folder, wait_seconds, sleep
        self._size: int | None = None  # of the log, until it is cosigned here
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def round_key(self, run: str, server_round: int) -> bytes:
        """Return a key that was issued ahead, or ask for one."""
        for path in sorted(self._folder.glob(f"*{KEYS_ENDING}")):
            for of_run, of_round, key in _issued(path.read_bytes()):
                if (of_run, of_round) == (run, server_round):
                    return key
        return super().round_key(run, server_round)

    def cosign(self, checkpoint: bytes, proof: Callable[[int], Sequence[bytes]]) -> bytes:
        """Have the helper cosign a checkpoint, and keep it: the next proof begins there."""
        try:
            cosigned = super().cosign(checkpoint, proof)
        except BadProof:
            self._cosigned.unlink(missing_ok=True)  # a reply was lost on its way: ask what the helper saw last
            self._size = None
            raise
        files.replace(self._cosigned, cosigned)
        return cosigned

    @property
    def _cosigned(self) -> Path:
        return self._folder / "cosigned"

    def log_size(self) -> int:
        """Return the leaves that the helper cosigned last, without a trip to it where that is known here."""
        if not self._cosigned.exists():
            self._size = super().log_size() if self._size is None else self._size
            return self._size
        return TreeHead.from_text(Note.decode(self._cosigned.read_bytes()).text).size

    def _ask(self, question: Question, *parts: bytes) -> list[bytes]:
        try:
            found = super()._ask(question, *parts)
        except HelperUnreachable:
            raise  # not here yet, or half copied
        except PalateError:
            self._reply.unlink()  # the question may be asked again
            raise
        if question in (Question.HEAD, Question.LOG_SIZE):
            self._reply.unlink()  # it will be another one
        return found

    def _send(self, query: Query) -> bytes:
        name = f"{query.question}-{sha256(query.body).hexdigest()[:16]}"
        asked, reply = self._folder / f"{name}.query", self._folder / f"{name}.reply"
        self._reply = reply
        if not asked.exists() and not reply.exists():
            files.replace(asked, query.to_file())
        deadline = time.monotonic() + self._wait
        while not reply.exists():
            if time.monotonic() >= deadline:
                raise HelperUnreachable(
                    f"the helper has not answered {asked}",
                    hint=f"carry it to the helper, run palate helper answer {asked.name} -o {reply.name} there, and "
                    f"put {reply.name} beside it",
                )
            self._sleep(min(1.0, max(0.05, deadline - time.monotonic())))
        return reply.read_bytes()


def issued_ahead(keys: Sequence[tuple[str, int, bytes]]) -> bytes:
    """Write round keys that a helper issues ahead: run, round and signed key of each."""
    return framed(*(framed(run.encode("ascii"), number(server_round), key) for run, server_round, key in keys))


def _issued(data: bytes) -> Iterator[tuple[str, int, bytes]]:
    for each in parts_of(data):
        run, server_round, key = parts_of(each)
        yield run.decode("ascii"), int.from_bytes(server_round, "big"), key


def _doubling(first: float, most: float) -> Iterator[float]:
    while True:
        yield first
        first = min(2 * first, most)
