"""What a device remembers of rounds: what it was asked, what it sent, and what the server signed; sealed in the vault.

The ledger says what was spent, in public numbers; this is the owner's own record beside it, and what lets a device that
was killed send the very bytes again that may have left. Answers go when their round is over, the record stays.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from typing import Any

from palate.client.fleet.tables import COLUMNS, TRAINING
from palate.client.vault import HEADS, ROUNDS, Vault
from palate.client.vault.errors import VaultTampered
from palate.client.vault.records import Record
from palate.privacy.ledger.anchors import Anchor

OPEN, RELEASED, WRITTEN_OFF = "open", "released", "written off"
MAX_REFUSALS = 20
DAY_SECONDS = 86_400

_STANDING = Record[dict[str, Any]](ROUNDS, "state")
_REFUSALS = Record[list[dict[str, Any]]](ROUNDS, "refusals")
_HEADS = Record[list[dict[str, Any]]](ROUNDS, "ledger-heads")
_LATEST_TIME = Record[int](ROUNDS, "latest-time")
_RECORD = "record/"
_HASH_SIZE = 32


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """One round, as the owner sees it.

    Attributes
    ----------
    run, server_round, purpose
        Which round it was, and what it asked for.
    offer
        The signed offer, hexadecimal.
    plan_hash, table_hash
        Of the plan and of the item table that came with it.
    began
        When, in seconds since 1970.
    epsilon, total_epsilon
        What the round and all rounds up to it prove together at the owner's delta, in the sum.
    local_epsilon
        The same for the round under this device's own share of noise: if secure aggregation failed, or if leader and
        helper worked together.
    sent
        The transcript: by step, the hash of what was asked, and bytes and SHA-256 of the answer.
    ended
        "open", "released" or "written off".
    receipt
        What the server signed in the end, hashes in hexadecimal; empty if nothing came.
    anchor
        Under two aggregators: the end of the device's ledger that its report commits to, and the salt.
    least_sum
        The fields of a `palate.privacy.colluding.LeastSum`: the round at its worst, as the offer promises it.
    """

    run: str
    server_round: int
    purpose: str
    offer: str = field(repr=False)
    plan_hash: str
    table_hash: str
    began: int
    epsilon: float
    total_epsilon: float
    local_epsilon: float
    sent: dict[str, dict[str, int | str]] = field(default_factory=dict)
    ended: str = OPEN
    receipt: dict[str, Any] = field(default_factory=dict)
    anchor: dict[str, Any] = field(default_factory=dict, repr=False)
    least_sum: dict[str, int] = field(default_factory=dict)

    @property
    def vector_sent(self) -> dict[str, int | str] | None:
        """What is known of the answer that carries the masked vector; None if it was not made."""
        return self.sent.get("mask") or self.sent.get("report")

    @property
    def bytes_sent(self) -> int:
        """Size of all answers together."""
        return sum(int(each["bytes"]) for each in self.sent.values())


@dataclass(frozen=True)
class Answer:
    """What was answered to one step.

    Attributes
    ----------
    request
        SHA-256 of what was asked.
    body
        The answer.
    """

    request: bytes
    body: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a device stands between rounds.

    Attributes
    ----------
    run, last_round
        The round begun last; an empty run before the first.
    receipt_run, receipt_round, model_hash
        The last receipt, and the table that it vouches for.
    head_run, head_name
        Run that the head in the vault was learned in, and its name there.
    finished
        Runs whose final table has come.
    begun
        When rounds of the last 24 hours began, in seconds since 1970.
    """

    run: str = ""
    last_round: int = -1
    receipt_run: str = ""
    receipt_round: int = -1
    model_hash: str = ""
    head_run: str = ""
    head_name: str = ""
    finished: tuple[str, ...] = ()
    begun: tuple[int, ...] = ()


