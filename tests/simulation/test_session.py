"""A run that is killed, whenever and however, ends exactly as one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from palate.errors import FederationError, RunError
from palate.server.store import TABLE_FORMAT, RunStore, read_tensors
from palate.simulation.prepare import prepare
from palate.simulation.progress import Watcher
from palate.simulation.session import SimulationSession


class PowerCutError(Exception):
    """Stands in for whatever ends a process."""


def outcome(folder: Path) -> tuple[Any, ...]:
    """What must not depend on how often a run was interrupted: metrics, every table, every round's accuracy."""
    result = json.loads((folder / "result.json").read_text())
    lines = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    tables = [(line["round"], line["table"], line["loss"], line["validation"]) for line in lines]
    arrays, label = read_tensors(folder / "item_table.safetensors", TABLE_FORMAT)
    return result["summary"], tables, label, {name: array.tobytes() for name, array in arrays.items()}


@pytest.mark.parametrize(("model", "objective"), [("neumf", "whole"), ("mlp", "bce")], ids=["neumf", "bce"])
def test_a_run_that_is_killed_by_signal_9_resumes_to_exactly_the_same_result(tmp_path, settings, run, model, objective):
    config = settings(training={"model": model, "objective": objective}, schedule={"rounds": 15})
    whole, folder = tmp_path / "whole" / "run", tmp_path / "killed" / "run"
    run(config, whole)
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
    assert outcome(folder) == outcome(whole)
    rounds_cpu = sum(json.loads(line)["cpu_seconds"] for line in rounds.read_text().splitlines())
    assert json.loads((folder / "result.json").read_text())["cpu_seconds"]["total"] >= rounds_cpu


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, settings, run) -> tuple[Any, ...]:
    """Outcome of three rounds with objective bce that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(settings(training={"objective": "bce"}), folder)
    return outcome(folder)


@pytest.mark.parametrize("stop", [0, 1, 3])
@pytest.mark.parametrize("moment", ["before the line", "between line and checkpoint", "after the checkpoint"])
def test_a_crash_around_a_rounds_checkpoint_changes_nothing(
    tmp_path, settings, run, monkeypatch, uninterrupted, stop, moment
):
    config = settings(training={"objective": "bce"})
    append, save = RunStore.append_round, RunStore.save

    def failing_append(self, line):
        if moment == "before the line" and line["round"] == stop:
            raise PowerCutError
        append(self, line)

    def failing_save(self, snapshot, metadata):
        if moment == "between line and checkpoint" and snapshot.server_round == stop:
            raise PowerCutError
        save(self, snapshot, metadata)
        if moment == "after the checkpoint" and snapshot.server_round == stop:
            raise PowerCutError

    folder = tmp_path / "cut" / "run"
    with monkeypatch.context() as patched:
        patched.setattr(RunStore, "append_round", failing_append)
        patched.setattr(RunStore, "save", failing_save)
        with pytest.raises(PowerCutError):
            run(config, folder)
    run(config, folder)
    assert outcome(folder) == uninterrupted


def test_a_crash_in_the_middle_of_a_rounds_training_changes_nothing(
    tmp_path, settings, run, monkeypatch, uninterrupted
):
    """One shard has written its heads of the round, another has not."""
    config = settings(training={"objective": "bce"})
    from palate.simulation.host import ShardHost

    answer = ShardHost.answer

    def failing(self, plan):
        if plan.server_round == 2 and self._shard == 1:
            raise PowerCutError
        return answer(self, plan)

    folder = tmp_path / "cut" / "run"
    with monkeypatch.context() as patched:
        patched.setattr(ShardHost, "answer", failing)
        with pytest.raises(FederationError, match="round 2: node 3 failed: PowerCutError"):
            run(config, folder)
    assert (folder / "devices" / "shard-0000.round-00002.safetensors").exists()
    assert not (folder / "devices" / "shard-0001.round-00002.safetensors").exists()
    run(config, folder)
    assert outcome(folder) == uninterrupted


def test_a_crash_after_the_last_round_only_repeats_the_conclusion(tmp_path, settings, run, monkeypatch, uninterrupted):
    config, folder = settings(training={"objective": "bce"}), tmp_path / "cut" / "run"
    with monkeypatch.context() as patched:
        patched.setattr(SimulationSession, "finish", lambda self, grid: (_ for _ in ()).throw(PowerCutError()))
        with pytest.raises(PowerCutError):
            run(config, folder)
    with monkeypatch.context() as patched:
        patched.setattr(RunStore, "append_round", lambda self, line: pytest.fail("all rounds are done"))
        run(config, folder)
    assert outcome(folder) == uninterrupted


def test_devices_one_by_one_keep_no_heads_and_therefore_refuse_to_resume(tmp_path, settings, run, monkeypatch):
    config, folder = settings(engine="devices", training={"objective": "bce"}), tmp_path / "run"
    save = RunStore.save

    def failing_save(self, snapshot, metadata):
        save(self, snapshot, metadata)
        if snapshot.server_round == 1:
            raise PowerCutError

    with monkeypatch.context() as patched:
        patched.setattr(RunStore, "save", failing_save)
        with pytest.raises(PowerCutError):
            run(config, folder)
    with pytest.raises(RunError, match="cannot be resumed") as refused:
        run(config, folder)
    assert "--fresh" in refused.value.hint


class Listener(Watcher):
    """Remembers what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[int] = []
        self.rounds: list[int] = []

    def started(self, session, done) -> None:
        self.done = [line["round"] for line in done]

    def round_done(self, line) -> None:
        self.rounds.append(line["round"])


