"""What the device's agent knows of Flower: the Fleet API's protobuf messages, and messages as objects (flwr 1.41).

The calls a stock SuperNode uses to fetch a run and its app bundle do not exist here: there is nothing that could ask
for code, and nothing that could run it. Everything that depends on internals of Flower on the device is in this file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Error, Message
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest, SendNodeHeartbeatResponse
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import HEAD_BODY_DIVIDER
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_head_values_from_object_content,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from palate.client.fleet.transport.link import BadAnswer, Link, Refused, Unreachable
from palate.privacy.ledger.framing import framed, parts_of
from palate.privacy.wire import FAILED, MAX_WHOLE_BYTES, WHOLE_PULL_PATH, WHOLE_PUSH_PATH

Handle = Callable[[Message], Message]
"""The installed program: takes a message of the server, and returns `Message(content, reply_to=message)`."""

MAX_OBJECTS = 4_096
_TYPE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A reply as the bytes that are sent; sending it again sends the same bytes.

    Parameters
    ----------
    message_id
        The message that it answers.
    expires_at
        When the server stops waiting for it, Unix seconds.
    """

    message_id: str
    run_id: int
    expires_at: float
    push: Any = field(repr=False)
    objects: dict[str, bytes] = field(repr=False)


class FleetCalls:
    """The node's side of the Fleet API over a link.

    Parameters
    ----------
    link
        Where to.
    max_message_bytes
        What one message of the server may hold, all objects together.
    """

    def __init__(self, link: Link, *, max_message_bytes: int) -> None:
        self._link = link
        self._max_message_bytes = max_message_bytes
        self._node: Node | None = None
        self._whole = True  # until the server turns out to have Flower's own calls alone

    @property
    def node(self) -> Node:
        """The number under which this node has joined."""
        if self._node is None:
            raise BadAnswer("the node has not joined", hint="call join first")
        return self._node

    def join(self, public_key: bytes, heartbeat_seconds: float) -> int:
        """Say that this node is there, and learn its number."""
        request = ActivateNodeRequest(public_key=public_key, heartbeat_interval=heartbeat_seconds)
        answer = _read(ActivateNodeResponse, self._link.call("/v1/fleet/activate-node", request.SerializeToString()))
        self._node = Node(node_id=answer.node_id)
        return int(answer.node_id)

    def leave(self, *, timeout_seconds: float) -> None:
        """Say goodbye."""
        request = DeactivateNodeRequest(node_id=self.node.node_id)
        self._link.call("/v1/fleet/deactivate-node", request.SerializeToString(), timeout_seconds=timeout_seconds)

    def beat(self, heartbeat_seconds: float) -> bool:
        """Say that this node is still there; False if the server does not know it."""
        request = SendNodeHeartbeatRequest(node=self.node, heartbeat_interval=heartbeat_seconds)
        body = self._link.call("/v1/fleet/send-node-heartbeat", request.SerializeToString(), timeout_seconds=5.0)
        return bool(_read(SendNodeHeartbeatResponse, body).success)

    def receive(self) -> Message | None:
        """Fetch the next message with all its objects; None if there is none.

        Raises
        ------
        BadAnswer
            If it is too large, incomplete, for another node, or its contents do not have the hashes of their names.
        """
        asked = PullMessagesRequest(node=self.node).SerializeToString()
        parts = self._whole_parts(asked) if self._whole else None
        head, *objects = [self._link.call("/v1/fleet/pull-messages", asked)] if parts is None else parts
        answer = _read(PullMessagesResponse, head)
        if not answer.messages_list:
            return None
        if len(answer.messages_list) != len(answer.message_object_trees):
            raise _bad("a message without its objects")
        run_id, tree = int(answer.messages_list[0].metadata.run_id), answer.message_object_trees[0]
        contents = self._fetch(run_id, tree, {hashlib.sha256(content).hexdigest(): content for content in objects})
        try:
            _check_inflated_size(contents, self._max_message_bytes)
            message = inflate_object_from_contents(tree.object_id, contents)
        except Exception as error:  # a server may send anything
            raise _bad(f"a message that cannot be read ({type(error).__name__})") from error
        if not isinstance(message, Message) or message.metadata.dst_node_id != self.node.node_id:
            raise _bad("what is not a message to this node")
        message.metadata.__dict__["_message_id"] = tree.object_id
        if not self._whole:  # else the reply confirms it; until then it may come again, and gets the same reply
            confirm = ConfirmMessageReceivedRequest(node=self.node, run_id=run_id, message_object_id=tree.object_id)
            with suppress(Unreachable):  # the message is whole; at worst it comes again
                self._link.call("/v1/fleet/confirm-message-received", confirm.SerializeToString())
        return message

    def _whole_parts(self, asked: bytes) -> list[bytes] | None:
        """Fetch a message with its objects in one call; None from a stock SuperLink, which has no such call."""
        try:
            body = self._link.call(WHOLE_PULL_PATH, asked)
            return parts_of(body) or [b""]
        except ValueError as error:
            raise _bad("an answer that cannot be read") from error
        except Refused as error:
            if error.status != 404:
                raise
            self._whole = False
            return None

    def _fetch(self, run_id: int, tree: ObjectTree, here: Mapping[str, bytes]) -> dict[str, bytes]:
        names = list(dict.fromkeys(it.object_id for it in iterate_object_tree(tree)))
        if len(names) > MAX_OBJECTS:
            raise _bad(f"a message of {len(names)} objects, at most {MAX_OBJECTS} are fetched")
        contents, size = dict[str, bytes](), 0
        for name in names:
            content = here[name] if name in here else self._pull(run_id, name)
            size += len(content)
            if size > self._max_message_bytes:
                raise _bad(f"a message of more than {self._max_message_bytes} bytes")
            contents[name] = content
        return contents

    def _pull(self, run_id: int, name: str) -> bytes:
        request = PullObjectRequest(node=self.node, run_id=run_id, object_id=name)
        answer = _read(PullObjectResponse, self._link.call("/v1/fleet/pull-object", request.SerializeToString()))
        if not answer.object_available:
            raise _bad("a message whose objects are not there")
        if hashlib.sha256(answer.object_content).hexdigest() != name:
            raise _bad("contents that do not have their name's hash")
        return bytes(answer.object_content)

    def send(self, packed: Packed) -> bool:
        """Send a reply; may be called again with the same one, after an interruption.

        Returns
        -------
        bool
            Whether the server still waited for it: it takes one complete reply to a message, and drops what follows.
        """
        push = packed.push.SerializeToString()
        if self._whole and sum(map(len, packed.objects.values())) <= MAX_WHOLE_BYTES:
            body = self._link.call(WHOLE_PUSH_PATH, framed(push, *packed.objects.values()))
        else:
            body = self._link.call("/v1/fleet/push-messages", push)
        answer = _read(PushMessagesResponse, body)
        for name in answer.objects_to_push:
            if name not in packed.objects:
                raise _bad("a wish for an object that is not in the reply")
            request = PushObjectRequest(
                node=self.node,
                run_id=packed.run_id,
                object_id=name,
                object_content=packed.objects[name],
                session_id=answer.session_id,
            )
            body = self._link.call("/v1/fleet/push-object", request.SerializeToString())
            if not _read(PushObjectResponse, body).stored:
                raise Unreachable("an object of the reply was not taken", hint="the reply is sent again from its start")
        return bool(answer.session_id)

    def pack(self, question: Message, reply: Message) -> Packed:
        """Turn a reply into the bytes to send: content or error, and metadata of the question's making.

        How long the program took is not sent, which a stock SuperNode does.
        """
        reply = _plain(question, reply)
        with no_object_id_recompute():
            reply.metadata.__dict__["_message_id"] = reply.object_id
            objects = {name: it.deflate() for name, it in get_all_nested_objects(reply).items()}
            envelope = message_to_proto(reply)
            envelope.ClearField("content")
            if reply.has_content():
                envelope.content.SetInParent()
            push = PushMessagesRequest(
                node=self.node, messages_list=[envelope], message_object_trees=[get_object_tree(reply)]
            )
        return Packed(
            message_id=question.metadata.message_id,
            run_id=question.metadata.run_id,
            expires_at=question.metadata.created_at + question.metadata.ttl,
            push=push,
            objects=objects,
        )


