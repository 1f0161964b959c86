"""How devices learn: the one kernel. It trains a batch of devices; a real device is a batch of one.

In a round every device gets the item table. It fits a head to its history and returns the direction in which its loss
would move the learned columns. `tests/conformance` compares the kernel with a readable device, for every
score model and objective.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from palate.models.arrays import Float32Array, Int32Array, Int64Array, UInt64Array
from palate.models.histories import Histories, history_weights, user_weights
from palate.models.learning.ridge import ClosedForm, closed_form, solve_users
from palate.models.learning.sgd import blocks, train_bce, train_residual_head
from palate.models.learning.updates import RowValues, SparseUpdates, Updates
from palate.models.scores.base import ScoreModel, Shape, State
from palate.models.scores.registry import initial_head, score_model
from palate.models.table import ItemTable
from palate.models.training import LocalTraining

_VALUES_PER_CHUNK = 1 << 22
PEOPLE_PER_CHUNK = 256

Sink = Callable[[Int64Array, Updates | SparseUpdates], None]
"""Takes the updates of some people: their places in the batch, int64 [B], and what each would send."""


@dataclass(frozen=True)
class Trained:
    """What a round of local training leaves behind; nothing of it is ever printed.

    Attributes
    ----------
    update
        Sum of the updates, float32 [num_items, dim]; zeros where a sink took them one by one.
    heads
        Heads after the round, [num_users, ...]; they stay on the devices.
    loss
        Mean loss; it stays, too.
    """

    update: Float32Array = field(repr=False)
    heads: State = field(repr=False)
    loss: float = field(repr=False)


def fresh_heads(table: ItemTable, config: LocalTraining, num_users: int) -> State:
    """Every head at the public starting point, [num_users, ...]."""
    shape = Shape(fixed_dim=table.fixed_dim, dim=table.dim, hidden=config.hidden)
    start = initial_head(config.model, config.objective, shape)
    return {name: torch.from_numpy(value).expand(num_users, *value.shape).clone() for name, value in start.items()}


def select_heads(heads: State, people: Int64Array) -> State:
    """Copy the heads of some people, int64 [m] to [m, ...]."""
    chosen = torch.from_numpy(people)
    return {name: value[chosen] for name, value in heads.items()}


def popularity_sum(histories: Histories, num_items: int) -> Float32Array:
    """Sum over people of ``1/sqrt(n_u)`` on their items, float32 [num_items]."""
    weight = user_weights(histories.lengths, exponent=0.5)[histories.owners]
    return np.bincount(histories.items, weights=weight, minlength=num_items).astype(np.float32)


def popularity_updates(histories: Histories, num_items: int, sink: Sink) -> None:
    """Give a sink every person's part of the popularity sum, of norm 1; zeros without a history."""
    weights = user_weights(histories.lengths, exponent=0.5)
    for start in range(0, histories.num_users, PEOPLE_PER_CHUNK):
        people = np.arange(start, min(start + PEOPLE_PER_CHUNK, histories.num_users))
        part = histories.select(people)
        owned = RowValues(part, weights[people[part.owners], None])
        sink(people, SparseUpdates.of([owned], num_items))


def train(
    table: ItemTable,
    histories: Histories,
    heads: State,
    keys: UInt64Array,
    config: LocalTraining,
    *,
    fitted: State | None = None,
    sink: Sink | None = None,
) -> Trained:
    """Run one round of local training for devices that all take part.

    Parameters
    ----------
    table
        The round's item table.
    histories
        Their histories, oldest first, without repeats.
    heads
        Their heads as the last round left them, [num_users, ...]; not changed.
    keys
        Their keys of the round, uint64 [num_users]; they draw negatives and order.
    config
        Public parameters of local training.
    fitted
        What `fit_heads` gave for this table and these histories, if it is known already.
    sink
        Takes every person's own update, for a mechanism; without one they are summed up. People without history
        have none.
    """
    model = score_model(config.model, config.objective)
    scale = user_weights(histories.lengths, exponent=config.user_weight_exponent)
    scale[histories.lengths < config.least_interactions] = 0.0
    heads = {name: value.clone() for name, value in heads.items()}
    total, linear = np.zeros_like(table.learned), None
    if config.objective == "whole":
        fitted = fitted or fit_heads(table, histories, heads, config)
        heads |= {name: fitted[name].clone() for name in heads}
        learned = slice(table.fixed_dim, table.fixed_dim + table.dim)
        linear = closed_form(
            linear_rows(table, model),
            histories,
            model.solution(heads).numpy(),
            learned,
            scale,
            config,
            through_encoder=model.through_encoder,
        )
        if sink is None:
            total += linear.total()
    if config.objective == "whole" and not model.residual_head:
        if sink is not None:
            able = np.flatnonzero(histories.lengths > 0)  # a short history's update is zeros, its metrics are not
            for start in range(0, len(able), PEOPLE_PER_CHUNK):
                _hand_out(sink, able[start : start + PEOPLE_PER_CHUNK], table, linear, None)
        return Trained(total, heads, linear.loss if linear else 0.0)
    losses = 0.0
    for block in blocks(histories, history_weights(histories, config), keys, config):
        own = select_heads(heads, block.users)
        if config.objective == "bce":
            changes, block_loss = train_bce(model, table, own, block, scale[block.users], config)
            losses += block_loss
        else:
            changes = train_residual_head(model, table, own, block, scale[block.users], config)
        if config.own_items_only:
            changes = changes.on_own_items(histories.select(block.users), table.num_items)
        if sink is None:
            total += changes.total(table.num_items)
        else:
            _hand_out(sink, block.users, table, linear, changes)
        for name, value in own.items():
            heads[name][torch.from_numpy(block.users)] = value.detach()
    return Trained(total, heads, linear.loss if linear else losses / max(int((histories.lengths > 0).sum()), 1))


