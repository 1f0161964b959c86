"""Killed at any moment, by SIGKILL: what was said to be done is there, and nothing is there by halves."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import time

import pytest
from vaults import verified

from palate.client.vault import HISTORY, PROFILE, Vault
from palate.client.vault.errors import VaultExists

# Writes pairs under one transaction; says each number when it is on disk; now and then changes keys or deletes.
WRITER = """
import sys
from pathlib import Path
from palate.client.vault import HISTORY, PROFILE, Vault
vault = Vault.open(Path(sys.argv[1]))
number = int(vault.get(HISTORY, "count"))
sys.stdout.write("ready\\n"); sys.stdout.flush()
while True:
    number += 1
    with vault.transaction():
        vault.put(HISTORY, "count", b"%d" % number)
        vault.put(HISTORY, "padding", b"%d" % number * 3000)
        vault.put(PROFILE, "count", b"%d" % number)
    sys.stdout.write(f"{number}\\n"); sys.stdout.flush()
    if number % 3 == 0:
        vault.rotate(HISTORY)
    if number % 5 == 0:
        vault.delete(HISTORY, "padding")
"""

# Adds to one counter, as often as asked; two of them must not lose a single step.
COUNTER = """
import sys
from pathlib import Path
from palate.client.vault import HISTORY, PROFILE, Vault
with Vault.open(Path(sys.argv[1])) as vault:
    for step in range(int(sys.argv[3])):
        with vault.transaction():
            vault.put(HISTORY, "sum", b"%d" % (int(vault.get(HISTORY, "sum")) + 1))
        vault.put(PROFILE, f"{sys.argv[2]}-{step}", b"done")
        if step % 10 == 9:
            vault.rotate(HISTORY if sys.argv[2] == "0" else PROFILE)
"""


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.campaign(short=4, long=200)
def test_a_killed_writer_leaves_all_or_nothing(folder, draw):
    with Vault.create(folder) as vault:
        vault.put(HISTORY, "count", b"0")
        vault.put(PROFILE, "count", b"0")
    delay = random.Random(draw).uniform(0.0, 0.15)
    writer = start(WRITER, folder)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    time.sleep(delay)
    writer.kill()
    said = writer.stdout.read().split("\n")[:-1]  # a last line without its end was not said
    assert writer.wait() == -signal.SIGKILL
    with Vault.open(folder) as vault:
        verified(vault)
        count = vault.get(HISTORY, "count")
        assert vault.get(PROFILE, "count") == count
        assert 0 <= int(count) - int(said[-1] if said else 0) <= 1
        if vault.has(HISTORY, "padding"):
            assert vault.get(HISTORY, "padding") == count * 3000
        vault.put(HISTORY, "count", b"goes on")


def test_two_programs_lose_none_of_each_others_changes(folder):
    with Vault.create(folder) as vault:
        vault.put(HISTORY, "sum", b"0")
    counters = [start(COUNTER, folder, number, 40) for number in range(2)]
    assert [counter.wait() for counter in counters] == [0, 0]
    with Vault.open(folder) as vault:
        assert vault.get(HISTORY, "sum") == b"80"
        assert len(list(vault.entries(PROFILE))) == 80
        assert verified(vault) == 81


@pytest.mark.parametrize("at", range(6))
def test_a_start_that_is_cut_off_can_be_made_again(folder, at, monkeypatch, notes):
    """`create` is stopped before its n-th wait for the disk or statement of the database."""
    with monkeypatch.context() as patch:
        _stop(patch, at, "os.fsync", "os.link", "palate.client.vault.schema.create", "palate.client.vault.store.State")
        with pytest.raises(KeyboardInterrupt):
            Vault.create(folder)
    with contextlib.suppress(VaultExists):  # it was on disk already
        Vault.create(folder).close()
    with Vault.open(folder) as vault:
        vault.put(notes, "a", b"1")
        assert verified(vault) == 1


def _stop(patch: pytest.MonkeyPatch, at: int, *places: str) -> None:
    """Raise KeyboardInterrupt instead of the call with this number among all of these functions."""
    calls = iter(range(10**6))

    def stopping(real):
        def call(*arguments, **named):
            if next(calls) == at:
                raise KeyboardInterrupt
            return real(*arguments, **named)

        return call

    for place in places:
        module, _, name = place.rpartition(".")
        patch.setattr(place, stopping(getattr(sys.modules[module], name)))
