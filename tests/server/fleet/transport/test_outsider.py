"""Whoever has the authority's certificate alone can list nothing, start nothing and take nothing.

On a stock SuperLink the same outsider lists nodes and runs, starts a run on every device and takes a task's token.
"""

from __future__ import annotations

import socket
import ssl
import time
from datetime import UTC, datetime, timedelta

import httpx
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.proto.control_pb2 import ListNodesRequest, ListRunsRequest, RegisterNodeRequest, StartRunRequest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import PullObjectRequest, PullObjectResponse, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES

from palate.client.fleet.identity import NodeKey
from palate.server.fleet.transport.http import FleetLimits

FLEET = "/v1/fleet/"
SERVED = {path for _, path in PROTOBUF_REQUEST_TYPES if path.startswith(FLEET)} - {
    FLEET + name for name in ("register-node", "unregister-node", "get-run", "get-fab")
}
ELSEWHERE = sorted({path for _, path in PROTOBUF_REQUEST_TYPES} - SERVED)


def message(node_id: int) -> Message:
    content = RecordDict({"table": ArrayRecord({"item": Array(np.arange(6.0))})})
    return Message(content, dst_node_id=node_id, message_type="train")


def test_flower_has_paths_to_hide():
    assert len(ELSEWHERE) > 50
    assert len(SERVED) == 8


@pytest.mark.parametrize("who", ["outsider", "insider"])
def test_no_path_but_the_fleets_exists_for_anyone(outsider, insider, who):
    caller = outsider if who == "outsider" else insider[0]
    others = ["/", "/health", "/docs", "/openapi.json", "/metrics", "/v1/fleet/", "/v1/fleet/pull-messages/", "//"]
    odd = ["/v1/control/../fleet/start-run", "/v1/fleet/%2e%2e/control/list-nodes", "/v1/FLEET/pull-messages"]
    for path in [*ELSEWHERE, *others, *odd]:
        assert caller.post(path).status_code == 404, path
    for method in ("GET", "PUT", "DELETE", "OPTIONS", "HEAD", "TRACE"):
        assert caller.client.request(method, "/v1/fleet/pull-messages").status_code == 404, method


def test_the_calls_that_worked_on_a_stock_server_do_not(outsider):
    calls = {
        "/v1/control/list-nodes": ListNodesRequest(),
        "/v1/control/list-runs": ListRunsRequest(),
        "/v1/control/start-run": StartRunRequest(),
        "/v1/control/register-node": RegisterNodeRequest(),
        "/v1/runtime/acquire-task": AcquireTaskRequest(supported_task_types=["flwr-serverapp"]),
        "/v1/fleet/register-node": RegisterNodeFleetRequest(public_key=b"mine"),
    }
    assert {outsider.post(path, body.SerializeToString()).status_code for path, body in calls.items()} == {404}


@pytest.mark.parametrize("path", sorted(SERVED))
def test_every_fleet_call_needs_an_enrolled_key(fleet, outsider, insider, tmp_path, path):
    stranger = NodeKey.make()
    assert outsider.post(path).status_code == 401
    outsider.key = stranger
    assert (
        outsider.post(path, ActivateNodeRequest(public_key=stranger.public_pem).SerializeToString()).status_code == 401
    )
    assert fleet.wait_for_nodes(0, timeout_seconds=0) == []


def test_a_captured_request_cannot_be_sent_again(insider):
    device, node_id = insider
    headers, body = device.headers(), PullMessagesRequest(node=Node(node_id=node_id)).SerializeToString()
    path = "/v1/fleet/pull-messages"
    assert device.post(path, body, headers).status_code == 200
    assert device.post(path, body, headers).status_code == 401
    old = device.headers(datetime.now(UTC) - timedelta(seconds=301))
    assert device.post(path, body, old).status_code == 401
    assert device.post(path, body).status_code == 200


def test_a_device_cannot_act_for_another(fleet, insider, tmp_path):
    device, own = insider
    victim = fleet.enrolment.add(NodeKey.make().public_pem).node_id
    theirs, mine = Node(node_id=victim), Node(node_id=own)
    fleet.grid.push_messages([message(victim)])
    (posted,) = fleet._mailbox._posted.values()
    message_id = posted.broadcast.letter_for(victim).message_id
    claims = {
        "pull-messages": PullMessagesRequest(node=theirs),
        "pull-object": PullObjectRequest(node=theirs, object_id=message_id),
        "send-node-heartbeat": SendNodeHeartbeatRequest(node=theirs, heartbeat_interval=30),
        "deactivate-node": DeactivateNodeRequest(node_id=victim),
        "push-object": PushObjectRequest(node=theirs),
    }
    for name, body in claims.items():
        assert device.post(FLEET + name, body.SerializeToString()).status_code == 401, name
    body = ActivateNodeRequest(public_key=NodeKey.make().public_pem, heartbeat_interval=30)
    assert device.post(FLEET + "activate-node", body.SerializeToString()).status_code == 401
    body = PullMessagesRequest(node=mine).SerializeToString()
    assert device.post(FLEET + "pull-messages", body).content == b""
    body = PullObjectRequest(node=mine, object_id=message_id).SerializeToString()
    answer = PullObjectResponse.FromString(device.post(FLEET + "pull-object", body).content)
    assert (answer.object_found, answer.object_content) == (False, b"")


