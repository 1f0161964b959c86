"""Local SGD of many virtual devices at once: independent heads, one set of large tensor operations.

People of similar history length are trained side by side: head parameters carry a leading dimension [B], so one
backward pass of the summed losses gives every device exactly its own gradient. A device's copy of the item
rows holds only the rows that its samples touch, found without sorting by a mark-and-count over the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from palate.models.arrays import Float32Array, Int64Array, UInt64Array
from palate.models.histories import Histories, offsets
from palate.models.learning.updates import RowValues
from palate.models.sampling import draw_items, mix, stream
from palate.models.scores.base import ScoreModel, State
from palate.models.table import ItemTable
from palate.models.training import LocalTraining

_SAMPLES_PER_STEP = 8_192  # keeps a step's activations within a core's cache


@dataclass(frozen=True)
class Block:
    """Padded histories of B people of similar length.

    Attributes
    ----------
    users
        Index of each person in the shard, int64 [B].
    items
        Positives, oldest first, padded with 0, int64 [B, n].
    weights
        Recency weights, 0 in the padding, float32 [B, n].
    lengths
        Positives per person, int64 [B].
    keys
        Keys of the round, uint64 [B].
    """

    users: Int64Array
    items: Int64Array
    weights: Float32Array
    lengths: Int64Array
    keys: UInt64Array


@dataclass(frozen=True)
class Step:
    """One SGD step of a block: the batch of every person, padded.

    Attributes
    ----------
    epoch
        0-based local epoch.
    samples
        A positive and its negatives, int64 [B, b, 1 + negatives].
    weights
        Weights of the positives, 0 in the padding, float32 [B, b].
    sizes
        Number of real samples per person, float32 [B].
    """

    epoch: int
    samples: Tensor
    weights: Tensor
    sizes: Tensor

    @property
    def per_person(self) -> Tensor:
        """Divisor of each person's loss, float32 [B]."""
        return self.sizes.clamp(min=1.0)


