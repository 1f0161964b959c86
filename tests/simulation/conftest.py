"""Small made-up data, and runs on it that take a fraction of a second."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from palate.privacy.ledger.body import RELEASED, Intent, Outcome
from palate.privacy.ledger.state import LedgerState
from palate.privacy.ledger.verify import verify_book, verify_ledger
from palate.server.planning import merge
from palate.server.store import TABLE_FORMAT, read_tensors
from palate.simulation.config import SimulationConfig, checked_config
from palate.simulation.federation import simulate
from palate.simulation.progress import SilentWatcher

NUM_USERS, NUM_ITEMS = 36, 40


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with interactions.csv (36 people, 4 to 14 of 40 items each, with times) and items.csv."""
    rng = np.random.default_rng(3)
    share = 1.0 / np.arange(1, NUM_ITEMS + 1)
    lines, moment = ["user,item,timestamp"], 1_600_000_000
    for user in range(NUM_USERS):
        for item in rng.choice(NUM_ITEMS, size=rng.integers(4, 15), replace=False, p=share / share.sum()):
            moment += 60
            lines.append(f"person{user},thing{item},{moment}")
    folder = tmp_path_factory.mktemp("data") / "small"
    folder.mkdir()
    (folder / "interactions.csv").write_text("\n".join(lines) + "\n")
    genres = ("Comedy", "Drama", "Space|Drama")
    described = [f"thing{item},Thing {item},{genres[item % 3]},{1960 + item}" for item in range(NUM_ITEMS)]
    (folder / "items.csv").write_text("\n".join(["item,title,genres,year", *described]) + "\n")
    return folder


@pytest.fixture(scope="session")
def settings(small_data: Path) -> Callable[..., SimulationConfig]:
    """Build a small configuration; arguments are nested values that win, as in a TOML file."""

    def build(**changes: Any) -> SimulationConfig:
        base = {
            "data": str(small_data),
            "unit": "none",
            "baselines": (),
            "shards": 3,
            "tune": False,
            "schedule": {"rounds": 3, "dim": 4},
            "training": {"hidden": 3, "batch_size": 4, "regularisation": 5.0},
        }
        return checked_config(merge(base, changes))

    return build


@pytest.fixture(scope="session")
def run() -> Callable[[SimulationConfig, Path], dict[str, Any]]:
    """Run a simulation in silence."""
    return lambda config, folder: simulate(config, folder, SilentWatcher())


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
