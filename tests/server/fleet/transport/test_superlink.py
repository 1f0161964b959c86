"""The Grid over the fleet: messages arrive whole, replies are the device's words under the server's own metadata."""

from __future__ import annotations

import threading
import time
import tracemalloc

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.app.message.message import make_message
from flwr.common.constant import ErrorCode
from flwr.proto.fleet_pb2 import (
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.message_pb2 import PushObjectRequest, PushObjectResponse
from flwr.proto.node_pb2 import Node
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree

from palate.client.fleet.identity import NodeKey
from palate.server.fleet.transport import mailbox as mailbox_module
from palate.server.fleet.transport import superlink


def question(node_id: int, number: int = 0, **options) -> Message:
    content = RecordDict(
        {
            "table": ArrayRecord({"item": Array(np.arange(12, dtype=np.float32).reshape(4, 3) + number)}),
            "plan": ConfigRecord({"round": number, "kinds": ["a", "b"], "raw": b"\x00\xff"}),
        }
    )
    return Message(content, dst_node_id=node_id, message_type="train", group_id=f"round-{number}", **options)


def double(message: Message) -> Message:
    table = message.content["table"]["item"].numpy()
    content = RecordDict(
        {
            "update": ArrayRecord({"item": Array(2 * table)}),
            "seen": MetricRecord({"round": message.content["plan"]["round"]}),
        }
    )
    return Message(content, reply_to=message)


@pytest.fixture
def devices(fleet, run_agent, tmp_path):
    """Three devices that double."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        ids = []
        for _ in range(3):
            key = NodeKey.make()
            ids.append(fleet.enrolment.add(key.public_pem).node_id)
            stack.enter_context(run_agent(fleet, key, double))
        assert sorted(ids) == fleet.wait_for_nodes(3, timeout_seconds=20)
        yield ids


def test_many_rounds_over_one_grid(fleet, devices):
    assert isinstance(fleet.grid, Grid)
    assert sorted(fleet.grid.get_node_ids()) == sorted(devices)
    for number in range(3):
        replies = fleet.grid.send_and_receive([question(node, number) for node in devices], timeout=20)
        assert sorted(it.metadata.src_node_id for it in replies) == sorted(devices)
        for reply in replies:
            expected = 2 * (np.arange(12, dtype=np.float32).reshape(4, 3) + number)
            np.testing.assert_array_equal(reply.content["update"]["item"].numpy(), expected)
            assert reply.content["seen"]["round"] == number
            assert reply.metadata.group_id == f"round-{number}"
    assert not fleet._mailbox._posted
    assert not fleet._mailbox._objects
    assert not fleet.grid._sent


def test_messages_of_one_content_are_one_broadcast(fleet, devices):
    content = question(devices[0]).content
    same = [Message(content, dst_node_id=node, message_type="train", group_id="round-0") for node in devices]
    names = list(fleet.grid.push_messages([*same, question(devices[0], 1)]))
    assert sorted(len(sent.object_ids) for sent in fleet.grid._sent.values()) == sorted(
        [len(get_all_nested_objects(content))] * 2
    )
    replies: list[Message] = []
    deadline = time.monotonic() + 20
    while len(replies) < len(names) and time.monotonic() < deadline:
        replies += fleet.grid.pull_messages(names)
    found = {it.metadata.reply_to_message_id: (it.metadata.src_node_id, it.content["seen"]["round"]) for it in replies}
    assert found == dict(zip(names, [*((node, 0) for node in devices), (devices[0], 1)], strict=True))


def test_a_letter_is_what_flower_makes_of_its_message(fleet):
    """Its root names the content without hashing it again."""
    node = fleet.enrolment.add(NodeKey.make().public_pem).node_id
    fleet.grid.push_messages([question(node)])
    (outgoing,) = fleet.grid._sent.values()
    letter = outgoing.letter_for(node)
    stamped = make_message(metadata=outgoing.metadata_for(node), content=question(node).content)
    assert letter.message_id == stamped.object_id
    assert letter.root == stamped.deflate()
    assert letter.tree == get_object_tree(stamped).SerializeToString()
    assert {letter.message_id, *letter.object_ids} == set(get_all_nested_objects(stamped))


def test_an_array_of_several_chunks_arrives_whole(fleet, run_agent, tmp_path):
    key = NodeKey.make()
    node = fleet.enrolment.add(key.public_pem).node_id
    table = np.random.default_rng(3).normal(size=(1_500, 1_000)).astype(np.float32)  # 6 MB, two objects

    def negate(message: Message) -> Message:
        value = -message.content["t"]["x"].numpy()
        return Message(RecordDict({"t": ArrayRecord({"x": Array(value)})}), reply_to=message)

    with run_agent(fleet, key, negate):
        fleet.wait_for_nodes(1, timeout_seconds=10)
        sent = Message(RecordDict({"t": ArrayRecord({"x": Array(table)})}), dst_node_id=node, message_type="train")
        (reply,) = fleet.grid.send_and_receive([sent], timeout=30)
    np.testing.assert_array_equal(reply.content["t"]["x"].numpy(), -table)


def test_replies_are_handed_out_as_they_arrive(fleet, run_agent, tmp_path):
    gate = threading.Event()

    def patient(message: Message) -> Message:
        gate.wait(20)
        return double(message)

    quick, slow = NodeKey.make(), NodeKey.make()
    ids = [fleet.enrolment.add(it.public_pem).node_id for it in (quick, slow)]
    with run_agent(fleet, quick, double), run_agent(fleet, slow, patient):
        fleet.wait_for_nodes(2, timeout_seconds=20)
        asked = fleet.grid.push_messages([question(it) for it in ids])
        found: list[int] = []
        deadline = time.monotonic() + 20
        while len(found) < 2 and time.monotonic() < deadline:
            found += [it.metadata.src_node_id for it in fleet.grid.pull_messages(asked)]
            if found == [ids[0]]:
                gate.set()
        assert found == ids


def test_after_the_timeout_the_rest_is_withdrawn(fleet, run_agent, tmp_path):
    gate, key = threading.Event(), NodeKey.make()
    node = fleet.enrolment.add(key.public_pem).node_id

    def stuck(message: Message) -> Message:
        gate.wait(20)
        return double(message)

    with run_agent(fleet, key, stuck):
        fleet.wait_for_nodes(1, timeout_seconds=20)
        began = time.monotonic()
        assert fleet.grid.send_and_receive([question(node)], timeout=0.3) == []
        assert time.monotonic() - began < 5
        gate.set()
        (reply,) = fleet.grid.send_and_receive([question(node, 1)], timeout=20)
        assert reply.content["seen"]["round"] == 1, "the late reply to round 0 was dropped"


def test_a_node_that_is_gone_is_an_error_and_not_a_wait(fleet, tmp_path):
    node = fleet.enrolment.add(NodeKey.make().public_pem).node_id
    began = time.monotonic()
    (reply,) = fleet.grid.send_and_receive([question(node)])
    assert time.monotonic() - began < 5
    assert reply.has_error()
    assert reply.error.code == ErrorCode.NODE_UNAVAILABLE
    assert reply.metadata.src_node_id == node
    (reply,) = fleet.grid.send_and_receive([question(12345)])
    assert reply.error.code == ErrorCode.NODE_UNAVAILABLE


def test_an_expired_message_is_an_error(fleet, devices):
    (name,) = fleet.grid.push_messages([question(devices[0], ttl=0.001)])
    time.sleep(0.01)
    (reply,) = fleet.grid.pull_messages([name])
    assert reply.error.code == ErrorCode.NODE_UNAVAILABLE
    assert list(fleet.grid.pull_messages([name])) == []


def test_messages_that_nobody_collects_do_not_pile_up(fleet, monkeypatch):
    monkeypatch.setattr(mailbox_module, "SWEEP_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(superlink, "_SWEEP_SECONDS", 0.0)
    for number in range(5):
        fleet.grid.push_messages([question(77, number, ttl=0.01)])
        time.sleep(0.02)
    assert len(fleet._mailbox._posted) == len(fleet.grid._sent) == 1


def _pull(device, node_id) -> str:
    """Ask for a message the way a device does, and return its name."""
    answer = device.post("/v1/fleet/pull-messages", PullMessagesRequest(node=Node(node_id=node_id)).SerializeToString())
    messages = PullMessagesResponse.FromString(answer.content).messages_list
    return messages[0].metadata.message_id if messages else ""


def _push(device, node_id, reply):
    """Push a reply the way a device that was tampered with might: its objects, and any root."""
    name = _pull(device, node_id)
    objects, tree = get_all_nested_objects(reply), get_object_tree(reply)
    push = PushMessagesRequest(node=Node(node_id=node_id), message_object_trees=[tree])
    sent = push.messages_list.add()
    sent.metadata.src_node_id, sent.metadata.reply_to_message_id = node_id, name
    sent.metadata.dst_node_id, sent.metadata.group_id = 666, "forged"
    sent.metadata.message_id = tree.object_id
    answer = PushMessagesResponse.FromString(device.post("/v1/fleet/push-messages", push.SerializeToString()).content)
    for wanted in answer.objects_to_push:
        body = PushObjectRequest(
            node=Node(node_id=node_id),
            object_id=wanted,
            object_content=objects[wanted].deflate(),
            session_id=answer.session_id,
        )
        stored = device.post("/v1/fleet/push-object", body.SerializeToString())
        assert PushObjectResponse.FromString(stored.content).stored


def test_metadata_of_a_reply_is_the_servers_own(fleet, insider):
    device, node = insider
    assert not _pull(device, node), "it is online from here on"
    (name,) = fleet.grid.push_messages([question(node, 4)])
    _push(device, node, double(question(node, 4)))
    (reply,) = fleet.grid.pull_messages([name])
    assert reply.content["seen"]["round"] == 4
    given = reply.metadata
    assert (given.src_node_id, given.reply_to_message_id, given.group_id) == (node, name, "round-4")
    assert (given.run_id, given.message_type) == (fleet.grid.run.run_id, "train")


def test_what_is_no_reply_becomes_an_error(fleet, insider):
    device, node = insider
    assert not _pull(device, node), "it is online from here on"
    (name,) = fleet.grid.push_messages([question(node)])
    _push(device, node, RecordDict({"a": ConfigRecord({"b": 1})}))  # its root is no message
    (reply,) = fleet.grid.pull_messages([name])
    assert reply.error.code == ErrorCode.REPLY_MESSAGE_UNAVAILABLE


@pytest.fixture
def repeated_chunks(monkeypatch):
    """Make every array name its chunks a thousand times: a megabyte on the wire, a gigabyte in memory."""
    slice_array = Array.slice_array
    monkeypatch.setattr(Array, "slice_array", lambda self: slice_array(self) * 1_000)


def test_a_reply_that_would_grow_in_memory_is_not_inflated(fleet, insider, repeated_chunks):
    device, node = insider
    assert not _pull(device, node), "it is online from here on"
    (name,) = fleet.grid.push_messages([question(node)])
    bomb = Array(np.zeros(250_000, dtype=np.float32))
    _push(device, node, Message(RecordDict({"update": ArrayRecord({"item": bomb})}), reply_to=question(node)))
    tracemalloc.start()
    (reply,) = fleet.grid.pull_messages([name])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reply.error.code == ErrorCode.REPLY_MESSAGE_UNAVAILABLE
    assert peak < 100e6


def test_an_error_of_a_device_arrives_with_its_code(fleet, run_agent, tmp_path):
    key = NodeKey.make()
    node = fleet.enrolment.add(key.public_pem).node_id
    with run_agent(fleet, key, lambda it: Message(Error(code=102, reason="BudgetExhausted"), reply_to=it)):
        fleet.wait_for_nodes(1, timeout_seconds=20)
        (reply,) = fleet.grid.send_and_receive([question(node)], timeout=20)
    assert (reply.error.code, reply.error.reason) == (102, "BudgetExhausted")


def test_a_device_that_answers_cannot_pass_for_one_that_is_gone(fleet, run_agent, tmp_path):
    """Who is gone is asked again as soon as it is back: it could have the table sent for as long as a step lasts."""
    key = NodeKey.make()
    node = fleet.enrolment.add(key.public_pem).node_id
    gone = Error(code=ErrorCode.NODE_UNAVAILABLE, reason="Gone")
    with run_agent(fleet, key, lambda it: Message(gone, reply_to=it)):
        fleet.wait_for_nodes(1, timeout_seconds=20)
        (reply,) = fleet.grid.send_and_receive([question(node)], timeout=20)
    assert reply.error.code == ErrorCode.REPLY_MESSAGE_UNAVAILABLE
