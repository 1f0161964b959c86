"""What the inner steps of a round cost, on made-up data: CPU-seconds, beside another version of the code if asked.

Two versions take turns in processes of their own (A B A B), so that other work on the machine slows both alike; the
least of each is quoted.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from outcome import Check, Outcome, command, print_checks
from rich.console import Console

from palate.client.release import quantised_sum
from palate.models.histories import Histories, offsets
from palate.models.learning.kernel import fresh_heads, train
from palate.models.learning.ridge import closed_form, solve_users
from palate.models.table import ItemTable
from palate.models.training import LocalTraining
from palate.privacy.integer.quantise import Quantiser
from palate.server.filtering import filter_rows

REPEATS = 3
SENSITIVITY = 1 << 14


def table_of(num_items: int, fixed: int, dim: int) -> ItemTable:
    """Make a table of random rows."""
    rng = np.random.default_rng(1)
    columns = (0.1 * rng.standard_normal((num_items, fixed))).astype(np.float32)
    return ItemTable(columns, (0.3 * rng.standard_normal((num_items, dim))).astype(np.float32))


def histories_of(people: int, mean: int, num_items: int) -> Histories:
    """Histories of at most `mean` items, without repeats."""
    rng = np.random.default_rng(2)
    items = [rng.permutation(np.unique(rng.integers(0, num_items, mean))) for _ in range(people)]
    return Histories(offsets(np.array([len(own) for own in items])), np.concatenate(items).astype(np.int32))


def spent_on(work: Callable[[], object]) -> float:
    """CPU-seconds of a piece of work."""
    before = time.process_time()
    work()
    return time.process_time() - before


def quantising(people: int, mean: int, num_items: int, dim: int, *, own_items_only: bool) -> float:
    """CPU-seconds of quantising everybody's update in a round of gmf, once the updates' factors are there."""
    table, histories = table_of(num_items, 1, dim), histories_of(people, mean, num_items)
    config = LocalTraining(
        model="gmf", own_items_only=own_items_only, leave_one_out=not own_items_only, regularisation=30.0
    )
    keys = [person.to_bytes(32, "big") for person in range(people)]
    quantiser = Quantiser(clip_norm=0.03, sensitivity=SENSITIVITY, size=num_items * dim)
    total = np.zeros(quantiser.size, dtype=np.int64)

    def sink(chosen, updates):
        total[:] += quantised_sum(updates, [keys[person] for person in chosen.tolist()], quantiser)

    taken = list[tuple[Any, Any]]()
    given = (table, histories, fresh_heads(table, config, people), np.arange(people, dtype=np.uint64), config)
    train(*given, sink=lambda chosen, updates: taken.append((chosen, updates)))
    return spent_on(lambda: [sink(chosen, updates) for chosen, updates in taken])


def measure() -> dict[str, float]:
    """CPU-seconds of each step, once."""
    table, histories = table_of(3706, 49, 8), histories_of(600, 160, 3706)
    config = LocalTraining(model="gmf", leave_one_out=True, regularisation=30.0)
    users = solve_users(table.rows, histories, config)
    scale, learned = np.ones(600, np.float32), slice(49, 57)
    rng = np.random.default_rng(3)
    rows, popularity = rng.standard_normal((2000, 64)) * 2.0, rng.pareto(1.2, 2000) + 1.0
    return {
        "200 people x 20,000 items x 16, own items: quantising": quantising(200, 30, 20_000, 16, own_items_only=True),
        "200 people x 3,706 items x 8, dense: quantising": quantising(200, 160, 3706, 8, own_items_only=False),
        "600 people, 160 items each, 57 columns: leave-one-out updates": spent_on(
            lambda: closed_form(table.rows, histories, users, learned, scale, config)
        ),
        "600 people, 160 items each, 57 columns: solves": spent_on(lambda: solve_users(table.rows, histories, config)),
        "2,000 rows x 64, 40 groups: filter": spent_on(
            lambda: filter_rows(rows, np.eye(64), popularity, groups=40, rng=np.random.default_rng(4))
        ),
    }


def measured_by(python: str) -> dict[str, float]:
    """Measure once with an interpreter, in a process of its own."""
    script = str(Path(__file__).resolve())
    done = subprocess.run([python, script, "--once"], capture_output=True, text=True, check=True)
    return {name: float(value) for name, value in json.loads(done.stdout).items()}


def main(
    against: Annotated[
        str | None, typer.Option(help="The Python of another version's environment, measured in turns with this one.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Measure once, and print JSON.")] = False,
) -> None:
    """Time the steps of a round and write results/kernels.json."""
    if once:
        measure()  # the first call pays for imports and tables
        print(json.dumps(measure()))
        return
    pythons = [sys.executable, *([against] if against else [])]
    rounds = [[measured_by(python) for python in pythons] for _ in range(REPEATS)]
    least = [
        {name: min(pair[place][name] for pair in rounds) for name in rounds[0][0]} for place in range(len(pythons))
    ]
    checks = []
    for name, value in least[0].items():
        checks.append(Check(name=name, measured=value, unit="CPU-s"))
        if against:
            checks += [
                Check(name=f"{name}, before", measured=least[1][name], unit="CPU-s"),
                Check(name=f"{name}, before over now", measured=least[1][name] / value),
            ]
    large = quantising(10_000, 30, 100_000, 8, own_items_only=True)
    checks.append(Check(name="10,000 people x 100,000 items x 8, own items", measured=large, unit="CPU-s", target=14.0))
    outcome = Outcome("kernels", tuple(checks), (), {"least": least})
    outcome.write()
    print_checks([outcome], Console())


if __name__ == "__main__":
    command(main)
