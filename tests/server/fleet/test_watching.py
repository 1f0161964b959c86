"""What the operator sees: a line for every round and nothing about single people; what programs see: the same."""

from __future__ import annotations

import io
import json
import logging
import urllib.error
import urllib.request
from dataclasses import replace

import pytest
from rich.console import Console

from palate.errors import ConfigError, EnvironmentProblem, RunError
from palate.privacy.accounting.events import Unit
from palate.privacy.budget import Promise
from palate.privacy.wire import FleetStep
from palate.server.fleet.eventlog import EventLog, LogHandler
from palate.server.fleet.folder import FleetFolder, make_key, read_key
from palate.server.fleet.losses import Losses
from palate.server.fleet.metrics import Metrics
from palate.server.fleet.progress import RoundLines, bytes_per_device
from palate.server.fleet.state import FleetState, Member, Round, RoundStatus
from palate.server.fleet.watching import (
    Answered,
    DeviceFailed,
    Lost,
    RoundBegun,
    RoundEnded,
    RunEnded,
    StepBegun,
    StepDone,
    Waiting,
    watch_all,
)

DEVICE = "00112233445566aa"
BEGUN = Round(
    run="f-1",
    number=1, purpose="train", status=RoundStatus.OPEN, roster_size=3, plan_hash="", offer=b"", started_at=0.0
)  # fmt: skip
DONE = Round(
    run="f-1",
    number=1, purpose="train", status=RoundStatus.DONE, roster_size=3, plan_hash="", offer=b"", started_at=0.0,
    advertised=3, survivors=2, epsilon=1.23401,
)  # fmt: skip
LOST = Round(
    run="f-1",
    number=2, purpose="train", status=RoundStatus.ABANDONED, roster_size=3, plan_hash="", offer=b"", started_at=0.0,
    reason="mask: 1 left", epsilon=2.0,
)  # fmt: skip
MEMBERS = (Member(DEVICE, 3000, 1000, 0), Member("b" * 16, 5000, 1000, 0), Member("c" * 16, 0, 400, 4))
STORY = [
    Waiting(2, 3),
    RoundBegun(BEGUN, resumed=False),
    StepBegun(1, FleetStep.MASK, 3, 60.0),
    Answered(1, FleetStep.MASK, DEVICE),
    DeviceFailed(1, FleetStep.MASK, DEVICE, "its computation failed"),
    StepDone(1, FleetStep.MASK, 2, 3, 1.5),
    RoundEnded(DONE, MEMBERS, 2),
    RoundEnded(LOST, MEMBERS, 2),
    RunEnded("all rounds are done"),
]
PROMISE = Promise(unit=Unit.USER, epsilon=8.0, delta=1e-5)


def test_the_terminal_says_who_was_asked_who_survived_and_what_it_cost(make_fleet):
    text = io.StringIO()
    clock = make_fleet().clock
    with RoundLines(Console(file=text, width=300), rounds=4, delta=1e-5, clock=clock) as lines:
        for happening in STORY:
            lines(happening)
            clock.sleep(10.0)
    shown = text.getvalue()
    assert "waiting for devices: 2 of 3 are online" in shown
    assert "mask: 2 of 3 answered in 1.5 s" in shown
    assert "asked 3, roster 3, survivors 2; 4 KB up and 1 KB down a device" in shown
    assert "epsilon spent in this run 1.235, per user at delta 1e-05; 2 rounds left, about 2 min" in shown
    assert "round 2 given up: mask: 1 left; it stays charged" in shown
    assert DEVICE not in shown


def test_bytes_are_means_over_those_that_sent_anything():
    assert bytes_per_device(MEMBERS) == (4000.0, 1000.0)
    assert bytes_per_device(MEMBERS[2:]) == (0.0, 0.0)


def test_the_event_log_is_json_and_names_devices_by_a_pseudonym_of_this_process(tmp_path):
    names = set()
    for path in (tmp_path / "one.jsonl", tmp_path / "two.jsonl"):
        log = EventLog(path, PROMISE)
        handler = LogHandler(log)
        logger = logging.getLogger("palate.server.test")
        logger.addHandler(handler)
        for happening in STORY:
            log(happening)
        logger.warning("a reply of %s cannot be read", DEVICE)
        logger.removeHandler(handler)
        log.close()
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert [line["event"] for line in lines] == [
            "waiting", "round-begun", "step-begun", "device-failed", "step-done", "round-ended", "round-ended",
            "run-ended", "message",
        ]  # fmt: skip
        assert lines[5] | {"survivors": 2, "bytes_up": 8000, "bytes_down": 2400} == lines[5]
        assert DEVICE not in path.read_text()
        assert path.stat().st_mode & 0o077 == 0
        names.add(lines[3]["device"])
    assert len(names) == 2


