"""One fleet for a long time: devices come and go, strangers flood it, its certificate is renewed, it is restored.

    python benchmarks/long_fleet.py --minutes 60

A server, a helper and 20 devices run as processes of the same commands that people type. A third of the devices flap:
they are killed at random moments and come back some time later. Every four minutes a flood of connections, half
requests and slow bodies comes to the server or to the helper. After a third of the time the server's certificate is
renewed while it runs. After two thirds the fleet is restored from a backup that was made just before: its folder is
deleted, and the server goes on with the copy. In the end every ledger is verified and compared.

A line a minute shows the fleet, the last one is JSON. The exit code is 1 where something does not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import floods
import psutil

from palate.client.fleet.status import status_of as device_status
from palate.errors import FederationError
from palate.server.fleet.config import load_config
from palate.server.fleet.summary import rounds_of
from palate.simulation.fleet_demo import checks, folders, running

EVERY_SECONDS = 45.0
FLOOD_EVERY_SECONDS = 240.0
FLOOD_SECONDS = 15.0
UP_SECONDS, DOWN_SECONDS = (20.0, 150.0), (5.0, 60.0)
FLAPPING = 0.3
MOST_GROWTH_MB, MOST_GROWTH_FILES = 25.0, 5
"""What a process may hold more at the end than after it has warmed up."""
_WARM = 0.25
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Sample:
    """What one process holds at one moment: memory, descriptors without TCP connections, and those."""

    seconds: float
    memory_mb: float
    files: int
    connections: int


@dataclass
class Flapping:
    """A device that comes and goes."""

    name: str
    up: bool
    until: float
    restarts: int = 0


@dataclass
class LongFleet:
    """The fleet, its processes and what was seen of them."""

    demo: folders.DemoFleet
    seconds: float
    draw: random.Random
    programs: dict[str, running.Program] = field(default_factory=dict)
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    lives: dict[str, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    flood: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.began = time.monotonic()
        names = list(self.demo.devices)
        self.flapping = [
            Flapping(name, True, self._later(UP_SECONDS)) for name in names[: round(FLAPPING * len(names))]
        ]
        self.due: list[tuple[float, Callable[[], None]]] = [
            (self.seconds / 3, self.renew),
            (self.seconds * 2 / 3, self.restore),
        ]
        self.due += [(at, self.begin_flood) for at in _moments(self.seconds, FLOOD_EVERY_SECONDS)]
        self.due += [(at, self.look) for at in _moments(self.seconds, 60.0)]
        self.due.sort(key=lambda each: each[0])

    @property
    def now(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began

    def run(self) -> None:
        """Live through the time, and stop after a round in which every device could take part."""
        try:
            self.start_helper()
            self.start_server()
            for name in self.demo.devices:
                self.start(name)
            self.began = time.monotonic()
            while self.now < self.seconds:
                while self.due and self.due[0][0] <= self.now:
                    self.due.pop(0)[1]()
                for each in self.flapping:
                    self.flap(each)
                self.require_running()
                time.sleep(_POLL_SECONDS)
            self.end_flood()
            for each in self.flapping:
                if not each.up:
                    self.start(each.name)
            self.await_rounds(2)
            self.look()
            self.stop_server()
        finally:
            self.end_flood()
            for program in self.programs.values():
                program.stop()

    def start(self, name: str) -> None:
        """Start a device."""
        command = (*running.PALATE, "client", "join", "--folder", str(self.demo.devices[name].home))
        self.programs[name] = running.Program(command, self.demo.logs / f"device-{name}.log")

    def start_helper(self) -> None:
        """Start the helper, and wait until it listens: its ledger is checked first."""
        program = running.start_helper(self.demo)
        assert program is not None
        self.programs["helper"] = program
        self.lives.setdefault("helper", []).append(self.now)

    def start_server(self) -> None:
        """Start the server, and wait until it listens."""
        tail = running.EventTail(self.demo.fleet.events)
        list(tail())
        self.programs["server"] = running.start_server(self.demo)
        running.await_server(self.programs["server"], tail)
        self.lives.setdefault("server", []).append(self.now)

    def stop_server(self) -> None:
        """Stop it as its operator does, after the open round."""
        self.palate("server", "stop", "--wait-seconds", "240")

    def palate(self, *words: str) -> None:
        """Type a command for the fleet."""
        command = [*running.PALATE, *words, "--folder", str(self.demo.fleet.root)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.say(f"palate {' '.join(words)}: {(done.stdout + done.stderr).strip()[:300]}")
        if done.returncode:
            raise FederationError(f"palate {' '.join(words)} ended with {done.returncode}", hint=done.stderr)

    def flap(self, each: Flapping) -> None:
        """Kill a device whose time is over, or start it again."""
        if self.now < each.until:
            return
        if each.up:
            self.programs[each.name].kill()
            each.until = self.now + self._later(DOWN_SECONDS)
        else:
            self.start(each.name)
            each.restarts += 1
            each.until = self.now + self._later(UP_SECONDS)
        each.up = not each.up

    def renew(self) -> None:
        """Renew the server's certificate while it runs."""
        self.palate("server", "renew-tls")

    def restore(self) -> None:
        """Stop the server, copy its folder, delete it, put the copy in its place, and go on."""
        self.stop_server()
        kept = self.demo.fleet.root.with_name("backup")
        shutil.copytree(self.demo.fleet.root, kept)
        shutil.rmtree(self.demo.fleet.root)
        shutil.copytree(kept, self.demo.fleet.root)
        shutil.rmtree(kept)
        self.start_server()
        self.say("the fleet was restored from a backup")

    def begin_flood(self) -> None:
        """Flood the server or the helper, with slow bodies that a device has signed."""
        self.end_flood()
        target = self.draw.choice(["server", "helper"])
        address = load_config(self.demo.fleet.config).listen.address
        if target == "helper":
            assert self.demo.helper is not None
            address = self.demo.helper.load_config().address
        self.flood = floods.start(address, list(floods.CONNECTIONS), FLOOD_SECONDS, None)
        self.say(f"a flood comes to the {target}")

    def end_flood(self) -> None:
        """Wait until it is over."""
        if self.flood is not None:
            self.flood.wait()
        self.flood = None

    def look(self) -> None:
        """Note what every process holds, and say how the rounds go."""
        for name, program in self.programs.items():
            if program.running and not any(each.name == name for each in self.flapping):
                process = psutil.Process(program._process.pid)
                with contextlib.suppress(psutil.Error):
                    tcp = sum(each.status == psutil.CONN_ESTABLISHED for each in process.net_connections("tcp"))
                    sample = Sample(self.now, program.memory_mb(), process.num_fds() - tcp, tcp)
                    self.samples.setdefault(name, []).append(sample)
        ended = [each["status"] for each in rounds_of(self.demo.fleet)]
        server, helper = self.samples["server"][-1], self.samples["helper"][-1]
        self.say(
            f"{ended.count('done')} rounds done, {ended.count('abandoned')} lost; server {server.memory_mb:.0f} MB "
            f"{server.files} files {server.connections} connections, helper {helper.memory_mb:.0f} MB "
            f"{helper.files} files {helper.connections} connections, "
            f"{sum(program.running for program in self.programs.values()) - 2} devices run"
        )

    def require_running(self) -> None:
        """Raise where a process has ended that nobody has ended."""
        for name, program in self.programs.items():
            if not program.running and not any(each.name == name and not each.up for each in self.flapping):
                raise FederationError(f"{name} has ended with {program.exit_code}:\n{program.last_lines()}")

    def await_rounds(self, more: int) -> None:
        """Wait until some more rounds are done."""
        done, end = self._done(), time.monotonic() + more * (EVERY_SECONDS + 240)
        while self._done() < done + more:
            if time.monotonic() > end:
                raise FederationError("no round gets done any more", hint=str(self.demo.logs))
            self.require_running()
            time.sleep(1.0)

    def say(self, words: str) -> None:
        """Print a line with the time."""
        self.notes.append(words)
        print(f"{self.now / 60:6.1f} min  {words}", flush=True)

    def _done(self) -> int:
        return sum(each["status"] == "done" for each in rounds_of(self.demo.fleet))

    def _later(self, within: tuple[float, float]) -> float:
        return self.draw.uniform(*within)


