"""Interaction-level rounds of many virtual devices at once: the fast twin of `palate.client.interaction_trainer`.

Every sample is given a copy of its device's head, and one backward pass of the summed losses yields each sample's own
gradient. Samples are quantised device by device with the devices' own secrets, so the sum of integers is theirs to the
last one, and heads take the noise of their own streams. What is spared is the noise on the items: the sum of n
shares is one draw of n times the variance (closure under summation).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional

from palate.client.interaction_trainer import Samples, interaction_samples, require_finite_heads, sample_layout
from palate.models.arrays import Float32Array, Int64Array, UInt64Array
from palate.models.histories import Histories
from palate.models.scores.base import ScoreModel, State
from palate.models.scores.registry import score_model
from palate.models.table import ItemTable
from palate.models.training import LocalTraining
from palate.privacy.errors import PrivacyError
from palate.privacy.integer.csprng import Purpose, Words, WordStream
from palate.privacy.integer.ring import Ring, RingArray
from palate.privacy.integer.skellam import MAX_VARIANCE, SkellamSampler
from palate.privacy.mechanisms.interaction import quantise_samples, require_interactions, sum_items
from palate.privacy.mechanisms.terms import ReleaseTerms

_VALUES_PER_CHUNK = 1 << 19  # gradients of so many values go through the backward pass together
_OPACUS_EPSILON = 1e-6  # Opacus clips by C / (norm + 1e-6)


@dataclass(frozen=True)
class InteractionSum:
    """What a shard's devices have in common after a round, and what each keeps.

    Attributes
    ----------
    integers
        Sum of the devices' quantised item parts, without noise on the items, int64 [dim * num_items].
    state
        The devices' noised heads, [n, ...].
    """

    integers: Int64Array = field(repr=False)
    state: State = field(repr=False)


def recent(histories: Histories, interactions_per_round: int) -> Histories:
    """Return the B most recent interactions of everybody, or fewer where there are fewer."""
    kept = np.minimum(histories.lengths, interactions_per_round)
    indptr = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
    starts = np.repeat(histories.indptr[1:] - kept - indptr[:-1], kept)
    return Histories(indptr, histories.items[starts + np.arange(indptr[-1])])


def interaction_sum(
    table: ItemTable,
    histories: Histories,
    state: State,
    sampling_keys: UInt64Array,
    secrets: Sequence[bytes],
    config: LocalTraining,
    terms: ReleaseTerms,
    *,
    interactions_per_round: int,
) -> InteractionSum:
    """Run one round for devices that all take part; see `palate.client.interaction_trainer.train_interactions`.

    Parameters
    ----------
    histories
        Histories of the n devices.
    state
        Their heads, [n, ...]; not changed.
    sampling_keys
        Their keys of the round, uint64 [n].
    secrets
        Their secrets of the round, 32 bytes each.

    Raises
    ------
    ConfigError
        If the objective is not "bce".
    PrivacyError
        If a head or a gradient is not finite, a number is out of range, or a key is missing.
    """
    require_interactions(interactions_per_round)
    if not histories.num_users == len(sampling_keys) == len(secrets):
        raise PrivacyError(
            f"{histories.num_users} devices with {len(sampling_keys)} keys and {len(secrets)} secrets",
            hint="one of each a device",
        )
    require_finite_heads(state)
    layout = sample_layout(config, fixed_dim=table.fixed_dim, dim=table.dim)
    quantiser = layout.quantiser(terms)
    model = score_model(config.model, config.objective)
    window = recent(histories, interactions_per_round)
    wide = _WideTable(torch.from_numpy(table.fixed).double(), torch.from_numpy(table.learned).double())
    total = np.zeros(table.dim * table.num_items, dtype=np.int64)
    heads = np.zeros((window.num_users, layout.head_size), dtype=np.int64)
    for start, stop in _chunks(window, max(1, _VALUES_PER_CHUNK // layout.size)):
        own = window.select(np.arange(start, stop))
        samples = interaction_samples(
            sampling_keys[start:stop][own.owners], own.items, negatives=config.negatives, num_items=table.num_items
        )
        owners = torch.from_numpy(own.owners.astype(np.int64)) + start
        clipped = _clipped_descent(model, wide, samples, {n: v[owners].double() for n, v in state.items()}, terms)
        integers = np.empty(clipped.shape, dtype=np.int64)
        for device in range(start, stop):
            rows = slice(own.indptr[device - start], own.indptr[device - start + 1])
            integers[rows] = quantise_samples(clipped[rows], quantiser, secrets[device])
            heads[device] = layout.head_part(integers[rows])
        total += sum_items(layout.item_part(integers), samples.items, table.num_items)
    for device, secret in enumerate(secrets):
        noise = WordStream(secret, Purpose.NOISE)
        heads[device] += SkellamSampler(terms.share_variance).draw(layout.head_size, noise)
    descent = torch.from_numpy(quantiser.decode(heads)).double() / interactions_per_round  # [n, head_size]
    return InteractionSum(total, _stepped(state, descent, config))


def popularity_interaction_sum(
    histories: Histories, num_items: int, terms: ReleaseTerms, *, interactions_per_round: int
) -> Int64Array:
    """Sum of the devices' popularity parts without noise, int64 [num_items]."""
    require_interactions(interactions_per_round)
    window = recent(histories, interactions_per_round)
    pairs = np.unique(window.owners.astype(np.int64) * num_items + window.items)  # a repeated item counts once
    counts: Int64Array = np.bincount(pairs % num_items, minlength=num_items) * terms.sensitivity
    return counts