def test_the_watcher_hears_what_is_done_and_then_every_new_round(tmp_path, settings, monkeypatch):
    from palate.simulation.federation import simulate

    config, first, second = settings(), Listener(), Listener()
    with monkeypatch.context() as patched:
        patched.setattr(SimulationSession, "finish", lambda self, grid: (_ for _ in ()).throw(PowerCutError()))
        with pytest.raises(PowerCutError):
            simulate(config, tmp_path, first)
    assert (first.done, first.rounds) == ([], [0, 1, 2, 3])
    simulate(config, tmp_path, second)
    assert (second.done, second.rounds) == ([0, 1, 2, 3], [])


def test_round_lines_tell_costs_and_bytes_and_validate_as_often_as_asked(tmp_path, settings, run):
    config = settings(evaluate_every=2)
    run(config, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "rounds.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [0, 1, 2, 3]
    assert [line["purpose"] for line in lines] == ["popularity", "train", "train", "train"]
    assert [line["validation"] is not None for line in lines] == [False, False, True, True]
    assert [line["loss"] is not None for line in lines] == [False, False, True, True]
    prepared = prepare(config)
    items, width = prepared.interactions.num_items, 1 + prepared.content.columns.shape[1] + 4
    for line in lines:
        assert line["bytes_down"] == 4 * items * width
        assert line["bytes_up"] == 4 * items * (4 if line["round"] else 1)
        assert line["devices"] == prepared.interactions.num_users
        assert line["cpu_seconds"] >= 0
    assert len({line["table"] for line in lines}) == 4


def test_a_checkpoint_of_another_catalogue_is_refused_before_any_round(tmp_path, settings, run, small_data):
    config = settings()
    run(config, tmp_path)
    (tmp_path / "result.json").unlink()
    content = (small_data / "interactions.csv").read_text().replace("thing7,", "other7,")
    prepared = prepare(config)
    changed = tmp_path.parent / "changed"
    changed.mkdir(exist_ok=True)
    (changed / "interactions.csv").write_text(content)
    other = prepare(settings(data=str(changed)))
    assert other.catalogue_hash != prepared.catalogue_hash
    with pytest.raises(RunError, match="its catalogue is not this run's"):
        SimulationSession(config, other, tmp_path, Watcher())


def test_a_node_that_cannot_answer_a_question_stops_the_run_in_one_line(tmp_path, settings, run, monkeypatch):
    from palate.simulation.host import ShardHost

    def failing(self, question, table_arrays):
        raise PowerCutError("person7 likes thing3")

    monkeypatch.setattr(ShardHost, "inspect", failing)
    with pytest.raises(FederationError, match="evaluation after round 1: a node failed: PowerCutError") as failed:
        run(settings(), tmp_path)
    assert "person7" not in failed.value.message
    assert "person7" in (tmp_path / "log.txt").read_text(), "the run's own log says more"


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch) -> None:
    """The killed process and this one must add in the same order."""
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
