"""What the fleet server knows of Flower: the Fleet API's protobuf messages, and a Grid on the mailbox (flwr 1.41).

Flower's own SuperLink keeps messages in a state that its Control and Runtime APIs share. Here those APIs do not
exist: the Grid is an object in this process, and nodes reach it through `calls` alone. Everything that depends on
internals of Flower on the server's side is in this file and in `outgoing.py`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import secrets
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Set
from typing import Any

from flwr.app import Error, Message, RecordDict
from flwr.app.message.message import make_message
from flwr.app.metadata import Metadata
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
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
    get_object_head_values_from_object_content,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from palate.privacy.ledger.framing import framed, parts_of
from palate.privacy.wire import MAX_WHOLE_BYTES, WHOLE_PULL_PATH, WHOLE_PUSH_PATH
from palate.server.fleet.transport.enrolment import EnrolledNode
from palate.server.fleet.transport.http import Handler, Refused
from palate.server.fleet.transport.mailbox import Letter, Mailbox, MailError, Place, Reply
from palate.server.fleet.transport.outgoing import Outgoing
from palate.server.fleet.transport.presence import MAX_INTERVAL_SECONDS, MIN_INTERVAL_SECONDS, Presence

log = logging.getLogger(__name__)

_SWEEP_SECONDS = 10.0
_SLICE_SECONDS = 1.0
"""How long a waiting Grid sleeps before it looks for nodes that are gone; replies wake it at once."""


class _Among:
    """The places of some names; nothing is kept for each of them."""

    def __init__(self, names: Container[str]) -> None:
        self._names = names

    def __contains__(self, place: object) -> bool:
        return isinstance(place, Place) and _name(place) in self._names


def _name(place: Place) -> str:
    """Name of a message in this process; the letter's own is made when a node asks for it."""
    return f"{place.number}.{place.node_id:x}"


def _place(name: str) -> Place:
    number, _, node_id = name.partition(".")
    return Place(int(number), int(node_id, 16))


class FleetGrid(Grid):
    """Flower's Grid over the fleet: for as long as the server lives, over any number of rounds.

    Replies are rebuilt on the server: of what a device sends, content or error are taken, never its metadata.
    """

    def __init__(self, mailbox: Mailbox, presence: Presence, run: Run, *, max_reply_bytes: int) -> None:
        self._mailbox = mailbox
        self._presence = presence
        self._run = run
        self._max_reply_bytes = max_reply_bytes
        self._sent: dict[int, Outgoing] = {}
        self._numbers = itertools.count(1)
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
        """Put messages into the nodes' inboxes, and return their names.

        Those in a row that have the same content are one broadcast: it is packed once, and kept once.
        """
        if time.monotonic() >= self._next_sweep:
            self._next_sweep = time.monotonic() + _SWEEP_SECONDS
            for swept in self._mailbox.sweep():
                self._sent.pop(swept, None)
        names: list[str] = []
        number, outgoing = 0, None
        for message in messages:
            if outgoing is None or not outgoing.takes(message):
                self._post(number, outgoing)
                number, outgoing = next(self._numbers), Outgoing(message, self._run)
            node_id = message.metadata.dst_node_id
            outgoing.nodes[node_id] = None
            names.append(_name(Place(number, node_id)))
            message.metadata.__dict__["_message_id"] = names[-1]
        self._post(number, outgoing)
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        """Yield what has arrived, each once and one in memory at a time; an Error stands for a node that is gone."""
        names = message_ids if isinstance(message_ids, Mapping | Set) else frozenset(message_ids)
        while (reply := self._mailbox.take(_Among(names))) is not None:
            asked = self._asked(reply.place)
            self._let_go(reply.place)
            yield _rebuild(asked, reply, self._max_reply_bytes)
        for number, seconds_left, nodes in self._mailbox.unanswered() if names else ():
            expired = seconds_left <= 0
            why = "the message has expired" if expired else "the node is offline"
            for node_id in nodes if expired else self._presence.gone(nodes):
                place = Place(number, node_id)
                if _name(place) not in names:
                    continue
                asked = self._asked(place)
                self._mailbox.withdraw([place])
                self._let_go(place)
                yield _error(asked, ErrorCode.NODE_UNAVAILABLE, why)

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
                    self._mailbox.wait(_Among(waiting), min(left, _SLICE_SECONDS))
        finally:
            for place in map(_place, waiting):
                self._mailbox.withdraw([place])
                self._let_go(place)
        return replies

    def _post(self, number: int, outgoing: Outgoing | None) -> None:
        if outgoing is not None:
            self._sent[number] = outgoing
            self._mailbox.post(number, outgoing, outgoing.nodes, outgoing.objects)
            outgoing.posted()

    def _asked(self, place: Place) -> Metadata:
        metadata = self._sent[place.number].metadata_for(place.node_id)
        metadata.__dict__["_message_id"] = _name(place)
        return metadata

    def _let_go(self, place: Place) -> None:
        if not self._mailbox.is_open(place.number):
            self._sent.pop(place.number, None)


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
        parts, room = [_handed_out(letter), letter.root], MAX_WHOLE_BYTES - len(letter.root)
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
