"""A protected run that is killed, whenever and however, ends as one that was not, and charges nobody twice."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palate.errors import FederationError, RunError
from palate.privacy.ledger.store import LedgerBook
from palate.server.ledger import ServerLedger
from palate.server.store import RunStore
from palate.simulation.ledgers import ShardLedgers

SEEDED = {"noise": "seeded"}


class PowerCutError(Exception):
    """Stands in for whatever ends a process."""


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch) -> None:
    """A killed process and this one must add in the same order."""
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")


@pytest.fixture
def unaccounted(monkeypatch) -> None:
    """Leave the independent accountants out: they take seconds, and one run below asks them."""
    monkeypatch.setattr("palate.simulation.session.guarantee_of", lambda *_: None)


def protected(settings, **changes: Any):
    return settings(unit="user", **changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, settings, run) -> Path:
    """A run with seeded noise that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(settings(unit="user", privacy=SEEDED, training={"objective": "bce"}), folder)
    return folder


@pytest.fixture
def same_run(tables, lines, books, rounds_charged) -> Callable[[Path, Path], None]:
    """Fail where two runs differ in a table or a charge."""

    def compare(folder: Path, whole: Path) -> None:
        for block in ("learned", "fixed"):
            np.testing.assert_array_equal(tables(folder)[block], tables(whole)[block])
        assert [line["table"] for line in lines(folder)] == [line["table"] for line in lines(whole)]
        assert rounds_charged(folder) == rounds_charged(whole)
        spent = {name: state.spent_nano for name, state in books(folder).items()}
        assert spent == {name: state.spent_nano for name, state in books(whole).items()}
        assert not (folder / "noise.key").exists()

    return compare


def cut(patched, where: str, stop: int) -> None:
    """Let the process end at a place in a round."""
    owner, method, moment = {
        "before a shard is charged": (ShardLedgers, "begin", "before"),
        "after a shard is charged": (ShardLedgers, "begin", "after"),
        "before a shard closes": (ShardLedgers, "finish", "before"),
        "after a shard has closed": (ShardLedgers, "finish", "after"),
        "after the server is charged": (ServerLedger, "begin", "after"),
        "before the line": (RunStore, "append_round", "before"),
        "between line and checkpoint": (RunStore, "save", "before"),
        "between checkpoint and ledger": (RunStore, "save", "after"),
        "after the server has closed": (ServerLedger, "finish", "after"),
    }[where]
    real = getattr(owner, method)

    def failing(self, *arguments):
        first = arguments[0]
        number = {
            "append_round": lambda: first["round"],
            "save": lambda: first.server_round,
        }.get(method, lambda: arguments[1] if isinstance(first, str) else first.server_round)()
        struck = number == stop and (owner is not ShardLedgers or "0001" in self._path.name)
        if struck and moment == "before":
            raise PowerCutError
        done = real(self, *arguments)
        if struck:
            raise PowerCutError
        return done

    patched.setattr(owner, method, failing)


MOMENTS = [
    "before a shard is charged",
    "after a shard is charged",
    "before a shard closes",
    "after a shard has closed",
    "after the server is charged",
    "before the line",
    "between line and checkpoint",
    "between checkpoint and ledger",
    "after the server has closed",
]


@pytest.mark.parametrize(
    ("where", "stop"), [*((where, 2) for where in MOMENTS), *((where, 0) for where in MOMENTS[3:7])]
)
def test_a_crash_at_any_moment_of_a_round_changes_neither_table_nor_charges(
    tmp_path, settings, run, monkeypatch, whole, where, stop, same_run
):
    config, folder = protected(settings, privacy=SEEDED, training={"objective": "bce"}), tmp_path / "run"
    with monkeypatch.context() as patched:
        cut(patched, where, stop)
        with pytest.raises((PowerCutError, FederationError)):
            run(config, folder)
    assert (folder / "noise.key").exists()
    run(config, folder)
    same_run(folder, whole)


