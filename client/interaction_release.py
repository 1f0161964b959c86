"""What leaves devices at units interaction and both: the integers of single interactions, for one device or thousands.

Samples are quantised device by device under the devices' own secrets, so the sum of integers is theirs to the last
one, and heads take the noise of their own streams. A shard saves the noise on the items: the sum of n shares
is one draw of n times the variance (closure under summation). A device clips and draws its noise inside Opacus
(`palate.client.opacus_release`); a test holds both to the same integers.

What recommends is another model: a personal copy without noise, from which nothing is ever sent
(`palate.models.scores.registry.serving_training`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from palate.models.arrays import Float32Array, Float64Array, Int64Array, UInt64Array
from palate.models.histories import Histories
from palate.models.learning.interactions import (
    SampleLayout,
    interaction_samples,
    sample_gradients,
    sample_layout,
    stepped,
)
from palate.models.learning.kernel import select_heads
from palate.models.scores.base import State
from palate.models.scores.registry import score_model
from palate.models.table import ItemTable
from palate.models.training import LocalTraining
from palate.privacy.budget import require_interactions
from palate.privacy.errors import PrivacyError
from palate.privacy.integer.csprng import Purpose, WordStream
from palate.privacy.integer.quantise import Quantiser, quantise_samples
from palate.privacy.integer.skellam import SkellamSampler
from palate.privacy.mechanisms.terms import ReleaseTerms

_VALUES_PER_CHUNK = 1 << 19  # gradients of so many values go through the backward pass together
_OPACUS_EPSILON = 1e-6  # Opacus clips by C / (norm + 1e-6)


@dataclass(frozen=True)
class InteractionSum:
    """What devices have in common after a round, and what each keeps; nothing of it is ever printed.

    Attributes
    ----------
    integers
        Sum of the devices' quantised item parts, int64 [dim * num_items]; a single device has added its noise.
    heads
        The devices' noised heads, [n, ...].
    """

    integers: Int64Array = field(repr=False)
    heads: State = field(repr=False)


def interaction_sum(
    table: ItemTable,
    histories: Histories,
    heads: State,
    keys: UInt64Array,
    secrets: Sequence[bytes],
    config: LocalTraining,
    terms: ReleaseTerms,
    *,
    interactions_per_round: int,
) -> InteractionSum:
    """Run one round for devices that all take part.

    Everything that is trained is noised, the heads on the devices included: so whatever leaves in later rounds is a
    function of what was noised before, and rounds compose. Of the configuration only the model, its width, `negatives`,
    `learning_rate` and `weight_decay` are used: weights by age or by length would make a sample depend on others.

    Parameters
    ----------
    table
        The round's item table.
    histories
        Histories of the n devices.
    heads
        Their heads, [n, ...]; not changed.
    keys
        Their sampling keys of the round, uint64 [n].
    secrets
        Their secrets of the round, 32 bytes each, for roundings and the heads' noise.
    config
        Public parameters of local training, with objective "bce".
    terms
        Clip norm C and sensitivity S of one interaction, and a device's share of noise.
    interactions_per_round
        B, most of the most recent interactions that take part; also the divisor of the heads' step.

    Raises
    ------
    ConfigError
        If the objective is not "bce".
    PrivacyError
        If a head or a gradient is not finite, a number is out of range, or a key is missing.
    """
    require_interactions(interactions_per_round)
    if not histories.num_users == len(keys) == len(secrets):
        raise PrivacyError(
            f"{histories.num_users} devices with {len(keys)} keys and {len(secrets)} secrets",
            hint="one of each a device",
        )
    layout = checked_layout(table, heads, config)
    quantiser, model = terms.mechanism(layout.size).quantiser, score_model(config.model, config.objective)
    window = histories.latest(interactions_per_round)
    total = np.zeros(table.dim * table.num_items, dtype=np.int64)
    sums = np.zeros((window.num_users, layout.head_size), dtype=np.int64)
    for start, stop in _chunks(window, max(1, _VALUES_PER_CHUNK // layout.size)):
        own = window.select(np.arange(start, stop))
        samples = interaction_samples(
            keys[start:stop][own.owners], own.items, negatives=config.negatives, num_items=table.num_items
        )
        gradients = sample_gradients(model, table, samples, select_heads(heads, own.owners.astype(np.int64) + start))
        clipped = _clipped(gradients, terms.clip_norm)
        integers = np.empty(clipped.shape, dtype=np.int64)
        for device in range(start, stop):
            rows = slice(own.indptr[device - start], own.indptr[device - start + 1])
            integers[rows] = quantise_samples(clipped[rows], quantiser, secrets[device])
            sums[device] = layout.head_part(integers[rows])
        total += layout.item_sum(integers, samples, table.num_items)
    for device, secret in enumerate(secrets):
        noise = WordStream(secret, Purpose.NOISE)
        sums[device] += SkellamSampler(terms.share_variance).draw(layout.head_size, noise)
    return InteractionSum(total, noised_step(heads, sums, quantiser, config, interactions_per_round))


def checked_layout(table: ItemTable, heads: State, config: LocalTraining) -> SampleLayout:
    """Return the sizes of a sample; raises PrivacyError if a head is not finite, ConfigError as `sample_layout`."""
    for name, value in heads.items():
        if not bool(torch.isfinite(value).all()):  # heads are noised, so the refusal tells nothing more
            raise PrivacyError(f"the head's {name} is not finite", hint="lower the learning rate; nothing has left")
    return sample_layout(config, fixed_dim=table.fixed_dim, dim=table.dim)


def noised_step(
    heads: State, integers: Int64Array, quantiser: Quantiser, config: LocalTraining, interactions_per_round: int
) -> State:
    """Step heads [n, ...] by their noisy integers, int64 [n, head_size], over the public divisor B."""
    return stepped(heads, quantiser.decode(integers).astype(np.float64) / interactions_per_round, config)


def popularity_interaction_sum(
    histories: Histories, num_items: int, terms: ReleaseTerms, *, interactions_per_round: int
) -> Int64Array:
    """Sum of the devices' popularity parts without noise: exactly S on the items of each, int64 [num_items].

    An item counts once a device even if the history repeats it, so that B interactions have a norm of at most
    sqrt(B) S. The scale is S / C.
    """
    require_interactions(interactions_per_round)
    window = histories.latest(interactions_per_round)
    pairs = np.unique(window.owners.astype(np.int64) * num_items + window.items)
    counts: Int64Array = np.bincount(pairs % num_items, minlength=num_items) * terms.sensitivity
    return counts


def _clipped(gradients: Float64Array, clip_norm: float) -> Float32Array:
    """Minus each sample's gradient, float64 [N, size], clipped as Opacus does; float32 [N, size]."""
    norms = np.sqrt(np.vecdot(gradients, gradients))
    factors = np.minimum(clip_norm / (norms + _OPACUS_EPSILON), 1.0)
    return np.asarray((-factors[:, None] * gradients).astype(np.float32))


def _chunks(histories: Histories, samples: int) -> Iterator[tuple[int, int]]:
    """Divide devices into runs of about so many interactions, or of one device."""
    start = 0
    while start < histories.num_users:
        limit = histories.indptr[start] + samples
        stop = max(start + 1, int(np.searchsorted(histories.indptr, limit, side="right")) - 1)
        yield start, stop
        start = stop
