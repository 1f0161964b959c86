"""What protection costs a round: quantisation, noise and ledgers, next to the rest of the round.

A protected round trains otherwise than an unprotected one (its updates leave each item's own interaction out), so the
round at unit none is shown beside it and is not what it is compared with.

Shards answer one after the other in this process; the parts are timed where they are called.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import numpy as np
import typer
from child import on_this_machine
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from outcome import Check, Outcome, command, missing, print_checks
from rich.console import Console

from palate.models.learning.updates import Updates
from palate.models.table import initial_embeddings
from palate.privacy.budget import ADJACENCY
from palate.privacy.ledger.body import Intent, Policy
from palate.privacy.ledger.store import LedgerBook
from palate.privacy.ledger.verify import verify_ledger
from palate.server.coordinator import Coordinator
from palate.simulation import host as shard_host
from palate.simulation.config import SimulationConfig, checked_config
from palate.simulation.host import ShardHost
from palate.simulation.ledgers import ShardLedgers, make_keys
from palate.simulation.noise_keys import make_noise_key
from palate.simulation.prepare import prepare
from palate.simulation.seeding import table_rng

ENTRIES = 5000
RELEASE_SHARE, LEDGER_SHARE = 0.25, 0.10
"""Most that noise and quantisation may add to a round, and that ledgers may take of it."""


class Stopwatch:
    """CPU-seconds spent in some functions."""

    def __init__(self) -> None:
        self.spent = dict.fromkeys(("contributions", "quantisation", "noise", "ledgers"), 0.0)

    def around(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            before = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.spent[part] += time.process_time() - before

        return timed


def measure(data: str, model: str, unit: str, repeats: int) -> dict[str, Any]:
    """Time training rounds of a whole federation after one to warm up, part by part."""
    config = checked_config(
        {
            "data": data,
            "unit": unit,
            "training": {"model": model, "regularisation": 30.0},
            "schedule": {"rounds": repeats + 1, "dim": 8},
        }
    )
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        coordinator, hosts = _federation(config, Path(folder))
        coordinator.apply(np.zeros(coordinator.plan().update_size))
        rounds = []
        with (
            mock.patch.object(shard_host, "quantised_sum", watch.around("quantisation", shard_host.quantised_sum)),
            mock.patch.object(Updates, "dense", watch.around("contributions", Updates.dense)),
            mock.patch.object(shard_host, "release_sum", watch.around("noise", shard_host.release_sum)),
            mock.patch.object(ShardLedgers, "begin", watch.around("ledgers", ShardLedgers.begin)),
            mock.patch.object(ShardLedgers, "finish", watch.around("ledgers", ShardLedgers.finish)),
        ):
            while not coordinator.finished:
                plan, before, parts = coordinator.plan(), time.process_time(), dict(watch.spent)
                for host in hosts:
                    host.answer(plan)
                spent = {part: watch.spent[part] - parts[part] for part in parts}
                spent["quantisation"] -= spent["contributions"]  # formed inside, one device's update after the other
                rounds.append(spent | {"round": time.process_time() - before})
                coordinator.apply(np.zeros(plan.update_size))
    return {part: statistics.median(row[part] for row in rounds[1:]) for part in rounds[0]}


def measure_ledger(entries: int) -> dict[str, float]:
    """Append entries to one ledger one by one, each signed and on disk; then verify all of them."""
    signer = Ed25519PrivateKey.generate()
    nothing = f"sha256:{'0' * 64}"
    policy = Policy(unit="user", adjacency=ADJACENCY, delta="1e-5", budget_nano=10**15, n_min=1)
    with tempfile.TemporaryDirectory() as folder:
        path, walls = Path(folder) / "ledger.sqlite", []
        with LedgerBook(path, signer) as book:
            book.create(["device"], policy)
            before = time.process_time()
            for number in range(entries):
                intent = Intent(
                    run="r",
                    round=number,
                    mechanism="skellam",
                    unit="user",
                    adjacency=ADJACENCY,
                    clip_int=4096,
                    sum_var_int=10**8,
                    m_honest=90,
                    n1=100,
                    sampling="none-claimed",
                    model=nothing,
                    transcript=nothing,
                )
                started = time.perf_counter()
                book.append("device", intent)
                walls.append(time.perf_counter() - started)
            appended = time.process_time() - before
        before = time.process_time()
        verify_ledger(path, "device", signer.public_key(), allow_open=True)
        verified = time.process_time() - before
    return {
        "append_cpu_seconds": appended / entries,
        "append_wall_seconds": statistics.median(walls),
        "verify_cpu_seconds": verified,
    }


def _federation(config: SimulationConfig, folder: Path) -> tuple[Coordinator, list[ShardHost]]:
    prepared = prepare(config)
    num_users, num_items = prepared.interactions.num_users, prepared.interactions.num_items
    schedule = config.schedule
    coordinator = Coordinator(
        config.server_settings(run="benchmark", population=num_users),
        prepared.content.columns,
        initial_embeddings(num_items, schedule.dim, scale=schedule.initial_scale, rng=table_rng(config.seed)),
    )
    make_noise_key(folder, seed=None)
    make_keys(folder)
    return coordinator, [ShardHost(prepared, config, shard, folder) for shard in range(config.shards)]


def main(
    data: Annotated[str, typer.Option(help="Dataset.")] = "ml-1m",
    repeats: Annotated[int, typer.Option(min=3, help="Rounds to time, after one to warm up.")] = 3,
) -> None:
    """Time protected rounds and write results/protection.json."""
    if not on_this_machine(data):
        outcome = Outcome("protection", (), (missing(data),), {})
        outcome.write()
        print_checks([outcome], Console())
        return
    talk = Console(stderr=True)
    checks, details = [], {}
    for model in ("neumf", "gmf"):
        talk.print(f"{data} {model} ...", highlight=False)
        plain, protected = (measure(data, model, unit, repeats) for unit in ("none", "user"))
        details[model] = {"none": plain, "user": protected}
        release = protected["quantisation"] + protected["noise"]
        checks += [
            Check(name=f"{data} {model}, round without protection", measured=plain["round"], unit="CPU-s"),
            Check(name=f"{data} {model}, protected round", measured=protected["round"], unit="CPU-s"),
            Check(name=f"{data} {model}, forming updates", measured=protected["contributions"], unit="CPU-s"),
            Check(name=f"{data} {model}, quantisation", measured=protected["quantisation"], unit="CPU-s"),
            Check(name=f"{data} {model}, noise", measured=protected["noise"], unit="CPU-s"),
            Check(name=f"{data} {model}, ledgers", measured=protected["ledgers"], unit="CPU-s"),
            Check(
                name=f"{data} {model}, quantisation and noise over the same round without them",
                measured=release / (protected["round"] - release),
                target=RELEASE_SHARE if model == "neumf" else None,
            ),
            Check(
                name=f"{data} {model}, ledgers over the protected round",
                measured=protected["ledgers"] / protected["round"],
                target=LEDGER_SHARE if model == "neumf" else None,
            ),
        ]
    talk.print("ledger ...")
    ledger = details["ledger"] = measure_ledger(ENTRIES)
    checks += [
        Check(name="ledger append, wall", measured=1e3 * ledger["append_wall_seconds"], unit="ms", target=1.0),
        Check(name="ledger append, processor", measured=1e3 * ledger["append_cpu_seconds"], unit="CPU-ms"),
        Check(name=f"verify {ENTRIES:,} entries", measured=ledger["verify_cpu_seconds"], unit="CPU-s", target=2.0),
    ]
    outcome = Outcome("protection", tuple(checks), (), details)
    outcome.write()
    print_checks([outcome], Console())


if __name__ == "__main__":
    command(main)
