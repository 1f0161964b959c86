"""Local training on one device: the readable twin of the vectorised federation.

A device holds one history and one head. A round gives it the item table; it fits its head and answers with one
dense matrix, the direction in which its loss would move the learned columns. Equality with the vectorised path
(`palate.models.learning.kernel`) is a standing test for every score model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from palate.models.arrays import Float32Array, Float64Array, Int32Array
from palate.models.learning import autoencoding, ridge
from palate.models.learning.weights import pooling_weights, user_weights
from palate.models.sampling import epoch_samples
from palate.models.scores.base import Shape, State
from palate.models.scores.modules import Head, build
from palate.models.table import ItemTable
from palate.models.training import LocalTraining


class LocalModel(nn.Module):
    """One device's recommender: its copy of the item table, and its head.

    Every trainable parameter sits in a plain `torch.nn` layer, as Opacus needs it.
    """

    def __init__(self, table: ItemTable, head: Head) -> None:
        super().__init__()
        self.item = nn.Embedding(table.num_items, table.dim, _weight=torch.from_numpy(table.learned.copy()))
        self.head = head
        self.register_buffer("fixed", torch.from_numpy(table.fixed))

    def rows(self, items: Tensor) -> Tensor:
        """Item rows ``[fixed | learned]``: int64 [...] to float32 [..., row_dim]."""
        fixed: Tensor = self.get_buffer("fixed")
        return torch.cat([fixed[items], self.item(items)], dim=-1)

    def forward(self, items: Tensor) -> Tensor:
        """Scores of items: int64 [...] to float32 [...]."""
        scores: Tensor = self.head(self.rows(items))
        return scores


@dataclass(frozen=True)
class Trained:
    """What local training leaves behind: an update that may leave (through a mechanism), and state that may not.

    Nothing of it is ever printed.

    Attributes
    ----------
    update
        Direction for the learned columns, float32 [num_items, dim].
    state
        The head's parameters; stays on the device.
    loss
        Mean training loss; stays on the device.
    """

    update: Float32Array = field(repr=False)
    state: State = field(repr=False)
    loss: float = field(repr=False)


def popularity_update(items: Int32Array, num_items: int) -> Float32Array:
    """Return a device's part of the popularity sum: ``1/sqrt(n)`` on its items, float32 [num_items], L2 norm 1."""
    update = np.zeros(num_items, dtype=np.float32)
    update[items] = 1.0 / np.sqrt(max(len(items), 1))
    return update


def train(
    table: ItemTable, items: Int32Array, state: State | None, config: LocalTraining, *, key: np.uint64
) -> Trained:
    """Run one round of local training.

    Parameters
    ----------
    table
        The round's item table.
    items
        The device's history without repeats, oldest first, int32 [n].
    state
        The head as the last round left it, or None for the public starting point.
    config
        Public parameters of local training.
    key
        The device's fresh 64-bit key, which draws its negatives and its order.
    """
    shape = Shape(fixed_dim=table.fixed_dim, dim=table.dim, hidden=config.hidden)
    head = build(config.model, config.objective, shape)
    if state is not None:
        head.load_state_dict(state)
    if len(items) == 0:
        return Trained(np.zeros_like(table.learned), head.state_dict(), 0.0)
    step = _train_whole if config.objective == "whole" else _train_bce
    update, loss = step(table, head, items, config, key)
    scale = user_weights(np.array([len(items)]), exponent=config.user_weight_exponent)[0]
    if len(items) < config.least_interactions:
        scale = np.float32(0.0)
    if config.own_items_only:
        update = on_own_items(update, items)
    return Trained(update * scale, {name: value.detach() for name, value in head.state_dict().items()}, loss)


def on_own_items(update: Float32Array, items: Int32Array) -> Float32Array:
    """Return an update without what it has on items that are not the person's own, float32 [num_items, dim].

    What is left out would push other items: the dense part of the closed form, and the rows of sampled negatives.
    """
    own = np.zeros_like(update)
    own[items] = update[items]
    return own


def score_catalogue(table: ItemTable, items: Int32Array, state: State | None, config: LocalTraining) -> Float32Array:
    """Score all items for one person, float32 [num_items]; the linear part is fitted to the history and table."""
    shape = Shape(fixed_dim=table.fixed_dim, dim=table.dim, hidden=config.hidden)
    head = build(config.model, config.objective, shape)
    if state is not None:
        head.load_state_dict(state)
    if config.objective == "whole":
        rows = linear_rows(table, head)
        fit_linear_part(head, rows, ridge.gram(rows), items, config)
    with torch.no_grad():
        scores: Float32Array = head(torch.from_numpy(table.rows)).numpy()
    return scores


