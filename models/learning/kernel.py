"""A shard of virtual devices, trained together: the fast twin of `palate.client.trainer`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from palate.models.arrays import Float32Array, Int32Array, Int64Array, UInt64Array
from palate.models.histories import Histories
from palate.models.learning.batched_ridge import (
    RankOne,
    entries_of,
    history_weights,
    leave_one_out_corrections,
    rank_one_updates,
    solve_users,
)
from palate.models.learning.sgd import RowChanges, blocks, train_bce, train_residual_head
from palate.models.learning.updates import DeviceUpdates
from palate.models.learning.weights import user_weights
from palate.models.scores.base import ScoreModel, Shape, State
from palate.models.scores.registry import initial_state, score_model
from palate.models.table import ItemTable
from palate.models.training import LocalTraining

_VALUES_PER_CHUNK = 1 << 22
PEOPLE_PER_CHUNK = 256


@dataclass(frozen=True)
class ShardTrained:
    """Sum of the updates of a shard's people, float32 [num_items, dim], and their mean loss (simulation only).

    The sum is zeros where the updates went to a sink instead, one by one.
    """

    update: Float32Array
    loss: float


Sink = Callable[[Int64Array, DeviceUpdates], None]
"""Takes the updates of some people: their indices among those who take part, int64 [B], and what each would send."""


def popularity_sum(histories: Histories, taking_part: Int64Array, num_items: int) -> Float32Array:
    """Sum over people of ``1/sqrt(n_u)`` on their items, float32 [num_items]."""
    own = histories.select(taking_part)
    weight = user_weights(own.lengths, exponent=0.5)[own.owners]
    return np.bincount(own.items, weights=weight, minlength=num_items).astype(np.float32)


def fresh_state(table: ItemTable, config: LocalTraining, num_users: int) -> State:
    """Every head at the public starting point, [num_users, ...]."""
    shape = Shape(fixed_dim=table.fixed_dim, dim=table.dim, hidden=config.hidden)
    state = initial_state(config.model, config.objective, shape)
    return {name: value.expand(num_users, *value.shape).clone() for name, value in state.items()}


def train_shard(
    table: ItemTable,
    histories: Histories,
    state: State,
    taking_part: Int64Array,
    keys: UInt64Array,
    config: LocalTraining,
    *,
    solved: State | None = None,
    sink: Sink | None = None,
) -> ShardTrained:
    """Run one round of local training for the people who take part.

    Parameters
    ----------
    state
        Heads of the whole shard, [num_users, ...]; updated in place for those who take part.
    taking_part
        Indices into the shard, int64 [m].
    keys
        Keys of the round for those who take part, uint64 [m].
    solved
        What `refit_state` gave for this table and these histories, if it is known already and all take part.
    sink
        Takes every person's own update, for a mechanism; without one they are summed up. People without history
        have none.
    """
    model = score_model(config.model, config.objective)
    own = histories.select(taking_part)
    weights = history_weights(own, config)
    scale = user_weights(own.lengths, exponent=config.user_weight_exponent)
    scale[own.lengths < config.least_interactions] = 0.0
    part: State = {name: value[torch.from_numpy(taking_part)] for name, value in state.items()}
    collected = _Collected(table, sink)
    loss, linear = 0.0, None
    if config.objective == "whole":
        linear = _fit_linear_part(model, table, own, weights, scale, part, config, solved)
        loss = linear.rank_one.loss
        collected.add_linear(linear)
    if config.objective == "bce" or model.residual_head:
        bce_loss = 0.0
        for block in blocks(own, weights, keys, config):
            people = torch.from_numpy(block.users)
            heads = {name: value[people] for name, value in part.items()}
            if config.objective == "bce":
                changes, block_loss = train_bce(model, table, heads, block, scale[block.users], config)
                bce_loss += block_loss
            else:
                changes = train_residual_head(model, table, heads, block, scale[block.users], config)
            if config.own_items_only:
                changes = changes.on_own_items(own.select(block.users), table.num_items)
            collected.add_changes(block.users, linear, changes)
            for name, value in heads.items():
                part[name][people] = value.detach()
        if config.objective == "bce":
            loss = bce_loss / max(int((own.lengths > 0).sum()), 1)
    elif linear is not None:
        collected.hand_out(linear)
    for name, value in part.items():
        state[name][torch.from_numpy(taking_part)] = value
    return ShardTrained(collected.total, loss)


class _Collected:
    """Where updates go: into a sum, or person by person into a sink."""

    def __init__(self, table: ItemTable, sink: Sink | None) -> None:
        self.total = np.zeros_like(table.learned)
        self._table = table
        self._sink = sink

    def add_linear(self, linear: _LinearPart) -> None:
        """Add everybody's closed form to the sum; a sink gets it with the rest of each person's update."""
        if self._sink is None:
            self.total += linear.total()

    def add_changes(self, people: Int64Array, linear: _LinearPart | None, changes: RowChanges) -> None:
        """Add what SGD changed for some people."""
        if self._sink is None:
            self.total += changes.total(self._table.num_items).numpy()
        else:
            self._sink(people, _device_updates(self._table, people, linear, changes))

    def hand_out(self, linear: _LinearPart) -> None:
        """Give a sink the closed form of all who have a history, where nothing comes on top of it."""
        if self._sink is None:
            return
        able = np.flatnonzero(linear.histories.lengths > 0)  # a short history's update is zeros, its metrics are not
        for start in range(0, len(able), PEOPLE_PER_CHUNK):
            people = able[start : start + PEOPLE_PER_CHUNK]
            self._sink(people, _device_updates(self._table, people, linear, None))


def _fit_linear_part(
    model: type[ScoreModel],
    table: ItemTable,
    own: Histories,
    weights: Float32Array,
    scale: Float32Array,
    part: State,
    config: LocalTraining,
    solved: State | None,
) -> _LinearPart:
    """Solve for everybody's user vector, or take it from `solved`, and write it into `part`."""
    rows = linear_rows(table, model)
    if solved is None:
        solution = solve_users(rows, own, weights, config)
        model.install(part, torch.from_numpy(solution))
    else:
        part |= {name: solved[name].clone() for name in part}
        solution = model.solution(part).numpy()
    learned = slice(table.fixed_dim, table.fixed_dim + table.dim)
    rank_one = rank_one_updates(rows, own, weights, solution, learned, config)
    if config.leave_one_out or model.through_encoder:
        corrections = leave_one_out_corrections(
            rows, own, weights, solution, learned, config, through_encoder=model.through_encoder
        )
        rank_one = replace(rank_one, corrections=corrections)
    return _LinearPart(rank_one, rows, own, scale)


