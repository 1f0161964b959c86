"""Local training on one device, said as plainly as possible (Hu, Koren & Volinsky 2008, eq. 4; He et al. 2017, eq. 7).

Everything is computed for one person, in the order of the equations, with autograd wherever a gradient is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from oracle.modules import Head, build
from palate.models.arrays import Float32Array, Float64Array, Int32Array, Int64Array
from palate.models.sampling import draw_items, mix, stream
from palate.models.scores.base import Shape, State
from palate.models.table import ItemTable
from palate.models.training import LocalTraining


class LocalModel(nn.Module):
    """One device's recommender: its copy of the item table, and its head."""

    def __init__(self, table: ItemTable, head: Head) -> None:
        super().__init__()
        self.item = nn.Embedding(table.num_items, table.dim, _weight=torch.from_numpy(table.learned.copy()))
        self.head = head
        self.register_buffer("fixed", torch.from_numpy(table.fixed))

    def rows(self, items: Tensor) -> Tensor:
        """Item rows ``[fixed | learned]``: int64 [...] to [..., row_dim]."""
        return torch.cat([self.get_buffer("fixed")[items], self.item(items)], dim=-1)

    def forward(self, items: Tensor) -> Tensor:
        """Scores of items: int64 [...] to [...]."""
        return self.head(self.rows(items))


@dataclass(frozen=True)
class Trained:
    """Update of the learned columns, float32 [num_items, dim]; the head; the mean loss."""

    update: Float32Array
    state: State
    loss: float


def head_of(table: ItemTable, config: LocalTraining, state: State | None = None) -> Head:
    """Build a head, at the public starting point or as the last round left it."""
    shape = Shape(fixed_dim=table.fixed_dim, dim=table.dim, hidden=config.hidden)
    head = build(config.model, config.objective, shape)
    if state is not None:
        head.load_state_dict(state)
    return head


def popularity_update(items: Int32Array, num_items: int) -> Float32Array:
    """A device's part of the popularity sum: ``1/sqrt(n)`` on its items, float32 [num_items]."""
    update = np.zeros(num_items, dtype=np.float32)
    update[items] = 1.0 / np.sqrt(max(len(items), 1))
    return update


def train(
    table: ItemTable, items: Int32Array, state: State | None, config: LocalTraining, *, key: np.uint64
) -> Trained:
    """Run one round of local training for a history without repeats, oldest first, int32 [n]."""
    head = head_of(table, config, state)
    if len(items) == 0:
        return Trained(np.zeros_like(table.learned), head.state_dict(), 0.0)
    update, loss = (_whole if config.objective == "whole" else _bce)(table, head, items, config, key)
    if config.own_items_only:
        update[np.setdiff1d(np.arange(table.num_items), items)] = 0.0
    scale = float(len(items)) ** -config.user_weight_exponent if len(items) >= config.least_interactions else 0.0
    heads = {name: value.detach() for name, value in head.state_dict().items()}
    return Trained((update * scale).astype(np.float32), heads, loss)


def score_catalogue(table: ItemTable, items: Int32Array, state: State | None, config: LocalTraining) -> Float32Array:
    """Score all items for one person, float32 [num_items]; the linear part is fitted to the history and table."""
    head = head_of(table, config, state)
    if config.objective == "whole":
        _fit(head, linear_rows(table, head), items, config)
    with torch.no_grad():
        return head(torch.from_numpy(table.rows)).numpy()


def interaction_weights(count: int, config: LocalTraining) -> Float64Array:
    """Weights of a history, oldest first: halved every `recency_half_life` newer interactions, or 1 / (1 + age)."""
    ages = np.arange(count)[::-1]
    if config.forgetting == "hyperbolic" and np.isfinite(config.recency_half_life):
        return 1.0 / (1.0 + ages)
    return config.recency_floor + (1.0 - config.recency_floor) * 0.5 ** (ages / config.recency_half_life)


def linear_rows(table: ItemTable, head: Head) -> Float64Array:
    """Rows that the closed form sees: the table's, and a constant column where the head has an intercept."""
    constant = np.ones((table.num_items, int(head.model.intercept)))
    return np.concatenate([table.rows.astype(np.float64), constant], axis=1)