def test_metrics_are_counts_on_a_page_of_this_machine_alone():
    with Metrics(0, PROMISE, tls_ends=lambda: 1_800_000_000.0) as metrics:
        tell = watch_all([metrics])
        for happening in STORY:
            tell(happening)
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics.port}/metrics") as page:
            text = page.read().decode()
        with pytest.raises(EnvironmentProblem, match=f":{metrics.port}"):
            Metrics(metrics.port, PROMISE)
    for line in (
        'palate_rounds_total{status="done"} 1.0',
        'palate_rounds_total{status="abandoned"} 1.0',
        'palate_failures_total{step="mask"} 1.0',
        'palate_bytes_total{direction="up"} 16000.0',
        "palate_devices_online 2.0",
        "palate_tls_ends_seconds 1.8e+09",
        "palate_epsilon_spent 2.0",
    ):
        assert line in text
    assert f"# HELP palate_epsilon_spent Spent so far; {PROMISE.words}." in text
    assert DEVICE not in text
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{metrics.port}/metrics", timeout=1)


def test_a_state_of_another_format_is_refused(tmp_path):
    (tmp_path / "a.sqlite").write_bytes(b"no database, but long enough to be read as one " * 30)
    with pytest.raises(RunError, match="cannot be used"):
        FleetState(tmp_path / "a.sqlite")
    state = FleetState(tmp_path / "b.sqlite")
    state._db.execute("PRAGMA user_version = 9")
    state.close()
    with pytest.raises(RunError, match="format 9"):
        FleetState(tmp_path / "b.sqlite")


def test_a_file_in_the_place_of_a_keys_folder_is_no_key_that_is_there(tmp_path):
    (tmp_path / "x").write_text("a note")
    with pytest.raises(EnvironmentProblem, match=r"signing\.key cannot be written: File exists") as refused:
        make_key(tmp_path / "x" / "signing.key")
    assert refused.value.hint == "choose another folder"
    with pytest.raises(ConfigError, match="is there already"):
        make_key(tmp_path / "x")


def test_damaged_keys_and_a_folder_in_use_are_said_so(tmp_path):
    folder = FleetFolder(tmp_path)
    key = make_key(folder.server_key)
    assert read_key(folder.server_key).private_bytes_raw() == key.private_bytes_raw()
    folder.server_key.write_text("00")
    with pytest.raises(RunError, match="is not a key"):
        read_key(folder.server_key)
    with pytest.raises(RunError, match="is missing"):
        read_key(folder.authority_key)
    with folder.locked():
        assert folder.is_locked()
        with pytest.raises(RunError, match="another palate server"), folder.locked():
            pass
    assert not folder.is_locked()


def test_rounds_lost_in_a_row_are_on_the_terminal_in_the_log_and_on_the_metrics_page(make_fleet, tmp_path):
    named = replace(LOST, lost_in="reveal", reason="reveal: no secret", named=DEVICE)
    story = [
        Lost(Losses((), 3)),
        RoundEnded(named, MEMBERS, 2),
        Lost(Losses((named,), 3)),
        Lost(Losses((named, replace(named, number=3)), 2)),
    ]
    text, log = io.StringIO(), EventLog(tmp_path / "log.jsonl", PROMISE)
    lines = RoundLines(Console(file=text, width=300), rounds=4, delta=1e-5, clock=make_fleet().clock)
    with Metrics(0, PROMISE) as metrics, lines:
        for happening in story:
            watch_all([lines, log, metrics])(happening)
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics.port}/metrics") as page:
            numbers = page.read().decode()
    log.close()
    assert f"round 2 given up: reveal: no secret (device {DEVICE})" in text.getvalue()
    assert "1 lost in a row; after 3 the server stops by itself" in text.getvalue()
    assert "palate_rounds_lost_in_a_row 2.0" in numbers
    assert "palate_halt_after 2.0" in numbers
    written = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["event"] for line in written] == ["round-ended", "lost-in-a-row", "run-halted"]
    assert (written[2]["rounds"], written[2]["steps"]) == ([2, 3], ["reveal", "reveal"])
    assert DEVICE not in (tmp_path / "log.jsonl").read_text() + numbers
