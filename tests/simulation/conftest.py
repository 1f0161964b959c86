"""Small made-up data, and runs on it that take a fraction of a second."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from palate.privacy.ledger.body import RELEASED, Intent, Outcome
from palate.privacy.ledger.state import LedgerState
from palate.privacy.ledger.verify import verify_book, verify_ledger
from palate.server.store import TABLE_FORMAT, read_tensors
from palate.simulation.config import SimulationConfig
from palate.simulation.federation import simulate
from palate.simulation.progress import Watcher


@pytest.fixture(scope="session")
def run() -> Callable[[SimulationConfig, Path], dict[str, Any]]:
    """Run a simulation in silence."""
    return lambda config, folder: simulate(config, folder, Watcher())


@pytest.fixture(scope="session")
def tables() -> Callable[[Path], dict[str, Any]]:
    """Read a run's item table."""
    return lambda folder: read_tensors(folder / "item_table.safetensors", TABLE_FORMAT)[0]


@pytest.fixture(scope="session")
def lines() -> Callable[[Path], list[dict[str, Any]]]:
    """Read what a run says about its rounds."""
    return lambda folder: [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]


@pytest.fixture(scope="session")
def public_key() -> Callable[[Path], Ed25519PublicKey]:
    """Read the key that signs a run's ledgers."""
    return lambda folder: Ed25519PublicKey.from_public_bytes(
        bytes.fromhex((folder / "ledgers" / "public.key").read_text())
    )


@pytest.fixture(scope="session")
def books(public_key) -> Callable[[Path], dict[str, LedgerState]]:
    """Every ledger of a run, verified and closed."""

    def verified(folder: Path) -> dict[str, LedgerState]:
        states: dict[str, LedgerState] = {}
        for path in sorted((folder / "ledgers").glob("*.sqlite")):
            states |= verify_book(path, public_key(folder))
        return states

    return verified


@pytest.fixture(scope="session")
def rounds_charged(public_key) -> Callable[[Path], dict[str, list[int]]]:
    """Rounds that each ledger of a run has charged, in order, from its verified entries; all of them released."""

    def charged(folder: Path) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for path in sorted((folder / "ledgers").glob("*.sqlite")):
            for name in verify_book(path, public_key(folder)):
                events = verify_ledger(path, name, public_key(folder)).events
                found[name] = [event.round for event in events if isinstance(event, Intent)]
                ended = [event for event in events if isinstance(event, Outcome)]
                assert [event.round for event in ended] == found[name]
                assert all(event.status == RELEASED for event in ended)
        return found

    return charged
