"""Who takes part in a swarm: people of a dataset, split as `palate simulate` splits it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from palate.errors import ConfigError
from palate.models.arrays import Int64Array
from palate.server.resolving import PublicNumbers, choices
from palate.server.values import merge, nested
from palate.simulation.config import SimulationConfig, checked_config
from palate.simulation.prepare import Prepared, prepare

TEXT = "tfidf"
"""How a fleet's server reads titles and texts (`palate.server.fleet.catalogue`)."""


@dataclass(frozen=True, eq=False)
class Population:
    """People with a device each.

    Attributes
    ----------
    config
        The settings of the same run as a simulation: what is planned, how lists are fitted and evaluated.
    prepared
        The data, and its split.
    users
        Which of its people take part, ascending, int64 [n].
    """

    config: SimulationConfig
    prepared: Prepared
    users: Int64Array

    @staticmethod
    def drawn(data: str, devices: int | None, *, epsilon: float, seed: int, rounds: int | None = None) -> Population:
        """Draw people of a dataset; all of them unless fewer are asked for.

        Raises
        ------
        ConfigError, DataError
            If the data has fewer people, or cannot be read.
        """
        asked: dict[str, Any] = {"data": data, "seed": seed, "epsilon": epsilon, "content": {"text": TEXT}}
        if rounds is not None:
            asked["schedule"] = {"rounds": rounds}
        request = checked_config(asked)
        prepared = prepare(request)
        people = prepared.interactions.num_users
        if devices is not None and devices > people:
            raise ConfigError(f"{devices} devices, but {data} has {people} people", hint="ask for fewer")
        count = people if devices is None else devices
        users = np.sort(np.random.default_rng(seed).choice(people, size=count, replace=False)).astype(np.int64)
        return Population(_planned(request, prepared, count), prepared, users)

    def items_of(self, user: int) -> list[str]:
        """Keys of the items that a person has had, oldest first: all but the one that is held out for the test."""
        ids, history = self.prepared.interactions.catalogue.ids, self.prepared.split.full_train
        return [ids[item] for item in history.items[history.indptr[user] : history.indptr[user + 1]]]

    def fleet_settings(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Add to settings of fleet.toml what decides the plan of this population: nothing that is planned itself."""
        rounds = {"schedule": {"rounds": self.config.schedule.rounds}} if self._asks_for_rounds else {}
        cohort = {"cohort": {"devices": len(self.users)}}
        own: dict[str, Any] = {"epsilon": self.config.epsilon, "seed": self.config.seed, **cohort, **rounds}
        if not self.prepared.interactions.has_time:
            own["training"] = {"recency_half_life": float("inf"), "serving_half_life": float("inf")}
        return merge(own, asked)

    @property
    def _asks_for_rounds(self) -> bool:
        return "rounds" in self.config.schedule.model_fields_set


def _planned(request: SimulationConfig, prepared: Prepared, devices: int) -> SimulationConfig:
    """Plan for those who take part, as the fleet does: from the number of devices, the items and the budget."""
    assert request.epsilon is not None
    assert request.delta is not None  # unit user
    numbers = PublicNumbers(
        cohort=devices, num_items=prepared.interactions.num_items, content=bool(prepared.content.columns.shape[1])
    )
    found = choices(request, request.auto, epsilon=request.epsilon, delta=request.delta, numbers=numbers)
    values = merge(request.model_dump(), nested({name: choice.value for name, choice in found.items()}))
    planned = SimulationConfig.model_validate(values | {"auto": ()})
    planned.schedule.model_fields_set.intersection_update(request.schedule.model_fields_set)
    return planned
