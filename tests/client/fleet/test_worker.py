"""The worker: the same numbers as in the device's own process, and noise alone whatever goes wrong in it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from hashlib import sha256

import numpy as np
import psutil
import pytest
from safetensors.numpy import save

from palate.client.fleet.frames import MAX_FRAME_BYTES, ChannelBroken, receive, send
from palate.client.fleet.worker import Worker, noise_alone
from palate.client.host import DeviceHost
from palate.client.vault.heads import pack_head
from palate.data.catalogue import Catalogue
from palate.models.scores.base import Shape
from palate.models.scores.registry import initial_head
from palate.models.training import LocalTraining
from palate.privacy.mechanisms.terms import ReleaseTerms
from palate.privacy.wire import NUM_METRICS, RoundPlan

NUM_ITEMS = 12
NEUMF = LocalTraining(hidden=4)
QUIET = ReleaseTerms(clip_norm=0.5, sensitivity=4096, share_variance=1, honest_shares=1, roster_size=2)
LOUD = replace(QUIET, share_variance=10**8)
PLAN = RoundPlan(
    run="r",
    server_round=1,
    purpose="train",
    unit="user",
    participation=1.0,
    training='{"model": "neumf", "hidden": 4}',
    fixed=np.linspace(0, 1, NUM_ITEMS, dtype=np.float32)[:, None],
    learned=np.random.default_rng(3).normal(0, 0.3, (NUM_ITEMS, 2)).astype(np.float32),
    terms=QUIET,
)
HISTORY = ["i3", "title:Title 5", "elsewhere", "i1", "i3"]
ITEMS = np.array([5, 1, 3], dtype=np.int32)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory, catalogue_data):
    path = tmp_path_factory.mktemp("catalogue") / "catalogue.parquet"
    path.write_bytes(catalogue_data)
    return path


def make(catalogue, **changes):
    return Worker(catalogue, sha256(catalogue.read_bytes()).hexdigest(), **{"timeout_seconds": 100.0} | changes)


@pytest.fixture(scope="module")
def worker(catalogue):
    """One process for all tests that leave it alive: it takes seconds to start."""
    built = make(catalogue)
    yield built
    built.close()


def decoded(vector, plan=PLAN):
    mechanism = plan.terms.mechanism(plan.update_size)
    return mechanism.decode(vector)


def in_process(plan, items=ITEMS, head=None, held_back=None):
    host = DeviceHost(items, lambda _: np.uint64(7), held_back=held_back)
    if head is not None:
        host.keep(plan, head)
    return decoded(host.release(plan, plan.terms)[0], plan)


STEP = QUIET.clip_norm / QUIET.sensitivity
CLOSE = 8 * STEP  # rounding, and noise of one step


def test_the_worker_computes_what_the_device_itself_would(worker):
    plan = replace(PLAN, training='{"model": "gmf"}')  # draws nothing at random
    got = decoded(worker.contribute(plan, HISTORY, None).vector)
    expected = in_process(plan)
    assert np.abs(expected).max() > 20 * STEP
    np.testing.assert_allclose(got, expected, atol=CLOSE)


def test_the_worker_answers_for_the_chosen_rows_alone(worker):
    active = np.arange(NUM_ITEMS) % 3 > 0  # items 5 and 1, not 3
    plan = replace(PLAN, training='{"model": "gmf"}', active=active)
    got = decoded(worker.contribute(plan, HISTORY, None).vector, plan)
    everything = in_process(replace(plan, active=None)).reshape(2, NUM_ITEMS)
    assert np.linalg.norm(everything) < 0.9 * QUIET.clip_norm  # so that both are as they were before clipping
    assert np.abs(everything[:, active]).max() > 20 * STEP
    np.testing.assert_allclose(got, everything[:, active].reshape(-1), atol=CLOSE)


def test_the_popularity_round_counts_the_known_items_once_each(worker):
    plan = replace(PLAN, purpose="popularity")
    got = decoded(worker.contribute(plan, HISTORY, None).vector, plan)
    expected = np.zeros(NUM_ITEMS)
    expected[ITEMS] = 0.5 / np.sqrt(3)  # clipped from norm 1 to 0.5
    np.testing.assert_allclose(got, expected, atol=CLOSE)


def test_the_newest_item_is_held_back_where_the_plan_asks_for_metrics(worker):
    plan = replace(PLAN, training='{"model": "gmf"}', evaluation_share=0.5)
    got = decoded(worker.contribute(plan, HISTORY, None).vector, plan)
    expected = in_process(plan, ITEMS[:-1], held_back=3)
    assert len(got) == PLAN.learned.size + NUM_METRICS
    np.testing.assert_allclose(got[:-NUM_METRICS], expected[:-NUM_METRICS], atol=CLOSE)


def test_heads_go_in_and_come_back(worker):
    shape = Shape(fixed_dim=1, dim=2, hidden=4)
    first = worker.contribute(PLAN, HISTORY, None)
    again = worker.contribute(PLAN, HISTORY, first.head)
    assert first.head is not None
    assert again.head not in (None, first.head)
    start = pack_head(NEUMF, shape, initial_head("neumf", "whole", shape))
    assert worker.contribute(PLAN, HISTORY, start).head is not None


def test_a_head_of_another_shape_or_a_damaged_one_is_learned_anew(worker):
    shape = Shape(fixed_dim=1, dim=3, hidden=4)
    other = pack_head(NEUMF, shape, initial_head("neumf", "whole", shape))
    assert worker.contribute(PLAN, HISTORY, other).head is not None
    plan = replace(PLAN, training='{"model": "gmf"}')
    got = decoded(worker.contribute(plan, HISTORY, b"no head").vector)
    np.testing.assert_allclose(got, in_process(plan), atol=CLOSE)


@pytest.mark.parametrize("training", ['{"model": "unheard_of"}', '{"model": "gmf", "batch_size": 0}'])
def test_a_plan_that_cannot_be_trained_is_answered_with_noise_alone(worker, training):
    got = decoded(worker.contribute(replace(PLAN, training=training), HISTORY, None).vector)
    np.testing.assert_allclose(got, 0, atol=CLOSE)


def test_noise_differs_from_round_to_round(worker):
    plan = replace(PLAN, terms=LOUD)
    vectors = [worker.contribute(plan, [], None).vector for _ in range(2)]
    assert not np.array_equal(*vectors)
    spread = np.concatenate([decoded(v, plan) for v in vectors]).std() / STEP
    assert 0.5e4 < spread < 2e4  # 48 draws of standard deviation 1e4


def noise_alone_came(contribution, plan):
    """Noise of the right size; a contribution would be next to nothing beside it, so its form is what counts."""
    assert contribution.head is None
    assert contribution.vector.shape == (plan.update_size,)
    assert contribution.vector.dtype == np.uint32
    assert 1e3 < decoded(contribution.vector, plan).std() / STEP < 1e5


def _frame(data: bytes) -> bytes:
    return len(data).to_bytes(8, "little") + data


GARBAGE = "import os, socket, time; s = socket.socket(fileno=os.dup(0)); s.sendall({bytes}); time.sleep(60)"


@pytest.mark.parametrize(
    "program",
    [
        "import os; os._exit(1)",
        "import time; time.sleep(60)",
        GARBAGE.format(bytes=b"\xff" * 8),
        GARBAGE.format(bytes=b"\x02" + bytes(7) + b"{}"),
        GARBAGE.format(bytes=_frame(save({}, {"values": "{}"}))),
        GARBAGE.format(bytes=b"\x01\0\0\x80\0\0\0\0"),
    ],
    ids=["crashes", "hangs", "noise", "other JSON", "no vector", "too large"],
)
def test_a_worker_that_fails_is_answered_for_with_noise_alone(catalogue, program):
    plan, began = replace(PLAN, terms=LOUD), time.monotonic()
    broken = make(catalogue, timeout_seconds=1.0, command=(sys.executable, "-c", program))
    try:
        noise_alone_came(broken.contribute(plan, HISTORY, None), plan)
        assert time.monotonic() - began < 10
    finally:
        broken.close()


def test_a_catalogue_that_was_exchanged_is_not_learned_from(catalogue, tmp_path, worker):
    other = tmp_path / "catalogue.parquet"
    other.write_bytes(catalogue.read_bytes() + b"x")
    plan = replace(PLAN, training='{"model": "gmf"}')
    exchanged = make(catalogue)
    exchanged._catalogue = other
    # The running process serves this one too: what differs is in the frame.
    exchanged._process, exchanged._channel = worker._process, worker._channel
    np.testing.assert_allclose(decoded(exchanged.contribute(plan, HISTORY, None).vector), 0, atol=CLOSE)


LIGHT = """
import numpy as np
from palate.client.fleet import worker_process