@dataclass(frozen=True)
class _LinearPart:
    """The closed form's updates of those who take part."""

    rank_one: RankOne
    rows: Float32Array
    histories: Histories
    scale: Float32Array

    def total(self) -> Float32Array:
        return self.rank_one.total(self.rows, self.histories, self.scale)

    def factors(self, people: Int64Array) -> tuple[Float32Array, Float32Array]:
        """Errors [B, num_items] and scaled vectors [B, dim] of some people."""
        errors = self.rank_one.errors(self.rows, self.histories, people)
        return errors, self.rank_one.users[people] * self.scale[people, None]

    def corrections(self, people: Int64Array) -> RowChanges | None:
        """Return what leave-one-out adds to some people's updates; None without it."""
        if self.rank_one.corrections is None:
            return None
        counts, entries = self.histories.lengths[people], entries_of(self.histories, people)
        values = self.rank_one.corrections[entries] * np.repeat(self.scale[people], counts)[:, None]
        items = self.histories.items[entries].astype(np.int64)
        return RowChanges(counts, torch.from_numpy(items), torch.from_numpy(values))


def _device_updates(
    table: ItemTable, people: Int64Array, linear: _LinearPart | None, changes: RowChanges | None
) -> DeviceUpdates:
    """Put the two parts of some people's updates together."""
    if linear is None:
        errors = np.zeros((len(people), table.num_items), dtype=np.float32)
        vectors = np.zeros((len(people), table.dim), dtype=np.float32)
    else:
        errors, vectors = linear.factors(people)
    corrections = None if linear is None else linear.corrections(people)
    further = [part for part in (corrections, changes) if part is not None]
    if not further:
        return DeviceUpdates.rank_one(errors, vectors)
    counts = np.sum([part.counts for part in further], axis=0)
    owners = np.concatenate([np.repeat(np.arange(len(people)), part.counts) for part in further])
    grouped = np.argsort(owners, kind="stable")  # each person's rows side by side
    items = np.concatenate([part.items.numpy() for part in further])[grouped]
    values = np.concatenate([part.values.numpy() for part in further])[grouped]
    return DeviceUpdates(errors, vectors, np.concatenate([[0], np.cumsum(counts)]), items, values)


def is_stateful(config: LocalTraining) -> bool:
    """Whether heads carry something from round to round; closed forms are solved anew from the table."""
    return config.objective == "bce" or score_model(config.model, config.objective).residual_head


def refit_state(table: ItemTable, histories: Histories, state: State, config: LocalTraining) -> State:
    """Heads fitted to a (longer) history and the current table, without another SGD step and without any update."""
    fitted = {name: value.clone() for name, value in state.items()}
    if config.objective == "whole":
        model = score_model(config.model, config.objective)
        solution = solve_users(linear_rows(table, model), histories, history_weights(histories, config), config)
        model.install(fitted, torch.from_numpy(solution))
    return fitted


def linear_rows(table: ItemTable, model: type[ScoreModel]) -> Float32Array:
    """Rows that the closed form sees: the table's, and a constant column where the model has an intercept."""
    if not model.intercept:
        return table.rows
    return np.concatenate([table.rows, np.ones((table.num_items, 1), dtype=np.float32)], axis=1)


@dataclass(frozen=True)
class ShardScorer:
    """Scores of a shard's people on the current table.

    Attributes
    ----------
    rows
        Item rows, float32 [num_items, row_dim].
    state
        Heads, [num_users, ...].
    """

    model: type[ScoreModel]
    rows: torch.Tensor
    state: State

    def scores(self, users: Int32Array) -> Float32Array:
        """Scores of the whole catalogue, float32 [len(users), num_items]."""
        scores = np.empty((len(users), len(self.rows)), dtype=np.float32)
        chunk = max(1, _VALUES_PER_CHUNK // self.rows.numel())  # every person may get a copy of the rows
        for start in range(0, len(users), chunk):
            people = torch.from_numpy(users[start : start + chunk].astype(np.int64))
            heads = {name: value[people] for name, value in self.state.items()}
            with torch.no_grad():
                scores[start : start + chunk] = self.model.batched(heads, self.rows.expand(len(people), -1, -1)).numpy()
        return scores

    def score_items(self, users: Int32Array, items: Int32Array) -> Float32Array:
        """Scores of chosen items, [B, n] to float32 [B, n]."""
        people = torch.from_numpy(users.astype(np.int64))
        heads = {name: value[people] for name, value in self.state.items()}
        with torch.no_grad():
            return self.model.batched(heads, self.rows[torch.from_numpy(items.astype(np.int64))]).numpy()
