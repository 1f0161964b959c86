"""The agent answers through a flaky link, once, with the same bytes, and tells nothing of its failures."""

from __future__ import annotations

import threading
import time
import tracemalloc

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict

from palate.client.fleet.identity import NodeKey
from palate.client.fleet.transport.agent import FleetAgent
from palate.client.fleet.transport.link import FleetError, Link, Refused, Removed, ServerNotTrusted
from palate.client.fleet.transport.pacing import Pace
from palate.client.fleet.transport.supernode import FleetCalls
from palate.errors import ConfigError
from palate.privacy.ledger.framing import parts_of
from palate.privacy.wire import FAILED, WHOLE_PULL_PATH, WHOLE_PUSH_PATH
from palate.server.fleet.certificates import make_authority
from palate.server.fleet.transport import superlink as superlink_module

IMPATIENT = Pace(
    busy_poll_seconds=0.02,
    idle_poll_seconds=0.1,
    first_retry_seconds=0.02,
    max_retry_seconds=0.1,
    give_up_after_seconds=0.6,
)
CALLS = ["activate-node", "pull-whole", "push-whole", "deactivate-node"]
FLOWERS_OWN = ["pull-messages", "pull-object", "confirm-message-received", "push-messages", "push-object"]


class Counting:
    """A program that adds one, and counts."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, message: Message) -> Message:
        self.calls += 1
        return number(message.content["in"]["x"] + 1, message)


def number(value: int, reply_to: Message) -> Message:
    return Message(RecordDict({"out": ConfigRecord({"x": value})}), reply_to=reply_to)


def asked(value: int) -> RecordDict:
    return RecordDict({"in": ConfigRecord({"x": value})})


@pytest.mark.parametrize("lost", CALLS)
def test_each_message_is_worked_on_once_whichever_answers_are_lost(fleet, lost):
    program = Counting()
    fleet.losses[lost] = 3
    with fleet.running(program):
        for value in (5, 6):
            assert fleet.ask(asked(value)).content["out"]["x"] == value + 1
    assert program.calls == 2
    assert fleet.losses[lost] <= 2, "answers were lost in this test"


@pytest.mark.parametrize("lost", FLOWERS_OWN)
def test_a_server_with_flowers_own_calls_alone_is_answered_too(fleet, lost):
    for path in (WHOLE_PULL_PATH, WHOLE_PUSH_PATH):
        del fleet.server._app._handlers[path]
    test_each_message_is_worked_on_once_whichever_answers_are_lost(fleet, lost)


def test_a_reply_that_was_not_taken_is_sent_again_as_the_same_bytes(fleet):
    fleet.losses["push-whole"] = 4
    with fleet.running(Counting()) as agent:
        fleet.ask(asked(1))
        _wait(lambda: agent.answered == 1)
    pushes = fleet.bodies("push-whole")
    assert len(pushes) == 5
    assert len(set(pushes)) == 1


def test_a_message_that_comes_twice_gets_the_same_reply_twice(fleet):
    replies = iter(range(100))
    with fleet.running(lambda it: number(next(replies), it)) as agent:
        fleet.ask()
        mailbox = fleet.server._mailbox
        fleet.server.grid.push_messages([Message(asked(1), dst_node_id=fleet.node_id, message_type="train")])
        (posted,) = mailbox._posted.values()
        name = posted.broadcast.letter_for(fleet.node_id).message_id
        _wait(lambda: agent._last is not None and agent._last.message_id == name)
        _wait(lambda: mailbox._answered)
        mailbox._answered.clear()  # as if the server had seen neither
        posted.waiting[fleet.node_id].parcel = None
        mailbox.begin_again(fleet.node_id)
        _wait(lambda: mailbox._answered)
    pushes = [body for body in fleet.bodies("push-whole") if name.encode() in body]
    assert len(pushes) == 2
    assert len(set(pushes)) == 1
    assert next(replies) == 2, "the program ran once for each message"


def test_a_device_that_was_killed_at_work_gets_the_message_again(fleet):
    with Link(fleet.server.address, fleet.key, authority=fleet.authority.certificate) as link:
        killed = FleetCalls(link, max_message_bytes=1 << 20)
        killed.join(fleet.key.public_pem, 30.0)
        result: list[Message] = []
        asking = threading.Thread(target=lambda: result.append(fleet.ask(asked(7))))
        asking.start()
        _wait(lambda: killed.receive() is not None)
    with fleet.running(Counting()):
        asking.join(15)
    assert result[0].content["out"]["x"] == 8


SECRET = "watched: The Room, 17 times"


def _raise(message: Message) -> Message:
    raise LookupError(SECRET)


def _error_with_text(message: Message) -> Message:
    return Message(Error(code=102, reason=SECRET), reply_to=message)


def _nothing(message: Message) -> Message:
    return None


def _no_content(message: Message) -> Message:
    reply = Message(RecordDict(), reply_to=message)
    reply.__dict__["_content"] = {"not": SECRET}
    return reply


@pytest.mark.parametrize(
    ("program", "code", "reason"),
    [
        (_raise, FAILED, "LookupError"),
        (_error_with_text, 102, ""),
        (_nothing, FAILED, "TypeError"),
        (_no_content, FAILED, None),
    ],
)
def test_of_a_failure_the_server_learns_a_code_and_a_type(fleet, program, code, reason):
    with fleet.running(program):
        reply = fleet.ask()
        assert fleet.ask().has_error(), "the agent goes on"
    assert reply.error.code == code
    if reason is not None:
        assert (reply.error.reason or "") == reason
    assert fleet.bodies("push-whole")
    assert not [name for name, body in fleet.sent if SECRET[:8].encode() in body]


def test_the_name_of_a_type_may_stay_in_an_error_that_the_program_makes(fleet):
    with fleet.running(lambda it: Message(Error(code=102, reason="BudgetExhausted"), reply_to=it)):
        assert fleet.ask().error.reason == "BudgetExhausted"


def test_neither_running_time_nor_runs_nor_bundles_are_spoken_of(fleet):
    from flwr.proto.fleet_pb2 import PushMessagesRequest

    with fleet.running(Counting()):
        fleet.ask(asked(1))
    pushed = [PushMessagesRequest.FromString(parts_of(body)[0]) for body in fleet.bodies("push-whole")]
    assert pushed
    assert not any(it.clientapp_runtime_list for it in pushed)
    assert not fleet.bodies("get-run") + fleet.bodies("get-fab")
    assert {name for name, _ in fleet.sent} <= set(CALLS) | {"send-node-heartbeat"}


def test_heartbeats_go_on_while_the_program_works(fleet, monkeypatch):
    monkeypatch.setattr(superlink_module, "MIN_INTERVAL_SECONDS", 0.1)

    def slow(message: Message) -> Message:
        before = len(fleet.bodies("send-node-heartbeat"))
        time.sleep(1.0)  # five intervals: without heartbeats the node would be given up
        return number(len(fleet.bodies("send-node-heartbeat")) - before, message)

    with fleet.running(slow, pace=Pace(busy_poll_seconds=0.02, idle_poll_seconds=0.1, heartbeat_seconds=0.2)):
        assert fleet.ask().content["out"]["x"] >= 3


def test_a_server_of_another_authority_is_refused_before_anything_is_said(fleet, tmp_path):
    agent = fleet.agent(Counting(), authority=make_authority(tmp_path / "other").certificate)
    with pytest.raises(ServerNotTrusted, match="did not issue"):
        agent.run()
    assert not fleet.sent


def test_a_device_that_is_not_enrolled_is_told_so(fleet, tmp_path):
    stranger = NodeKey.make()
    agent = FleetAgent(fleet.server.address, stranger, Counting(), authority=fleet.authority.certificate)
    with pytest.raises(Refused, match="refuses activate-node: 401") as caught:
        agent.run()
    assert "enrolled" in caught.value.hint


def test_it_gives_up_cleanly_after_the_limit(fleet):
    agent = fleet.agent(Counting(), pace=IMPATIENT)
    fleet.server.stop()
    began = time.monotonic()
    with pytest.raises(FleetError, match=r"gave up after 0\.6 s: .* does not answer"):
        agent.run()
    assert 0.5 < time.monotonic() - began < 5


def test_it_ends_at_once_when_the_server_removes_it(fleet):
    failures = []
    agent = fleet.agent(Counting())  # it would go on for 20 seconds

    def run() -> None:
        try:
            agent.run()
        except FleetError as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    fleet.server.wait_for_nodes(1, timeout_seconds=10)
    fleet.server.enrolment.remove(fleet.node_id)
    thread.join(10)
    (failure,) = failures
    assert isinstance(failure, Removed)
    assert failure.exit_code == 9
    assert "the fleet's operator has removed it" in str(failure)
    assert "palate client leave" in failure.hint
    with pytest.raises(Removed):  # nor does it begin again
        fleet.agent(Counting()).run()


def test_a_device_that_is_removed_while_it_works_ends_too(fleet):
    removing = threading.Event()

    def handle(message):
        fleet.server.enrolment.remove(fleet.node_id)
        removing.set()
        return number(1, message)

    failures = []

    def run() -> None:
        try:
            fleet.agent(handle).run()
        except FleetError as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    fleet.server.wait_for_nodes(1, timeout_seconds=10)
    message = Message(asked(1), dst_node_id=fleet.node_id, message_type="train")
    fleet.server.grid.push_messages([message])
    assert removing.wait(10)
    thread.join(10)
    assert [type(each) for each in failures] == [Removed]


def test_stop_ends_it_at_once_and_the_server_knows(fleet):
    with fleet.running(Counting()) as agent:
        fleet.ask(asked(1))
        _wait(lambda: agent.answered == 1)
        began = time.monotonic()
    assert time.monotonic() - began < 2.0
    assert fleet.server.wait_for_nodes(0, timeout_seconds=0) == []


def test_what_was_worked_on_at_a_stop_is_still_sent(fleet):
    agents: list[FleetAgent] = []

    def last(message: Message) -> Message:
        agents[0].stop()
        return number(9, message)

    with fleet.running(last) as agent:
        agents.append(agent)
        assert fleet.ask().content["out"]["x"] == 9


def test_a_message_beyond_the_bound_is_not_fetched(fleet):
    program = Counting()
    with fleet.running(program, max_message_bytes=5_000):
        large = RecordDict({"in": ConfigRecord({"x": 1, "padding": "x" * 10_000})})
        message = Message(large, dst_node_id=fleet.node_id, message_type="train")
        assert list(fleet.server.grid.send_and_receive([message], timeout=0.5)) == []
        assert fleet.ask(asked(3)).content["out"]["x"] == 4, "and the agent goes on"
    assert program.calls == 1


@pytest.fixture
def repeated_chunks(monkeypatch):
    """Make every array name its chunks a thousand times: a megabyte on the wire, a gigabyte in memory."""
    slice_array = Array.slice_array
    monkeypatch.setattr(Array, "slice_array", lambda self: slice_array(self) * 1_000)


def test_a_message_that_would_grow_in_memory_is_not_inflated(fleet, repeated_chunks):
    program = Counting()
    with fleet.running(program):
        bomb = RecordDict({"in": ArrayRecord({"x": Array(np.zeros(250_000, dtype=np.float32))})})
        message = Message(bomb, dst_node_id=fleet.node_id, message_type="train")
        tracemalloc.start()
        assert list(fleet.server.grid.send_and_receive([message], timeout=1.0)) == []
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert fleet.ask(asked(3)).content["out"]["x"] == 4
    assert program.calls == 1
    assert fleet.bodies("pull-whole")
    assert peak < 100e6


def test_a_server_that_changes_a_message_is_not_believed(fleet):
    program = Counting()
    mailbox = fleet.server._mailbox
    honest = mailbox.object_for
    mailbox.object_for = lambda node_id, name: (honest(node_id, name) or b"").replace(b"true", b"lies")
    with fleet.running(program):
        content = RecordDict({"in": ConfigRecord({"x": 1, "word": "true"})})
        message = Message(content, dst_node_id=fleet.node_id, message_type="train")
        assert list(fleet.server.grid.send_and_receive([message], timeout=0.5)) == []
        mailbox.object_for = honest
        assert fleet.ask(asked(3)).content["out"]["x"] == 4
    assert program.calls == 1


def test_senseless_bounds_are_refused(fleet):
    with pytest.raises(ConfigError, match="at most 0 bytes"):
        fleet.agent(Counting(), max_message_bytes=0)


def _wait(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
