"""Run `palate` as a person would, in a process of its own, and read off what the system charged for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from palate.errors import RunError

PALATE = str(Path(sys.executable).parent / "palate")
"""The command beside this interpreter."""

_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere


@dataclass(frozen=True)
class Spent:
    """Costs of a finished process.

    Attributes
    ----------
    wall_seconds
        From start to end.
    cpu_seconds
        User and system time of the process and the children it waited for.
    peak_memory_mb
        Largest resident set, in MB (10**6 bytes).
    stdout
        What it printed.
    """

    wall_seconds: float
    cpu_seconds: float
    peak_memory_mb: float
    stdout: str


def run_palate(arguments: Sequence[str]) -> Spent:
    """Run the installed command to its end; as `run_child`."""
    return run_child([PALATE, *arguments])


def run_child(command: Sequence[str]) -> Spent:
    """Run a command to its end.

    The peak cannot be below the caller's own size at the start of the child, so callers stay small: no numerical
    library is imported beside this module.

    Raises
    ------
    RunError
        If the command fails; its own error is repeated.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)  # it is reaped already; Popen has to know
        out.seek(0)
        err.seek(0)
        stdout, stderr = out.read().decode(), err.read().decode(errors="replace")
    if process.returncode != 0:
        raise RunError(
            f"{' '.join(command)} ended with code {process.returncode}: {stderr.strip()[-500:]}",
            hint="run it by itself",
        )
    return Spent(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * _MAXRSS_UNIT / 1e6, stdout)


def on_this_machine(data: str) -> bool:
    """Whether a dataset known by name, or a file or folder, can be read here."""
    return _named_datasets().get(data, False) or Path(data).exists()


@lru_cache(maxsize=1)
def _named_datasets() -> dict[str, bool]:
    listed = json.loads(run_palate(["data", "list", "--json"]).stdout)
    return {entry["name"]: bool(entry["here"]) for entry in listed["datasets"]}
