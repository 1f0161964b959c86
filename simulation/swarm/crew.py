"""The processes of a swarm: started, asked all at once, and heard until each has answered."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from palate.errors import FederationError
from palate.simulation.swarm.device import Resident
from palate.simulation.swarm.worker import DONE, FAILED, PROGRESS, STOP, main

_FAREWELL_SECONDS = 10.0


@dataclass
class _Member:
    process: BaseProcess
    connection: Connection
    answer: Any = None
    busy: bool = False
    cpu_seconds: float = 0.0


class Crew:
    """Worker processes that share the devices of a swarm.

    Parameters
    ----------
    parts
        Whose devices each process has.
    options
        What every `palate.simulation.swarm.worker.SwarmWorker` is made with besides.
    logs
        Folder for their logs.
    progress
        Called with how many more devices are done with what was asked.
    """

    def __init__(
        self,
        parts: Sequence[Sequence[Resident]],
        options: dict[str, Any],
        logs: Path,
        progress: Callable[[int], None],
    ) -> None:
        self._progress = progress
        self._members: list[_Member] = []
        context = multiprocessing.get_context("spawn")  # no lock or connection of this process is inherited
        for number, residents in enumerate(parts, start=1):
            ours, theirs = context.Pipe()
            log = logs / f"worker-{number}.log"
            process = context.Process(target=main, args=(theirs, residents, options, log), daemon=True)
            process.start()
            theirs.close()
            self._members.append(_Member(process, ours))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for member in self._members:
            if error is None and member.process.is_alive():
                member.connection.send(None)
                member.process.join(_FAREWELL_SECONDS)
            member.process.kill()
            member.process.join()

    @property
    def busy(self) -> bool:
        """Whether somebody has not answered yet."""
        return any(member.busy for member in self._members)

    @property
    def answers(self) -> list[Any]:
        """The last answers, in the order of the processes."""
        return [member.answer for member in self._members]

    @property
    def cpu_seconds(self) -> float:
        """CPU time of all processes up to their last answers."""
        return sum(member.cpu_seconds for member in self._members)

    def ask(self, name: str, *arguments: Any) -> None:
        """Ask everybody the same."""
        self.ask_each(name, [arguments] * len(self._members))

    def ask_each(self, name: str, arguments: Sequence[tuple[Any, ...]]) -> None:
        """Ask each process with arguments of its own."""
        for member, given in zip(self._members, arguments, strict=True):
            member.busy = True
            member.connection.send((name, given))

    def stop(self) -> None:
        """Tell those who are still giving turns that the step is over."""
        for member in self._members:
            if member.busy:
                member.connection.send(STOP)

    def hear(self, timeout_seconds: float) -> None:
        """Take in what the processes say, and return when nothing more comes for a while.

        Raises
        ------
        FederationError
            If one of them failed or is gone.
        """
        busy = {member.connection: member for member in self._members if member.busy}
        for ready in wait(list(busy), timeout_seconds) if busy else ():
            member = busy[ready]  # type: ignore[index]  # only connections were waited for
            try:
                kind, said = member.connection.recv()
            except (EOFError, ConnectionError):
                raise FederationError("a process of the swarm is gone", hint="look into its log in logs/") from None
            if kind == PROGRESS:
                self._progress(said)
            elif kind == DONE:
                member.answer, member.cpu_seconds = said
                member.busy = False
            elif kind == FAILED:
                message, hint = said
                raise FederationError(f"a device of the swarm failed: {message}", hint=hint)

    def all(self, name: str, *arguments: Any) -> list[Any]:
        """Ask everybody the same, and return the answers."""
        self.ask(name, *arguments)
        return self.wait()

    def wait(self) -> list[Any]:
        """Wait until everybody has answered, and return the answers."""
        while self.busy:
            self.hear(1.0)
        return self.answers
