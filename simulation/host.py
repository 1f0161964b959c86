"""A node of a simulation: a shard of virtual devices, trained together, or one device by itself.

The heads live in the run folder, one file per shard and round, so that a resumed run and nodes in other processes
find them; this process keeps the latest in memory. Besides plans, a shard answers the simulation's questions about
ranks and losses. No real device does.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save

from palate.client.host import Arrays, DeviceHost, Host, training_of
from palate.client.interaction_release import interaction_sum, popularity_interaction_sum
from palate.client.release import metrics_of, quantised_sum, release_sum
from palate.models.arrays import AnyArray, BoolArray, Float32Array, Float64Array, Int64Array
from palate.models.learning.kernel import (
    Sink,
    Trained,
    fit_heads,
    fresh_heads,
    is_stateful,
    popularity_sum,
    popularity_updates,
    scorer_of,
    select_heads,
    train,
)
from palate.models.learning.updates import SparseUpdates, Updates
from palate.models.scores.base import State
from palate.models.scores.registry import serving_training
from palate.models.table import ItemTable
from palate.models.training import LocalTraining
from palate.privacy import files
from palate.privacy.integer.csprng import Purpose, WordStream
from palate.privacy.mechanisms.registry import mechanism_of
from palate.privacy.wire import ItemUpdate, RoundPlan, WireError
from palate.server.settings import cohort_size
from palate.server.store import read_tensors
from palate.simulation.config import SimulationConfig
from palate.simulation.datasets.splits import HeldOut
from palate.simulation.evaluation import Evaluation, evaluate
from palate.simulation.ledgers import ShardLedgers, open_guard
from palate.simulation.noise_keys import read_noise_key
from palate.simulation.prepare import Prepared, prepare, shard_users
from palate.simulation.protection import cohort_of
from palate.simulation.seeding import device_keys, participants, survivors

STATE_FORMAT = "palate-shard-state/1"

TOP_K = 10
"""Length of recommendation lists and cut-off of the metrics."""

_NONE = np.zeros(0, dtype=np.int32)
_NOBODY = Evaluation(_NONE, _NONE, _NONE, _NONE, np.zeros((0, TOP_K), dtype=np.int32), TOP_K)


class ShardHost:
    """A shard of virtual devices.

    Parameters
    ----------
    prepared
        Data of the run.
    config
        Configuration of the run.
    shard
        Which shard this is; people are dealt out one by one.
    folder
        The run folder; the heads are kept in its subfolder `devices` between rounds.
    users
        Its people, int64 [n]; dealt out by the number of the shard unless given.
    """

    def __init__(
        self, prepared: Prepared, config: SimulationConfig, shard: int, folder: Path, *, users: Int64Array | None = None
    ) -> None:
        num_shards = min(config.shards, prepared.interactions.num_users)
        split = prepared.split
        self.users = shard_users(prepared.interactions.num_users, shard, num_shards) if users is None else users
        self._config = config
        self._shard = shard
        self._population = prepared.interactions.num_users
        self._run_dir = folder
        self._folder = folder / "devices"
        self._train = split.train.select(self.users)
        self._full_train = split.full_train.select(self.users)
        self._held_out = {"validation": _of(split.validation, self.users), "test": _of(split.test, self.users)}
        self._stateful = is_stateful(config.training)
        self._serving = serving_training(config.training, noised_head=config.protects_interactions)
        self._heads: tuple[int, State] | None = None
        self._fitted: tuple[str, State] | None = None

    def answer(self, plan: RoundPlan) -> ItemUpdate:
        """Take part in a round with every virtual device that is drawn; the answer is the sum of what they send."""
        mechanism_of(plan)
        if plan.unit != self._config.unit:
            raise WireError(f"the plan's unit is {plan.unit!r}, this run's is {self._config.unit!r}")
        if plan.terms is None and self._config.promises:
            raise WireError(f"unit {plan.unit!r} protects nothing, and these devices keep budgets")
        training_of(plan)  # a request that cannot be answered must not be charged
        everyone = self._drawn(plan)
        taking_part = np.flatnonzero(everyone[self.users])
        if plan.terms is not None:
            return self._protected(plan, taking_part, everyone)
        if plan.purpose == "popularity":
            return ItemUpdate(popularity_sum(self._train.select(taking_part), len(plan.learned)))
        return ItemUpdate(np.ascontiguousarray(self._train_round(plan, taking_part, None).update.T).reshape(-1))

    def _drawn(self, plan: RoundPlan) -> BoolArray:
        """Which users of the whole federation take part, bool [num_users]."""
        cohort = cohort_size(self._population, plan.participation)
        cap = self._config.privacy.cap
        return participants(self._config.seed, plan.server_round, self._population, cohort, cap=cap)

    def _surviving(self, plan: RoundPlan, everyone: BoolArray) -> BoolArray:
        """Which of them do not drop out, bool [num_users]."""
        dropouts = cohort_of(self._config.privacy, self._population, plan.participation).dropouts
        return survivors(self._config.seed, plan.server_round, everyone, dropouts)

    def _protected(self, plan: RoundPlan, taking_part: Int64Array, everyone: BoolArray) -> ItemUpdate:
        """Charge the devices' ledgers, train, release through the mechanism, close the round."""
        users = self.users[taking_part]
        noise, ledgers = read_noise_key(self._run_dir), self._ledgers
        ledgers.begin(plan, taking_part)
        surviving = self._surviving(plan, everyone)[users]
        rules = plan.rules_hash
        keys = [noise.device(rules, int(user)) for user in users]
        words = WordStream(noise.shard(rules, self._shard), Purpose.NOISE)
        release = self._release_interactions if mechanism_of(plan).per_interaction else self._release_people
        update = release(plan, taking_part, surviving, keys, words)
        ledgers.finish(plan, taking_part, update)
        return update

    def _release_people(
        self, plan: RoundPlan, taking_part: Int64Array, surviving: BoolArray, keys: list[bytes], words: WordStream
    ) -> ItemUpdate:
        """Quantise each person's contribution as it is made; devices that drop out compute theirs, too."""
        if plan.terms is None:
            raise WireError(f"unit {plan.unit!r} needs terms")
        mechanism, asked = plan.terms.mechanism(plan.update_size), self._metrics(plan, taking_part)
        total = np.zeros(plan.update_size, dtype=np.int64)

        def take(people: Int64Array, updates: Updates | SparseUpdates) -> None:
            kept = np.flatnonzero(surviving[people])
            if len(kept) < len(people):
                people, updates = people[kept], updates.select(kept)
            if plan.active is not None:
                updates = updates.on_rows(plan.active)
            own, metrics = [keys[person] for person in people], None if asked is None else asked[people]
            total[:] += quantised_sum(updates, own, mechanism.quantiser, metrics, plan.evaluation_share)

        if plan.purpose == "popularity":
            popularity_updates(self._train.select(taking_part), len(plan.learned), take)
            if plan.server_round:  # in place of a training round: the heads stay as they were
                table = ItemTable(plan.fixed, plan.learned)
                self._keep(plan.server_round, self._heads_before(plan.server_round, table), taking_part, {}, 0.0, 0)
        else:
            self._train_round(plan, taking_part, take)
        return ItemUpdate(release_sum(total, int(surviving.sum()), mechanism, words))

    def _release_interactions(
        self, plan: RoundPlan, taking_part: Int64Array, surviving: BoolArray, keys: list[bytes], words: WordStream
    ) -> ItemUpdate:
        """Run one noised step; a device that drops out loses the whole round."""
        if plan.terms is None:
            raise WireError(f"unit {plan.unit!r} needs terms")
        taking_part, keys = taking_part[surviving], [keys[place] for place in np.flatnonzero(surviving)]
        own, bound = self._train.select(taking_part), plan.interactions_per_round
        if plan.purpose == "popularity":
            integers = popularity_interaction_sum(own, len(plan.learned), plan.terms, interactions_per_round=bound)
        else:
            table = ItemTable(plan.fixed, plan.learned)
            heads = self._heads_before(plan.server_round, table)
            found = interaction_sum(
                table,
                own,
                select_heads(heads, taking_part),
                device_keys(self._config.seed, plan.server_round, self.users[taking_part]),
                keys,
                training_of(plan),
                plan.terms,
                interactions_per_round=bound,
            )
            self._keep(plan.server_round, heads, taking_part, found.heads, 0.0, 0)
            integers = found.integers
        return ItemUpdate(release_sum(integers, len(taking_part), plan.terms.mechanism(len(integers)), words))

    def _train_round(self, plan: RoundPlan, taking_part: Int64Array, sink: Sink | None) -> Trained:
        """Train, and keep the heads."""
        table, config = ItemTable(plan.fixed, plan.learned), training_of(plan)
        heads = self._heads_before(plan.server_round, table)
        trained = train(
            table,
            self._train.select(taking_part),
            select_heads(heads, taking_part),
            device_keys(self._config.seed, plan.server_round, self.users[taking_part]),
            config,
            fitted=self._solutions(table, heads) if self._fits(config, taking_part) else None,
            sink=sink,
        )
        self._keep(plan.server_round, heads, taking_part, trained.heads, trained.loss, len(taking_part))
        return trained

    def _fits(self, config: LocalTraining, taking_part: Int64Array) -> bool:
        """Whether heads for recommending are fitted like those for training, so that one fit serves both."""
        return self._serving == config and len(taking_part) == len(self.users)

    def _metrics(self, plan: RoundPlan, taking_part: Int64Array) -> Float32Array | None:
        """Return the devices' own metrics of the round's table, [m, NUM_METRICS]; None where they are not asked."""
        if not plan.asks_for_metrics:
            return None
        table = ItemTable(plan.fixed, plan.learned)
        fitted = self._solutions(table, self._serving_heads(plan.server_round, table))
        return metrics_of(
            table,
            self._train.select(taking_part),
            self._held_out["validation"].item[taking_part],
            select_heads(fitted, taking_part),
            device_keys(self._config.seed, plan.server_round, self.users[taking_part]),
            self._serving,
        )

    @cached_property
    def _ledgers(self) -> ShardLedgers:
        """The devices' ledgers, opened with the first protected round; they stay open."""
        return ShardLedgers(self._run_dir, self._shard, self.users, self._config.promises)

    def inspect(self, question: Mapping[str, str | int], table_arrays: Arrays) -> Arrays:
        """Answer a question of the simulation.

        `part` is "validation" or "test", `full` is 1 for whole-catalogue ranks and lists, `round` names the heads.
        `hidden` newest items of everybody are not known when recommending; they are not recommended again either.
        """
        part, server_round = str(question["part"]), int(question["round"])
        hidden = int(question.get("hidden", 0))
        if part not in self._held_out:
            raise WireError(f"no part {part!r}")
        table = ItemTable(table_arrays["fixed"].astype(np.float32), table_arrays["learned"].astype(np.float32))
        heads, training = self._serving_heads(server_round + 1, table), self._serving
        history = self._train if part == "validation" else self._full_train
        known = self._solutions(table, heads) if part == "validation" and not hidden else None
        fitted = known or fit_heads(table, history.without_latest(hidden), heads, training)
        scorer = scorer_of(table, fitted, training)
        held_out = self._held_out[part]
        result = _NOBODY
        if (held_out.item >= 0).any():
            result = evaluate(scorer, held_out, history, top_k=TOP_K, with_full=bool(question["full"]))
        # Users get their index in the whole run.
        return {**result.columns, "user": self.users[result.users], "loss": self._loss_of(server_round)}

    def _solutions(self, table: ItemTable, heads: State) -> State:
        """Return serving heads fitted to the training history and this table; solved once per table."""
        if self._fitted is None or self._fitted[0] != table.content_hash:
            self._fitted = (table.content_hash, fit_heads(table, self._train, heads, self._serving))
        return self._fitted[1]

    def _serving_heads(self, server_round: int, table: ItemTable) -> State:
        """Heads that recommend before a round: those that trained, or fresh ones where those are noised."""
        if self._config.protects_interactions:
            return fresh_heads(table, self._serving, len(self.users))
        return self._heads_before(server_round, table)

    def _heads_before(self, server_round: int, table: ItemTable) -> State:
        """Heads as the round before left them."""
        if self._heads is not None and self._heads[0] == server_round - 1:
            return self._heads[1]
        if self._stateful and server_round > 1:
            return read_heads(self._folder, self._shard, server_round - 1)
        return fresh_heads(table, self._config.training, len(self.users))

    def _keep(
        self, server_round: int, heads: State, people: Int64Array, trained: State, loss: float, devices: int
    ) -> None:
        """Store the heads of those who took part: in memory, and on disk those of this round and the one before."""
        for name, value in trained.items():
            heads[name][torch.from_numpy(people)] = value
        self._heads = (server_round, heads)
        self._fitted = None
        self._folder.mkdir(parents=True, exist_ok=True)
        arrays = {name: np.ascontiguousarray(value.numpy()) for name, value in heads.items()} if self._stateful else {}
        label = {"format": STATE_FORMAT, "loss": repr(loss), "devices": str(devices)}
        files.replace(self._path(server_round), save(arrays, label), mode=files.SHARED)
        self._path(server_round - 2).unlink(missing_ok=True)

    def _loss_of(self, server_round: int) -> Float64Array:
        """Mean loss of a round and the number of devices in it, float64 [2]; zeros for the popularity round."""
        if server_round == 0:
            return np.zeros(2)
        _, label = read_tensors(self._path(server_round), STATE_FORMAT)
        return np.array([float(label["loss"]), float(label["devices"])])

    def _path(self, server_round: int) -> Path:
        return _heads_path(self._folder, self._shard, server_round)


