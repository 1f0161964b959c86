"""Speed of the device's vault: what sealing costs in CPU, and what waiting for the disk adds."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from outcome import Check, Outcome, command, print_checks
from rich.console import Console

from palate.client.vault import PROFILE, Vault
from palate.client.vault.history import History, Interaction

PUT_TARGET_MS = 2.0
GET_TARGET_MS = 0.1
VALUE_BYTES = 2048
"""A profile, a key, or a block of a history."""


def main(
    repeats: Annotated[int, typer.Option(min=10, help="Times that each is done.")] = 300,
    folder: Annotated[
        Path | None, typer.Option(help="A folder on the disk to measure; a temporary one by default.")
    ] = None,
) -> None:
    """Measure put, get and the rest, and write results/vault.json."""
    with tempfile.TemporaryDirectory(dir=folder) as top:
        checks = tuple(_measure(Path(top), repeats))
    outcome = Outcome("vault", checks, (), {"repeats": repeats, "value_bytes": VALUE_BYTES})
    outcome.write()
    print_checks([outcome], Console())


def _measure(top: Path, repeats: int) -> list[Check]:
    value = os.urandom(VALUE_BYTES)
    with Vault.create(top / "device", keyring="file") as vault:
        write = _writer(top / "plain")
        disk = _both("the disk alone: write 4 KiB, fsync", write, repeats // 2, None)
        checks = _both("put 2 KiB", lambda: vault.put(PROFILE, "value", value), repeats, None)
        disk += _both("the same, once more", write, repeats // 2, None)
        waits = [check.measured for check in (*disk, *checks) if "wall" in check.name and check.measured is not None]
        # Every put waits for the disk once; how long that takes is the disk's, and its other users', affair.
        beyond = Check(
            name="put 2 KiB, wall beyond one wait for the disk",
            measured=waits[2] - (waits[0] + waits[1]) / 2,
            unit="ms",
            target=PUT_TARGET_MS,
        )
        checks = [*disk, *checks[:1], beyond, replace(checks[1], target=PUT_TARGET_MS)]
        checks += _both("get 2 KiB", lambda: vault.get(PROFILE, "value"), 10 * repeats, GET_TARGET_MS)
        large = os.urandom(12 << 20)
        checks += _both("put 12 MiB, an item table", lambda: vault.put(PROFILE, "table", large), 5, None)
        checks += _both("get 12 MiB, an item table", lambda: vault.get(PROFILE, "table"), 5, None)
        vault.delete(PROFILE, "table")
        history = History(vault)
        entries = [Interaction(item=f"item-{number}", time=number, source="import") for number in range(5000)]
        checks += _both("import 5,000 interactions", lambda: history.add_many(entries), 1, None)
        checks += _both("add one interaction", lambda: history.add("item", source="feedback"), repeats // 5, None)
        checks += _both("list 5,000 interactions", history.in_order, 5, None)
        checks += _both("check", vault.check, repeats // 5, None)
    checks += _both("open", lambda: Vault.open(top / "device").close(), repeats // 10, None)
    return checks


def _both(name: str, work: Callable[[], object], repeats: int, target: float | None) -> list[Check]:
    """Median wall time and mean CPU time of one call, in milliseconds; the clock of CPU time is too coarse for one."""
    walls = []
    cpu = time.process_time()
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        walls.append(time.perf_counter() - start)
    cpu = (time.process_time() - cpu) / repeats
    return [
        Check(name=f"{name}, median wall", measured=median(walls) * 1e3, unit="ms", target=target),
        Check(name=f"{name}, CPU", measured=cpu * 1e3, unit="ms", target=target),
    ]


def _writer(path: Path) -> Callable[[], None]:
    page = bytes(4096)

    def write() -> None:
        with path.open("ab") as file:
            file.write(page)
            file.flush()
            os.fsync(file.fileno())

    return write


if __name__ == "__main__":
    command(main)
