"""The strategy sends one plan to every node, adds up one vector from each, and takes nothing else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from palate.errors import FederationError
from palate.privacy.wire import RoundPlan
from palate.server.coordinator import Coordinator
from palate.server.optimisers import OptimiserConfig
from palate.server.settings import Schedule, ServerSettings
from palate.server.strategy import plan_messages, run_rounds, sum_of_updates
from palate.simulation.grid import InProcessGrid

NUM_ITEMS, DIM = 6, 2
Answer = Callable[[Message, int], RecordDict]


def coordinator(rounds: int = 2, nodes: int = 1) -> Coordinator:
    settings = ServerSettings(
        run="r",
        unit="none",
        population=4,
        nodes=nodes,
        schedule=Schedule(rounds=rounds, dim=DIM, timeout_seconds=0.3),
        optimiser=OptimiserConfig(name="average", step_size=1.0, decay=1.0, item_regularisation=0.0),
    )
    return Coordinator(settings, np.zeros((NUM_ITEMS, 1), np.float32), np.zeros((NUM_ITEMS, DIM), np.float32))


def plan_of(message: Message) -> RoundPlan:
    arrays = {name: array.numpy() for name, array in message.content.array_records["table"].items()}
    return RoundPlan.from_parts(arrays, dict(message.content.config_records["plan"]))


def vector(message: Message, value: float) -> RecordDict:
    update = np.full(plan_of(message).update_size, value, np.float32)
    return RecordDict({"update": ArrayRecord({"update": Array(update)})})


def grid_of(answer: Answer, nodes: int = 3) -> InProcessGrid:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(answer(message, int(context.node_config["partition-id"])), reply_to=message)

    return InProcessGrid(app, nodes, workers=2)


class Recorder:
    """Observer that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []

    def round_started(self, plan) -> None:
        self.events.append(("started", plan.server_round))

    def round_finished(self, outcome, coordinator, grid) -> None:
        self.events.append(("finished", outcome.server_round))


def test_all_rounds_run_in_order_and_observers_are_told():
    seen, recorder = [], Recorder()

    def answer(message: Message, node: int) -> RecordDict:
        seen.append((plan_of(message).server_round, node))
        return vector(message, 1.0)

    built = coordinator()
    run_rounds(built, grid_of(answer), [recorder])
    assert sorted(seen) == [(number, node) for number in range(3) for node in range(3)]
    assert recorder.events == [(event, number) for number in range(3) for event in ("started", "finished")]
    assert built.finished


def test_the_table_moves_by_the_sum_over_nodes_divided_by_the_population():
    built = coordinator(rounds=1)
    run_rounds(built, grid_of(lambda message, node: vector(message, 2.0**node)))
    np.testing.assert_allclose(built.table.learned, (1 + 2 + 4) / 4)


def test_a_resumed_coordinator_runs_only_the_rounds_that_are_left():
    built, recorder = coordinator(), Recorder()
    built.apply(np.ones(NUM_ITEMS))
    run_rounds(built, grid_of(vector), [recorder])
    assert [number for _, number in recorder.events] == [1, 1, 2, 2]


def with_extra(name: str, record: object) -> Answer:
    def answer(message: Message, node: int) -> RecordDict:
        content = vector(message, 1.0)
        content[name] = record
        return content

    return answer


def raw(array: Array) -> Answer:
    return lambda message, node: RecordDict({"update": ArrayRecord({"update": array})})


def npz() -> bytes:
    from io import BytesIO

    stream = BytesIO()
    np.savez(stream, update=np.zeros(NUM_ITEMS, np.float32))
    return stream.getvalue()


