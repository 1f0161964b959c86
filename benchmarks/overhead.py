"""What a person waits for: `palate --help`, `import palate`, and the demo from a warm install to its report."""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from child import run_child, run_palate
from outcome import Check, Outcome, command, print_checks
from rich.console import Console

HELP_TARGET_SECONDS = 0.5
IMPORT_TARGET_SECONDS = 0.15
DEMO_TARGET_SECONDS = 60.0


def main(
    repeats: Annotated[int, typer.Option(min=3, help="Times to ask for help, after one to warm up.")] = 7,
    demo: Annotated[bool, typer.Option(help="Also run the demo.")] = True,
) -> None:
    """Measure waiting times and write results/overhead.json."""
    talk = Console(stderr=True)
    talk.print("palate --help ...")
    run_palate(["--help"])  # warms the file cache and the byte code
    helps = [run_palate(["--help"]) for _ in range(repeats)]
    walls = [spent.wall_seconds for spent in helps]
    cpus = [spent.cpu_seconds for spent in helps]
    checks = [
        Check(name="palate --help", measured=statistics.median(walls), unit="s", target=HELP_TARGET_SECONDS),
        Check(name="palate --help, processor", measured=statistics.median(cpus), unit="CPU-s"),
    ]
    details = {"help_wall_seconds": walls, "help_cpu_seconds": cpus}
    for name in ("wall_seconds", "cpu_seconds"):
        bare, loaded = (
            [getattr(run_child([sys.executable, "-c", code]), name) for _ in range(repeats)]
            for code in ("pass", "import palate")
        )
        more = max(0.0, statistics.median(loaded) - statistics.median(bare))  # beyond the interpreter's own start
        target = IMPORT_TARGET_SECONDS if name == "wall_seconds" else None
        unit = "s" if name == "wall_seconds" else "CPU-s"
        checks.append(Check(name="import palate", measured=more, unit=unit, target=target))
        details[f"import_{name}"] = loaded
    if demo:
        talk.print("palate simulate --data demo ...")
        with tempfile.TemporaryDirectory() as folder:
            place = ["--folder", str(Path(folder) / "run"), "--quiet"]
            spent = run_palate(["simulate", "--data", "demo", "--unit", "none", *place])
        checks += [
            Check(
                name="demo with baselines and report", measured=spent.wall_seconds, unit="s", target=DEMO_TARGET_SECONDS
            ),
            Check(name="demo, processor", measured=spent.cpu_seconds, unit="CPU-s"),
        ]
    outcome = Outcome("overhead", tuple(checks), (), details)
    outcome.write()
    print_checks([outcome], Console())


if __name__ == "__main__":
    command(main)