def solve_user(
    rows: Float64Array, items: Int32Array, weights: Float64Array, *, unobserved_weight: float, regularisation: float
) -> Float64Array:
    """The vector that minimises the whole-data loss, ``(X_S' W X_S + a0 X'X + reg I)^-1 X_S' w``, [k]."""
    rows = rows.astype(np.float64)
    own, ridge = rows[items], regularisation * np.eye(rows.shape[1])
    normal = own.T @ np.diag(weights) @ own + unobserved_weight * rows.T @ rows + ridge
    return np.linalg.solve(normal, own.T @ weights)


def residuals(
    rows: Float64Array, items: Int32Array, weights: Float64Array, user: Float64Array, *, unobserved_weight: float
) -> Float64Array:
    """``e_i = w_i (1 - s_i) [i in S] - a0 s_i`` over the whole catalogue, [num_items]."""
    scores = rows @ user
    errors = -unobserved_weight * scores
    errors[items] += weights * (1.0 - scores[items])
    return errors


def left_out_updates(rows: Float64Array, items: Int32Array, config: LocalTraining, learned: slice) -> Float64Array:
    """What each own item's row gets from the vector fitted without its interaction: n fits, no formula; [n, dim]."""
    weights = interaction_weights(len(items), config)
    updates = []
    for place, item in enumerate(items):
        others = weights.copy()
        others[place] = 0.0  # it stays in the catalogue, unobserved
        user = _solved(rows, items, others, config)
        score = rows[item] @ user
        updates.append((weights[place] * (1.0 - score) - config.unobserved_weight * score) * user[learned])
    return np.array(updates)


def through_encoder(rows: Float64Array, items: Int32Array, config: LocalTraining, learned: slice) -> Float64Array:
    """Minus half the gradient of the ridge autoencoder's loss for the own rows, by autograd; [n, dim].

    The loss is in `palate.models.learning.autoencoding`. The catalogue's part of N is a public constant.
    """
    weights = torch.from_numpy(interaction_weights(len(items), config))
    table, a0 = torch.from_numpy(rows), config.unobserved_weight
    constant = a0 * table.T @ table + config.regularisation * torch.eye(rows.shape[1], dtype=torch.float64)
    own = table[torch.from_numpy(items.astype(np.int64))].clone().requires_grad_()

    def code(kept: Tensor) -> Tensor:
        return torch.linalg.solve(constant + own.T @ (kept[:, None] * own), own.T @ kept)

    loss = torch.zeros((), dtype=torch.float64)
    for place in range(len(items)):
        score = code(torch.where(torch.arange(len(items)) == place, 0.0, weights)) @ own[place]
        loss = loss + weights[place] * (1.0 - score) ** 2 + a0 * score**2
    others = np.setdiff1d(np.arange(len(rows)), items)
    loss = loss + a0 * ((table[torch.from_numpy(others)] @ code(weights)) ** 2).sum()
    loss.backward()
    return -0.5 * own.grad.numpy()[:, learned]


def _solved(rows: Float64Array, items: Int32Array, weights: Float64Array, config: LocalTraining) -> Float64Array:
    terms = {"unobserved_weight": config.unobserved_weight, "regularisation": config.regularisation}
    return solve_user(rows, items, weights, **terms)


def _fit(head: Head, rows: Float64Array, items: Int32Array, config: LocalTraining) -> Float64Array:
    solution = _solved(rows, items, interaction_weights(len(items), config), config)
    state = {name: value[None] for name, value in head.state_dict().items()}
    head.model.install(state, torch.from_numpy(solution.astype(np.float32))[None])
    head.load_state_dict({name: value[0] for name, value in state.items()})
    return solution


def _whole(
    table: ItemTable, head: Head, items: Int32Array, config: LocalTraining, key: np.uint64
) -> tuple[Float64Array, float]:
    rows, weights = linear_rows(table, head), interaction_weights(len(items), config)
    solution = _fit(head, rows, items, config)
    learned = slice(table.fixed_dim, table.fixed_dim + table.dim)
    update = np.outer(
        residuals(rows, items, weights, solution, unobserved_weight=config.unobserved_weight), solution[learned]
    )  # [num_items, dim]
    if head.model.through_encoder:
        update[items] = through_encoder(rows, items, config, learned)
    elif config.leave_one_out:
        update[items] = left_out_updates(rows, items, config, learned)
    loss = float(np.mean((1.0 - rows[items] @ solution) ** 2))
    if head.model.residual_head:
        update += _residual_head(table, head, items, config, key)
    return update, loss


