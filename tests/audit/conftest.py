"""A run folder with the ledgers of six devices on two shards and of their server, written as a simulation writes it."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.cli.main import COMMANDS, Entry, main
from palate.privacy.accounting.events import SkellamEvent
from palate.privacy.accounting.filters import SkellamMeter, budget_nano_for
from palate.privacy.accounting.guarantee import account_for, as_dict
from palate.privacy.ledger import schema
from palate.privacy.ledger.body import Intent, Outcome, Policy, hash_text
from palate.privacy.ledger.heads import note_heads
from palate.privacy.ledger.store import LedgerBook

SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SENSITIVITY, DELTA = 4096, 1e-5
SHARDS = (("device-000000", "device-000001", "device-000002"), ("device-000003", "device-000004", "device-000005"))
ROUNDS = 3
BUDGET_NANO = budget_nano_for(SkellamMeter(SENSITIVITY), 8.0, DELTA)
EVERYBODY = tuple(range(ROUNDS + 1))


def variance(noise_multiplier: float) -> int:
    """A multiple of four, so that four honest shares make it."""
    return 4 * round((noise_multiplier * SENSITIVITY) ** 2 / 4)


def intent(number: int, **changes: Any) -> Intent:
    """Round 0 with noise multiplier 8, later ones with 4."""
    values: dict[str, Any] = {
        "run": "small", "round": number, "mechanism": "skellam", "unit": "user", "adjacency": "zero-out",
        "clip_int": SENSITIVITY, "sum_var_int": variance(8.0 if number == 0 else 4.0), "m_honest": 4, "n1": 6,
        "sampling": "none-claimed", "model": hash_text(b"table %d" % number),
        "transcript": hash_text(b"plan %d" % number),
    }  # fmt: skip
    return Intent(**(values | changes))


def outcome(number: int, status: str = "released", *, run: str = "small") -> Outcome:
    payload = hash_text(b"bytes %d" % number) if status == "released" else ""
    return Outcome(run=run, round=number, status=status, payload=payload, receipt="")


def write_book(
    path: Path,
    rounds_of: dict[str, Sequence[int]],
    *,
    intents: Callable[[int], Intent] = intent,
    outcomes: Callable[[int], Outcome | None] = outcome,
    policy: dict[str, Any] | None = None,
    notes: bool = True,
) -> None:
    """Write a file of ledgers in which each takes part in its rounds, with notes of its heads beside it."""
    values: dict[str, Any] = {
        "unit": "user", "adjacency": "zero-out", "delta": "1e-5", "n_min": 1,
        "budget_nano": BUDGET_NANO,
    }  # fmt: skip
    with LedgerBook(path, SIGNER) as book:
        book.create(rounds_of, Policy(**(values | (policy or {}))))
        for number in sorted({number for numbers in rounds_of.values() for number in numbers}):
            taking_part = [name for name, numbers in rounds_of.items() if number in numbers]
            book.append_batch([(name, intents(number)) for name in taking_part])
            ending = outcomes(number)
            if ending is not None:
                book.append_batch([(name, ending) for name in taking_part])
            if notes:
                note_heads(path, book)


def write_run(folder: Path, *, participation: dict[str, Sequence[int]] | None = None, **book: Any) -> Path:
    """Write a run folder: three training rounds after round 0, all of them by everybody unless said otherwise."""
    ledgers = folder / "ledgers"
    ledgers.mkdir(parents=True)
    (ledgers / "public.key").write_text(SIGNER.public_key().public_bytes_raw().hex() + "\n")
    (folder / "config.toml").write_text('data = "demo"\n')
    (folder / "resolved.toml").write_text(f'unit = "user"\n[schedule]\nrounds = {ROUNDS}\n')
    write_book(ledgers / "server.sqlite", {"server": EVERYBODY}, **book)
    for number, names in enumerate(SHARDS):
        rounds_of = {name: (participation or {}).get(name, EVERYBODY) for name in names}
        write_book(ledgers / f"shard-{number:04}.sqlite", rounds_of, **book)
    return folder


def write_result(folder: Path, **changes: Any) -> None:
    """Write what the run claims: the cost of all its rounds."""
    events = [SkellamEvent(sensitivity=SENSITIVITY, variance=intent(number).sum_var_int) for number in EVERYBODY]
    guarantee = {**as_dict(account_for(events, DELTA)), "target_epsilon": 8.0, **changes}
    values = {"unit": "user", "epsilon": 8.0, "delta": DELTA, "protection": "user-level", "guarantee": guarantee}
    (folder / "result.json").write_text(json.dumps(values))


def behind_the_guards(path: Path, attack: Callable[[sqlite3.Connection], object]) -> None:
    """Change a file and put its guards back, as an attacker with the disk would."""
    connection = sqlite3.connect(path, isolation_level=None)
    guards = [name for name in schema.SCHEMA if name.startswith("one_") or "_no_" in name]
    for name in guards:
        connection.execute(f"DROP {'INDEX' if name.startswith('one_') else 'TRIGGER'} {name}")
    attack(connection)
    for name in guards:
        connection.execute(schema.SCHEMA[name])
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def cut_last_round(path: Path) -> None:
    """Remove the last round of every ledger of a file without a trace."""

    def cut(db: sqlite3.Connection) -> None:
        (last,) = db.execute("SELECT max(round) FROM entries").fetchone()
        seals = db.execute("SELECT DISTINCT seal FROM entries WHERE round = ?", (last,)).fetchall()
        db.execute("DELETE FROM entries WHERE round = ?", (last,))
        db.executemany("DELETE FROM seals WHERE id = ?", seals)

    behind_the_guards(path, cut)


@pytest.fixture(scope="session")
def written(tmp_path_factory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("audit") / "small")
    write_result(folder)
    return folder


@pytest.fixture
def run(written: Path, tmp_path: Path) -> Path:
    """A finished and intact run, to be spoilt."""
    return Path(shutil.copytree(written, tmp_path / "small"))


@pytest.fixture
def audit(capsys, monkeypatch) -> Callable[..., tuple[int, str, str]]:
    """Run `palate audit` and return the exit code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setitem(COMMANDS, "audit", Entry("palate.cli.audit:audit_app", "Audit."))

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["audit", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def audit_json(audit) -> Callable[..., dict[str, Any]]:
    """Run `palate audit ... --json`, check the exit code, and return what stdout holds: one JSON object."""

    def call(*arguments: object, code: int = 0) -> dict[str, Any]:
        ended, out, err = audit(*arguments, "--json")
        assert ended == code, err
        found: dict[str, Any] = json.loads(out, parse_constant=pytest.fail)
        return found

    return call


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The functions above, for tests that make or spoil a record of their own."""
    return SimpleNamespace(
        signer=SIGNER,
        delta=DELTA,
        everybody=EVERYBODY,
        intent=intent,
        outcome=outcome,
        write_book=write_book,
        write_run=write_run,
        write_result=write_result,
        behind_the_guards=behind_the_guards,
        cut_last_round=cut_last_round,
    )