@pytest.mark.parametrize("stop", [0, 1, 2])
@pytest.mark.parametrize("where", ["after a shard has closed", "between checkpoint and ledger"])
def test_a_run_that_learns_popular_items_alone_goes_on_with_the_same_items(
    tmp_path, settings, run, monkeypatch, unaccounted, where, stop, same_run, tables
):
    changes = {"schedule": {"head": 3.0}, "training": {"model": "gmf"}, "privacy": SEEDED}
    config, undisturbed, folder = protected(settings, **changes), tmp_path / "whole" / "run", tmp_path / "cut" / "run"
    run(config, undisturbed)
    assert 8 <= tables(undisturbed)["learned"].any(axis=1).sum() < 40
    with monkeypatch.context() as patched:
        cut(patched, where, stop)
        with pytest.raises((PowerCutError, FederationError)):
            run(config, folder)
    run(config, folder)
    same_run(folder, undisturbed)


@pytest.mark.slow
def test_a_run_that_is_killed_by_signal_9_resumes_to_the_same_table_and_the_same_charges(
    tmp_path, settings, run, same_run
):
    changes = {"schedule": {"rounds": 12}, "privacy": SEEDED}
    config = protected(settings, **changes)
    undisturbed, folder = tmp_path / "whole" / "run", tmp_path / "killed" / "run"
    run(config, undisturbed)
    path = tmp_path / "run.toml"
    path.write_text(config.to_toml())
    command = ["simulate", "--config", str(path), "--baselines", "none", "--folder", str(folder), "--json"]
    with (tmp_path / "said.txt").open("w") as said:
        process = subprocess.Popen([sys.executable, "-m", "palate.cli.main", *command], stdout=said, stderr=said)
        rounds, deadline = folder / "rounds.jsonl", time.monotonic() + 120
        while not (rounds.exists() and rounds.read_bytes().count(b"\n") >= 4):
            assert process.poll() is None, (tmp_path / "said.txt").read_text()
            assert time.monotonic() < deadline, "the run made no progress"
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not (folder / "result.json").exists()
    run(config, folder)
    same_run(folder, undisturbed)


def test_a_crash_of_a_device_by_itself_changes_neither_table_nor_charges(
    tmp_path, settings, run, monkeypatch, same_run
):
    """One device is charged but has no bytes, another has bytes that nobody got."""
    changes = {"training": {"model": "gmf"}, "schedule": {"rounds": 1}, "privacy": SEEDED}
    config = protected(settings, engine="devices", **changes)
    undisturbed, folder = tmp_path / "whole" / "run", tmp_path / "cut" / "run"
    run(config, undisturbed)
    begin, persist = LedgerBook.begin, LedgerBook.persist

    def failing_begin(self, name, intent):
        done = begin(self, name, intent)
        if (name, intent.round) == ("device-000005", 1):
            raise PowerCutError
        return done

    def failing_persist(self, name, run, number, payload):
        persist(self, name, run, number, payload)
        if (name, number) == ("device-000006", 1):
            raise PowerCutError

    with monkeypatch.context() as patched:
        patched.setattr(LedgerBook, "begin", failing_begin)
        patched.setattr(LedgerBook, "persist", failing_persist)
        with pytest.raises(FederationError, match="PowerCutError"):
            run(config, folder)
    run(config, folder)
    same_run(folder, undisturbed)


def interrupted(settings, run, monkeypatch, folder: Path, where: str) -> Any:
    config = protected(settings, training={"objective": "bce"})
    with monkeypatch.context() as patched:
        cut(patched, where, 2)
        with pytest.raises((PowerCutError, FederationError)):
            run(config, folder)
    return config


def test_secret_noise_goes_on_after_a_crash_as_if_nothing_had_happened(
    tmp_path, settings, run, monkeypatch, unaccounted, same_run
):
    first, second = tmp_path / "first" / "run", tmp_path / "second" / "run"
    config = interrupted(settings, run, monkeypatch, first, "after a shard has closed")
    shutil.copytree(first, second)
    for folder in (first, second):
        run(config, folder)
    same_run(second, first)


