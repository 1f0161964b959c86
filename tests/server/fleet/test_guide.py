"""The guides say what works: commands parse, and the ten-minute path runs as it is typed, each machine a folder."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import click
import numpy as np
import pytest

from palate.cli.main import root_command

ROOT = Path(__file__).parents[3]
HOSTS = ("fleet.example", "helper.example")
DEVICES = 5
STAYS = {
    "palate server start": "waiting for devices",
    "palate helper start": "helper of",
    "palate client join": "waits",
}
"""Commands that go on, and what they show once they run; the last waits until others have signed for it."""


def blocks(page: str) -> list[list[str]]:
    """Lines of a page's console blocks."""
    found = re.findall(r"^```console\n(.*?)^```", (ROOT / "docs" / page).read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [[line for line in block.splitlines() if line.strip()] for block in found]


def ten_minutes() -> list[tuple[str, list[str]]]:
    """Machine and commands of each block of the ten-minute path."""
    return [
        (block[0].removeprefix("# on "), block[1:]) for block in blocks("deployment.md") if block[0].startswith("# on")
    ]


@pytest.mark.parametrize("page", ["deployment.md", "helper.md"])
def test_every_command_of_the_guides_parses(page):
    lines = [shlex.split(line.partition(" > ")[0], comments=True) for block in blocks(page) for line in block]
    typed = [words[1:] for words in lines if words[:1] == ["palate"] and "..." not in words]
    assert len(typed) > 10
    for words in typed:
        ctx = root_command().make_context("palate", list(words))
        while isinstance(ctx.command, click.Group):
            name, command, rest = ctx.command.resolve_command(ctx, [*ctx._protected_args, *ctx.args])
            assert command is not None
            ctx = command.make_context(name, rest, parent=ctx)


class Machines:
    """Folders in the place of machines, and terminals at which somebody answers yes."""

    def __init__(self, place: Path) -> None:
        self.place, self.running = place, list[subprocess.Popen[bytes]]()
        self.said: dict[int, bytes] = {}
        self.replaced = {"/media": str(place / "media"), "scp ": "scp "}
        for host in HOSTS:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            self.replaced[f"{host}:{9092 if host == HOSTS[0] else 9443}"] = f"localhost:{port}"
        rng = np.random.default_rng(4)
        for name in (*HOSTS, "media/stick", "media/backup", *(f"device-{each}" for each in range(DEVICES))):
            (place / name).mkdir(parents=True)
        rows = [f"m{row},Film {row},{('Drama', 'Comedy')[row % 2]},{1960 + row}" for row in range(40)]
        (place / HOSTS[0] / "items.csv").write_text("\n".join(["item,title,genres,year", *rows]) + "\n")
        for device in range(DEVICES):
            items = rng.choice(40, size=10, replace=False)
            rows = [f"m{item},{1_600_000_000 + 60 * row}" for row, item in enumerate(items)]
            (place / f"device-{device}" / "ratings.csv").write_text("\n".join(["item,timestamp", *rows]) + "\n")

    def type(self, machine: str, line: str) -> str:
        """Run a line on a machine as it stands in the guide; return what it showed, so far where it goes on."""
        for written, here in self.replaced.items():
            line = line.replace(written, here)
        words = shlex.split(line)
        if words[0] == "scp":
            for name in words[1:-1]:
                shutil.copy(self.place / machine / name, self.place / words[-1].removesuffix(":"))
            return ""
        assert words[0] == "palate"
        ours, theirs = pty.openpty()
        environment = {
            **os.environ, "PALATE_KEYRING": "file", "OMP_NUM_THREADS": "1", "COLUMNS": "200",
            "PALATE_HOME": str(self.place / machine / "home"),
        }  # fmt: skip
        done = subprocess.Popen(
            [sys.executable, "-m", "palate.cli.main", *words[1:]],
            cwd=self.place / machine, stdin=theirs, stdout=theirs, stderr=theirs, env=environment,
        )  # fmt: skip
        os.close(theirs)
        self.running.append(done)
        self.said[done.pid] = b""
        reader = threading.Thread(target=self._answer, args=(ours, done.pid), daemon=True)
        reader.start()
        shown = next((text for start, text in STAYS.items() if line.startswith(start)), None)
        if shown is None:
            assert done.wait(120) == 0, self.said[done.pid].decode()
            reader.join(5)
        else:
            self.wait(lambda: shown.encode() in self.said[done.pid].replace(b"waiting until", b"waits until"))
        return self.said[done.pid].decode()

    def wait(self, ready, seconds: float = 240.0) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < deadline, b"\n".join(self.said.values()).decode()
            time.sleep(0.2)

    def _answer(self, terminal: int, pid: int) -> None:
        """Read what is shown, and say yes to each question."""
        answered = 0
        while True:
            try:
                self.said[pid] += os.read(terminal, 4096)
            except OSError:  # the program has ended
                os.close(terminal)
                return
            while self.said[pid].count(b"[y/N]") > answered:
                answered += 1
                os.write(terminal, b"y\n")

    def close(self) -> None:
        """End all that goes on."""
        for process in self.running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.running:
            process.wait(60)


@pytest.mark.campaign(short=0, long=1)
def test_the_ten_minute_path_runs_as_it_is_typed(tmp_path, draw):
    del draw
    machines, path = Machines(tmp_path), ten_minutes()
    assert [machine for machine, _ in path][:3] == ["helper.example", "fleet.example", "helper.example"]
    try:
        for machine, lines in path[:-2]:
            for device in range(DEVICES) if machine == "each device" else (None,):
                if device is not None:
                    link = (tmp_path / HOSTS[0] / "links.txt").read_text().splitlines()[device]
                    machines.replaced["LINK"] = link
                for line in lines:
                    machines.type(machine if device is None else f"device-{device}", line)
        rounds = tmp_path / HOSTS[0] / "fleet" / "run" / "rounds.jsonl"
        machines.wait(lambda: rounds.exists() and '"done"' in rounds.read_text())
        for machine, lines in path[-2:]:
            said = [machines.type("device-0" if machine == "each device" else machine, line) for line in lines]
            assert "epsilon" in said[0]
        first = json.loads(rounds.read_text().splitlines()[0])
        assert first["survivors"] >= 4
        machines.wait((tmp_path / "media" / "backup" / "books.backup").exists)
        assert (tmp_path / "media" / "backup" / "helper.backup").exists()
    finally:
        machines.close()
