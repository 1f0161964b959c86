"""What leaves a node in a protected run is one vector of noisy integers, and nothing beside it.

Every message is captured as Flower would send it, and read back from its bytes.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, Metadata, RecordDict
from flwr.common.serde import message_to_proto, recorddict_from_proto
from scipy import stats

from palate.client.app import BAD_PLAN, FAILED, make_app
from palate.client.guard import Guard
from palate.client.host import DeviceHost
from palate.models.histories import Histories
from palate.models.learning.kernel import Trained
from palate.models.learning.updates import RowValues, Updates
from palate.models.table import initial_embeddings
from palate.models.training import LocalTraining
from palate.privacy.accounting.events import Unit
from palate.privacy.budget import Promise
from palate.privacy.integer.quantise import IntegerMechanism
from palate.privacy.mechanisms.terms import ReleaseTerms
from palate.privacy.wire import NUM_METRICS, RoundPlan
from palate.server.strategy import plan_messages
from palate.simulation.config import checked_config
from palate.simulation.federation import simulate
from palate.simulation.grid import InProcessGrid
from palate.simulation.progress import Watcher

NUM_USERS, NUM_ITEMS, DIM, ROUNDS = 16, 30, 4, 2
FLOWERS_OWN = {name for name in inspect.signature(Metadata.__init__).parameters if name != "self"}
Exchange = tuple[Message, Message]


def plan_of(message: Message) -> RoundPlan:
    arrays = {name: array.numpy() for name, array in message.content.array_records["table"].items()}
    return RoundPlan.from_parts(arrays, dict(message.content.config_records["plan"]))


def audited(message: Message, reply: Message) -> np.ndarray:
    """Fail on anything in a reply but the one vector that the plan asks for; return it."""
    plan = plan_of(message)
    assert plan.terms is not None
    assert not reply.has_error()
    sent = message_to_proto(reply)  # the bytes, and not what this process knows besides
    assert not sent.HasField("error")
    content = recorddict_from_proto(sent.content)
    assert list(content) == ["update"]
    assert not content.config_records
    assert not content.metric_records
    record = content.array_records["update"]
    assert list(record) == ["update"]
    array = record["update"]
    assert (array.dtype, tuple(array.shape), array.stype) == ("uint32", (plan.update_size,), "numpy.ndarray")
    header = len(array.data) - 4 * plan.update_size
    assert header == 128  # NumPy's: a type and a length
    assert {field.name for field, _ in sent.metadata.ListFields()} <= FLOWERS_OWN
    assert sent.metadata.group_id == message.metadata.group_id == str(plan.server_round)
    assert sent.metadata.message_type == message.metadata.message_type
    assert sent.metadata.reply_to_message_id == message.metadata.message_id
    assert (sent.metadata.src_node_id, sent.metadata.dst_node_id) == (message.metadata.dst_node_id, 1)
    assert set(vars(reply)) == {"_metadata", "_content", "_error"}
    return array.numpy()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few people with 3 to 12 of 30 items each."""
    rng = np.random.default_rng(8)
    lines = ["user,item,timestamp"]
    for user in range(NUM_USERS):
        for moment, item in enumerate(rng.permutation(NUM_ITEMS)[: 3 + user % 10]):
            lines.append(f"u{user},i{item},{moment + 1}")
    path = tmp_path_factory.mktemp("data") / "few.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def captured(monkeypatch) -> Iterator[list[Exchange]]:
    """Every message that crosses an in-process grid, with its reply."""
    exchanges: list[Exchange] = []
    send = InProcessGrid.send_and_receive

    def recording(self, messages, *, timeout=None):
        sent = list(messages)
        replies = list(send(self, sent, timeout=timeout))
        exchanges.extend(zip(sent, replies, strict=True))
        return replies

    monkeypatch.setattr(InProcessGrid, "send_and_receive", recording)
    return exchanges


