"""Runs the processes, and kills some of them at random steps of random rounds."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from palate.errors import FederationError
from palate.privacy.wire import FleetStep
from palate.simulation.fleet_demo.processes import PALATE, Program
from palate.simulation.fleet_demo.stage import Stage

_POLL_SECONDS = 0.05
_START_SECONDS = 60.0
_RETURN_SECONDS = 3.0
_STEPS = (FleetStep.ADVERTISE, FleetStep.SHARE, FleetStep.MASK, FleetStep.CONFIRM, FleetStep.REVEAL)
_LONGEST_WAIT = {FleetStep.ADVERTISE: 2.0}
_USUAL_WAIT = 0.15

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Accident:
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
class Played:
    """What happened.

    Attributes
    ----------
    accidents
        The kills that took place, in their order.
    idle_memory_mb
        Resident memory of every agent before the first round, in megabytes.
    server_memory_mb
        The most that the server held, in megabytes.
    seconds
        Wall time of the rounds.
    """

    accidents: list[Accident] = field(default_factory=list)
    idle_memory_mb: list[float] = field(default_factory=list)
    server_memory_mb: float = 0.0
    seconds: float = 0.0


def plan_accidents(devices: Sequence[str], *, rounds: int, share: float, server: bool, seed: int) -> list[Accident]:
    """Draw who is killed, and when: every second one comes back."""
    rng = np.random.default_rng(seed)
    victims = rng.permutation(len(devices))[: round(share * len(devices))]
    drawn = [_accident(devices[victim], rounds, rng, returns=bool(place % 2)) for place, victim in enumerate(victims)]
    return drawn + ([_accident("", rounds, rng, returns=True)] if server else [])


def _accident(device: str, rounds: int, rng: np.random.Generator, *, returns: bool) -> Accident:
    step = _STEPS[int(rng.integers(len(_STEPS)))]
    wait = float(rng.uniform(0.0, _LONGEST_WAIT.get(step, _USUAL_WAIT)))
    return Accident(device=device, server_round=int(rng.integers(rounds)), step=step, seconds=wait, returns=returns)


class Director:
    """Starts everything, follows the server's log, and lets accidents happen.

    Parameters
    ----------
    stage
        The folders.
    accidents
        What is to happen.
    tell
        Called with a line about everything that does.
    device_program, server_program
        The command line program; tests bring their own.
    """

    def __init__(
        self,
        stage: Stage,
        accidents: Sequence[Accident],
        tell: Tell,
        *,
        device_program: Sequence[str] = PALATE,
        server_program: Sequence[str] = PALATE,
    ) -> None:
        self._stage = stage
        self._waiting = list(accidents)
        self._due: list[tuple[float, Accident]] = []
        self._returning: list[tuple[float, str]] = []
        self._tell = tell
        self._device_program = tuple(device_program)
        self._server_program = tuple(server_program)
        self._programs: dict[str, Program] = {}
        self._numbers = {name: number for number, name in enumerate(stage.devices, start=1)}
        self._read = 0
        self.played = Played()

    def play(self, *, timeout_seconds: float, progress: Callable[[dict[str, object]], None]) -> Played:
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
        with self._everybody():
            begun = time.monotonic()
            while self._server.running or self._returning:
                if time.monotonic() > begun + timeout_seconds:
                    raise FederationError(
                        f"the run is not over after {timeout_seconds:g} seconds",
                        hint=f"look into {self._stage.logs}: the server ends with\n{self._server.last_lines()}",
                    )
                for event in self._events():
                    self._notice(event)
                    progress(event)
                self._let_things_happen()
                self.played.server_memory_mb = max(self.played.server_memory_mb, self._server.memory_mb())
                time.sleep(_POLL_SECONDS)
            for event in self._events():
                progress(event)
            self.played.seconds = time.monotonic() - begun
            if self._server.exit_code != 0:
                raise FederationError(
                    f"the server ended with code {self._server.exit_code}:\n{self._server.last_lines()}",
                    hint=f"look into {self._server.log}",
                )
            self._await_devices()
        return self.played

    @property
    def _server(self) -> Program:
        return self._programs[""]

    @contextmanager
    def _everybody(self) -> Iterator[None]:
        try:
            self._start("")
            self._await_server()
            for name in self._stage.devices:
                self._start(name)
            yield
        finally:
            for program in self._programs.values():
                program.stop()

    def _start(self, name: str) -> None:
        if name:
            command = (*self._device_program, "client", "join", "--folder", str(self._stage.devices[name].home))
        else:
            command = (*self._server_program, "server", "start", "--folder", str(self._stage.fleet.root))
        self._programs[name] = Program(command, self._stage.logs / f"{self._label(name).replace(' ', '-')}.log")

    def _await_server(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not any(event["event"] == "server-started" for event in self._events()):
            if not self._server.running or time.monotonic() > deadline:
                raise FederationError(
                    f"the server does not start:\n{self._server.last_lines()}", hint=f"look into {self._server.log}"
                )
            time.sleep(_POLL_SECONDS)

    def _await_devices(self) -> None:
        """Give the devices time to take the last table in."""
        deadline = time.monotonic() + _START_SECONDS
        while any(program.running for program in self._programs.values()) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)

    def _events(self) -> Iterator[dict[str, object]]:
        path = self._stage.fleet.events
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # being written
                self._read += len(line)
                yield json.loads(line)

    def _notice(self, event: dict[str, object]) -> None:
        if event["event"] == "round-begun" and not self.played.idle_memory_mb:
            agents = [program for name, program in self._programs.items() if name and program.running]
            self.played.idle_memory_mb = [program.memory_mb() for program in agents]
        if event["event"] != "step-begun":
            return
        here = [a for a in self._waiting if (a.server_round, str(a.step)) == (event["round"], event["step"])]
        self._waiting = [accident for accident in self._waiting if accident not in here]
        self._due += [(time.monotonic() + accident.seconds, accident) for accident in here]

    def _let_things_happen(self) -> None:
        now = time.monotonic()
        for moment, accident in list(self._due):
            if moment <= now:
                self._due.remove((moment, accident))
                self._happen(accident, now)
        for moment, name in list(self._returning):
            if moment <= now:
                self._returning.remove((moment, name))
                self._start(name)
                self._tell(f"{self._label(name)} is back")

    def _happen(self, accident: Accident, now: float) -> None:
        program = self._programs[accident.device]
        if not program.running:
            return
        program.kill()
        self.played.accidents.append(accident)
        after = ", comes back" if accident.returns else ""
        self._tell(
            f"{self._label(accident.device)} is killed in round {accident.server_round}, {accident.step.value}{after}"
        )
        if accident.returns:
            self._returning.append((now + _RETURN_SECONDS, accident.device))

    def _label(self, name: str) -> str:
        return f"device {self._numbers[name]}" if name else "the server"