def test_a_run_goes_on_under_another_name_with_the_ledgers_that_it_has(
    tmp_path, settings, run, monkeypatch, unaccounted, same_run
):
    first, second = tmp_path / "first" / "run", tmp_path / "second" / "renamed"
    config = interrupted(settings, run, monkeypatch, first, "after a shard has closed")
    shutil.copytree(first, second)
    for folder in (first, second):
        run(config, folder)
    same_run(second, first)


def test_a_run_whose_secret_is_lost_does_not_go_on_with_another(tmp_path, settings, run, monkeypatch):
    folder = tmp_path / "run"
    config = interrupted(settings, run, monkeypatch, folder, "after a shard has closed")
    (folder / "noise.key").unlink()
    with pytest.raises(RunError, match=r"noise\.key is missing") as refused:
        run(config, folder)
    assert "--fresh" in refused.value.hint
    assert not (folder / "noise.key").exists()


def test_a_round_that_has_left_a_shard_does_not_leave_again_with_other_noise(tmp_path, settings, run, monkeypatch):
    folder = tmp_path / "run"
    config = interrupted(settings, run, monkeypatch, folder, "after a shard has closed")
    (folder / "noise.key").write_text("00" * 32 + "\n")
    with pytest.raises(FederationError, match="RoundRefused"):
        run(config, folder)
    assert "has left with other bytes" in (folder / "log.txt").read_text()


@pytest.mark.parametrize("content", [b"", b"00\n", b"\xff" * 64, b"zz" * 32])
def test_a_damaged_secret_is_refused(tmp_path, settings, run, monkeypatch, content):
    folder = tmp_path / "run"
    config = interrupted(settings, run, monkeypatch, folder, "before the line")
    (folder / "noise.key").write_bytes(content)
    with pytest.raises(RunError, match=r"noise\.key"):
        run(config, folder)


def test_a_crash_after_the_secret_was_destroyed_only_repeats_the_conclusion(
    tmp_path, settings, run, monkeypatch, unaccounted, rounds_charged
):
    config, folder = protected(settings), tmp_path / "run"
    with monkeypatch.context() as patched:

        def failing(*_: Any, **__: Any) -> None:
            raise PowerCutError

        patched.setattr("palate.simulation.session.conclude", failing)
        with pytest.raises(PowerCutError):
            run(config, folder)
    assert not (folder / "noise.key").exists()
    before = rounds_charged(folder)
    run(config, folder)
    assert rounds_charged(folder) == before
    assert not (folder / "noise.key").exists()


def test_a_secret_that_was_left_behind_without_ledgers_is_not_used(tmp_path, settings, run, monkeypatch):
    def stopping(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("palate.simulation.session.guarantee_of", lambda *_: None)
    with monkeypatch.context() as patched:
        patched.setattr("palate.simulation.session.make_keys", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(settings(unit="user"), tmp_path)
    left, used, save = (tmp_path / "noise.key").read_text(), set(), RunStore.save

    def looking(self: RunStore, *arguments: Any) -> None:
        used.add((tmp_path / "noise.key").read_text())
        save(self, *arguments)

    monkeypatch.setattr(RunStore, "save", looking)
    run(settings(unit="user"), tmp_path)
    assert len(used) == 1
    assert left not in used


def test_a_run_without_its_ledgers_does_not_go_on(tmp_path, settings, run, monkeypatch):
    def stopping(*_: object) -> None:
        raise KeyboardInterrupt

    config = settings(unit="user")
    with monkeypatch.context() as patched:
        patched.setattr("palate.simulation.session.SimulationSession.finish", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path)
    shutil.rmtree(tmp_path / "ledgers")
    with pytest.raises(RunError, match="ledgers of this run are missing"):
        run(config, tmp_path)
