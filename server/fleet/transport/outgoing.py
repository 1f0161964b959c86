"""A message on its way to one or many nodes, as Flower packs it: what is the same for all of them is packed once."""

from __future__ import annotations

import time

from flwr.app import Message, RecordDict
from flwr.app.message.message import make_message
from flwr.app.metadata import Metadata
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_id,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.run import Run

from palate.server.fleet.transport.mailbox import Letter


class _Named(RecordDict):
    """Content whose name is known: Flower would hash it again for every node."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    @property
    def object_id(self) -> str:
        """The name."""
        return self._name


class Outgoing:
    """One message to one or many nodes: a `palate.server.fleet.transport.mailbox.Broadcast` as Flower packs it.

    Parameters
    ----------
    message
        To the first node; with the others it shares content, type, group and time to live.
    run
        What it is stamped with.
    """

    def __init__(self, message: Message, run: Run) -> None:
        given = message.metadata
        self.content = message.content
        self.nodes: dict[int, None] = {}
        self.expires_at = time.monotonic() + given.created_at + given.ttl - time.time()
        self._like = given.message_type, given.group_id, given.ttl
        self._created_at = given.created_at
        self._run = run
        with no_object_id_recompute():
            self._tree = get_object_tree(self.content)
            objects = get_all_nested_objects(self.content)
        self.objects = {name: it.deflate for name, it in objects.items()}
        self.object_ids = tuple(self.objects)

    def takes(self, message: Message) -> bool:
        """Whether another message differs from this one in nothing but its node."""
        given = message.metadata
        return (
            message.content is self.content
            and (given.message_type, given.group_id, given.ttl) == self._like
            and given.dst_node_id not in self.nodes
        )

    def posted(self) -> None:
        """Let the content go: the mailbox has its objects."""
        del self.content, self.nodes, self.objects

    def metadata_for(self, node_id: int) -> Metadata:
        """Stamp the message to one node."""
        message_type, group_id, ttl = self._like
        return Metadata(
            run_id=self._run.run_id,
            message_id="",
            src_node_id=SUPERLINK_NODE_ID,
            dst_node_id=node_id,
            reply_to_message_id="",
            group_id=group_id,
            created_at=self._created_at,
            ttl=ttl,
            message_type=message_type,
            src_task_id=self._run.primary_task_id,
            dst_task_id=None,
        )

    def letter_for(self, node_id: int) -> Letter:
        """Make the letter to one node."""
        metadata = self.metadata_for(node_id)
        root = make_message(metadata=metadata, content=_Named(self._tree.object_id)).deflate()
        name = get_object_id(root)
        metadata.__dict__["_message_id"] = name
        return Letter(
            message_id=name,
            envelope=message_to_proto(make_message(metadata=metadata, content=RecordDict())).SerializeToString(),
            tree=ObjectTree(object_id=name, children=[self._tree]).SerializeToString(),
            root=root,
            object_ids=self.object_ids,
        )