def blocks(histories: Histories, weights: Float32Array, keys: UInt64Array, config: LocalTraining) -> Iterator[Block]:
    """Cut a shard into blocks of people with similar history lengths; people without history are left out."""
    order = np.argsort(-histories.lengths, kind="stable")
    order = order[histories.lengths[order] > 0]
    start = 0
    while start < len(order):
        width = min(int(histories.lengths[order[start]]), config.batch_size) * (1 + config.sampled_negatives)
        size = max(1, _SAMPLES_PER_STEP // width)
        users = order[start : start + size]
        lengths = histories.lengths[users]
        inside = np.arange(lengths[0]) < lengths[:, None]  # [B, n]
        entries = histories.entries(users)
        items = np.zeros(inside.shape, dtype=np.int64)
        padded_weights = np.zeros(inside.shape, dtype=np.float32)
        items[inside] = histories.items[entries]
        padded_weights[inside] = weights[entries]
        yield Block(users, items, padded_weights, lengths, keys[users])
        start += len(users)


def steps(block: Block, config: LocalTraining, num_items: int) -> Iterator[Step]:
    """Batches of a block; a person's samples do not depend on the other people in the block."""
    width = block.items.shape[1]
    position = np.arange(width)
    inside = position < block.lengths[:, None]
    for epoch in range(config.epochs):
        rank = mix(stream(block.keys, 2 * epoch)[:, None], position)
        rank[~inside] = np.iinfo(np.uint64).max
        order = np.argsort(rank, axis=1, kind="stable")  # [B, n], padding last
        counters = order[:, :, None] * config.sampled_negatives + np.arange(config.sampled_negatives)
        negatives = draw_items(stream(block.keys, 2 * epoch + 1)[:, None, None], counters, num_items)
        positives = np.take_along_axis(block.items, order, axis=1)
        samples = torch.from_numpy(np.concatenate([positives[:, :, None], negatives], axis=2))
        weights = torch.from_numpy(np.take_along_axis(block.weights, order, axis=1))
        for start in range(0, width, config.batch_size):
            stop = min(start + config.batch_size, width)
            sizes = np.clip(block.lengths - start, 0, stop - start).astype(np.float32)
            yield Step(epoch, samples[:, start:stop], weights[:, start:stop], torch.from_numpy(sizes))


def train_bce(
    model: type[ScoreModel], table: ItemTable, state: State, block: Block, scale: Float32Array, config: LocalTraining
) -> tuple[RowValues, float]:
    """NCF's loss by SGD on heads and on local copies of the item rows.

    Parameters
    ----------
    state
        Heads of the block's people, [B, ...]; updated in place.
    scale
        Weight of each person's update, float32 [B].

    Returns
    -------
    The people's updates, and the sum of their mean losses.
    """
    plan = list(steps(block, config, table.num_items))
    slots, touched, owner = _local_rows(plan, len(block.users), table.num_items)
    fixed, learned = torch.from_numpy(table.fixed), torch.from_numpy(table.learned)
    local = learned.index_select(0, touched)  # [num_slots, dim]
    losses = torch.zeros(len(block.users))
    for step, slot in zip(plan, slots, strict=True):
        rows = _take(local, slot).requires_grad_()  # [B, b * (1 + negatives), dim]
        heads = {name: value.requires_grad_() for name, value in state.items()}
        scores = model.batched(heads, _with_fixed(fixed, step, rows)).view(step.samples.shape)
        target = torch.zeros_like(scores)
        target[:, :, 0] = 1.0
        each = functional.binary_cross_entropy_with_logits(scores, target, reduction="none").sum(dim=2)
        person = (step.weights * each).sum(dim=1)  # [B]
        gradients = torch.autograd.grad((person / step.per_person).sum(), [rows, *heads.values()])
        with torch.no_grad():
            # scaled first: index_add_ with alpha takes a path that is six times slower
            change = gradients[0].reshape(-1, table.dim).mul_(-config.item_learning_rate)
            local.index_add_(0, slot.reshape(-1), change)
            _descend(state, dict(zip(heads, gradients[1:], strict=True)), step, config)
            if step.epoch == config.epochs - 1:
                losses += person.detach()
    moved = (local - learned.index_select(0, touched)) * torch.from_numpy(scale)[owner, None]
    own = Histories.grouped(owner.numpy(), touched.int().numpy(), len(block.users))
    return RowValues(own, moved.numpy()), float((losses / torch.from_numpy(block.lengths)).sum())


def train_residual_head(
    model: type[ScoreModel], table: ItemTable, state: State, block: Block, scale: Float32Array, config: LocalTraining
) -> RowValues:
    """SGD of the non-linear parts on what the closed form leaves over.

    Squared loss on positives and sampled negatives, weighted to estimate the whole-data loss without bias. The head
    descends the weighted mean, so that a step is as long for a short history as for a long one; the item direction,
    collected in the last epoch, is that of the sum.

    Returns the people's part of their updates; `state` is updated in place.
    """
    learned_rows = torch.from_numpy(table.learned)
    scores = model.solution(state) @ torch.from_numpy(table.rows).T  # [B, num_items]; cheaper than gathering rows
    unobserved = config.unobserved_weight * table.num_items / (block.lengths * config.sampled_negatives)
    unobserved_weight = torch.from_numpy(unobserved.astype(np.float32))[:, None]  # [B, 1]
    items, values = list[Tensor](), list[Tensor]()
    trained = model.head_parameters(state)
    for step in steps(block, config, table.num_items):
        collect = step.epoch == config.epochs - 1
        flat = step.samples.flatten(1)
        linear = torch.gather(scores, 1, flat).view(step.samples.shape)
        learned = _take(learned_rows, flat).requires_grad_(collect)
        heads = {name: value.requires_grad_() for name, value in trained.items()}
        error = -linear - model.batched_nonlinear(heads, learned).view(step.samples.shape)
        positive = (1.0 + error[:, :, 0]).square() * step.weights  # [B, b]
        inside = torch.arange(step.samples.shape[1]) < step.sizes[:, None]
        negative = error[:, :, 1:].square().sum(dim=2) * inside * unobserved_weight
        total_weight = step.per_person * (1.0 + unobserved_weight[:, 0] * config.sampled_negatives)
        person = 0.5 * (positive + negative).sum(dim=1) / total_weight
        wanted = list(heads.values()) + ([learned] if collect else [])
        gradients = torch.autograd.grad(person.sum(), wanted)
        with torch.no_grad():
            if collect:
                factor = (total_weight * torch.from_numpy(scale))[:, None, None]
                items.append(flat)
                values.append(-factor * gradients[-1])
            _descend(trained, dict(zip(heads, gradients, strict=False)), step, config)
    state.update(trained)
    touched = torch.cat(items, dim=1)  # [B, n (1 + negatives)], padding included: its values are zeros
    rows = Histories(offsets(np.full(len(block.users), touched.shape[1])), touched.int().reshape(-1).numpy())
    return RowValues(rows, torch.cat(values, dim=1).reshape(-1, table.dim).numpy())


def _descend(state: State, gradients: State, step: Step, config: LocalTraining) -> None:
    """Take one SGD step with weight decay, for the people who have samples in it."""
    active = (step.sizes > 0).float() * config.sgd_learning_rate
    for name, gradient in gradients.items():
        value = state[name].detach()
        rate = active.view(-1, *[1] * (value.dim() - 1))
        state[name] = value - rate * (gradient + config.weight_decay * value)


def _with_fixed(fixed: Tensor, step: Step, rows: Tensor) -> Tensor:
    """Whole rows ``[fixed | learned]`` of a step, [B, b * (1 + negatives), row_dim]."""
    if fixed.shape[1] == 0:
        return rows
    return torch.cat([_take(fixed, step.samples.flatten(1)), rows], dim=2)


def _take(table: Tensor, index: Tensor) -> Tensor:
    """Rows of a table: index int64 [B, n] to [B, n, width]; a plain gather is faster than indexing by a matrix."""
    return table.index_select(0, index.reshape(-1)).view(*index.shape, table.shape[1])


def _local_rows(plan: list[Step], num_people: int, num_items: int) -> tuple[list[Tensor], Tensor, Tensor]:
    """Give every (person, item) pair that is touched a slot.

    Returns
    -------
    The slots of each step's samples, int64 [B, b * (1 + negatives)]; the item, and the person, of each slot.
    """
    marks = torch.zeros(num_people * num_items, dtype=torch.bool)
    offset = (torch.arange(num_people) * num_items)[:, None]
    flat = [step.samples.flatten(1) + offset for step in plan]
    for places in flat:
        marks[places] = True
    occupied = marks.nonzero().squeeze(1)
    slot_of = torch.cumsum(marks, dim=0, dtype=torch.int32) - 1
    return [slot_of[places].long() for places in flat], occupied % num_items, occupied // num_items
