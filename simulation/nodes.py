"""Which host a node of a simulation runs: a shard of virtual devices, or one device by itself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np

from palate.client.host import Arrays, DeviceHost, Host
from palate.models.arrays import Float64Array
from palate.models.scores.base import State
from palate.models.table import ItemTable
from palate.privacy.wire import ItemUpdate, RoundPlan
from palate.simulation.config import SimulationConfig
from palate.simulation.host import ShardHost
from palate.simulation.ledgers import open_guard
from palate.simulation.noise_keys import read_noise_key
from palate.simulation.prepare import Prepared, prepare
from palate.simulation.seeding import device_keys


class DeviceNode(ShardHost):
    """One virtual device behind the host of a real one; the simulation asks it about ranks like a shard of one."""

    def __init__(self, prepared: Prepared, config: SimulationConfig, user: int, run_dir: Path) -> None:
        super().__init__(prepared, config, user, run_dir, users=np.array([user]))
        held_back = int(prepared.split.validation.item[user])
        self._device = DeviceHost(
            self._train.items,
            lambda server_round: np.uint64(device_keys(config.seed, server_round, self.users)[0]),
            open_guard(run_dir, user, config.promises) if config.promises else None,
            held_back=held_back if held_back >= 0 else None,
            secret_of_round=lambda plan: read_noise_key(run_dir).device(plan.rules_hash, user),
        )

    def answer(self, plan: RoundPlan) -> ItemUpdate:
        """Take part in a round, or add nothing to it where this person is not drawn or drops out."""
        drawn, (user,) = self._drawn(plan), self.users
        if not drawn[user]:
            return ItemUpdate.of_nobody(plan)
        update, self._fitted = self._device.answer(plan), None
        if plan.terms is None or self._surviving(plan, drawn)[user]:
            return update
        return ItemUpdate.of_nobody(plan)

    def inspect(self, question: Mapping[str, str | int], table_arrays: Arrays) -> Arrays:
        """Answer the simulation's question about ranks."""
        if question["full"]:  # asked once, after the last round
            self._device.settle()
        return super().inspect(question, table_arrays)

    def _heads_before(self, server_round: int, table: ItemTable) -> State:
        """Return the device's head, which is in its memory."""
        del server_round
        return self._device.heads(table, self._serving)

    def _loss_of(self, server_round: int) -> Float64Array:
        """Return zeros: the loss of a single device is not followed."""
        del server_round
        return np.zeros(2)


def num_nodes(config: SimulationConfig, num_users: int) -> int:
    """Nodes of a run."""
    return num_users if config.engine == "devices" else min(config.shards, num_users)


@cache  # a node that was dropped would come back without its heads
def open_node(config_json: str, run_dir: str, partition: int) -> Host:
    """Open a node's host; the process keeps it for the rounds to come.

    Parameters
    ----------
    config_json
        The run's configuration, in a form that travels to other processes.
    run_dir
        The run folder; shards keep their heads in its subfolder `devices`.
    partition
        Index of the node.
    """
    config = SimulationConfig.model_validate_json(config_json)
    prepared = prepare(config)
    if config.engine == "devices":
        return DeviceNode(prepared, config, partition, Path(run_dir))
    return ShardHost(prepared, config, partition, Path(run_dir))


def close_nodes() -> None:
    """Forget this process's hosts: their heads belong to the run that has ended."""
    open_node.cache_clear()
