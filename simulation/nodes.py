"""Which host a node of a simulation runs: a shard of virtual devices, or one device by itself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np

from palate.client.host import Arrays, DeviceHost, Host
from palate.models.table import ItemTable
from palate.privacy.wire import ItemUpdate, RoundPlan
from palate.simulation.config import SimulationConfig
from palate.simulation.data.types import FloatArray, HeldOut, IntArray
from palate.simulation.evaluation import evaluate
from palate.simulation.host import TOP_K, ShardHost, arrays_of
from palate.simulation.prepare import Prepared, prepare
from palate.simulation.seeding import device_keys, participants


class DeviceNode:
    """One virtual device on the plain one-device path, and what the simulation wants to know about it."""

    def __init__(self, prepared: Prepared, config: SimulationConfig, user: int) -> None:
        split = prepared.split
        self._user = np.array([user])
        self._config = config
        self._histories = {"validation": split.train.select(self._user), "test": split.full_train.select(self._user)}
        self._held_out = {
            "validation": HeldOut(split.validation.item[self._user], split.validation.negatives[self._user]),
            "test": HeldOut(split.test.item[self._user], split.test.negatives[self._user]),
        }
        self._device = DeviceHost(
            self._histories["validation"].items,
            lambda server_round: np.uint64(device_keys(config.seed, server_round, self._user)[0]),
        )

    def answer(self, plan: RoundPlan) -> ItemUpdate:
        """Take part in a round, or add nothing to it where this person is not drawn."""
        if not participants(self._config.seed, plan.server_round, self._user, plan.participation)[0]:
            return ItemUpdate(np.zeros(plan.update_size, dtype=np.float32))
        return self._device.answer(plan)

    def inspect(self, question: Mapping[str, str | int], table_arrays: Arrays) -> Arrays:
        """Answer the simulation's question about ranks; the loss of a single device is not followed."""
        part = str(question["part"])
        loss = {"loss": np.zeros(2)}
        if self._held_out[part].item[0] < 0:
            return arrays_of(None, self._user) | loss
        table = ItemTable(table_arrays["fixed"].astype(np.float32), table_arrays["learned"].astype(np.float32))
        history = self._histories[part]
        row = self._device.scores(table, self._config.training, history.items)
        result = evaluate(
            _Row(row), self._held_out[part], history, top_k=TOP_K, with_full=bool(question["full"])
        )  # fmt: skip
        return arrays_of(result, self._user) | loss


class _Row:
    """Scorer of one person."""

    def __init__(self, row: FloatArray) -> None:
        self._row = row

    def scores(self, users: IntArray) -> FloatArray:
        """Return the one row, float32 [1, num_items]."""
        return np.repeat(self._row[None], len(users), axis=0)


def num_nodes(config: SimulationConfig, num_users: int) -> int:
    """Nodes of a run."""
    return num_users if config.engine == "devices" else min(config.shards, num_users)


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
    return _open_node(config_json, run_dir, partition)


@cache  # a node that was dropped would come back without its heads
def _open_node(config_json: str, run_dir: str, partition: int) -> Host:
    config = SimulationConfig.model_validate_json(config_json)
    prepared = prepare(config)
    if config.engine == "devices":
        return DeviceNode(prepared, config, partition)
    return ShardHost(prepared, config, partition, Path(run_dir) / "devices")


def close_nodes() -> None:
    """Forget this process's hosts: their heads belong to the run that has ended."""
    _open_node.cache_clear()
