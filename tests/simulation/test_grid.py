"""The in-process grid behaves as Flower's own: private messages, replies in order, a crash is a reply."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from palate.simulation.grid import InProcessGrid, run_in_process


def grid_of(work, nodes: int = 4, workers: int = 2) -> InProcessGrid:
    app = ClientApp()
    app.train()(work)
    return InProcessGrid(app, nodes, workers=workers)


def content_of(value: float = 1.0) -> RecordDict:
    return RecordDict({"table": ArrayRecord({"learned": Array(np.full(3, value, np.float32))})})


def messages(grid: InProcessGrid, content: RecordDict | None = None) -> list[Message]:
    shared = content if content is not None else content_of()
    return [
        Message(content=shared, dst_node_id=node, message_type=MessageType.TRAIN, group_id="1")
        for node in grid.get_node_ids()
    ]


def partition_of(context: Context) -> int:
    return int(context.node_config["partition-id"])


def echo(message: Message, context: Context) -> Message:
    return Message(content_of(partition_of(context)), reply_to=message)


def values(replies) -> list[float]:
    return [float(reply.content["table"]["learned"].numpy()[0]) for reply in replies]


def test_replies_come_in_the_order_of_the_nodes_whichever_was_faster():
    def slow_first(message: Message, context: Context) -> Message:
        time.sleep(0.05 if partition_of(context) == 0 else 0.0)
        return echo(message, context)

    grid = grid_of(slow_first)
    assert values(grid.send_and_receive(messages(grid))) == [0, 1, 2, 3]


def test_nodes_of_several_workers_run_at_the_same_time():
    barrier = threading.Barrier(2, timeout=10)

    def meet(message: Message, context: Context) -> Message:
        barrier.wait()
        return echo(message, context)

    grid = grid_of(meet, nodes=2, workers=2)
    assert values(grid.send_and_receive(messages(grid))) == [0, 1]


def test_a_node_that_changes_its_message_changes_nobody_elses():
    def vandal(message: Message, context: Context) -> Message:
        table = message.content.array_records["table"]
        seen = float(table["learned"].numpy()[0])
        table["learned"] = Array(np.full(3, -1.0, np.float32))
        message.content["extra"] = ArrayRecord({})
        return Message(content_of(seen), reply_to=message)

    grid = grid_of(vandal, workers=1)
    shared = content_of(5.0)
    assert values(grid.send_and_receive(messages(grid, shared))) == [5.0] * 4
    assert list(shared) == ["table"]
    np.testing.assert_array_equal(shared["table"]["learned"].numpy(), np.full(3, 5.0))


def test_a_node_that_crashes_answers_with_the_name_of_its_error_alone():
    def crash(message: Message, context: Context) -> Message:
        if partition_of(context) == 2:
            raise LookupError("private text")
        return echo(message, context)

    grid = grid_of(crash)
    replies = list(grid.send_and_receive(messages(grid)))
    assert [reply.has_error() for reply in replies] == [False, False, True, False]
    assert replies[2].error.reason == "LookupError"
    assert replies[2].metadata.src_node_id == 4


def test_a_node_without_a_handler_answers_with_an_error():
    grid = InProcessGrid(ClientApp(), 1, workers=1)
    (reply,) = grid.send_and_receive(messages(grid))
    assert reply.has_error()


def test_replies_are_handed_out_once_and_by_their_ids():
    grid = grid_of(echo)
    ids = list(grid.push_messages(messages(grid)))
    assert len(set(ids)) == 4
    assert values(grid.pull_messages(ids[1:3])) == [1, 2]
    assert values(grid.pull_messages(ids)) == [0, 3]
    assert list(grid.pull_messages(ids)) == []


def test_every_node_keeps_its_own_context():
    def remember(message: Message, context: Context) -> Message:
        context.run_config["seen"] = int(context.run_config.get("seen", 0)) + 1
        return Message(content_of(context.run_config["seen"]), reply_to=message)

    grid = grid_of(remember)
    grid.send_and_receive(messages(grid)[:1])
    assert values(grid.send_and_receive(messages(grid))) == [2, 1, 1, 1]


def test_an_app_runs_to_its_end_and_the_threads_stop_also_after_an_error():
    grid, server_app = grid_of(echo), ServerApp()

    @server_app.main()
    def main(given, context: Context) -> None:
        given.send_and_receive(messages(given))
        raise ArithmeticError("stop")

    with pytest.raises(ArithmeticError):
        run_in_process(server_app, grid)
    with pytest.raises(RuntimeError, match="shutdown"):
        grid.send_and_receive(messages(grid))