@pytest.mark.parametrize("engine", ["vectorised", "devices"])
@pytest.mark.parametrize(
    "training",
    [
        {"model": "neumf"},
        {"model": "neumf", "own_items_only": True},
        {"model": "gmf", "objective": "bce"},
        {"model": "gmf", "objective": "bce", "own_items_only": True},
    ],
    ids=["whole", "whole on own items", "bce", "bce on own items"],
)
def test_every_answer_of_a_protected_run_is_one_vector_of_integers(tmp_path, data, captured, engine, training):
    config = checked_config(
        {
            "data": str(data),
            "unit": "user",
            "engine": engine,
            "shards": 3,
            "baselines": (),
            "schedule": {"rounds": ROUNDS, "dim": DIM},
            "training": {**training, "hidden": 3},
            "privacy": {"noise": "seeded"},
        }
    )
    simulate(config, tmp_path, Watcher())
    nodes = NUM_USERS if engine == "devices" else 3
    answers = [pair for pair in captured if pair[0].metadata.message_type == MessageType.TRAIN]
    assert len(answers) == nodes * (1 + ROUNDS)
    vectors = [audited(*pair) for pair in answers]
    assert {len(vector) for vector in vectors[:nodes]} == {NUM_ITEMS}
    assert {len(vector) for vector in vectors[nodes:]} == {NUM_ITEMS * DIM + NUM_METRICS}
    assert len({vector.tobytes() for vector in vectors}) == len(vectors)
    others = {pair[0].metadata.message_type for pair in captured} - {MessageType.TRAIN}
    assert others == {MessageType.QUERY}, "the simulation's own channel, which real devices do not have"


# One real device, without a simulation.

ITEMS = np.array([3, 11, 4, 25, 17], np.int32)
TERMS = ReleaseTerms(clip_norm=0.1, sensitivity=4096, share_variance=10**6, honest_shares=30, roster_size=30)
PLAN = RoundPlan(
    run="r",
    server_round=1,
    purpose="train",
    unit="user",
    participation=1.0,
    training=LocalTraining(model="gmf", objective="bce").model_dump_json(),
    fixed=np.zeros((NUM_ITEMS, 1), np.float32),
    learned=initial_embeddings(NUM_ITEMS, 64, scale=0.3, rng=np.random.default_rng(1)),
    terms=TERMS,
    evaluation_share=0.1,
)
OpenDevice = Callable[..., Callable[[Context], DeviceHost]]


@pytest.fixture
def opening(tmp_path: Path) -> OpenDevice:
    """Make a function that opens a device with a ledger, as the ClientApp does."""

    def make(items: np.ndarray = ITEMS, *, name: str = "me", epsilon: float = 1e4) -> Callable[[Context], DeviceHost]:
        promise = Promise(unit=Unit.USER, epsilon=epsilon, delta=1e-5)
        guard = Guard(tmp_path / f"{name}.sqlite", Ed25519PrivateKey.generate(), name, {Unit.USER: promise})
        host = DeviceHost(items, np.uint64, guard, held_back=9)
        return lambda context: host

    return make


def exchange(open_host: Callable[[Context], DeviceHost], plan: RoundPlan) -> Exchange:
    grid = InProcessGrid(make_app(open_host), 1, workers=1)
    (message,) = plan_messages(plan, [2])
    (reply,) = grid.send_and_receive([message])
    grid.close()
    return message, reply


def test_a_real_device_answers_with_one_vector_of_integers(opening):
    open_host = opening()
    for plan in (replace(PLAN, server_round=0, purpose="popularity"), PLAN, replace(PLAN, server_round=2)):
        audited(*exchange(open_host, plan))


def test_messages_of_all_devices_have_the_same_length(opening):
    """However long the history: nothing about it shows in what a network sees."""
    sizes = set()
    for count in (1, 2, 9, 30):
        reply = exchange(opening(np.arange(count, dtype=np.int32), name=f"d{count}"), PLAN)[1]
        sizes.add(message_to_proto(reply).content.ByteSize())
    assert len(sizes) == 1


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_real_device_refuses_the_simulations_questions(opening, part):
    open_host = opening()
    exchange(open_host, PLAN)
    arrays, _ = PLAN.to_parts()
    content = RecordDict(
        {
            "question": ConfigRecord({"part": part, "round": 1, "full": 1}),
            "table": ArrayRecord({name: Array(value) for name, value in arrays.items()}),
        }
    )
    grid = InProcessGrid(make_app(open_host), 1, workers=1)
    question = Message(content=content, dst_node_id=2, message_type=MessageType.QUERY)
    (reply,) = grid.send_and_receive([question])
    assert (reply.error.code, reply.error.reason) == (BAD_PLAN, "the plan was not understood")
    assert not reply.has_content()