def _moments(seconds: float, every: float) -> list[float]:
    return [every * count for count in range(1, int(seconds // every) + 1)]


def growth(samples: Sequence[Sample], lives: Sequence[float]) -> tuple[float, int]:
    """Megabytes and descriptors that a process holds more at the end of its longest life than after warming up."""
    starts = [*lives, float("inf")] if lives else [0.0, float("inf")]
    longest = max(
        ([each for each in samples if start <= each.seconds < end] for start, end in itertools.pairwise(starts)),
        key=len,
    )
    warm = longest[int(_WARM * len(longest)) :]
    third = max(1, len(warm) // 3)
    first, last = warm[:third], warm[-third:]
    return (
        statistics.median(each.memory_mb for each in last) - statistics.median(each.memory_mb for each in first),
        max(each.files for each in last) - max(each.files for each in first),
    )


def most_rounds_behind(fleet: LongFleet, rounds: Sequence[dict[str, Any]]) -> dict[str, int]:
    """For every device, how many rounds that were done have come after the last one that it took part in.

    For a device that never went away it is the most at any time, and for one that flapped at the end.
    """
    done = [each["round"] for each in rounds if each["status"] == "done"]
    flapping = {each.name for each in fleet.flapping}
    behind = {}
    for name, folder in fleet.demo.devices.items():
        took_part = {each.server_round for each in device_status(folder).rounds}
        row = most = 0
        for number in done:
            row = 0 if number in took_part else row + 1
            most = max(most, row)
        behind[name] = row if name in flapping else most
    return behind


def examined(fleet: LongFleet) -> dict[str, Any]:
    """Verify and compare all that the fleet has left."""
    rounds = rounds_of(fleet.demo.fleet)
    server = checks.examine_server(fleet.demo.fleet)
    devices = checks.examine_devices(fleet.demo.devices.values(), server.tables, server.spent)
    behind = most_rounds_behind(fleet, rounds)
    grown = {name: growth(samples, fleet.lives.get(name, [])) for name, samples in fleet.samples.items()}
    memory, files = max(each[0] for each in grown.values()), max(each[1] for each in grown.values())
    held = [each for each in checks.checks_of(fleet.demo, server, devices) if each.what != "last table"]
    held += [
        checks.Check("rounds done", len(server.tables) > 0, f"{len(server.tables)} of {server.rounds} that began"),
        checks.Check(
            "no device more than one round behind", max(behind.values()) <= 1, f"{max(behind.values())} at most"
        ),
        checks.Check("memory is flat", memory <= MOST_GROWTH_MB, f"the largest growth is {memory:.1f} MB"),
        checks.Check("descriptors are flat", files <= MOST_GROWTH_FILES, f"the largest growth is {files}"),
    ]
    return {
        "minutes": round(fleet.seconds / 60, 1),
        "devices": len(fleet.demo.devices),
        "flapping": len(fleet.flapping),
        "restarts": sum(each.restarts for each in fleet.flapping),
        "floods": sum("a flood comes" in each for each in fleet.notes),
        "rounds_done": len(server.tables),
        "rounds_lost": server.rounds - len(server.tables),
        "equal_ledgers": devices.equal,
        "grown_mb": {name: round(grown[name][0], 1) for name in ("server", "helper")},
        "grown_files": {name: grown[name][1] for name in ("server", "helper")},
        "checks": [asdict(each) for each in held],
    }


def main() -> None:
    """Run a fleet for as long as somebody wants."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--devices", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1, help="draws people and accidents")
    parser.add_argument("--folder", type=Path, help="a new folder that stays")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        root = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="palate-long-")))
        demo = folders.build(
            root,
            *folders.choose(given.devices, given.seed),
            rounds=int(given.minutes * 60 / EVERY_SECONDS) + 10,
            epsilon=8.0,
            smallest=max(2, given.devices // 2),
            with_helper=True,
            deadlines={"every_seconds": EVERY_SECONDS, "gather_seconds": 30.0, "report_seconds": 240.0},
        )
        fleet = LongFleet(demo, given.minutes * 60, random.Random(given.seed))
        fleet.run()
        found = examined(fleet)
    for each in found["checks"]:
        print(f"{'ok  ' if each['held'] else 'BAD '} {each['what']}: {each['words']}")
    print(json.dumps(found))
    if not all(each["held"] for each in found["checks"]):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
