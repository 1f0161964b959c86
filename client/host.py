"""What answers a round's plan on a node: one person's device, or a shard of virtual ones.

The Flower ClientApp is a thin relay around a host. `DeviceHost` is one device; the simulation brings its own, found
through the entry point group "palate.device_hosts".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from palate.client.trainer import FloatArray, IntArray, popularity_update, score_catalogue, train
from palate.models.scores.base import State
from palate.models.table import ItemTable
from palate.models.training import LocalTraining
from palate.privacy.mechanisms.registry import MECHANISMS
from palate.privacy.wire import ItemUpdate, RoundPlan, WireError

Arrays = dict[str, npt.NDArray[np.generic]]


class Host(Protocol):
    """Whatever a node runs for its people."""

    def answer(self, plan: RoundPlan) -> ItemUpdate:
        """Take part in a round."""
        ...

    def inspect(self, question: Mapping[str, str | int], table_arrays: Arrays) -> Arrays:
        """Answer a question of the simulation about a table; a real device answers none."""
        ...


class DeviceHost:
    """One person's device.

    Parameters
    ----------
    items
        The person's history, oldest first, int32 [n].
    key_of_round
        Gives a fresh 64-bit sampling key for a round; on a real device from the operating system.
    """

    def __init__(self, items: IntArray, key_of_round: Callable[[int], np.uint64]) -> None:
        self._items = items
        self._key_of_round = key_of_round
        self._state: State | None = None

    def __repr__(self) -> str:
        return "DeviceHost(<private>)"

    def answer(self, plan: RoundPlan) -> ItemUpdate:
        """Train locally and release the update through the mechanism of the plan's unit.

        Raises
        ------
        WireError
            If the plan asks for something that this device does not know.
        """
        if plan.unit not in MECHANISMS:
            raise WireError(f"no mechanism for unit {plan.unit!r}")
        mechanism = MECHANISMS[plan.unit]
        if plan.purpose == "popularity":
            return mechanism.release(popularity_update(self._items, len(plan.learned)))
        table = ItemTable(plan.fixed, plan.learned)
        trained = train(table, self._items, self._state, training_of(plan), key=self._key_of_round(plan.server_round))
        self._state = trained.state
        return mechanism.release(trained.update)

    def scores(self, table: ItemTable, config: LocalTraining, items: IntArray | None = None) -> FloatArray:
        """Score the catalogue for this person on a table, float32 [num_items]; never leaves the device.

        `items` is a history that has grown since the last round; the head's linear part is fitted to it.
        """
        return score_catalogue(table, self._items if items is None else items, self._state, config)

    def inspect(self, question: Mapping[str, str | int], table_arrays: Arrays) -> Arrays:
        """Refuse: what a device knows about its person stays there."""
        del question, table_arrays
        raise WireError("a device answers no questions")


def training_of(plan: RoundPlan) -> LocalTraining:
    """Read the plan's parameters of local training; raises WireError where they are not valid."""
    try:
        return LocalTraining.model_validate_json(plan.training)
    except ValidationError as error:
        raise WireError(f"plan: {error.error_count()} training parameters are not valid") from error
