"""Run all benchmarks, each in a process of its own and on one thread, and set what they found against the targets."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from outcome import RESULTS, THREAD_VARIABLES, Outcome, command, print_checks, read_outcome
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from palate.errors import ConfigError, RunError

BENCHMARKS = (
    "overhead",
    "rounds",
    "kernels",
    "protection",
    "secagg",
    "vault",
    "recommending",
    "naive_flower",
    "memory",
    "quality",
)


def run_one(name: str, arguments: list[str], say: Callable[[str], None]) -> Outcome:
    """Run one benchmark to its end, pass on what it says on the way, and read its outcome.

    Raises
    ------
    RunError
        If it fails.
    """
    script = Path(__file__).with_name(f"{name}.py")
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, "1")
    said = [""]
    with subprocess.Popen(
        [sys.executable, str(script), *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stderr or ():
            said.append(line.strip())
            say(line.strip())
    if process.returncode != 0:
        reason = next((line for line in reversed(said) if line.startswith("error:")), said[-1])
        raise RunError(
            f"benchmark {name} ended with code {process.returncode}: {reason}", hint=f"run {script.name} by itself"
        )
    return read_outcome(RESULTS / f"{name}.json")


def main(
    only: Annotated[str, typer.Option(help="Benchmarks, with commas.")] = ",".join(BENCHMARKS),
    seeds: Annotated[str, typer.Option(help="Seeds of the quality runs, with commas.")] = "1,2,3",
) -> None:
    """Run all benchmarks; results go to benchmarks/results/. A missed target ends with code 1."""
    chosen = [name.strip() for name in only.split(",") if name.strip()]
    for name in chosen:
        if name not in BENCHMARKS:
            raise ConfigError(f"no benchmark is called {name!r}", hint=f"choose from {', '.join(BENCHMARKS)}")
    talk = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    outcomes = []
    with Progress(*columns, console=talk, transient=True) as progress:
        for position, name in enumerate(chosen, start=1):
            title = f"{name} ({position} of {len(chosen)})"
            task = progress.add_task(title, total=None)
            arguments = ["--seeds", seeds] if name == "quality" else []
            outcomes.append(run_one(name, arguments, partial(_describe, progress, task, title)))
            progress.remove_task(task)
            talk.print(f"{name} done", highlight=False)
    print_checks(outcomes, Console())
    if any(check.ok is False for outcome in outcomes for check in outcome.checks):
        raise typer.Exit(1)


def _describe(progress: Progress, task: TaskID, title: str, words: str) -> None:
    progress.update(task, description=f"{title}: {escape(words)}")


if __name__ == "__main__":
    command(main)