def answer(frame):
    return {"failed": ""}, {"vector": np.full(12, 77, dtype=np.uint32)}

worker_process.answer = answer
worker_process.main()
"""


def test_a_killed_worker_is_replaced_and_an_idle_one_ends(catalogue):
    plan = replace(PLAN, purpose="popularity")
    built = make(catalogue, idle_seconds=0.5, timeout_seconds=30.0, command=(sys.executable, "-c", LIGHT))
    try:
        built.contribute(plan, HISTORY, None)
        first = built.process_id
        os.kill(first, signal.SIGKILL)
        assert set(built.contribute(plan, HISTORY, None).vector.tolist()) == {77}  # not noise alone
        assert built.process_id not in (None, first)
        deadline = time.monotonic() + 20
        while built.process_id is not None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert built.process_id is None
    finally:
        built.close()


def test_a_closed_worker_is_gone(catalogue):
    built = make(catalogue, command=(sys.executable, "-c", "import time; time.sleep(60)"))
    built._running()
    process = psutil.Process(built.process_id)
    built.close()
    assert not process.is_running()


PARENT = """
import sys, time
from pathlib import Path
from palate.client.fleet.worker import Worker
worker = Worker(Path("none"), "")
worker._running()
print(worker.process_id, flush=True)
time.sleep(60)
"""


def test_the_worker_dies_with_its_parent():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        assert psutil.pid_exists(pid)
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 30
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_nothing_secret_is_in_the_workers_arguments_or_environment(worker):
    worker.contribute(replace(PLAN, purpose="popularity"), HISTORY, None)
    process = psutil.Process(worker.process_id)
    assert "i3" not in " ".join(process.cmdline())
    assert process.cmdline()[-2:] == [str(os.getpid()), "60.0"]
    assert set(process.environ()) - set(os.environ) <= {"LINES", "COLUMNS"}  # a library's own


def test_frames_survive_the_way():
    ours, theirs = socket.socketpair()
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros((0, 4), np.uint8)}
    until = time.monotonic() + 5
    with ours, theirs:
        send(ours, {"x": "é", "n": 1}, arrays, until=until)
        frame = receive(theirs, until=until)
    assert frame.values == {"x": "é", "n": 1}
    assert all(np.array_equal(frame.arrays[name], array) for name, array in arrays.items())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        _frame(b"[" * 5000),
        _frame(b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}') + bytes(4),
        _frame(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}') + bytes(4),
        save({"a": np.zeros(2, np.float32)}),
        save({}, {"other": "{}"}),
        save({}, {"values": "1"}),
        save({}, {"values": "{"}),
    ],
)
def test_what_is_no_frame_is_refused_by_name(data):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(_frame(data))
        with pytest.raises(ChannelBroken):
            receive(theirs, until=time.monotonic() + 1)


def test_a_frame_that_is_too_large_is_refused_before_anything_is_allocated():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall((MAX_FRAME_BYTES + 1).to_bytes(8, "little"))
        with pytest.raises(ChannelBroken, match="bytes"):
            receive(theirs, until=time.monotonic() + 1)


def test_noise_alone_has_the_variance_of_one_share():
    terms = replace(QUIET, share_variance=10**6)
    values = terms.mechanism(20_000).ring.centre(noise_alone(20_000, terms))
    assert abs(values.mean()) < 40  # 5.6 standard errors
    assert abs(values.std() / 1e3 - 1) < 0.03  # 6 standard errors


def test_titles_that_two_items_share_name_neither():
    catalogue = replace(Catalogue.of(("a", "b", "c", "title:x")), titles=("same", "same", "x", ""))
    assert [catalogue.rows.get(key) for key in ("a", "title:same", "title:x", "title:", "d")] == [
        0,
        None,
        3,
        None,
        None,
    ]
    assert catalogue.rows_of(["a", "c", "d", "a"]).tolist() == [2, 0]