def read_heads(folder: Path, shard: int, server_round: int) -> State:
    """Heads of a shard's people after a round, [num_users, ...]; raises RunError if missing or damaged."""
    arrays, _ = read_tensors(_heads_path(folder, shard, server_round), STATE_FORMAT)
    return {name: torch.from_numpy(value) for name, value in arrays.items()}


def _heads_path(folder: Path, shard: int, server_round: int) -> Path:
    return folder / f"shard-{shard:04d}.round-{server_round:05d}.safetensors"


def join_answers(answers: list[Mapping[str, AnyArray]], *, full: bool) -> tuple[Evaluation, float | None]:
    """Join the shards' answers: an evaluation ordered by user, and the mean loss over devices where it is known."""
    names = ("user", "target", "rank_sampled", *(("rank_full", "top_items") if full else ()))
    joined = {name: np.concatenate([answer[name] for answer in answers]).astype(np.int32) for name in names}
    order = np.argsort(joined["user"])
    evaluation = Evaluation.of_columns({name: values[order] for name, values in joined.items()}, TOP_K)
    losses = np.array([answer["loss"].astype(np.float64) for answer in answers])  # [shards, (loss, devices)]
    devices = losses[:, 1].sum()
    return evaluation, float(losses.prod(axis=1).sum() / devices) if devices else None


def _of(held_out: HeldOut, users: Int64Array) -> HeldOut:
    return HeldOut(held_out.item[users], held_out.negatives[users])


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
