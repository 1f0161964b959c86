"""A shard of virtual devices, trained together: the fast twin of `palate.client.trainer`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from palate.models.sampling import Keys
from palate.models.scores.base import ScoreModel, Shape, State
from palate.models.scores.registry import initial_state, score_model
from palate.models.table import ItemTable
from palate.models.training import LocalTraining
from palate.models.weights import user_weights
from palate.simulation.batched_ridge import history_weights, rank_one_updates, solve_users
from palate.simulation.batched_sgd import blocks, train_bce, train_residual_head
from palate.simulation.data.types import FloatArray, Histories, IntArray, LongArray

_VALUES_PER_CHUNK = 1 << 22


@dataclass(frozen=True)
class ShardTrained:
    """Sum of the updates of a shard's people, float32 [num_items, dim], and their mean loss (simulation only)."""

    update: FloatArray
    loss: float


def popularity_sum(histories: Histories, taking_part: LongArray, num_items: int) -> FloatArray:
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
    taking_part: LongArray,
    keys: Keys,
    config: LocalTraining,
    *,
    solved: State | None = None,
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
    """
    model = score_model(config.model, config.objective)
    own = histories.select(taking_part)
    weights = history_weights(own, config)
    scale = user_weights(own.lengths, exponent=config.user_weight_exponent)
    scale[own.lengths == 0] = 0.0
    part: State = {name: value[torch.from_numpy(taking_part)] for name, value in state.items()}
    update = np.zeros_like(table.learned)
    loss = 0.0
    if config.objective == "whole":
        rows = linear_rows(table, model)
        if solved is None:
            solution = solve_users(rows, own, weights, config)
            model.install(part, torch.from_numpy(solution))
        else:
            part |= {name: solved[name].clone() for name in part}
            solution = model.solution(part).numpy()
        learned = slice(table.fixed_dim, table.fixed_dim + table.dim)
        rank_one = rank_one_updates(rows, own, weights, solution, learned)
        update += rank_one.total(rows, own, scale, config.unobserved_weight)
        loss = rank_one.loss
    if config.objective == "bce" or model.residual_head:
        bce_loss = 0.0
        for block in blocks(own, weights, keys, config):
            people = torch.from_numpy(block.users)
            heads = {name: value[people] for name, value in part.items()}
            if config.objective == "bce":
                delta, block_loss = train_bce(model, table, heads, block, scale[block.users], config)
                bce_loss += block_loss
            else:
                delta = train_residual_head(model, table, heads, block, scale[block.users], config)
            update += delta.numpy()
            for name, value in heads.items():
                part[name][people] = value.detach()
        if config.objective == "bce":
            loss = bce_loss / max(int((own.lengths > 0).sum()), 1)
    for name, value in part.items():
        state[name][torch.from_numpy(taking_part)] = value
    return ShardTrained(update, loss)


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


def linear_rows(table: ItemTable, model: type[ScoreModel]) -> FloatArray:
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

    def scores(self, users: IntArray) -> FloatArray:
        """Scores of the whole catalogue, float32 [len(users), num_items]."""
        scores = np.empty((len(users), len(self.rows)), dtype=np.float32)
        chunk = max(1, _VALUES_PER_CHUNK // self.rows.numel())  # every person may get a copy of the rows
        for start in range(0, len(users), chunk):
            people = torch.from_numpy(users[start : start + chunk].astype(np.int64))
            heads = {name: value[people] for name, value in self.state.items()}
            with torch.no_grad():
                scores[start : start + chunk] = self.model.batched(heads, self.rows.expand(len(people), -1, -1)).numpy()
        return scores

    def score_items(self, users: IntArray, items: IntArray) -> FloatArray:
        """Scores of chosen items, [B, n] to float32 [B, n]."""
        people = torch.from_numpy(users.astype(np.int64))
        heads = {name: value[people] for name, value in self.state.items()}
        with torch.no_grad():
            return self.model.batched(heads, self.rows[torch.from_numpy(items.astype(np.int64))]).numpy()