def fit_linear_part(
    head: Head, rows: Float32Array, table_gram: Float64Array, items: Int32Array, config: LocalTraining
) -> Float32Array:
    """Fit the head's linear part to `linear_rows` in closed form, write it into the head, return it, float32 [k]."""
    solution = ridge.solve_user(
        rows,
        items,
        interaction_weights(len(items), config),
        table_gram,
        unobserved_weight=config.unobserved_weight,
        regularisation=config.regularisation,
    )
    state = {name: value[None] for name, value in head.state_dict().items()}
    head.model.install(state, torch.from_numpy(solution)[None])
    head.load_state_dict({name: value[0] for name, value in state.items()})
    return solution


def linear_rows(table: ItemTable, head: Head) -> Float32Array:
    """Rows that the closed form sees: the table's, and a constant column where the head has an intercept."""
    if not head.model.intercept:
        return table.rows
    return np.concatenate([table.rows, np.ones((table.num_items, 1), dtype=np.float32)], axis=1)


def interaction_weights(count: int, config: LocalTraining) -> Float32Array:
    """Recency weights of a history of `count` items, oldest first, float32 [count]."""
    ages = np.arange(count)[::-1]
    return pooling_weights(ages, config)


def _train_whole(
    table: ItemTable, head: Head, items: Int32Array, config: LocalTraining, key: np.uint64
) -> tuple[Float32Array, float]:
    rows, weights = linear_rows(table, head), interaction_weights(len(items), config)
    table_gram = ridge.gram(rows)  # the one pass over the catalogue that costs
    solution = fit_linear_part(head, rows, table_gram, items, config)
    errors = ridge.residuals(rows, items, weights, solution, unobserved_weight=config.unobserved_weight)
    learned = slice(table.fixed_dim, table.fixed_dim + table.dim)
    update = np.outer(errors, solution[learned])  # [num_items, dim]
    if config.leave_one_out or head.model.through_encoder:
        left_out = autoencoding.through_encoder if head.model.through_encoder else ridge.leave_one_out
        update[items] = left_out(
            rows,
            items,
            weights,
            table_gram,
            solution,
            learned,
            unobserved_weight=config.unobserved_weight,
            regularisation=config.regularisation,
        )
    loss = float(np.mean((1.0 - rows[items] @ solution) ** 2))
    if head.model.residual_head:
        update += _train_residual_head(table, head, items, config, key)
    return update.astype(np.float32), loss


def _train_residual_head(
    table: ItemTable, head: Head, items: Int32Array, config: LocalTraining, key: np.uint64
) -> Float32Array:
    """SGD of the non-linear part on what the closed form leaves over.

    Squared loss on positives and sampled negatives, weighted to estimate the whole-data loss without bias. The head
    descends the weighted mean, so that a step is as long for a short history as for a long one; the item direction,
    collected in the last epoch, is that of the sum.
    """
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
        loss = 0.5 * (weight * error.square()).sum() / total_weight
        loss.backward()
        if epoch == config.epochs - 1 and model.item.weight.grad is not None:
            update -= total_weight * model.item.weight.grad
        optimiser.step()
    return update.detach().numpy()


def _train_bce(
    table: ItemTable, head: Head, items: Int32Array, config: LocalTraining, key: np.uint64
) -> tuple[Float32Array, float]:
    """NCF's loss (He et al. 2017, eq. 7) by SGD on the head and on a local copy of the item rows."""
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
        loss = (weights * each).sum() / len(samples)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if epoch == config.epochs - 1:
            total += float((weights * each).sum().detach())
    update = model.item.weight.detach().numpy() - table.learned
    return update, total / len(items)


def _batches(
    items: Int32Array, config: LocalTraining, num_items: int, key: np.uint64
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield epoch, samples int64 [batch, 1 + negatives] and weights of the positives float32 [batch]."""
    weights = interaction_weights(len(items), config)
    for epoch in range(config.epochs):
        order, samples = epoch_samples(key, epoch, items, negatives=config.sampled_negatives, num_items=num_items)
        for start in range(0, len(items), config.batch_size):
            batch = slice(start, start + config.batch_size)
            yield epoch, torch.from_numpy(samples[batch].astype(np.int64)), torch.from_numpy(weights[order[batch]])
