"""What a benchmark leaves behind: checks against targets and details, one JSON file per benchmark."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from palate.errors import PalateError

RESULTS = Path(__file__).parent / "results"

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")
"""Set to 1 for every benchmark: idle threads that wait actively would be counted as work."""

_PACKAGES = ("palate", "flwr", "torch", "numpy", "scipy", "polars")


@dataclass(frozen=True, kw_only=True)
class Check:
    """A measured number and the bound it has to keep.

    Attributes
    ----------
    name
        What was measured.
    measured
        The value; None if it could not be measured.
    unit
        Its unit, "" for metrics.
    target
        The bound; None for numbers that are only reported.
    at_most
        Whether the bound is an upper one.
    """

    name: str
    measured: float | None
    unit: str = ""
    target: float | None = None
    at_most: bool = True

    @property
    def ok(self) -> bool | None:
        """Whether the bound is kept; None where there is no bound or no value."""
        if self.target is None or self.measured is None:
            return None
        return self.measured <= self.target if self.at_most else self.measured >= self.target


@dataclass(frozen=True)
class Outcome:
    """Checks and details of one benchmark.

    Attributes
    ----------
    skipped
        What was left out and why, one sentence each.
    details
        Plain values for those who want more than the checks.
    """

    benchmark: str
    checks: tuple[Check, ...]
    skipped: tuple[str, ...]
    details: dict[str, Any]

    def write(self, folder: Path = RESULTS) -> Path:
        """Write `<benchmark>.json` and return its path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.benchmark}.json"
        values = asdict(self) | {"machine": machine()}
        path.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        return path


def read_outcome(path: Path) -> Outcome:
    """Read what `Outcome.write` wrote."""
    values = json.loads(path.read_text(encoding="utf-8"))
    checks = tuple(Check(**check) for check in values["checks"])
    return Outcome(values["benchmark"], checks, tuple(values["skipped"]), values["details"])


def missing(data: str) -> str:
    """Say that a dataset is not on this machine."""
    return f"{data} is not on this machine (set PALATE_DATA, or palate data get {data})"


def command(main: Callable[..., None]) -> None:
    """Run a benchmark's `main` as a command; failures end as those of `palate`."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    try:
        app()
    except PalateError as error:
        talk = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
        talk.print(f"error: {error.message}")
        talk.print(f"hint: {error.hint}")
        sys.exit(error.exit_code)


def machine() -> dict[str, Any]:
    """Describe where numbers were taken: cores, threads and versions."""
    return {
        "cores": os.cpu_count(),
        "threads": {name: os.environ.get(name, "not set") for name in THREAD_VARIABLES},
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
    }


def print_checks(outcomes: Sequence[Outcome], console: Console) -> None:
    """Print one line per check: measured, target, kept or not."""
    table = Table("benchmark", "measured", "value", "target", "ok", box=None, pad_edge=False)
    for column in table.columns[2:4]:
        column.justify, column.no_wrap = "right", True
    for outcome in outcomes:
        for check in outcome.checks:
            table.add_row(outcome.benchmark, check.name, _value(check), _target(check), _verdict(check))
    console.width = max(console.width, 110)  # in a pipe Rich would wrap at 80
    console.print(table)
    for outcome in outcomes:
        for sentence in outcome.skipped:
            console.print(f"left out of {outcome.benchmark}: {sentence}", highlight=False)


def _value(check: Check) -> str:
    return "-" if check.measured is None else f"{_number(check.measured)} {check.unit}".rstrip()


def _target(check: Check) -> str:
    if check.target is None:
        return ""
    return f"{'<=' if check.at_most else '>='} {_number(check.target)} {check.unit}".rstrip()


def _verdict(check: Check) -> str:
    if check.ok is None:
        return "?" if check.target is not None else ""
    return "[green]yes[/]" if check.ok else "[bold red]NO[/]"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) >= 1 else f"{value:.4f}"