def test_a_reply_in_anothers_name_is_refused(fleet, insider, tmp_path):
    device, own = insider
    victim = fleet.enrolment.add(NodeKey.make().public_pem).node_id
    (name,) = fleet.grid.push_messages([message(victim)])
    (posted,) = fleet._mailbox._posted.values()
    message_id = posted.broadcast.letter_for(victim).message_id
    push = PushMessagesRequest(node=Node(node_id=own))
    forged, tree = push.messages_list.add(), push.message_object_trees.add()
    forged.metadata.src_node_id, forged.metadata.reply_to_message_id = victim, message_id
    forged.metadata.message_id = tree.object_id = "ab" * 32
    assert device.post(FLEET + "push-messages", push.SerializeToString()).status_code == 403
    # nor in its own name, to a question that it was not asked
    forged.metadata.src_node_id = own
    answer = device.post(FLEET + "push-messages", push.SerializeToString())
    assert answer.status_code == 200
    (reply,) = fleet.grid.pull_messages([name])
    assert reply.has_error()  # the victim is offline; nothing was stored for it


def test_what_cannot_be_read_is_refused_and_the_server_lives_on(fleet, insider):
    device, node_id = insider
    for name in sorted(SERVED):
        assert device.post(name, b"\xff\xff\xff\xff").status_code == 400, name
        json = device.headers() | {"content-type": "application/json"}
        assert device.post(name, b"{}", json).status_code == 415, name
    push = PushMessagesRequest(node=Node(node_id=node_id))
    assert device.post("/v1/fleet/push-messages", push.SerializeToString()).status_code == 400
    fleet.grid.push_messages([message(node_id)])
    (posted,) = fleet._mailbox._posted.values()
    body = PullMessagesRequest(node=Node(node_id=node_id)).SerializeToString()
    answer = PullMessagesResponse.FromString(device.post("/v1/fleet/pull-messages", body).content)
    assert answer.messages_list[0].metadata.message_id == posted.broadcast.letter_for(node_id).message_id


@pytest.mark.parametrize("interval", [0.0, 9.9, 1_801.0, float("inf"), float("nan")])
def test_a_device_cannot_promise_to_be_there_for_ever(fleet, insider, interval):
    device, _ = insider
    body = ActivateNodeRequest(public_key=device.key.public_pem, heartbeat_interval=interval).SerializeToString()
    assert device.post("/v1/fleet/activate-node", body).status_code == 400
    assert fleet.wait_for_nodes(0, timeout_seconds=0) == []


def test_bodies_are_bounded_whether_announced_or_not(open_fleet, as_device):
    def in_pieces():
        yield from [b"x" * 1_000] * 20

    with open_fleet(limits=FleetLimits(max_body_bytes=10_000)) as fleet:
        device = as_device(fleet)
        path = "/v1/fleet/push-object"
        assert device.post(path, b"\xff" * 10_000).status_code == 400, "within the bound, and nonsense"
        assert device.post(path, b"x" * 10_001).status_code == 413
        assert device.client.post(path, content=in_pieces(), headers=device.headers()).status_code == 413
        assert device.post(path, b"\xff" * 10).status_code == 400


def test_a_body_that_never_comes_is_given_up(open_fleet, as_device, pki):
    with open_fleet(limits=FleetLimits(body_timeout_seconds=0.2)) as fleet:
        device = as_device(fleet)
        lines = ["POST /v1/fleet/pull-messages HTTP/1.1", "host: fleet", "content-length: 100"]
        lines += [f"{name}: {text}" for name, text in device.headers().items()]
        with (
            socket.create_connection(("127.0.0.1", fleet.port), timeout=5) as raw,
            pki.trust.wrap_socket(raw, server_hostname="127.0.0.1") as stream,
        ):
            stream.sendall(("\r\n".join(lines) + "\r\n\r\n").encode() + b"x")
            began = time.monotonic()
            assert stream.recv(100).startswith(b"HTTP/1.1 408")
            assert time.monotonic() - began < 3


def test_headers_without_end_are_cut_off(fleet, pki):
    with (
        socket.create_connection(("127.0.0.1", fleet.port), timeout=5) as raw,
        pki.trust.wrap_socket(raw, server_hostname="127.0.0.1") as stream,
    ):
        stream.sendall(b"POST /v1/fleet/pull-messages HTTP/1.1\r\nx: " + b"a" * 30_000)
        assert stream.recv(100).startswith(b"HTTP/1.1 400")


def test_connections_are_bounded(open_fleet, as_device, pki):
    with open_fleet(limits=FleetLimits(max_connections=3)) as fleet:
        device = as_device(fleet)
        idle = [socket.create_connection(("127.0.0.1", fleet.port)) for _ in range(3)]
        tls = [pki.trust.wrap_socket(it, server_hostname="127.0.0.1") for it in idle]
        with pytest.raises(httpx.TransportError):
            device.post("/v1/fleet/pull-messages")
        for it in tls:
            it.close()
        time.sleep(0.1)
        assert device.post("/v1/fleet/pull-messages").status_code == 401


def test_plain_http_and_old_tls_are_not_spoken(fleet, pki):
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://{fleet.address}/v1/fleet/pull-messages")
    old = pki.trust
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"https://{fleet.address}/", verify=old)