def release_interactions(integers: Int64Array, num_devices: int, terms: ReleaseTerms, noise: Words) -> RingArray:
    """Add the noise of all devices to the sum of their integers, and reduce.

    Parameters
    ----------
    integers
        What `interaction_sum` or `popularity_interaction_sum` gave, int64 [d].
    num_devices
        How many devices are in the sum; with none nothing is added.
    terms
        The round's terms.
    noise
        Stream of the round's noise.

    Returns
    -------
    Ring elements [d], distributed as the sum of the devices' messages.
    """
    noised = integers.copy()
    together = max(1, MAX_VARIANCE // terms.share_variance)  # devices whose noise one sampler can draw
    for start in range(0, num_devices, together):
        count = min(together, num_devices - start)
        noised += SkellamSampler(count * terms.share_variance).draw(len(integers), noise)
    return Ring(bits=terms.ring_bits).reduce(noised)


@dataclass(frozen=True, eq=False)
class _WideTable:
    """The item table in float64: [num_items, fixed_dim] and [num_items, dim]."""

    fixed: torch.Tensor
    learned: torch.Tensor


def _clipped_descent(
    model: type[ScoreModel], table: _WideTable, samples: Samples, heads: State, terms: ReleaseTerms
) -> Float32Array:
    """Minus each sample's gradient, clipped as Opacus does, float32 [N, layout.size]; heads are [N, ...]."""
    index = torch.from_numpy(samples.items.astype(np.int64))
    learned = table.learned[index].requires_grad_()  # [N, 1 + k, dim]
    heads = {name: value.requires_grad_() for name, value in heads.items()}
    scores = model.batched(heads, torch.cat([table.fixed[index], learned], dim=2))
    target = torch.zeros_like(scores)
    target[:, 0] = 1.0
    each = functional.binary_cross_entropy_with_logits(scores, target, reduction="none")
    gradients = torch.autograd.grad((each * torch.from_numpy(samples.real)).sum(), [*heads.values(), learned])
    joint = torch.cat([gradient.flatten(1) for gradient in gradients], dim=1)  # [N, layout.size]
    norms = torch.linalg.vector_norm(joint, dim=1)
    factors = (terms.clip_norm / (norms + _OPACUS_EPSILON)).clamp(max=1.0)
    clipped: Float32Array = (-factors[:, None] * joint).float().numpy()
    return clipped


def _stepped(state: State, descent: torch.Tensor, config: LocalTraining) -> State:
    """Heads after one step: descent is float64 [n, head_size], in the order of the state."""
    stepped: State = {}
    start = 0
    for name, value in state.items():
        width = math.prod(value.shape[1:])
        part = descent[:, start : start + width].view(value.shape)
        wide = value.double()
        stepped[name] = (wide - config.learning_rate * (config.weight_decay * wide - part)).float()
        start += width
    return stepped


def _chunks(histories: Histories, samples: int) -> Iterator[tuple[int, int]]:
    """Cut devices into runs of about so many interactions, or of one device."""
    start = 0
    while start < histories.num_users:
        limit = histories.indptr[start] + samples
        stop = max(start + 1, int(np.searchsorted(histories.indptr, limit, side="right")) - 1)
        yield start, stop
        start = stop
