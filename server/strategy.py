"""The rounds on Flower's message API.

Flower's strategies average whole models with example counts, know no round 0 and no resuming. These rounds send a
`RoundPlan` to every node, add up one dense vector per node, and hand the sum to the coordinator. Nodes are never asked
to evaluate: metrics of single devices would be a second thing that leaves them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Protocol

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from palate.errors import FederationError
from palate.models.arrays import Float64Array
from palate.privacy.wire import ItemUpdate, RoundPlan, WireError, array_of_npy
from palate.server.coordinator import Coordinator, RoundOutcome
from palate.server.decoding import UpdateSum

_POLL_SECONDS = 0.1


class RoundObserver(Protocol):
    """Called with every round; a simulation measures and shows progress here."""

    def round_started(self, plan: RoundPlan) -> None:
        """Take note that a round begins."""
        ...

    def round_finished(self, outcome: RoundOutcome, coordinator: Coordinator, grid: Grid) -> None:
        """Take note that a round was applied."""
        ...


def run_rounds(coordinator: Coordinator, grid: Grid, observers: Iterable[RoundObserver] = ()) -> None:
    """Run all rounds that are left: one item table down, one dense update up per node and round, nothing else.

    Raises
    ------
    FederationError
        If too few nodes are connected, or one fails, answers with anything but an update, or not in time.
    """
    timeout = coordinator.settings.schedule.timeout_seconds
    while not coordinator.finished:
        plan = coordinator.plan()
        nodes = _connected(grid, coordinator.settings.nodes, timeout)
        for observer in observers:
            observer.round_started(plan)
        replies = grid.send_and_receive(plan_messages(plan, nodes), timeout=timeout)
        answered = sorted(replies, key=lambda reply: reply.metadata.src_node_id)
        if len(answered) < len(nodes):
            raise FederationError(
                f"round {plan.server_round}: {len(answered)} of {len(nodes)} nodes answered in time",
                hint="look at the nodes' logs, or allow more time",
            )
        outcome = coordinator.apply(sum_of_updates(plan, answered))
        for observer in observers:
            observer.round_finished(outcome, coordinator, grid)


def _connected(grid: Grid, wanted: int, timeout: float) -> list[int]:
    """Wait for the run's nodes: they may register one by one while the ServerApp starts."""
    deadline = time.monotonic() + timeout
    while len(nodes := sorted(grid.get_node_ids())) < wanted:
        if time.monotonic() >= deadline:
            raise FederationError(
                f"{len(nodes)} of {wanted} nodes are connected after {timeout:g} seconds",
                hint="start the nodes first, or allow more time: schedule.timeout_seconds",
            )
        time.sleep(_POLL_SECONDS)
    return nodes


def plan_records(plan: RoundPlan) -> dict[str, ArrayRecord | ConfigRecord]:
    """Pack a plan as Flower's records: the item table as arrays, everything else as scalars."""
    arrays, scalars = plan.to_parts()
    return {
        "table": ArrayRecord({name: Array(value) for name, value in arrays.items()}),
        "plan": ConfigRecord(dict(scalars)),
    }


def plan_messages(plan: RoundPlan, nodes: Iterable[int]) -> list[Message]:
    """One message per node, all with the same content."""
    content = RecordDict(dict(plan_records(plan)))
    return [
        Message(content=content, dst_node_id=node, message_type=MessageType.TRAIN, group_id=str(plan.server_round))
        for node in nodes
    ]


def sum_of_updates(plan: RoundPlan, replies: Iterable[Message]) -> Float64Array:
    """Add up replies one by one, holding one update in memory at a time; the sum in its units, float64 [update_size].

    Raises
    ------
    FederationError
        If a reply is an error, or carries anything but one vector of the right size.
    """
    total = UpdateSum(plan)
    for reply in replies:
        node = reply.metadata.src_node_id
        if reply.has_error():
            raise FederationError(
                f"round {plan.server_round}: node {node} failed: {reply.error.reason}", hint="see the node's log"
            )
        try:
            total.add(_update_of(reply, plan))
        except WireError as error:
            raise FederationError(
                f"round {plan.server_round}: node {node}: {error}",
                hint="do all nodes run the same version? if values are not finite, lower the learning rates",
            ) from error
    return total.total()


def _update_of(reply: Message, plan: RoundPlan) -> ItemUpdate:
    names = set(reply.content)
    if names != {"update"} or not isinstance(reply.content["update"], ArrayRecord):
        raise WireError(f"reply holds {sorted(names)}, expected one array record 'update'")
    record = reply.content.array_records["update"]
    return ItemUpdate.from_parts({name: array_of_npy(array.data) for name, array in record.items()}, plan)
