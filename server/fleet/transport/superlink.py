"""What the fleet server knows of Flower: the Fleet API's protobuf messages, and a Grid on the mailbox (flwr 1.41).

Flower's own SuperLink keeps messages in a state that its Control and Runtime APIs share. Here those APIs do not
exist: the Grid is an object in this process, and nodes reach it through `calls` alone. Everything that depends on
internals of Flower on the server's side is in this file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flwr.app import Error, Message, RecordDict
from flwr.app.message.message import make_message
from flwr.app.metadata import Metadata
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    DeactivateNodeRequest,
    DeactivateNodeResponse,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest, SendNodeHeartbeatResponse
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ConfirmMessageReceivedResponse,
    ObjectTree,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.serverapp import Grid
from flwr.supercore.constant import HEAD_BODY_DIVIDER
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_head_values_from_object_content,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from palate.privacy.ledger.framing import framed, parts_of
from palate.privacy.wire import MAX_WHOLE_BYTES, WHOLE_PULL_PATH, WHOLE_PUSH_PATH
from palate.server.fleet.transport.enrolment import EnrolledNode
from palate.server.fleet.transport.http import Handler, Refused
from palate.server.fleet.transport.mailbox import Letter, Mailbox, MailError, Reply
from palate.server.fleet.transport.presence import MAX_INTERVAL_SECONDS, MIN_INTERVAL_SECONDS, Presence

log = logging.getLogger(__name__)

_SWEEP_SECONDS = 10.0
_SLICE_SECONDS = 1.0
"""How long a waiting Grid sleeps before it looks for nodes that are gone; replies wake it at once."""


class FleetGrid(Grid):
    """Flower's Grid over the fleet: for as long as the server lives, over any number of rounds.

    Replies are rebuilt on the server: of what a device sends, content or error are taken, never its metadata.
    """

    def __init__(self, mailbox: Mailbox, presence: Presence, run: Run, *, max_reply_bytes: int) -> None:
        self._mailbox = mailbox
        self._presence = presence
        self._run = run
        self._max_reply_bytes = max_reply_bytes
        self._asked: dict[str, Metadata] = {}
        self._next_sweep = 0.0
        # Message(...) in this process reads these; what is sent is stamped again when it is pushed
        TaskIdentity.run_id, TaskIdentity.task_id = run.run_id, run.run_id
        TaskIdentity.node_id = SUPERLINK_NODE_ID

    def set_run(self, run: Run) -> None:
        """Keep the run: a fleet server has one for as long as it lives."""
        del run

    @property
    def run(self) -> Run:
        """The run that all messages of this server belong to."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Build a message (deprecated in Flower, but part of the interface)."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes that are online, by number."""
        return self._presence.online()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Put messages into the nodes' inboxes, and return their names."""
        if time.monotonic() >= self._next_sweep:  # it looks at every message, and thousands are pushed one by one
            self._next_sweep = time.monotonic() + _SWEEP_SECONDS
            for name in self._mailbox.sweep():
                self._asked.pop(name, None)
        return [self._post(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Hand out what has arrived, each once; an Error stands for a node that is gone."""
        asked = {name: self._asked[name] for name in message_ids if name in self._asked}
        taken = self._mailbox.take(asked)
        replies = [_rebuild(self._asked.pop(it.message_id), it, self._max_reply_bytes) for it in taken]
        waiting = [name for name in asked if name in self._asked]
        lost = dict.fromkeys(self._mailbox.expired(waiting), "the message has expired")
        for name in waiting:
            if name not in lost and not self._presence.is_online(asked[name].dst_node_id):
                lost[name] = "the node is offline"
        if lost:
            self._mailbox.withdraw(lost)
            replies += [_error(self._asked.pop(name), ErrorCode.NODE_UNAVAILABLE, why) for name, why in lost.items()]
        return replies

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages and return the replies in the order of arrival.

        Parameters
        ----------
        messages
            To any nodes.
        timeout
            Seconds after which the rest is withdrawn; None waits for all.

        Returns
        -------
        list of Message
            One reply a message; none for messages that were withdrawn.
        """
        waiting, replies = set(self.push_messages(messages)), list[Message]()
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        try:
            while waiting:
                found = list(self.pull_messages(waiting))
                replies += found
                waiting -= {reply.metadata.reply_to_message_id for reply in found}
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                if waiting:
                    self._mailbox.wait(waiting, min(left, _SLICE_SECONDS))
        finally:
            self._mailbox.withdraw(waiting)
            for name in waiting:
                self._asked.pop(name, None)
        return replies

    def _post(self, message: Message) -> str:
        given = message.metadata
        metadata = Metadata(
            run_id=self._run.run_id,
            message_id="",
            src_node_id=SUPERLINK_NODE_ID,
            dst_node_id=given.dst_node_id,
            reply_to_message_id="",
            group_id=given.group_id,
            created_at=given.created_at,
            ttl=given.ttl,
            message_type=given.message_type,
            src_task_id=self._run.primary_task_id,
            dst_task_id=None,
        )
        stamped = make_message(metadata=metadata, content=message.content)
        with no_object_id_recompute():
            name = stamped.object_id
            metadata.__dict__["_message_id"] = name
            tree, objects = get_object_tree(stamped), get_all_nested_objects(stamped)
            envelope = message_to_proto(make_message(metadata=metadata, content=RecordDict()))
            self._asked[name] = metadata
            self._mailbox.post(
                Letter(
                    message_id=name,
                    node_id=given.dst_node_id,
                    envelope=envelope.SerializeToString(),
                    tree=tree.SerializeToString(),
                    object_ids=tuple(objects),
                    expires_at=time.monotonic() + given.created_at + given.ttl - time.time(),
                ),
                {key: it.deflate for key, it in objects.items()},
            )
        message.metadata.__dict__["_message_id"] = name
        return name


def _rebuild(asked: Metadata, reply: Reply, max_bytes: int) -> Message:
    """Read a reply that a device sent; one that cannot be read becomes an Error."""
    question = make_message(metadata=asked, content=RecordDict())
    try:
        sent = ProtoMessage.FromString(reply.envelope)
        if sent.HasField("error"):
            if sent.error.code == ErrorCode.NODE_UNAVAILABLE:  # for the server to say: who is gone is asked again
                return _error(asked, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, "a node that answers is not gone")
            return _error(asked, sent.error.code, sent.error.reason)
        _check_inflated_size(reply.objects, max_bytes)
        inflated = inflate_object_from_contents(reply.reply_id, reply.objects)
        if not isinstance(inflated, Message):
            raise TypeError("the root of a reply is not a message")
        answer = Message(inflated.content, reply_to=question)
    except Exception as error:  # a device may send anything
        log.warning("a reply of node %d cannot be read: %s", asked.dst_node_id, type(error).__name__)
        return _error(asked, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, "the reply cannot be read")
    answer.metadata.__dict__["_message_id"] = reply.reply_id
    return answer


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
        raise ValueError(f"arrays of {size} bytes in memory, at most {max_bytes} are read")


def _error(asked: Metadata, code: int, reason: str) -> Message:
    return Message(Error(code=code, reason=reason), reply_to=make_message(metadata=asked, content=RecordDict()))


class FleetApi:
    """The calls that nodes may make, as bytes to bytes.

    A stock SuperNode also asks for the run and for a bundle of code to execute. Neither is served: devices run the
    program that they installed.
    """

    def __init__(self, mailbox: Mailbox, presence: Presence) -> None:
        self._mailbox = mailbox
        self._presence = presence
        self.run = Run.create_empty(secrets.randbits(63) | 1)
        self.run.primary_task_id = self.run.run_id
        self.calls: dict[str, Handler[EnrolledNode]] = {
            "/v1/fleet/activate-node": self._activate,
            "/v1/fleet/deactivate-node": self._deactivate,
            "/v1/fleet/send-node-heartbeat": self._heartbeat,
            WHOLE_PULL_PATH: self._pull_whole,
            WHOLE_PUSH_PATH: self._push_whole,
            "/v1/fleet/pull-messages": self._pull_messages,
            "/v1/fleet/pull-object": self._pull_object,
            "/v1/fleet/confirm-message-received": self._confirm,
            "/v1/fleet/push-messages": self._push_messages,
            "/v1/fleet/push-object": self._push_object,
        }

    def _activate(self, node: EnrolledNode, body: bytes) -> bytes:
        request = _parse(ActivateNodeRequest, body)
        if request.public_key != node.public_key:
            raise Refused(401, "the key in the body is not the key that signed")
        self._presence.heard(node.node_id, _interval(request.heartbeat_interval))
        self._mailbox.begin_again(node.node_id)
        return bytes(ActivateNodeResponse(node_id=node.node_id).SerializeToString())

    def _deactivate(self, node: EnrolledNode, body: bytes) -> bytes:
        request = _parse(DeactivateNodeRequest, body)
        _check_node(node, request.node_id)
        self._presence.left(node.node_id)
        return bytes(DeactivateNodeResponse().SerializeToString())

    def _heartbeat(self, node: EnrolledNode, body: bytes) -> bytes:
        request = _parse(SendNodeHeartbeatRequest, body)
        _check_node(node, request.node.node_id)
        self._presence.heard(node.node_id, _interval(request.heartbeat_interval))
        return bytes(SendNodeHeartbeatResponse(success=True).SerializeToString())

    def _pull_messages(self, node: EnrolledNode, body: bytes) -> bytes:
        self._check(node, _parse(PullMessagesRequest, body))
        letter = self._mailbox.next_for(node.node_id)
        return b"" if letter is None else _handed_out(letter)

    def _pull_whole(self, node: EnrolledNode, body: bytes) -> bytes:
        """Hand out a message with its objects, as far as they fit; the others are pulled one by one."""
        self._check(node, _parse(PullMessagesRequest, body))
        letter = self._mailbox.next_for(node.node_id)
        if letter is None:
            return b""
        parts, room = [_handed_out(letter)], MAX_WHOLE_BYTES
        for name in letter.object_ids:
            content = self._mailbox.object_for(node.node_id, name)
            if content is not None and len(content) <= room:
                parts.append(content)
                room -= len(content)
        return framed(*parts)

    def _pull_object(self, node: EnrolledNode, body: bytes) -> bytes:
        request = self._check(node, _parse(PullObjectRequest, body))
        content = self._mailbox.object_for(node.node_id, request.object_id)
        found = content is not None
        response = PullObjectResponse(object_found=found, object_available=found, object_content=content or b"")
        return bytes(response.SerializeToString())

    def _confirm(self, node: EnrolledNode, body: bytes) -> bytes:
        request = self._check(node, _parse(ConfirmMessageReceivedRequest, body))
        self._mailbox.confirm(node.node_id, request.message_object_id)
        return bytes(ConfirmMessageReceivedResponse().SerializeToString())

    def _push_whole(self, node: EnrolledNode, body: bytes) -> bytes:
        """Take a reply with all its objects; a device that has larger ones pushes them one by one."""
        try:
            request, *objects = parts_of(body)
        except ValueError as error:
            raise Refused(400, "the body cannot be read") from error
        answer = _parse(PushMessagesResponse, self._push_messages(node, request))
        missing = set(answer.objects_to_push)
        try:
            for content in objects:
                name = hashlib.sha256(content).hexdigest()
                if name in missing and self._mailbox.add_object(node.node_id, answer.session_id, name, content):
                    missing.discard(name)
        except MailError as error:
            raise Refused(413, str(error)) from error
        del answer.objects_to_push[:]
        answer.objects_to_push.extend(sorted(missing))
        return bytes(answer.SerializeToString())

    def _push_messages(self, node: EnrolledNode, body: bytes) -> bytes:
        request = self._check(node, _parse(PushMessagesRequest, body))
        if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
            raise Refused(400, "one reply at a time")
        message, tree = request.messages_list[0], request.message_object_trees[0]
        if message.metadata.src_node_id != node.node_id or message.metadata.message_id != tree.object_id:
            raise Refused(403, "a reply in another's name")
        message.ClearField("content")
        try:
            session, missing = self._mailbox.begin_reply(
                node.node_id,
                message.metadata.reply_to_message_id,
                tree.object_id,
                message.SerializeToString(),
                {it.object_id for it in iterate_object_tree(tree)},
            )
        except MailError as error:
            raise Refused(413, str(error)) from error
        response = PushMessagesResponse(results={tree.object_id: 0}, objects_to_push=missing, session_id=session)
        return bytes(response.SerializeToString())

    def _push_object(self, node: EnrolledNode, body: bytes) -> bytes:
        request = self._check(node, _parse(PushObjectRequest, body))
        try:
            stored = self._mailbox.add_object(
                node.node_id, request.session_id, request.object_id, request.object_content
            )
        except MailError as error:
            raise Refused(413, str(error)) from error
        return bytes(PushObjectResponse(stored=stored).SerializeToString())

    def _check(self, node: EnrolledNode, request: Any) -> Any:
        _check_node(node, request.node.node_id)
        self._presence.heard(node.node_id)
        return request


def _handed_out(letter: Letter) -> bytes:
    response = PullMessagesResponse(
        messages_list=[ProtoMessage.FromString(letter.envelope)],
        message_object_trees=[ObjectTree.FromString(letter.tree)],
    )
    return bytes(response.SerializeToString())


def _parse(kind: Callable[[], Any], body: bytes) -> Any:
    request = kind()
    try:
        request.ParseFromString(body)
    except DecodeError as error:
        raise Refused(400, "the body cannot be read") from error
    return request


def _check_node(node: EnrolledNode, claimed: int) -> None:
    if claimed != node.node_id:
        raise Refused(401, "the node in the body is not the node that signed")


def _interval(seconds: float) -> float:
    if not MIN_INTERVAL_SECONDS <= seconds <= MAX_INTERVAL_SECONDS:
        bounds = f"{MIN_INTERVAL_SECONDS:.0f} to {MAX_INTERVAL_SECONDS:.0f}"
        raise Refused(400, f"a heartbeat interval outside {bounds} s")
    return seconds