class RoundLog:
    """The record of rounds in a vault.

    Parameters
    ----------
    vault
        An open vault.
    clock
        Seconds since 1970.
    """

    def __init__(self, vault: Vault, *, clock: Callable[[], float] = time.time) -> None:
        self._vault = vault
        self._clock = clock

    def __repr__(self) -> str:
        return "RoundLog(<sealed>)"

    def now(self) -> int:
        """Whole seconds since 1970."""
        return int(self._clock())

    def latest_time(self) -> int:
        """Return the latest time that this device has seen, in whole seconds since 1970, and keep it.

        A clock that was put back stands still here until it has caught up.
        """
        kept, now = _LATEST_TIME.read(self._vault) or 0, self.now()
        if now > kept:
            _LATEST_TIME.write(self._vault, now)
        return max(now, kept)

    def standing(self) -> Standing:
        """Where the device stands."""
        values = _STANDING.read(self._vault)
        if values is None:
            return Standing()
        return Standing(**{**values, "finished": tuple(values["finished"]), "begun": tuple(values["begun"])})

    def began_lately(self) -> int:
        """Count rounds begun within the last 24 hours; a clock that was put back counts them still."""
        since = self.now() - DAY_SECONDS
        return sum(moment > since for moment in self.standing().begun)

    def record(self, run: str, server_round: int) -> RoundRecord | None:
        """Look up a round; None if it was never begun."""
        values = _record(run, server_round).read(self._vault)
        return None if values is None else RoundRecord(**values)

    def records(self) -> list[RoundRecord]:
        """All rounds, in the order in which they began."""
        found = [
            RoundRecord(**json.loads(value))
            for name, value in self._vault.entries(ROUNDS).items()
            if name.startswith(_RECORD)
        ]
        return sorted(found, key=lambda each: (each.began, each.run, each.server_round))

    def begin(
        self, record: RoundRecord, heads: Iterable[Anchor], *, training: str = "", columns: Sequence[str] = ()
    ) -> None:
        """Note a round that has just been charged, and how the ledgers ended then."""
        standing, since = self.standing(), self.now() - DAY_SECONDS
        begun = (*(moment for moment in standing.begun if moment > since), record.began)
        with self._vault.transaction():
            self.latest_time()
            self._write(record)
            if training:  # lists are fitted as the run trains
                TRAINING.write(self._vault, training)
            if columns:
                COLUMNS.write(self._vault, columns)
            self._stand(replace(standing, run=record.run, last_round=record.server_round, begun=begun))
            _HEADS.write(self._vault, [{"name": it.name, "seq": it.seq, "entry": it.entry.hex()} for it in heads])

    def heads(self) -> tuple[Anchor, ...]:
        """How the ledgers ended when the last round was charged: a shorter one is not the newest."""
        found = _HEADS.read(self._vault) or ()
        return tuple(Anchor(it["name"], it["seq"], bytes.fromhex(it["entry"])) for it in found)

    def answer(self, run: str, server_round: int, step: str) -> Answer | None:
        """Look up what was answered to a step; None if nothing was, or the round is over."""
        return _answer(run, server_round, step).read(self._vault)

    def keep_answer(self, run: str, server_round: int, step: str, answer: Answer) -> None:
        """Put an answer on disk, before it may leave."""
        with self._vault.transaction():
            record = self.record(run, server_round)
            if record is None:
                raise VaultTampered(f"round {server_round} of {run} is not in the vault", hint="leave, and enrol again")
            made: dict[str, int | str] = {
                "asked": answer.request.hex(),
                "bytes": len(answer.body),
                "sha256": sha256(answer.body).hexdigest(),
            }
            _answer(run, server_round, step).write(self._vault, answer)
            self._write(replace(record, sent={**record.sent, step: made}))

    def keep_head(self, run: str, name: str, head: bytes) -> None:
        """Keep a head that was learned in a run; raises as `Vault.put`."""
        with self._vault.transaction():
            _head(name).write(self._vault, head)
            self._stand(replace(self.standing(), head_run=run, head_name=name))

    def head(self, run: str, name: str) -> bytes | None:
        """Return the head of a run under its name; None if there is none."""
        standing = self.standing()
        same = (standing.head_run, standing.head_name) == (run, name)
        return _head(name).read(self._vault) if same else None

    def close(self, run: str, server_round: int, *, ended: str) -> None:
        """Note how a round ended, and drop its answers."""
        with self._vault.transaction():
            record = self.record(run, server_round)
            if record is not None and record.ended == OPEN:
                self._write(replace(record, ended=ended))
            for step in () if record is None else record.sent:
                _answer(run, server_round, step).drop(self._vault)

    def keep_receipt(self, run: str, server_round: int, facts: dict[str, Any], *, last: bool) -> None:
        """Note what the server signed; `last` if the run is over with it."""
        with self._vault.transaction():
            record, standing = self.record(run, server_round), self.standing()
            if record is not None:
                self._write(replace(record, receipt=facts))
            if record is not None and not self.is_overtaken(record):
                standing = replace(
                    standing, receipt_run=run, receipt_round=server_round, model_hash=str(facts["model_hash"])
                )
            if last and run not in standing.finished:
                standing = replace(standing, finished=(*standing.finished, run))
            self._stand(standing)

    def is_overtaken(self, record: RoundRecord) -> bool:
        """Tell whether the receipt of a later round is here already."""
        standing = self.standing()
        if standing.receipt_run == record.run:
            return record.server_round < standing.receipt_round
        latest = self.record(standing.receipt_run, standing.receipt_round)
        return latest is not None and record.began < latest.began

    def refused(self, run: str, server_round: int, text: str) -> None:
        """Note why something was refused; for the owner's eyes only."""
        entry = {"at": self.now(), "run": run[:128], "server_round": server_round, "why": text[:500]}
        _REFUSALS.write(self._vault, [*self.refusals(), entry][-MAX_REFUSALS:])

    def refusals(self) -> list[dict[str, Any]]:
        """List the last refusals, oldest first."""
        return _REFUSALS.read(self._vault) or []

    def _stand(self, standing: Standing) -> None:
        _STANDING.write(self._vault, asdict(standing))

    def _write(self, record: RoundRecord) -> None:
        _record(record.run, record.server_round).write(self._vault, asdict(record))


def _record(run: str, server_round: int) -> Record[dict[str, Any]]:
    return Record(ROUNDS, f"{_RECORD}{run}/{server_round}")


def _answer(run: str, server_round: int, step: str) -> Record[Answer]:
    return Record(
        ROUNDS,
        f"answer/{run}/{server_round}/{step}",
        lambda answer: answer.request + answer.body,
        lambda data: Answer(data[:_HASH_SIZE], data[_HASH_SIZE:]),
    )


def _head(name: str) -> Record[bytes]:
    return Record(HEADS, name, bytes, bytes)
