"""Federations to be timed: one round of local training by itself, or whole rounds on Flower's apps."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from palate.client.app import make_app as make_client_app
from palate.models.arrays import Float32Array, Int64Array
from palate.models.histories import Histories
from palate.models.learning.kernel import fresh_heads, popularity_sum, train
from palate.models.scores.base import State
from palate.models.scores.registry import score_model
from palate.models.table import ItemTable, initial_embeddings
from palate.models.training import LocalTraining
from palate.privacy.wire import RoundPlan
from palate.server.app import make_app as make_server_app
from palate.server.coordinator import Coordinator, RoundOutcome
from palate.server.optimisers import OptimiserConfig
from palate.simulation.config import ContentOptions, SimulationConfig
from palate.simulation.grid import InProcessGrid, run_in_process
from palate.simulation.host import close_nodes, open_node
from palate.simulation.measure import cpu_seconds
from palate.simulation.prepare import Prepared, prepare, shard_users
from palate.simulation.seeding import device_keys, table_rng

NCF = LocalTraining(
    model="mlp",
    objective="bce",
    hidden=32,
    negatives=4,
    epochs=1,
    recency_half_life=float("inf"),
    learning_rate=0.1,
    item_learning_rate=0.1,
)
"""NCF's perceptron 64-32-1 (item 32 + user 32), one local epoch, four negatives per positive."""

NCF_DIM = 32


def configuration(data: str, training: LocalTraining, *, dim: int, rounds: int, content: bool) -> SimulationConfig:
    """Return the configuration of a federation without privacy, baselines or validation."""
    optimiser = OptimiserConfig(name="average") if training.objective == "bce" else OptimiserConfig()
    base = SimulationConfig(data=data, unit="none", baselines=(), training=training, optimiser=optimiser)
    return base.model_copy(
        update={
            "content": ContentOptions(use=content),
            "schedule": base.schedule.model_copy(update={"rounds": rounds, "dim": dim}),
        }
    )


@dataclass
class Shard:
    """People of one node, their histories and their heads."""

    users: Int64Array
    histories: Histories
    state: State


@dataclass
class LocalRounds:
    """Local training of a whole federation, shard by shard, and nothing else.

    Attributes
    ----------
    table
        The item table; it stays the same, for the cost of a round does not depend on its values.
    samples
        Positives and drawn negatives of one round; 0 for closed forms, which draw none.
    """

    config: SimulationConfig
    table: ItemTable
    shards: list[Shard]
    samples: int
    _round: int = field(default=0, init=False)

    @property
    def num_users(self) -> int:
        """Devices of the federation."""
        return sum(len(shard.users) for shard in self.shards)

    def step(self) -> Float32Array:
        """Run local training of the next round: the sum of updates, float32 [num_items, dim]."""
        self._round += 1
        total = np.zeros_like(self.table.learned)
        for shard in self.shards:
            keys = device_keys(self.config.seed, self._round, shard.users)
            trained = train(self.table, shard.histories, shard.state, keys, self.config.training)
            shard.state = trained.heads
            total += trained.update
        return total


def local_rounds(config: SimulationConfig, *, fixed_columns: bool) -> LocalRounds:
    """Set a federation up as after its popularity round; without fixed columns rows hold only what is learned."""
    prepared = prepare(config)
    num_users = prepared.interactions.num_users
    coordinator = _coordinator(config, prepared)
    histories = prepared.split.train
    coordinator.apply(popularity_sum(histories, prepared.interactions.num_items).astype(np.float64))
    table = coordinator.table
    if not fixed_columns:
        table = ItemTable(np.zeros((table.num_items, 0), dtype=np.float32), table.learned)
    shards = []
    for index in range(config.shards):
        users = shard_users(num_users, index, config.shards)
        state = fresh_heads(table, config.training, len(users))
        shards.append(Shard(users, histories.select(users), state))
    return LocalRounds(config, table, shards, _samples(config.training, histories))


class TimedRounds:
    """A session that times its rounds and asks nothing of its nodes.

    Attributes
    ----------
    cpu
        CPU-seconds of each training round: messages, local training, state files and aggregation.
    """

    def __init__(self, config: SimulationConfig, prepared: Prepared) -> None:
        self.coordinator = _coordinator(config, prepared)
        self.cpu: list[float] = []
        self._before = 0.0

    @property
    def observers(self) -> tuple[TimedRounds]:
        """The session watches its own rounds."""
        return (self,)

    def round_started(self, plan: RoundPlan) -> None:
        """Start the clock."""
        del plan
        self._before = cpu_seconds()

    def round_finished(self, outcome: RoundOutcome, coordinator: Coordinator, grid: object) -> None:
        """Stop the clock; the popularity round does not count."""
        del coordinator, grid
        if outcome.purpose == "train":
            self.cpu.append(cpu_seconds() - self._before)

    def finish(self, grid: object) -> None:
        """Conclude nothing."""
        del grid


def flower_rounds(config: SimulationConfig, folder: Path) -> list[float]:
    """Run a federation on Flower's apps and the in-process grid; CPU-seconds of its rounds after a warm-up one.

    Parameters
    ----------
    folder
        Where shards keep their heads between rounds.
    """
    session = TimedRounds(config, prepare(config))
    config_json, run_dir = config.model_dump_json(), str(folder)

    def open_host(context: Any) -> Any:
        return open_node(config_json, run_dir, int(context.node_config["partition-id"]))

    grid = InProcessGrid(make_client_app(open_host), config.shards, workers=1)
    try:
        run_in_process(make_server_app(session), grid)
    finally:
        close_nodes()
    return session.cpu[1:]


def timed(work: LocalRounds, repeats: int) -> list[float]:
    """CPU-seconds of `repeats` rounds of local training after a warm-up one."""
    work.step()
    spent = []
    for _ in range(repeats):
        before = time.process_time()
        work.step()
        spent.append(time.process_time() - before)
    return spent


def _coordinator(config: SimulationConfig, prepared: Prepared) -> Coordinator:
    schedule, num_items = config.schedule, prepared.interactions.num_items
    return Coordinator(
        config.server_settings(run="benchmark", population=prepared.interactions.num_users),
        prepared.content.columns,
        initial_embeddings(num_items, schedule.dim, scale=schedule.initial_scale, rng=table_rng(config.seed)),
    )


def _samples(training: LocalTraining, histories: Histories) -> int:
    draws = training.objective == "bce" or score_model(training.model, training.objective).residual_head
    return len(histories.items) * (1 + training.sampled_negatives) * training.epochs if draws else 0
