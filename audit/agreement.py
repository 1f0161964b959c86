"""Lays ledgers side by side: server and devices must have written the same entry about the same round.

Each ledger can be intact by itself and the record still be wrong: a device that was charged for another mechanism, a
round that the server never announced, a sum with fewer shares of noise than were counted on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from palate.audit.records import LedgerRecord
from palate.privacy.ledger.body import RELEASED, Intent
from palate.privacy.ledger.errors import Contradiction

_SHARD = "shard-"
_ASK = "ask the person who keeps the ledgers; one of the two was not written by the run"


def contradictions(records: Sequence[LedgerRecord], *, whole: bool) -> list[Contradiction]:
    """Compare the ledgers of one run.

    Parameters
    ----------
    records
        Verified ledgers.
    whole
        All devices are there, so that the shares of a round can be counted.

    Returns
    -------
    What does not fit, each once; empty where everything does.
    """
    found = _doubled(records)
    for unit in dict.fromkeys(record.policy.unit for record in records):
        devices = [record for record in records if record.policy.unit == unit and not record.is_server]
        servers = [record for record in records if record.policy.unit == unit and record.is_server]
        if len(servers) != 1:
            found.append(_contradiction(f"the server has {len(servers)} ledgers for unit {unit}, 1 is expected"))
            continue
        found += _compare(servers[0], devices)
        if whole:
            found += _count_shares(servers[0], devices)
    return found


def missing_shards(books: Sequence[Path]) -> list[Contradiction]:
    """Look for a gap in the numbers of a run's files of devices."""
    names = {book.stem for book in books if book.stem.startswith(_SHARD)}
    expected = [f"{_SHARD}{number:04}" for number in range(len(names))]
    gone = [name for name in expected if name not in names]
    if not gone:
        return []
    return [_contradiction(f"{gone[0]} is missing: there are {len(names)} files of devices")]


def _doubled(records: Sequence[LedgerRecord]) -> list[Contradiction]:
    counts = Counter(record.name for record in records)
    return [
        _contradiction(f"ledger {name} is in {count} files, where it could be charged {count} times over")
        for name, count in counts.items()
        if count > 1
    ]


def _compare(server: LedgerRecord, devices: Sequence[LedgerRecord]) -> list[Contradiction]:
    found = []
    announced = server.rounds
    for device in devices:
        for key, charged in device.rounds.items():
            counterpart = announced.get(key)
            if counterpart is None:
                found.append(_contradiction(f"{device.name} was charged for {_named(key)}, which the server's lacks"))
            elif counterpart.intent != charged.intent:
                differing = ", ".join(_differing(counterpart.intent, charged.intent))
                found.append(_contradiction(f"{device.name} and the server differ about {_named(key)}: {differing}"))
    return found


def _count_shares(server: LedgerRecord, devices: Sequence[LedgerRecord]) -> list[Contradiction]:
    """Hold every released sum to the number of shares that its noise counts on."""
    shares = Counter(key for device in devices for key, charged in device.rounds.items() if charged.counts)
    found = []
    for key, charged in server.rounds.items():
        intent, count = charged.intent, shares[key]
        if charged.status == RELEASED and not intent.m_honest <= count <= intent.n1:
            found.append(
                _contradiction(
                    f"{count} devices were charged for {_named(key)}; "
                    f"its noise counts on at least {intent.m_honest} and at most {intent.n1}"
                )
            )
    return found


def _differing(first: Intent, second: Intent) -> list[str]:
    return [field.name for field in fields(Intent) if getattr(first, field.name) != getattr(second, field.name)]


def _contradiction(message: str) -> Contradiction:
    return Contradiction(message, hint=_ASK)


def _named(key: tuple[str, int]) -> str:
    return f"round {key[1]} of {key[0]}"