@pytest.mark.parametrize(
    "answer",
    [
        with_extra("metrics", MetricRecord({"loss": 0.5})),
        with_extra("config", ConfigRecord({"count": 3})),
        with_extra("more", ArrayRecord({"update": Array(np.zeros(1, np.float32))})),
        lambda message, node: RecordDict({}),
        lambda message, node: RecordDict({"update": MetricRecord({"num-examples": 5})}),
        lambda message, node: RecordDict({"update": ArrayRecord({})}),
        raw(Array(np.zeros(NUM_ITEMS + 1, np.float32))),
        raw(Array(np.zeros(NUM_ITEMS))),
        raw(Array(np.full(NUM_ITEMS, np.nan, np.float32))),
        raw(Array(dtype="float32", shape=(NUM_ITEMS,), stype="numpy.ndarray", data=b"not an array")),
        raw(Array(dtype="float32", shape=(NUM_ITEMS,), stype="numpy.ndarray", data=b"")),
        raw(Array(dtype="float32", shape=(NUM_ITEMS,), stype="numpy.ndarray", data=npz())),
        raw(Array(dtype="float32", shape=(NUM_ITEMS,), stype="other", data=b"")),
    ],
)
def test_a_reply_with_anything_but_one_vector_of_the_planned_size_stops_the_round(answer):
    built = coordinator()
    with pytest.raises(FederationError, match="round 0: node"):
        run_rounds(built, grid_of(answer))
    assert built.next_round == 0


def test_a_failed_node_stops_the_round_and_the_table_stays():
    def answer(message: Message, node: int) -> RecordDict:
        if plan_of(message).server_round == 1 and node == 1:
            raise RuntimeError("secret")
        return vector(message, 1.0)

    built = coordinator()
    with pytest.raises(FederationError, match="round 1: node 3 failed: RuntimeError"):
        run_rounds(built, grid_of(answer))
    assert built.next_round == 1
    np.testing.assert_array_equal(built.table.learned, np.zeros((NUM_ITEMS, DIM)))


class Deaf(InProcessGrid):
    """Grid that loses the last reply."""

    def send_and_receive(self, messages, *, timeout=None):
        return list(super().send_and_receive(messages, timeout=timeout))[:-1]


def test_a_missing_reply_stops_the_round():
    app = ClientApp()
    app.train()(lambda message, context: Message(vector(message, 1.0), reply_to=message))
    with pytest.raises(FederationError, match="2 of 3 nodes answered"):
        run_rounds(coordinator(), Deaf(app, 3, workers=1))


@pytest.mark.parametrize(("wanted", "connected"), [(1, 0), (4, 3)])
def test_a_round_never_runs_with_too_few_nodes(wanted, connected):
    with pytest.raises(FederationError, match=f"{connected} of {wanted} nodes are connected after 0.3 seconds"):
        run_rounds(coordinator(nodes=wanted), grid_of(vector, nodes=connected))


def test_a_round_waits_for_nodes_that_register_one_by_one():
    class Filling(InProcessGrid):
        """Grid that shows one more node each time it is asked."""

        shown = 0

        def get_node_ids(self):
            self.shown += 1
            return list(super().get_node_ids())[: self.shown]

    app, seen = ClientApp(), []

    @app.train()
    def train(message: Message, context: Context) -> Message:
        seen.append(plan_of(message).server_round)
        return Message(vector(message, 1.0), reply_to=message)

    run_rounds(coordinator(rounds=1, nodes=3), Filling(app, 3, workers=1))
    assert sorted(seen) == [0, 0, 0, 1, 1, 1]


def test_the_sum_is_exact_in_double_precision_whatever_the_size_of_the_parts():
    grid_of(vector).close()  # Flower builds messages only where a grid has said which run this is
    plan = coordinator().plan()
    values = [2.0**24, 1.0, 1.0, -(2.0**24)]
    replies = []
    for message, value in zip(plan_messages(plan, range(2, 6)), values, strict=True):
        message.metadata.__dict__["_message_id"] = "1"
        replies.append(Message(vector(message, value), reply_to=message))
    np.testing.assert_array_equal(sum_of_updates(plan, replies), np.full(NUM_ITEMS, 2.0))
