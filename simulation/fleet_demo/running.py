"""Runs server and devices as processes of the same commands that people type, and kills some of them.

Who is killed, and at which step of which round, is drawn at random before the run.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from palate.errors import FederationError
from palate.privacy.wire import FleetStep
from palate.simulation.fleet_demo.folders import DemoFleet

_POLL_SECONDS = 0.05
_START_SECONDS = 60.0
_RETURN_SECONDS = 3.0
_STEPS = (FleetStep.ADVERTISE, FleetStep.SHARE, FleetStep.MASK, FleetStep.CONFIRM, FleetStep.REVEAL)
_PATIENCE_SECONDS = 10.0
_LONGEST_WAIT = {FleetStep.ADVERTISE: 2.0, FleetStep.REPORT: 2.0}
_USUAL_WAIT = 0.15

PALATE = (sys.executable, "-m", "palate.cli.main")
"""The `palate` command."""


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

    @property
    def cpu_seconds(self) -> float:
        """CPU time of the process itself, without its children; 0 once it has ended."""
        try:
            times = psutil.Process(self._process.pid).cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)

    def memory_mb(self) -> float:
        """Resident memory of the process itself, without its children, in megabytes; 0 once it has ended."""
        try:
            return float(psutil.Process(self._process.pid).memory_info().rss) / 1e6
        except psutil.Error:
            return 0.0

    def kill(self) -> None:
        """End it and its children at once, as a crash would: without messages and without clean-up."""
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


class EventTail:
    """Reads a server's event log while it grows.

    Parameters
    ----------
    path
        The log; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0

    def __call__(self) -> Iterator[dict[str, Any]]:
        """Yield the events that were added since the last call."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # being written
                self._read += len(line)
                yield json.loads(line)


def start_helper(demo: DemoFleet) -> Program | None:
    """Start the helper of a fleet; None where it has none."""
    if demo.helper is None:
        return None
    return Program((*PALATE, "helper", "start", "--folder", str(demo.helper.root)), demo.logs / "the-helper.log")


def start_server(demo: DemoFleet, program: Sequence[str] = PALATE) -> Program:
    """Start the server of a fleet; it ends after the last round."""
    command = (*program, "server", "start", "--until-done", "--folder", str(demo.fleet.root))
    return Program(command, demo.logs / "the-server.log")


def await_server(server: Program, events: EventTail) -> None:
    """Wait until a server listens; raises FederationError if it does not start."""
    deadline = time.monotonic() + _START_SECONDS
    while not any(event["event"] == "server-started" for event in events()):
        if not server.running or time.monotonic() > deadline:
            raise FederationError(f"the server does not start:\n{server.last_lines()}", hint=f"look into {server.log}")
        time.sleep(_POLL_SECONDS)


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One SIGKILL.

    Attributes
    ----------
    device
        Who; "" for the server.
    server_round, step
        During which step of which round.
    seconds
        How long after the step began.
    returns
        Whether it is started again some seconds later.
    """

    device: str
    server_round: int
    step: FleetStep
    seconds: float
    returns: bool


@dataclass
class Outcome:
    """What happened in a run.

    Attributes
    ----------
    kills
        The kills that took place, in their order.
    idle_memory_mb
        Resident memory of every agent before the first round, in megabytes.
    server_memory_mb, helper_memory_mb
        The most that server and helper held, in megabytes.
    seconds
        Wall time of the rounds.
    """

    kills: list[Kill] = field(default_factory=list)
    idle_memory_mb: list[float] = field(default_factory=list)
    server_memory_mb: float = 0.0
    helper_memory_mb: float = 0.0
    seconds: float = 0.0


def plan_kills(
    devices: Sequence[str], *, rounds: int, share: float, server: bool, seed: int, with_helper: bool = False
) -> list[Kill]:
    """Draw who is killed, and when: every second one comes back."""
    steps = (FleetStep.REPORT,) if with_helper else _STEPS
    rng = np.random.default_rng(seed)
    victims = rng.permutation(len(devices))[: round(share * len(devices))]
    drawn = [
        _kill(devices[victim], rounds, steps, rng, returns=bool(place % 2)) for place, victim in enumerate(victims)
    ]
    return drawn + ([_kill("", rounds, steps, rng, returns=True)] if server else [])


def _kill(device: str, rounds: int, steps: Sequence[FleetStep], rng: np.random.Generator, *, returns: bool) -> Kill:
    step = steps[int(rng.integers(len(steps)))]
    wait = float(rng.uniform(0.0, _LONGEST_WAIT.get(step, _USUAL_WAIT)))
    return Kill(device=device, server_round=int(rng.integers(rounds)), step=step, seconds=wait, returns=returns)


