"""Peak memory of a whole `palate simulate`, measured from outside: the largest resident set of its process."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from child import on_this_machine, run_palate
from outcome import Check, Outcome, command, missing, print_checks
from rich.console import Console

TARGET_MB = 2500.0
"""On MovieLens 1M."""


def main(
    data: Annotated[list[str] | None, typer.Option(help="Dataset; may be repeated.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; memory does not grow after the second.")] = 3,
    baselines: Annotated[bool, typer.Option(help="Also a run with all baselines.")] = True,
) -> None:
    """Measure peak memory and write results/memory.json."""
    talk = Console(stderr=True)
    checks, skipped, rows = [], [], []
    for name in data or ["demo", "ml-1m"]:
        if not on_this_machine(name):
            skipped.append(missing(name))
            continue
        for which in ("none", "all") if baselines else ("none",):
            talk.print(f"{name}, {rounds} rounds, baselines {which} ...", highlight=False)
            with tempfile.TemporaryDirectory() as folder:
                arguments = ["simulate", "--data", name, "--unit", "none", "--rounds", str(rounds)]
                place = ["--folder", str(Path(folder) / "run"), "--no-report", "--json"]
                spent = run_palate([*arguments, "--baselines", which, *place])
            target = TARGET_MB if name == "ml-1m" else None
            label = f"{name} peak memory, baselines {which}"
            checks.append(Check(name=label, measured=spent.peak_memory_mb, unit="MB", target=target))
            rows.append(
                {
                    "data": name,
                    "baselines": which,
                    "rounds": rounds,
                    "peak_memory_mb": spent.peak_memory_mb,
                    "cpu_seconds": spent.cpu_seconds,
                    "wall_seconds": spent.wall_seconds,
                }
            )
    outcome = Outcome("memory", tuple(checks), tuple(skipped), {"rows": rows})
    outcome.write()
    print_checks([outcome], Console())


if __name__ == "__main__":
    command(main)
