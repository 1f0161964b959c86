"""Flower messages in and out: codes for errors, never texts, and nothing that the wire does not name."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from palate.client.fleet.relay import relay_to
from palate.privacy.aggregators.messages import Upload
from palate.privacy.aggregators.planes import unpack
from palate.privacy.aggregators.sealing import Suite
from palate.privacy.wire import BAD_PLAN, FAILED, REFUSED, ROUND_GONE, TAMPERED, FleetMessage, FleetStep


def wrapped(fleet_message, *, plan=None, table=None, extra=None):
    records = {"fleet": ConfigRecord(dict(fleet_message.to_scalars()))}
    arrays = None
    if plan is not None:
        arrays, scalars = plan.to_parts()
        records["plan"] = ConfigRecord(dict(scalars))
    elif table is not None:
        arrays = {"fixed": table.fixed, "learned": table.learned}
    if arrays is not None:
        records["table"] = ArrayRecord({name: Array(value) for name, value in arrays.items()})
    return Message(content=RecordDict({**records, **(extra or {})}), dst_node_id=1, message_type="query")


@pytest.fixture(autouse=True)
def _identity(monkeypatch):
    """Flower builds messages only where a grid has said which run this is."""
    for name in ("run_id", "task_id", "node_id"):
        monkeypatch.setattr(TaskIdentity, f"_{name}", 1)


@pytest.fixture
def device(lone):
    return lone.devices[0]


def test_a_round_runs_over_flower_messages(lone):
    plan, table = lone.plan(0), lone.final_table()
    server = lone.server(plan)
    handles = {device.number: relay_to(device.rounds) for device in lone.devices}
    outgoing = dict.fromkeys(handles, server.offer_bytes)
    for stage, step in enumerate(list(FleetStep)[:5]):
        for number, handle in handles.items():
            asked = lone.message(step, plan, outgoing[number])
            reply = handle(wrapped(asked, plan=plan if step is FleetStep.ADVERTISE else None))
            assert not reply.has_error()
            assert set(reply.content) == {"fleet"}
            answer = FleetMessage.from_scalars(dict(reply.content["fleet"]))
            assert (answer.step, answer.run, answer.server_round) == (step, plan.run, plan.server_round)
            server.receive(type(server.stage)(stage), number, answer.body)
        outgoing = server.close(server.stage)
    total = sum(device.trainer.vectors[0].astype(np.uint64) for device in lone.devices) % 2**32
    np.testing.assert_array_equal(server.result().vector, total)
    receipt = lone.message(FleetStep.RECEIPT, plan, server.receipt(model_hash=table.content_hash, log_index=0))
    for handle in handles.values():
        assert handle(wrapped(receipt, table=table)).content["fleet"]["body"] == b""


def test_all_that_leaves_under_two_aggregators_is_the_report(reporting):
    """One message up, of one record, whose body is an upload in its one spelling: masked words alone."""
    plan, device = reporting.plan(1), reporting.devices[0]
    call = reporting.collection(plan)
    asked = wrapped(reporting.message(FleetStep.REPORT, plan, call.to_bytes()), plan=plan)
    reply = relay_to(device.rounds)(asked)
    assert set(reply.content) == {"fleet"}
    assert set(reply.content["fleet"]) == {"version", "step", "run", "server_round", "body"}
    body = reply.content["fleet"]["body"]
    upload = Upload.from_bytes(body, Suite.X25519)
    assert upload.to_bytes() == body
    assert upload.report.device == device.number
    words = unpack(upload.words, plan.update_size, 24)
    assert not np.array_equal(words, device.trainer.vectors[1] % (1 << 24))
    without_plan = relay_to(device.rounds)(wrapped(reporting.message(FleetStep.REPORT, plan, call.to_bytes())))
    assert (without_plan.error.code, without_plan.error.reason) == (BAD_PLAN, "BadPlan")
    stranger = relay_to(device.rounds)(wrapped(reporting.ask(plan), plan=plan))
    assert (stranger.error.code, stranger.error.reason) == (REFUSED, "Refused")


def code_of(device, message):
    reply = relay_to(device.rounds)(message)
    assert reply.has_error()
    assert reply.error.reason.isidentifier()  # a word, never a text
    return reply.error.code


def test_what_the_owner_or_the_ledger_refuses_has_a_code_of_its_own(lone, device):
    plan = lone.plan(1, learned=np.full((12, 2), 1e6, np.float32))
    assert code_of(device, wrapped(lone.ask(plan), plan=plan)) == REFUSED


def test_a_device_without_the_keys_of_a_round_accuses_nobody_and_one_that_is_lied_to_says_so(lone, device):
    plan = lone.plan(0)
    server = lone.server(plan)
    assert code_of(device, wrapped(lone.message(FleetStep.SHARE, plan, b"x"))) == ROUND_GONE
    forged = bytearray(server.offer_bytes)
    forged[-1] ^= 1
    assert code_of(device, wrapped(lone.message(FleetStep.ADVERTISE, plan, bytes(forged)), plan=plan)) == TAMPERED
    relay_to(device.rounds)(wrapped(lone.message(FleetStep.ADVERTISE, plan, server.offer_bytes), plan=plan))
    device.rounds.close()  # as when the process ends
    assert code_of(device, wrapped(lone.message(FleetStep.SHARE, plan, b"x"))) == ROUND_GONE


def test_what_is_not_understood_has_another(lone, device):
    plan, share = lone.plan(0), lone.message(FleetStep.SHARE, lone.plan(0), b"")
    config, table = ConfigRecord({"a": 1}), ArrayRecord({"a": Array(np.zeros(3))})
    final = lone.message(FleetStep.RECEIPT, plan, b"")
    for message in (
        wrapped(lone.ask(plan)),
        wrapped(share, extra={"more": config}),
        wrapped(share, plan=plan),
        wrapped(lone.ask(plan), plan=plan, extra={"plan": config}),
        wrapped(lone.ask(plan), plan=plan, extra={"table": table}),
        wrapped(lone.ask(plan), plan=plan, extra={"table": config}),
        wrapped(share, extra={"fleet": config}),
        wrapped(share, extra={"fleet": table}),
        wrapped(final, extra={"table": table}),
        Message(content=RecordDict(), dst_node_id=1, message_type="query"),
    ):
        assert code_of(device, message) == BAD_PLAN


def test_a_failure_tells_no_more_than_its_type(lone, device, monkeypatch):
    plan = lone.plan(0)

    def fail(*_):
        raise ZeroDivisionError("user 7 watched Heat")

    monkeypatch.setattr(device.trainer, "contribute", fail)
    reply = relay_to(device.rounds)(wrapped(lone.ask(plan), plan=plan))
    assert (reply.error.code, reply.error.reason) == (FAILED, "ZeroDivisionError")
