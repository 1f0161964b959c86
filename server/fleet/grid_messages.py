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

_AT_ONCE = 8  # masked vectors in memory


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
        named: dict[str, int] = {}
        for node, message in messages.items():
            content = RecordDict({"fleet": ConfigRecord(dict(message.to_scalars())), **enclosed})
            packed = Message(
                content=content,
                dst_node_id=node,
                message_type=MESSAGE_TYPE,
                ttl=max(1.0, within_seconds),
                group_id=str(message.server_round),
            )
            named |= dict.fromkeys(self._grid.push_messages([packed]), node)
        return named

    def collect(self, message_ids: Collection[str]) -> Iterator[Answer]:
        """Yield the answers that are there, few in memory at a time."""
        names = list(message_ids)
        for start in range(0, len(names), _AT_ONCE):
            for reply in self._grid.pull_messages(names[start : start + _AT_ONCE]):
                yield _opened(reply)


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
