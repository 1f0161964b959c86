"""Processes of the demonstration: the same commands that people type, started, watched and killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

_PATIENCE_SECONDS = 10.0


PALATE = (sys.executable, "-m", "palate.cli.main")
"""What people type as `palate`."""


class Program:
    """One command in a process of its own.

    Parameters
    ----------
    command
        Program and arguments.
    log
        File for all that it prints.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "NO_COLOR": "1", "PALATE_KEYRING": "file"},
                start_new_session=True,
            )

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs, negative for a signal."""
        return self._process.poll()

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def memory_mb(self) -> float:
        """Resident memory of the process itself, without its children, in megabytes; 0 once it has ended."""
        try:
            return float(psutil.Process(self._process.pid).memory_info().rss) / 1e6
        except psutil.Error:
            return 0.0

    def kill(self) -> None:
        """End it and its children at once, as a crash would: nothing is said, nothing is cleaned up."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._process.wait()

    def stop(self) -> None:
        """Ask it to end, and kill it if it does not."""
        if self.running:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_PATIENCE_SECONDS)
        self.kill()

    def last_lines(self, count: int = 5) -> str:
        """Return the end of what it has printed."""
        lines = self.log.read_text("utf-8", errors="replace").splitlines()
        return "\n".join(lines[-count:])