def answer(message: Message, handle: Handle) -> tuple[Message, Exception | None]:
    """Let the program answer; whatever goes wrong there, a reply comes out, with the error for the device's log."""
    try:
        reply = handle(message)
        if not isinstance(reply, Message):
            raise TypeError("the program returned no message")
    except Exception as error:
        return failure(message, error), error
    return reply, None


def failure(message: Message, error: Exception) -> Message:
    """Build a reply that says that it failed, and with what type of error; texts may quote private data."""
    return Message(Error(code=FAILED, reason=type(error).__name__), reply_to=message)


def _plain(question: Message, reply: Message) -> Message:
    if reply.has_error():
        reason = reply.error.reason or ""
        scrubbed = reason if _TYPE_NAME.fullmatch(reason) else ""
        return Message(Error(code=reply.error.code, reason=scrubbed), reply_to=question)
    return Message(reply.content, reply_to=question)


def _check_inflated_size(objects: Mapping[str, bytes], max_bytes: int) -> None:
    """Refuse arrays that name the same chunk again and again: a few bytes a time, and 5 MiB each in memory."""
    size = 0
    for content in objects.values():
        kind, children, _ = get_object_head_values_from_object_content(content)
        if kind == "Array":
            chunks = json.loads(content[content.index(HEAD_BODY_DIVIDER) + len(HEAD_BODY_DIVIDER) :])["arraychunk_ids"]
            lengths = [len(objects[name]) for name in children]
            size += sum(lengths[index] for index in chunks)
    if size > max_bytes:
        raise _bad(f"arrays of {size} bytes in memory, at most {max_bytes} are read")


def _read(kind: Callable[[], Any], body: bytes) -> Any:
    answer = kind()
    try:
        answer.ParseFromString(body)
    except DecodeError as error:
        raise _bad("an answer that cannot be read") from error
    return answer


def _bad(what: str) -> BadAnswer:
    return BadAnswer(f"the server sent {what}", hint="do device and server have the same version of Palate?")


__all__ = ["FleetCalls", "Handle", "Message", "Packed", "answer", "failure"]
