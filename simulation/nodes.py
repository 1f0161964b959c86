"""Which host a node of a simulation runs: a shard of virtual devices, or one device by itself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np

from palate.client.host import Arrays, DeviceHost, Host, score_catalogue
from palate.models.arrays import Float32Array, Int32Array
from palate.models.serving import serving_training
from palate.models.table import ItemTable
from palate.privacy.wire import ItemUpdate, RoundPlan
from palate.server.settings import cohort_size
from palate.simulation.config import SimulationConfig
from palate.simulation.datasets.splits import HeldOut
from palate.simulation.evaluation import evaluate
from palate.simulation.host import TOP_K, ShardHost, arrays_of
from palate.simulation.ledgers import open_guard
from palate.simulation.noise_keys import read_noise_key
from palate.simulation.prepare import Prepared, prepare
from palate.simulation.protection import cohort_of
from palate.simulation.seeding import device_keys, participants, survivors


class DeviceNode:
    """One virtual device by itself, behind the host of a real one, and what the simulation wants to know about it."""

    def __init__(self, prepared: Prepared, config: SimulationConfig, user: int, run_dir: Path) -> None:
        split = prepared.split
        self._user = np.array([user])
        self._population = prepared.interactions.num_users
        self._config = config
        self._serving = serving_training(config.training, noised_head=config.protects_interactions)
        self._histories = {"validation": split.train.select(self._user), "test": split.full_train.select(self._user)}
        self._held_out = {
            "validation": HeldOut(split.validation.item[self._user], split.validation.negatives[self._user]),
            "test": HeldOut(split.test.item[self._user], split.test.negatives[self._user]),
        }
        held_back = int(split.validation.item[user])
        protected = bool(config.promises)
        self._device = DeviceHost(
            self._histories["validation"].items,
            lambda server_round: np.uint64(device_keys(config.seed, server_round, self._user)[0]),
            open_guard(run_dir, user, config.promises) if protected else None,
            held_back=held_back if held_back >= 0 else None,
            secret_of_round=lambda plan: read_noise_key(run_dir).device(plan.rules_hash, user),
        )

    def answer(self, plan: RoundPlan) -> ItemUpdate:
        """Take part in a round, or add nothing to it where this person is not drawn or drops out."""
        seed, (user,) = self._config.seed, self._user
        cohort = cohort_size(self._population, plan.participation)
        drawn = participants(seed, plan.server_round, self._population, cohort, cap=self._config.privacy.cap)
        nothing = ItemUpdate.of_nobody(plan)
        if not drawn[user]:
            return nothing
        update = self._device.answer(plan)
        if plan.terms is None:
            return update
        dropouts = cohort_of(self._config.privacy, self._population, plan.participation).dropouts
        return update if survivors(seed, plan.server_round, drawn, dropouts)[user] else nothing

    def inspect(self, question: Mapping[str, str | int], table_arrays: Arrays) -> Arrays:
        """Answer the simulation's question about ranks; the loss of a single device is not followed."""
        part = str(question["part"])
        if question["full"]:  # asked once, after the last round
            self._device.settle()
        loss = {"loss": np.zeros(2)}
        if self._held_out[part].item[0] < 0:
            return arrays_of(None, self._user) | loss
        table = ItemTable(table_arrays["fixed"].astype(np.float32), table_arrays["learned"].astype(np.float32))
        history = self._histories[part]
        if self._config.protects_interactions:
            row = score_catalogue(table, history.items, None, self._serving)
        else:
            row = self._device.scores(table, self._serving, history.items)
        held_out, full = self._held_out[part], bool(question["full"])
        result = evaluate(_Row(row), held_out, history, top_k=TOP_K, with_full=full)
        return arrays_of(result, self._user) | loss


class _Row:
    """Scorer of one person."""

    def __init__(self, row: Float32Array) -> None:
        self._row = row

    def scores(self, users: Int32Array) -> Float32Array:
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
        return DeviceNode(prepared, config, partition, Path(run_dir))
    return ShardHost(prepared, config, partition, Path(run_dir))


def close_nodes() -> None:
    """Forget this process's hosts: their heads belong to the run that has ended."""
    _open_node.cache_clear()