def _hand_out(
    sink: Sink, people: Int64Array, table: ItemTable, linear: ClosedForm | None, changes: RowValues | None
) -> None:
    """Put the parts of some people's updates together, and give them to a sink."""
    further = [] if changes is None else [changes]
    if linear is None:
        sink(people, SparseUpdates.of(further, table.num_items))
        return
    own, histories = linear.histories.entries(people), linear.histories.select(people)
    if linear.corrections is not None:
        further.insert(0, RowValues(histories, linear.corrections[own]))
    if linear.unobserved_weight:
        values = RowValues.joined(further) if further else None
        sink(people, Updates(linear.errors(people), linear.vectors[people], values))
        return
    pulled = linear.own_errors[own, None] * linear.vectors[people[histories.owners]]
    sink(people, SparseUpdates.of([RowValues(histories, pulled), *further], table.num_items))


def is_stateful(config: LocalTraining) -> bool:
    """Whether heads carry something from round to round; closed forms are solved anew from the table."""
    return config.objective == "bce" or score_model(config.model, config.objective).residual_head


def fit_heads(table: ItemTable, histories: Histories, heads: State, config: LocalTraining) -> State:
    """Fit heads to a (longer) history and a table, without another SGD step and without any update."""
    fitted = {name: value.clone() for name, value in heads.items()}
    if config.objective == "whole":
        model = score_model(config.model, config.objective)
        model.install(fitted, torch.from_numpy(solve_users(linear_rows(table, model), histories, config)))
    return fitted


def linear_rows(table: ItemTable, model: type[ScoreModel]) -> Float32Array:
    """Rows that the closed form sees: the table's, and a constant column where the model has an intercept."""
    if not model.intercept:
        return table.rows
    return np.concatenate([table.rows, np.ones((table.num_items, 1), dtype=np.float32)], axis=1)


def scorer_of(table: ItemTable, heads: State, config: LocalTraining) -> Scorer:
    """Score with heads that are fitted to this table."""
    return Scorer(score_model(config.model, config.objective), torch.from_numpy(table.rows), heads)


@dataclass(frozen=True)
class Scorer:
    """Scores of some people on a table.

    Attributes
    ----------
    rows
        Item rows, float32 [num_items, row_dim].
    heads
        Heads, [num_users, ...].
    """

    model: type[ScoreModel]
    rows: torch.Tensor
    heads: State

    def scores(self, users: Int32Array) -> Float32Array:
        """Scores of the whole catalogue, float32 [len(users), num_items]."""
        scores = np.empty((len(users), len(self.rows)), dtype=np.float32)
        chunk = max(1, _VALUES_PER_CHUNK // self.rows.numel())  # every person may get a copy of the rows
        for start in range(0, len(users), chunk):
            people = users[start : start + chunk].astype(np.int64)
            heads = select_heads(self.heads, people)
            with torch.no_grad():
                scores[start : start + chunk] = self.model.batched(heads, self.rows.expand(len(people), -1, -1)).numpy()
        return scores

    def score_items(self, users: Int32Array, items: Int32Array) -> Float32Array:
        """Scores of chosen items, [B, n] to float32 [B, n]."""
        heads = select_heads(self.heads, users.astype(np.int64))
        with torch.no_grad():
            return self.model.batched(heads, self.rows[torch.from_numpy(items.astype(np.int64))]).numpy()
