"""What happened, as one JSON object a line: for those who run the server, without a word about people.

A device appears as eight digits of a hash that is keyed with a random number of this server's life, so that lines about
one device can be laid side by side and the device cannot be named from them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from palate.privacy.budget import Promise
from palate.server.fleet.state import Member, Round
from palate.server.fleet.watching import (
    Answered,
    DeviceFailed,
    Happening,
    HelperAway,
    HelperDone,
    Lost,
    RoundBegun,
    RoundEnded,
    RunEnded,
    StepBegun,
    StepDone,
    Waiting,
)

_PLACE = re.compile(r"%(%|[-#0 +]*[0-9.]*[a-zA-Z])")
"""Where a value stands in a template of `logging`, or two signs that stand for one."""
_AGAIN_SECONDS = 60.0
"""The same warning is written once in so long: strangers, who can cause some, fill no disk."""


class EventLog:
    """Watches, and appends to a file.

    Parameters
    ----------
    path
        The file; made if it is not there.
    promise
        What the epsilons in it are about.
    """

    def __init__(self, path: Path, promise: Promise) -> None:
        self._promise = promise
        self._file = path.open("a", encoding="utf-8")
        self._salt = secrets.token_bytes(16)
        path.chmod(0o600)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def write(self, event: str, **fields: Any) -> None:
        """Write one line, with the time."""
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **fields}
        self._file.write(json.dumps(line, ensure_ascii=True) + "\n")
        self._file.flush()

    def pseudonym(self, device: str) -> str:
        """Return the device's name in this log."""
        return hashlib.blake2b(device.encode("ascii"), key=self._salt, digest_size=4).hexdigest()

    def __call__(self, happening: Happening) -> None:
        """Write down what happened."""
        match happening:
            case Answered():
                pass  # a line a device and step: too many, and `StepDone` counts them
            case RoundBegun(begun, resumed):
                self.write(
                    "round-begun", round=begun.number, purpose=begun.purpose, asked=begun.roster_size, resumed=resumed
                )
            case RoundEnded(round=ended, members=members):
                self._round_ended(ended, members)
            case DeviceFailed(number, step, device, why):
                self.write("device-failed", round=number, step=str(step), device=self.pseudonym(device), why=why)
            case StepDone(number, step, answers, devices, seconds):
                self.write(
                    "step-done", round=number, step=str(step), answers=answers, devices=devices,
                    seconds=round(seconds, 3),
                )  # fmt: skip
            case StepBegun(number, step, devices, seconds):
                self.write("step-begun", round=number, step=str(step), devices=devices, deadline_seconds=seconds)
            case HelperAway(number, why):
                self.write("helper-away", round=number, why=why)
            case HelperDone(number, reports, accepted, left_out, seconds):
                self.write(
                    "helper-answered",
                    round=number,
                    reports=reports,
                    accepted=accepted,
                    left_out=left_out,
                    seconds=round(seconds, 3),
                )
            case Waiting(online, needed):
                self.write("waiting", online=online, needed=needed)
            case Lost(losses) if losses.rounds:
                self.write(
                    "run-halted" if losses.halted else "lost-in-a-row",
                    rounds=[each.number for each in losses.rounds],
                    steps=[each.lost_in for each in losses.rounds],
                    devices=[self.pseudonym(device) for device in losses.named],
                    sabotaged=losses.sabotaged,
                    halt_after=losses.halt_after,
                )
            case RunEnded(why):
                self.write("run-ended", why=why)

    def _round_ended(self, ended: Round, members: tuple[Member, ...]) -> None:
        self.write(
            "round-ended",
            round=ended.number,
            status=str(ended.status),
            reason=ended.reason,
            asked=ended.roster_size,
            roster=ended.advertised,
            survivors=ended.survivors,
            bytes_up=sum(member.up for member in members),
            bytes_down=sum(member.down for member in members),
            epsilon=ended.epsilon,
            **self._promise.reading,
            table=ended.table_hash,
            log_index=ended.log_index,
        )


class LogHandler(logging.Handler):
    """Passes warnings of the server's own code on to an event log: their fixed words, never the values in them."""

    def __init__(self, events: EventLog, *, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._events, self._now = events, now
        self._due: dict[tuple[str, str], float] = {}
        self._held_back: Counter[tuple[str, str]] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record's fixed words, with dots where a value stood, and how often they came since the last time."""
        words = _PLACE.sub(lambda found: "%" if found[1] == "%" else "...", str(record.msg))
        what = record.name, words
        self._held_back[what] += 1
        if self._now() < self._due.get(what, 0.0):
            return
        self._due[what] = self._now() + _AGAIN_SECONDS
        self._events.write(
            "message", level=record.levelname.lower(), source=record.name, text=words, times=self._held_back.pop(what)
        )
