"""The ClientApp relays: one update up and nothing else, and no exception's text ever reaches the reply."""

from __future__ import annotations

import gc
import logging
import time

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict

from palate.client import app as client_app
from palate.client.app import BAD_PLAN, FAILED, make_app, open_installed_host
from palate.client.host import DeviceHost
from palate.errors import ConfigError
from palate.models.training import LocalTraining
from palate.privacy.wire import ItemUpdate, RoundPlan, WireError
from palate.server.strategy import plan_messages
from palate.simulation.grid import InProcessGrid

SECRET = "user 17 watched item 4711"
PLAN = RoundPlan(
    run="r",
    server_round=1,
    purpose="train",
    unit="none",
    participation=1.0,
    training=LocalTraining(model="gmf").model_dump_json(),
    fixed=np.zeros((9, 1), np.float32),
    learned=np.full((9, 2), 0.5, np.float32),
)
HISTORY = np.array([1, 4], np.int32)


class Broken:
    """Host that fails with a private text."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def answer(self, plan):
        raise self.error

    def inspect(self, question, table_arrays):
        raise self.error


@pytest.fixture(autouse=True)
def _identity() -> None:
    """Flower builds messages only where a grid has said which run this is."""
    InProcessGrid(make_app(device), 1, workers=1).close()


def device(context: Context) -> DeviceHost:
    return DeviceHost(HISTORY, np.uint64)


def reply_to(message: Message, open_host) -> Message:
    (reply,) = InProcessGrid(make_app(open_host), 1, workers=1).send_and_receive([message])
    return reply


def plan_message(plan: RoundPlan = PLAN) -> Message:
    (message,) = plan_messages(plan, [2])
    return message


def question_message() -> Message:
    arrays, _ = PLAN.to_parts()
    content = RecordDict(
        {
            "question": ConfigRecord({"part": "test", "round": 1, "full": 1}),
            "table": ArrayRecord({name: Array(value) for name, value in arrays.items()}),
        }
    )
    return Message(content=content, dst_node_id=2, message_type=MessageType.QUERY)


def test_a_plan_is_answered_with_one_array_and_nothing_else():
    reply = reply_to(plan_message(), device)
    assert not reply.has_error()
    assert list(reply.content) == ["update"]
    assert list(reply.content.array_records["update"]) == ["update"]
    update = reply.content["update"]["update"].numpy()
    assert (update.dtype, update.shape) == (np.float32, (18,))
    assert not reply.content.metric_records
    assert not reply.content.config_records


def test_a_real_device_refuses_a_question():
    reply = reply_to(question_message(), device)
    assert reply.error.code == BAD_PLAN
    assert not reply.has_content()


@pytest.mark.parametrize("message", [plan_message, question_message])
@pytest.mark.parametrize("error", [ValueError(SECRET), KeyError(SECRET), ConfigError(SECRET, hint=SECRET)])
def test_the_text_of_an_exception_never_reaches_the_reply(message, error, caplog):
    with caplog.at_level(logging.CRITICAL):
        reply = reply_to(message(), lambda context: Broken(error))
    assert reply.error.code == FAILED
    assert reply.error.reason == type(error).__name__
    assert SECRET not in repr(reply.__dict__)


def test_the_text_of_a_refusal_does_not_reach_the_reply_either():
    reply = reply_to(plan_message(), lambda context: Broken(WireError(SECRET)))
    assert (reply.error.code, reply.error.reason) == (BAD_PLAN, "the plan was not understood")


def test_a_host_that_cannot_be_opened_is_a_failure_without_text():
    def closed(context: Context):
        raise RuntimeError(SECRET)

    reply = reply_to(plan_message(), closed)
    assert (reply.error.code, reply.error.reason) == (FAILED, "RuntimeError")


@pytest.mark.parametrize(
    ("field", "value"),
    [("version", 1), ("purpose", "dump"), ("participation", 2.0), ("unit", "user"), ("training", "{"), ("more", 1)],
)
def test_a_plan_that_is_not_understood_is_refused(field, value):
    message = plan_message()
    message.content.config_records["plan"][field] = value
    assert reply_to(message, device).error.code == BAD_PLAN


def test_a_message_without_a_plan_is_an_error_and_not_a_crash():
    message = Message(content=RecordDict({}), dst_node_id=2, message_type=MessageType.TRAIN)
    assert reply_to(message, device).has_error()


def test_many_nodes_of_one_process_can_read_their_plans_at_once():
    """Garbage collection in the middle of reading a header hands over to another thread, in the worst case always."""

    def hand_over(phase: str, info: dict[str, int]) -> None:
        time.sleep(0)

    grid = InProcessGrid(make_app(device), 8, workers=8)
    before = gc.get_threshold()
    gc.callbacks.append(hand_over)
    gc.set_threshold(20)
    try:
        for _ in range(15):
            replies = grid.send_and_receive(plan_messages(PLAN, grid.get_node_ids()))
            assert [reply.error.reason for reply in replies if reply.has_error()] == []
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(hand_over)


def test_nothing_of_a_round_stays_in_flowers_context():
    grid = InProcessGrid(make_app(device), 1, workers=1)
    grid.send_and_receive([plan_message()])
    (context,) = grid.contexts.values()
    assert list(context.state) == []


def test_an_answer_is_what_the_host_released():
    class Fixed(Broken):
        def answer(self, plan):
            return ItemUpdate(np.arange(18, dtype=np.float32))

    reply = reply_to(plan_message(), lambda context: Fixed(ValueError()))
    np.testing.assert_array_equal(reply.content["update"]["update"].numpy(), np.arange(18))


def test_an_unknown_host_is_refused_by_name():
    context = Context(run_id=1, node_id=2, node_config={}, state=RecordDict(), run_config={"session": "nowhere"})
    with pytest.raises(ConfigError, match="unknown host 'nowhere'"):
        open_installed_host(context)


def test_the_app_that_flower_starts_answers_an_unknown_host_with_a_code():
    context = Context(run_id=1, node_id=2, node_config={}, state=RecordDict(), run_config={"session": "nowhere"})
    message = plan_message()
    message.metadata.__dict__["_message_id"] = "1"
    reply = client_app.app(message, context)
    assert (reply.error.code, reply.error.reason) == (FAILED, "ConfigError")
