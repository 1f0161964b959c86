"""A small ledger with every kind of entry, and short ways to make its events."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.privacy.ledger import schema
from palate.privacy.ledger.body import Checkpoint, Intent, Outcome, Policy, hash_text
from palate.privacy.ledger.store import LedgerBook

SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
CHARGE = 250_000_010  # of `intent`: S = 4096, V = (2 S)^2, so S^2/V is a quarter and 2.5 S^2/V^2 a little above 9e-9


@pytest.fixture
def signer() -> Ed25519PrivateKey:
    return SIGNER


@pytest.fixture
def policy() -> Callable[..., Policy]:
    def make(**changes: object) -> Policy:
        values = {"unit": "user", "adjacency": "zero-out", "delta": "1e-5", "budget_nano": 4 * CHARGE, "n_min": 50}
        return Policy(**(values | changes))

    return make


@pytest.fixture
def intent() -> Callable[..., Intent]:
    def make(round: int, **changes: object) -> Intent:
        values = {
            "run": "run-1",
            "round": round,
            "mechanism": "user",
            "unit": "user",
            "adjacency": "zero-out",
            "clip_int": 4096,
            "sum_var_int": 8192**2,
            "m_honest": 60,
            "n1": 100,
            "sampling": "none-claimed",
            "model": hash_text(b"model"),
            "transcript": hash_text(b"offer"),
        }
        return Intent(**(values | changes))

    return make


@pytest.fixture
def outcome() -> Callable[..., Outcome]:
    def make(round: int, sent: bytes = b"masked", **changes: object) -> Outcome:
        values = {"run": "run-1", "round": round, "status": "released", "payload": hash_text(sent), "receipt": ""}
        return Outcome(**(values | changes))

    return make


@pytest.fixture
def ledger(tmp_path: Path, policy, intent, outcome) -> Path:
    """A file with ledger "device": a policy, two finished rounds and a checkpoint, six entries."""
    path = tmp_path / "ledger.db"
    with LedgerBook(path, SIGNER) as book:
        book.create(["device"], policy())
        for number in (1, 2):
            book.append("device", intent(number))
            book.append("device", outcome(number, b"masked %d" % number))
        seen = Checkpoint(
            run="run-1", round=2, origin="example.org/log", tree_size=2, root=hash_text(b"root"), receipt=""
        )
        book.append("device", seen)
    return path


@pytest.fixture
def edit() -> Callable[[Path, Callable[[sqlite3.Connection], object]], None]:
    """Change a file behind its guards and put the guards back, as an attacker with the disk would."""

    def change(path: Path, attack: Callable[[sqlite3.Connection], object]) -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        guards = [name for name in schema.SCHEMA if name.startswith("one_") or "_no_" in name]
        for name in guards:
            connection.execute(f"DROP {'INDEX' if name.startswith('one_') else 'TRIGGER'} {name}")
        attack(connection)
        for name in guards:
            connection.execute(schema.SCHEMA[name])
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()

    return change
