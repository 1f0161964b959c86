"""Fleet messages on Flower's Grid: the one file of the deployment that knows how Flower packs them.

A reply says which message it answers; whom that message went to is the server's own knowledge, so that no device
speaks for another. What cannot be read becomes a code, and the text of an error is not even looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from palate.models.table import ItemTable
from palate.privacy.wire import FleetMessage, RoundPlan, WireError
from palate.server.fleet.dropouts import UNREADABLE
from palate.server.strategy import plan_records

MESSAGE_TYPE: Final = "query.palate"


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes
    ----------
    message_id
        Which message it answers.
    message
        What the device says; None where it failed.
    code
        Why it failed, 0 where it did not.
    """

    message_id: str
    message: FleetMessage | None
    code: int


class GridMessages:
    """Carries fleet messages over a grid."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def online(self) -> set[int]:
        """Nodes that can be asked now."""
        return set(self._grid.get_node_ids())

    def send(
        self,
        messages: Mapping[int, FleetMessage],
        *,
        within_seconds: float,
        plan: RoundPlan | None = None,
        table: ItemTable | None = None,
    ) -> dict[str, int]:
        """Send one message to each of some nodes.

        Parameters
        ----------
        messages
            By node.
        within_seconds
            How long anybody waits for the answers.
        plan
            Goes along, with its item table.
        table
            Goes along alone.

        Returns
        -------
        Nodes by the names of their messages.
        """
        enclosed: dict[str, ArrayRecord | ConfigRecord] = {}
        if plan is not None:
            enclosed = plan_records(plan)
        elif table is not None:
            enclosed = {"table": ArrayRecord({"fixed": Array(table.fixed), "learned": Array(table.learned)})}
        packed = self._packed(messages, enclosed, max(1.0, within_seconds))
        return dict(zip(self._grid.push_messages(packed), messages, strict=True))

    def _packed(
        self,
        messages: Mapping[int, FleetMessage],
        enclosed: Mapping[str, ArrayRecord | ConfigRecord],
        ttl: float,
    ) -> Iterator[Message]:
        """Pack messages one by one; those in a row that say the same have one content, which a grid may send as one."""
        content: RecordDict | None = None
        before: FleetMessage | None = None
        for node, message in messages.items():
            if content is None or message != before:
                content = RecordDict({"fleet": ConfigRecord(dict(message.to_scalars())), **enclosed})
            before = message
            yield Message(
                content=content,
                dst_node_id=node,
                message_type=MESSAGE_TYPE,
                ttl=ttl,
                group_id=str(message.server_round),
            )

    def collect(self, message_ids: Collection[str]) -> Iterator[Answer]:
        """Yield the answers that are there, one in memory at a time."""
        return map(_opened, self._grid.pull_messages(message_ids))


def _opened(reply: Message) -> Answer:
    name = reply.metadata.reply_to_message_id
    if reply.has_error():
        return Answer(name, None, reply.error.code or UNREADABLE)
    try:
        if set(reply.content) != {"fleet"}:
            raise WireError("a reply holds other records")
        message = FleetMessage.from_scalars(dict(reply.content.config_records["fleet"]))
    except (WireError, KeyError, TypeError):
        return Answer(name, None, UNREADABLE)
    return Answer(name, message, 0)
