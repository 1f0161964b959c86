"""One noised step over single interactions, for a batch of devices: samples, their gradients, and the heads' step.

A round is one full-batch step of DP-SGD (Abadi et al. 2016) on NCF's loss (He et al. 2017, eq. 7). A sample is an
interaction with its negatives. It depends on its own interaction, its negatives, the public table and the device's
noised head; never on how many interactions there are, or which. Clipping, integers and noise are not made here
(`palate.client.release`).

Every sample gets a copy of its device's head, and one backward pass of the summed losses yields each sample's own
gradient. Gradients are computed in float64: then integers do not depend on the order of sums, nor on how many
samples are worked on together, and a finite head and table cannot overflow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from palate.errors import ConfigError
from palate.models.arrays import BoolArray, Float64Array, Int32Array, Int64Array, IntegerArray, UInt64Array
from palate.models.sampling import draw_items, stream
from palate.models.scores.base import ScoreModel, Shape, State
from palate.models.scores.registry import initial_head
from palate.models.table import ItemTable
from palate.models.training import LocalTraining

_NEGATIVES = 1  # purpose of the stream


@dataclass(frozen=True, kw_only=True)
class SampleLayout:
    """The compact space of one sample: ``[head | slots x dim]``; a sample touches few rows of the item table.

    Attributes
    ----------
    head_size
        Trainable values of a head.
    slots
        Items of a sample: the positive and its negatives, 1 + k.
    dim
        Learned values of an item row.
    """

    head_size: int
    slots: int
    dim: int

    @property
    def size(self) -> int:
        """Values of a sample's gradient."""
        return self.head_size + self.slots * self.dim

    def head_part(self, samples: Int64Array) -> Int64Array:
        """Sum of the samples' heads, int64 [N, size] to [head_size]."""
        total: Int64Array = samples[:, : self.head_size].sum(axis=0)
        return total

    def item_sum(self, samples: Int64Array, items: IntegerArray, num_items: int) -> Int64Array:
        """Move the samples' slots into the item table and add them up, dimension by dimension as on the wire.

        As the items of a sample differ, except where a slot is zero, moving slots keeps a sample's norm.

        Parameters
        ----------
        samples
            Integers, int64 [N, size].
        items
            Item of each slot, [N, slots].
        num_items
            Rows of the item table.

        Returns
        -------
        int64 [dim * num_items]
        """
        slots, place = samples[:, self.head_size :].reshape(-1, self.dim), items.reshape(-1)
        # float64 adds these integers exactly: 2^36 samples of norm 2^16 fit below 2^53 with room to spare
        columns = [np.bincount(place, weights=column, minlength=num_items) for column in slots.T]
        return np.concatenate(columns).astype(np.int64)


def sample_layout(config: LocalTraining, *, fixed_dim: int, dim: int) -> SampleLayout:
    """Return the sizes of a sample under a plan.

    Raises
    ------
    ConfigError
        If the objective is not "bce", or cannot train the model: the closed form is no sum over interactions.
    """
    if config.objective != "bce":
        raise ConfigError(
            f"objective {config.objective!r} cannot protect single interactions",
            hint="use --objective bce, or unit user",
        )
    shape = Shape(fixed_dim=fixed_dim, dim=dim, hidden=config.hidden)
    head = initial_head(config.model, config.objective, shape)
    return SampleLayout(head_size=sum(value.size for value in head.values()), slots=1 + config.negatives, dim=dim)


def interaction_samples(keys: UInt64Array, positives: Int32Array, *, negatives: int, num_items: int) -> Int32Array:
    """Draw negatives for interactions, from the whole public catalogue: the positive, then these, int32 [N, 1 + k].

    Counters are items and not positions, so the negatives of an interaction do not change when another one is removed.

    Parameters
    ----------
    keys
        Sampling key of each interaction's device, uint64 [N] or [1].
    positives
        Items of the interactions, int32 [N].
    negatives
        k, per interaction.
    num_items
        Size of the catalogue.
    """
    counters = positives.astype(np.int64)[:, None] * negatives + np.arange(negatives)  # [N, k]
    drawn = draw_items(stream(keys, _NEGATIVES)[:, None], counters, num_items)
    return np.concatenate([positives[:, None].astype(np.int32), drawn], axis=1)


def first_slots(samples: Int32Array) -> BoolArray:
    """Say which slots of samples count, bool [N, 1 + k]: an item that its sample already has does not."""
    order = np.argsort(samples, axis=1, kind="stable")  # of equal items the earliest slot comes first
    ordered = np.take_along_axis(samples, order, axis=1)
    first = np.ones(samples.shape, dtype=np.bool_)
    np.put_along_axis(first, order[:, 1:], ordered[:, 1:] != ordered[:, :-1], axis=1)
    return first


def sample_gradients(model: type[ScoreModel], table: ItemTable, samples: Int32Array, heads: State) -> Float64Array:
    """Each sample's own gradient, float64 [N, size] in the order of `SampleLayout`; one head a sample, [N, ...]."""
    fixed = torch.from_numpy(table.fixed[samples]).double()  # [N, 1 + k, fixed_dim]
    learned = torch.from_numpy(table.learned[samples]).double().requires_grad_()  # [N, 1 + k, dim]
    wide = {name: value.double().requires_grad_() for name, value in heads.items()}
    scores = model.batched(wide, torch.cat([fixed, learned], dim=2))
    target = torch.zeros_like(scores)
    target[:, 0] = 1.0
    each = functional.binary_cross_entropy_with_logits(scores, target, reduction="none")
    gradients = torch.autograd.grad((each * torch.from_numpy(first_slots(samples))).sum(), [*wide.values(), learned])
    return np.asarray(torch.cat([gradient.flatten(1) for gradient in gradients], dim=1).numpy())


def stepped(heads: State, descent: Float64Array, config: LocalTraining) -> State:
    """Heads after one step along float64 [n, head_size], in the order of the state; heads are [n, ...]."""
    moved: State = {}
    start = 0
    for name, value in heads.items():
        width = math.prod(value.shape[1:])
        part = torch.from_numpy(descent[:, start : start + width]).reshape(value.shape)
        wide = value.double()
        moved[name] = (wide - config.learning_rate * (config.weight_decay * wide - part)).float()
        start += width
    return moved