@pytest.mark.parametrize(
    ("changes", "epsilon", "code", "reason"),
    [
        ({"unit": "none", "terms": None}, 1e4, BAD_PLAN, "the plan was not understood"),
        ({"training": "{"}, 1e4, BAD_PLAN, "the plan was not understood"),
        ({}, 0.01, FAILED, "BudgetExceeded"),
    ],
)
def test_a_refusal_says_no_more_than_its_kind(opening, changes, epsilon, code, reason):
    _, reply = exchange(opening(epsilon=epsilon), replace(PLAN, **changes))
    assert not reply.has_content()
    assert (reply.error.code, reply.error.reason) == (code, reason)


# What the integers show.


def sent_by(opening: OpenDevice, items: np.ndarray, name: str, rounds: int) -> np.ndarray:
    """Vectors of a device in several rounds, int64 [rounds, dim, num_items], and without the metrics."""
    open_host = opening(items, name=name, epsilon=1e5)
    quiet = replace(PLAN, evaluation_share=0.0)
    vectors = [audited(*exchange(open_host, replace(quiet, server_round=1 + number))) for number in range(rounds)]
    return np.stack(vectors).astype(np.int32).astype(np.int64).reshape(rounds, 64, NUM_ITEMS)


def low_bits_p_value(left: np.ndarray, right: np.ndarray) -> float:
    """Chance that the last four bits of two sets of integers are this different."""
    table = np.stack([np.bincount(values.ravel() & 15, minlength=16) for values in (left, right)])
    return float(stats.chi2_contingency(table[:, table.sum(axis=0) > 0]).pvalue)


def zeros_p_value(left: np.ndarray, right: np.ndarray) -> float:
    """Chance that the shares of zeros in two sets of integers are this different."""
    return float(
        stats.fisher_exact([[int((values == 0).sum()), int((values != 0).sum())] for values in (left, right)]).pvalue
    )


FEW = np.array([3, 11], np.int32)
TOUCHED = np.isin(np.arange(NUM_ITEMS), FEW)


@pytest.fixture
def sparse(monkeypatch) -> None:
    """Local training without negatives outside the history, so that most of an update is exactly zero."""

    def trained(table, histories, heads, keys, config, *, sink):
        update = _sparse_update(histories.items)
        values = RowValues(Histories(np.array([0, NUM_ITEMS]), np.arange(NUM_ITEMS, dtype=np.int32)), update)
        sink(np.arange(1), Updates(np.zeros((1, NUM_ITEMS), np.float32), np.zeros((1, 64), np.float32), values))
        return Trained(update, heads, 0.0)

    monkeypatch.setattr("palate.client.host.train", trained)


def _sparse_update(items: np.ndarray) -> np.ndarray:
    update = np.zeros((NUM_ITEMS, 64), np.float32)
    update[items] = 0.001
    return update


def test_touched_and_untouched_items_cannot_be_told_apart_by_zeros_or_low_bits(opening, sparse):
    vectors = sent_by(opening, FEW, "me", 12)
    touched, untouched = vectors[:, :, TOUCHED], vectors[:, :, ~TOUCHED]
    assert zeros_p_value(touched, untouched) > 1e-4
    assert low_bits_p_value(touched, untouched) > 1e-4
    assert untouched.std() == pytest.approx(1000, rel=0.05)


def test_the_same_look_does_find_the_items_where_noise_is_left_out(opening, sparse, monkeypatch):
    monkeypatch.setattr(
        IntegerMechanism, "noise", lambda self, stream, shares=1: np.zeros(self.quantiser.size, np.int64)
    )
    vectors = sent_by(opening, FEW, "me", 2)
    assert zeros_p_value(vectors[:, :, TOUCHED], vectors[:, :, ~TOUCHED]) < 1e-30


def test_two_devices_vectors_are_as_alike_as_two_noises(opening, sparse):
    """Equal histories, one vector each: the distance between them is that of independent noise, and so is theirs
    from a device with another history but for the little that a clipped contribution adds."""
    mine, twin, other = (
        sent_by(opening, items, name, 3).ravel() for items, name in ((FEW, "a"), (FEW, "b"), (ITEMS, "c"))
    )
    for left, right in ((mine, twin), (mine, other), (twin, other)):
        assert np.std(left - right) == pytest.approx(1000 * math.sqrt(2), rel=0.06)
        assert (left == right).mean() < 0.01
    assert abs(np.corrcoef(mine, twin)[0, 1]) < 0.08
    assert stats.ks_2samp(mine, other).pvalue > 1e-4