class FleetRun:
    """Starts all programs, follows the server's log, and kills when it is time.

    Parameters
    ----------
    demo
        The fleet and its devices.
    kills
        What is to happen.
    tell
        Called with a line about everything that does.
    device_program, server_program
        The command line program; tests bring their own.
    """

    def __init__(
        self,
        demo: DemoFleet,
        kills: Sequence[Kill],
        tell: Callable[[str], None],
        *,
        device_program: Sequence[str] = PALATE,
        server_program: Sequence[str] = PALATE,
    ) -> None:
        self._demo = demo
        self._waiting = list(kills)
        self._due: list[tuple[float, Callable[[], None]]] = []
        self._returning = 0
        self._tell = tell
        self._device_program = tuple(device_program)
        self._server_program = tuple(server_program)
        self._programs: dict[str, Program] = {}
        self._helper: Program | None = None
        self._numbers = {name: number for number, name in enumerate(demo.devices, start=1)}
        self._events = EventTail(demo.fleet.events)
        self.outcome = Outcome()

    def run(self, *, timeout_seconds: float, progress: Callable[[dict[str, object]], None]) -> Outcome:
        """Run the fleet until its run is over.

        Parameters
        ----------
        timeout_seconds
            When to give up.
        progress
            Called with every line of the server's log.

        Raises
        ------
        FederationError
            If the server does not start, fails, or is not done in time.
        """
        with self._all_programs():
            begun = time.monotonic()
            while self._server.running or self._returning:
                if time.monotonic() > begun + timeout_seconds:
                    raise FederationError(
                        f"the run is not over after {timeout_seconds:g} seconds",
                        hint=f"look into {self._demo.logs}: the server ends with\n{self._server.last_lines()}",
                    )
                for event in self._events():
                    self._notice(event)
                    progress(event)
                self._do_what_is_due()
                if self._helper is not None:
                    self.outcome.helper_memory_mb = max(self.outcome.helper_memory_mb, self._helper.memory_mb())
                self.outcome.server_memory_mb = max(self.outcome.server_memory_mb, self._server.memory_mb())
                time.sleep(_POLL_SECONDS)
            for event in self._events():
                progress(event)
            self.outcome.seconds = time.monotonic() - begun
            if self._server.exit_code != 0:
                raise FederationError(
                    f"the server ended with code {self._server.exit_code}:\n{self._server.last_lines()}",
                    hint=f"look into {self._server.log}",
                )
            self._await_devices()
        return self.outcome

    @property
    def _server(self) -> Program:
        return self._programs[""]

    @contextmanager
    def _all_programs(self) -> Iterator[None]:
        try:
            self._helper = start_helper(self._demo)  # first, though a round would wait for it
            self._start("")
            await_server(self._server, self._events)
            for name in self._demo.devices:
                self._start(name)
            yield
        finally:
            for program in self._programs.values():
                program.stop()
            if self._helper is not None:
                self._helper.stop()

    def _start(self, name: str) -> None:
        if not name:
            self._programs[name] = start_server(self._demo, self._server_program)
            return
        command = (*self._device_program, "client", "join", "--folder", str(self._demo.devices[name].home))
        self._programs[name] = Program(command, self._demo.logs / f"{self._label(name).replace(' ', '-')}.log")

    def _await_devices(self) -> None:
        """Give the devices time to receive the last table."""
        deadline = time.monotonic() + _START_SECONDS
        while any(program.running for program in self._programs.values()) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)

    def _notice(self, event: dict[str, object]) -> None:
        if event["event"] == "round-begun" and not self.outcome.idle_memory_mb:
            agents = [program for name, program in self._programs.items() if name and program.running]
            self.outcome.idle_memory_mb = [program.memory_mb() for program in agents]
        if event["event"] != "step-begun":
            return
        here = [a for a in self._waiting if (a.server_round, str(a.step)) == (event["round"], event["step"])]
        self._waiting = [kill for kill in self._waiting if kill not in here]
        self._due += [(time.monotonic() + kill.seconds, partial(self._kill, kill)) for kill in here]

    def _do_what_is_due(self) -> None:
        now = time.monotonic()
        for moment, act in list(self._due):
            if moment <= now:
                self._due.remove((moment, act))
                act()

    def _return(self, name: str) -> None:
        self._returning -= 1
        self._start(name)
        self._tell(f"{self._label(name)} is back")

    def _kill(self, kill: Kill) -> None:
        program = self._programs[kill.device]
        if not program.running:
            return
        program.kill()
        self.outcome.kills.append(kill)
        after = ", comes back" if kill.returns else ""
        self._tell(f"{self._label(kill.device)} is killed in round {kill.server_round}, {kill.step.value}{after}")
        if kill.returns:
            self._returning += 1
            self._due.append((time.monotonic() + _RETURN_SECONDS, partial(self._return, kill.device)))

    def _label(self, name: str) -> str:
        return f"device {self._numbers[name]}" if name else "the server"
