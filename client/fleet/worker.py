"""The agent's side of the worker: start it when a round needs it, and answer with noise alone when it fails.

Whether a computation crashes or hangs may depend on the person's data, and a round without an answer can be seen. So
whatever happens in the worker, a vector of the right form leaves: zeros under this device's own share of noise.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from palate.client.fleet.frames import ChannelBroken, Frame, receive, send
from palate.models.arrays import AnyArray
from palate.privacy.integer.csprng import KEY_BYTES, Purpose, WordStream
from palate.privacy.integer.ring import RingArray
from palate.privacy.mechanisms.terms import ReleaseTerms
from palate.privacy.wire import ItemUpdate, RoundPlan

log = logging.getLogger(__name__)

MODULE = "palate.client.fleet.worker_process"
_FAREWELL_SECONDS = 2.0


@dataclass(frozen=True)
class Contribution:
    """What a worker makes of a round.

    Attributes
    ----------
    vector
        Clipped, rounded and noised, not yet masked; ring elements [update_size].
    head
        The score model's parameters after the round, as the vault keeps them; None if there are no new ones.
    """

    vector: RingArray = field(repr=False)
    head: bytes | None = field(repr=False)


class Trainer(Protocol):
    """Whatever computes a device's part of a round."""

    def contribute(self, plan: RoundPlan, history: Sequence[str], head: bytes | None) -> Contribution:
        """Compute it; never fails for reasons that lie in the person's data."""

    def use_catalogue(self, sha256: str) -> None:
        """Compute with another catalogue from now on, which lies where the last one did."""

    def close(self) -> None:
        """End."""


class Worker:
    """Computes in a process that is started on demand and ends when idle.

    Parameters
    ----------
    catalogue, catalogue_sha256
        The fleet's catalogue, and the hash that it must have.
    timeout_seconds
        After which a computation is given up; start of the process included.
    idle_seconds
        After which an idle process ends.
    command
        The program, without its arguments; for tests.
    """

    def __init__(
        self,
        catalogue: Path,
        catalogue_sha256: str,
        *,
        timeout_seconds: float = 120.0,
        idle_seconds: float = 60.0,
        command: Sequence[str] = (sys.executable, "-P", "-m", MODULE),
    ) -> None:
        self._catalogue = catalogue
        self._catalogue_sha256 = catalogue_sha256
        self._timeout = timeout_seconds
        self._idle = idle_seconds
        self._command = tuple(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return "Worker(<private>)"

    @property
    def process_id(self) -> int | None:
        """Of the running process; None where there is none."""
        if self._process is None or self._process.poll() is not None:
            return None
        return self._process.pid

    def contribute(self, plan: RoundPlan, history: Sequence[str], head: bytes | None) -> Contribution:
        """Let the worker compute a round; a crash, a hang or nonsense gives noise alone."""
        assert plan.terms is not None  # the owner's limits ask for unit user
        with self._lock:
            try:
                return contribution_in(self._exchange(plan, history, head), plan)
            except Exception as error:  # whatever it was: a round that is charged and not answered could be seen
                log.error(
                    "round %d: the worker failed with %s, noise alone is sent", plan.server_round, type(error).__name__
                )
                self._end()
        return Contribution(noise_alone(plan.update_size, plan.terms), None)

    def use_catalogue(self, sha256: str) -> None:
        """Compute with another catalogue from now on, which lies where the last one did."""
        with self._lock:
            self._catalogue_sha256 = sha256

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _exchange(self, plan: RoundPlan, history: Sequence[str], head: bytes | None) -> Frame:
        asked = question(plan, history, head, self._catalogue, self._catalogue_sha256)
        until = time.monotonic() + self._timeout
        warm = self.process_id is not None
        try:
            return self._ask(asked, until)
        except ChannelBroken:
            if not warm or time.monotonic() >= until:
                raise
        # It may have ended itself, idle, just when it was asked.
        self._end()
        return self._ask(asked, until)

    def _ask(self, asked: Frame, until: float) -> Frame:
        channel = self._running()
        send(channel, asked.values, asked.arrays, until=until)
        return receive(channel, until=until)

    def _running(self) -> socket.socket:
        if self._channel is not None and self.process_id is not None:
            return self._channel
        self._end()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [*self._command, str(os.getpid()), str(self._idle)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # what libraries say may quote the history
                close_fds=True,
                start_new_session=True,  # Ctrl-C is the agent's: it finishes its round, or ends the worker itself
            )
        self._channel = ours
        return ours

    def _end(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            self._process.kill()
            try:
                self._process.wait(timeout=_FAREWELL_SECONDS)
            except subprocess.TimeoutExpired:  # in the kernel's hands; it is collected with the agent
                log.error("the worker does not end")
            self._process = None


def question(
    plan: RoundPlan, history: Sequence[str], head: bytes | None, catalogue: Path, catalogue_sha256: str
) -> Frame:
    """Return what a worker is asked (`palate.client.fleet.worker_process.answer`)."""
    arrays, scalars = plan.to_parts()
    values: dict[str, object] = {
        "plan": scalars,
        "history": list(history),
        "catalogue": str(catalogue),
        "catalogue_sha256": catalogue_sha256,
    }
    given: dict[str, AnyArray] = {**arrays}
    if head is not None:
        given["head"] = np.frombuffer(head, dtype=np.uint8)
    return Frame(values, given)


def contribution_in(frame: Frame, plan: RoundPlan) -> Contribution:
    """Read a worker's answer; raises where it does not fit the plan."""
    if frame.values.get("failed"):
        log.error("round %d failed with %s inside", plan.server_round, frame.values["failed"])
    update = ItemUpdate.from_parts({"update": frame.arrays["vector"]}, plan)
    head = frame.arrays.get("head")
    vector = cast("RingArray", update.vector)  # a plan with terms takes nothing else
    return Contribution(vector, None if head is None else head.tobytes())


def noise_alone(size: int, terms: ReleaseTerms) -> RingArray:
    """Return what a device sends that has nothing to say: its share of noise, ring elements [size]."""
    mechanism = terms.mechanism(size)
    return mechanism.ring.reduce(mechanism.noise(WordStream(os.urandom(KEY_BYTES), Purpose.NOISE)))
