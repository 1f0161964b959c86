"""The fleet's state as numbers for Prometheus, on a page that only this machine can reach; nothing about one device."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from palate.errors import EnvironmentProblem
from palate.privacy.budget import Promise
from palate.server.fleet.watching import (
    Answered,
    DeviceFailed,
    Happening,
    HelperDone,
    Lost,
    RoundBegun,
    RoundEnded,
    StepDone,
    Waiting,
)

ADDRESS = "127.0.0.1"
_SECONDS = (0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600, 1800)


class Metrics:
    """Watches, counts, and serves the counts; a context manager.

    Parameters
    ----------
    port
        Where the page is; 0 takes a free port.
    promise
        What the epsilon on it is about.
    tls_ends
        Returns when the server's certificate ends, in seconds since 1970.

    Raises
    ------
    EnvironmentProblem
        If the port cannot be had.
    """

    def __init__(self, port: int, promise: Promise, *, tls_ends: Callable[[], float] | None = None) -> None:
        self.registry = CollectorRegistry()
        self._rounds = Counter("palate_rounds", "Rounds that have ended.", ["status"], registry=self.registry)
        self._answers = Counter(
            "palate_answers", "Answers of devices that were taken.", ["step"], registry=self.registry
        )
        self._failures = Counter("palate_failures", "Devices that dropped out.", ["step"], registry=self.registry)
        self._left_out = Counter(
            "palate_left_out", "Reports that the helper left out.", ["reason"], registry=self.registry
        )
        self._bytes = Counter("palate_bytes", "Bytes of secure aggregation.", ["direction"], registry=self.registry)
        self._steps = Histogram(
            "palate_step_seconds", "How long a step took.", ["step"], buckets=_SECONDS, registry=self.registry
        )
        self._asked = Gauge("palate_devices_asked", "Devices that the open round asked.", registry=self.registry)
        self._online = Gauge(
            "palate_devices_online", "Devices online while a round waits for them.", registry=self.registry
        )
        self._survivors = Gauge("palate_survivors", "Devices in the last sum.", registry=self.registry)
        self._epsilon = Gauge("palate_epsilon_spent", f"Spent so far; {promise.words}.", registry=self.registry)
        self._number = Gauge("palate_round", "Number of the last round that began.", registry=self.registry)
        self._lost = Gauge(
            "palate_rounds_lost_in_a_row", "Rounds lost since the last one that was applied.", registry=self.registry
        )
        self._halt_after = Gauge(
            "palate_halt_after", "Rounds lost in a row after which the server stops.", registry=self.registry
        )
        if tls_ends is not None:
            ends = "When the server's TLS certificate ends, in seconds since 1970; palate server renew-tls."
            Gauge("palate_tls_ends_seconds", ends, registry=self.registry).set_function(tls_ends)
        try:
            self._server, self._thread = start_http_server(port, addr=ADDRESS, registry=self.registry)
        except OSError as error:
            raise EnvironmentProblem(
                f"no metrics page on {ADDRESS}:{port}: {error.strerror}", hint="choose another listen.metrics_port"
            ) from error

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        """Where the page is."""
        return int(self._server.server_port)

    def __call__(self, happening: Happening) -> None:
        """Count what happened."""
        match happening:
            case Waiting(online):
                self._online.set(online)
            case RoundBegun(round=begun):
                self._number.set(begun.number)
                self._asked.set(begun.roster_size)
            case Answered(step=step):
                self._answers.labels(str(step)).inc()
            case DeviceFailed(step=step):
                self._failures.labels(str(step)).inc()
            case HelperDone(left_out=left_out):
                for reason, count in left_out.items():
                    self._left_out.labels(reason).inc(count)
            case StepDone(step=step, seconds=seconds):
                self._steps.labels(str(step)).observe(seconds)
            case Lost(losses):
                self._lost.set(len(losses.rounds))
                self._halt_after.set(losses.halt_after)
            case RoundEnded(round=ended, members=members):
                self._rounds.labels(str(ended.status)).inc()
                self._bytes.labels("up").inc(sum(member.up for member in members))
                self._bytes.labels("down").inc(sum(member.down for member in members))
                self._survivors.set(ended.survivors)
                self._epsilon.set(ended.epsilon)