def _residual_head(
    table: ItemTable, head: Head, items: Int32Array, config: LocalTraining, key: np.uint64
) -> Float32Array:
    """SGD of the non-linear part on what the closed form leaves over; the item direction is that of the last epoch."""
    names = set(head.model.head_parameters(head.state_dict()))
    parameters = [value for name, value in head.named_parameters() if name in names]
    optimiser = torch.optim.SGD(parameters, lr=config.sgd_learning_rate, weight_decay=config.weight_decay)
    model = LocalModel(table, head)
    unobserved = config.unobserved_weight * table.num_items / (len(items) * config.sampled_negatives)
    update = torch.zeros_like(model.item.weight)
    for epoch, samples, weights in _batches(items, config, table.num_items, key):
        optimiser.zero_grad()
        model.item.weight.grad = None
        rows = model.rows(samples)
        linear_scores = (head(rows) - head.nonlinear(rows)).detach()
        error = -linear_scores - head.nonlinear(rows)  # [batch, 1 + negatives]; the target of a negative is 0
        error[:, 0] = error[:, 0] + 1.0
        weight = torch.full_like(error, unobserved)
        weight[:, 0] = weights
        total_weight = len(samples) * (1.0 + unobserved * config.sampled_negatives)
        (0.5 * (weight * error.square()).sum() / total_weight).backward()
        if epoch == config.epochs - 1:
            update -= total_weight * model.item.weight.grad
        optimiser.step()
    return update.detach().numpy()


def _bce(
    table: ItemTable, head: Head, items: Int32Array, config: LocalTraining, key: np.uint64
) -> tuple[Float32Array, float]:
    """NCF's loss by SGD on the head and on a local copy of the item rows."""
    model = LocalModel(table, head)
    optimiser = torch.optim.SGD(
        [
            {"params": list(head.parameters()), "lr": config.sgd_learning_rate, "weight_decay": config.weight_decay},
            {"params": [model.item.weight], "lr": config.item_learning_rate},
        ]
    )
    total = 0.0
    for epoch, samples, weights in _batches(items, config, table.num_items, key):
        optimiser.zero_grad()
        scores = model(samples)  # [batch, 1 + negatives]
        target = torch.zeros_like(scores)
        target[:, 0] = 1.0
        each = functional.binary_cross_entropy_with_logits(scores, target, reduction="none").sum(dim=1)
        ((weights * each).sum() / len(samples)).backward()
        optimiser.step()
        if epoch == config.epochs - 1:
            total += float((weights * each).sum().detach())
    return model.item.weight.detach().numpy() - table.learned, total / len(items)


def _batches(
    items: Int32Array, config: LocalTraining, num_items: int, key: np.uint64
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield epoch, samples int64 [batch, 1 + negatives] and weights of the positives float32 [batch]."""
    weights: Float32Array = interaction_weights(len(items), config).astype(np.float32)
    for epoch in range(config.epochs):
        order, samples = epoch_samples(key, epoch, items, negatives=config.sampled_negatives, num_items=num_items)
        for start in range(0, len(items), config.batch_size):
            batch = slice(start, start + config.batch_size)
            yield epoch, torch.from_numpy(samples[batch].astype(np.int64)), torch.from_numpy(weights[order[batch]])


def epoch_samples(
    key: np.uint64, epoch: int, items: Int32Array, *, negatives: int, num_items: int
) -> tuple[Int64Array, Int32Array]:
    """One device's samples of one epoch, in the order of training.

    Parameters
    ----------
    key
        The device's key of this round.
    epoch
        0-based local epoch.
    items
        The device's positives, oldest first, int32 [n].
    negatives
        Negatives per positive, drawn from the whole catalogue.
    num_items
        Size of the catalogue.

    Returns
    -------
    positions, int64 [n]
        Which interaction each sample is about.
    samples, int32 [n, 1 + negatives]
        The positive, then its negatives.
    """
    position = np.arange(len(items))
    keys = np.full(1, key, dtype=np.uint64)
    order = np.argsort(mix(stream(keys, 2 * epoch), position), kind="stable")
    counters = order[:, None] * negatives + np.arange(negatives)  # [n, negatives]
    drawn = draw_items(stream(keys, 2 * epoch + 1), counters, num_items)
    return order, np.concatenate([items[order][:, None], drawn], axis=1)
