"""A device's release inside Opacus: its clipping, and Skellam noise in place of its Gaussian.

`DPOptimizer` clips one sample after the other; each is then quantised by itself, so that its sensitivity holds in
integers, and the sum gets the device's share of integer noise (Agarwal, Kairouz & Liu 2021). Opacus' own noise comes
from a generator that can be predicted, with low-order bits that give away what it was added to.

What a sample is depends on the unit: a person's whole contribution of the round, or the gradient of one interaction
over all that is trained (Abadi et al. 2016). A shard sends the same integers without Opacus (`palate.client.release`,
`palate.client.interaction_release`), which takes seconds to import.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from opacus.optimizers import DPOptimizer
from opacus.optimizers.optimizer import _check_processed_flag, _mark_as_processed
from torch import Tensor, nn

from palate.client.interaction_release import InteractionSum, checked_layout, noised_step
from palate.models.arrays import Float32Array, FloatingArray, Int64Array, UInt64Array
from palate.models.histories import Histories
from palate.models.learning.interactions import interaction_samples, sample_gradients
from palate.models.learning.kernel import select_heads
from palate.models.scores.base import State
from palate.models.scores.registry import score_model
from palate.models.table import ItemTable
from palate.models.training import LocalTraining
from palate.privacy.budget import require_interactions
from palate.privacy.errors import PrivacyError
from palate.privacy.integer.csprng import Purpose, Words, WordStream
from palate.privacy.integer.quantise import IntegerMechanism, quantise_samples
from palate.privacy.integer.ring import RingArray
from palate.privacy.integer.skellam import SkellamSampler
from palate.privacy.mechanisms.terms import ReleaseTerms


class _Samples(nn.Parameter):
    """A parameter with what Opacus keeps on it."""

    grad_sample: Tensor
    summed_grad: Tensor | None


class SkellamOptimizer(DPOptimizer):
    """A `DPOptimizer` whose noisy gradient is a vector of integers; it takes no step, because the integers are sent.

    Parameters
    ----------
    samples
        What is clipped, float32 or float64 [N, d], a row each; taken for gradients.
    clip_norm, noise_multiplier
        C of a sample; the noise multiplier, only for Opacus' own records.
    quantise
        Turns the clipped samples, float32 [N, d], into the integers of their sum, int64 [k].
    noise
        Draws the device's share of the noise, int64 [k].
    """

    def __init__(
        self,
        samples: FloatingArray,
        *,
        clip_norm: float,
        noise_multiplier: float,
        quantise: Callable[[Float32Array], Int64Array],
        noise: Callable[[], Int64Array],
    ) -> None:
        self._parameter = _Samples(torch.zeros(samples.shape[1], dtype=torch.from_numpy(samples[:0]).dtype))
        self._parameter.grad_sample = torch.from_numpy(np.ascontiguousarray(samples))
        super().__init__(
            torch.optim.SGD([self._parameter], lr=1.0),
            noise_multiplier=noise_multiplier,
            max_grad_norm=clip_norm,
            expected_batch_size=None,
            loss_reduction="sum",
        )
        self._quantise = quantise
        self._noise = noise
        self._clipped: Float32Array | None = None
        self._integers: Int64Array | None = None

    @property
    def integers(self) -> Int64Array:
        """Noisy integers of the last step, before reduction, int64 [k]; raises PrivacyError before the first step."""
        if self._integers is None:
            raise PrivacyError("no step has been taken", hint="call pre_step")
        return self._integers

    def clip_and_accumulate(self) -> None:
        """Let Opacus clip one sample after the other, and keep each.

        Raises
        ------
        ValueError
            If these samples were used before: Opacus asks for `zero_grad` between steps.
        """
        parameter, samples = self._parameter, self._parameter.grad_sample
        _check_processed_flag(samples)
        clipped = np.empty(tuple(samples.shape), dtype=np.float32)
        for place in range(len(samples)):
            parameter.grad_sample, parameter.summed_grad = samples[place : place + 1], None
            super().clip_and_accumulate()  # type: ignore[no-untyped-call]
            clipped[place] = torch.as_tensor(parameter.summed_grad).detach().numpy()
        parameter.grad_sample, parameter.summed_grad = samples, None
        _mark_as_processed(samples)
        self._clipped = clipped

    def add_noise(self) -> None:
        """Quantise what Opacus has clipped, and add integer noise to the sum.

        Raises
        ------
        PrivacyError
            If nothing was clipped since the last step, or a value is not finite.
        """
        if self._clipped is None:
            raise PrivacyError("nothing was clipped that noise could be added to", hint="call pre_step")
        self._integers, self._clipped = self._quantise(self._clipped) + self._noise(), None


def release(
    contribution: Float32Array, mechanism: IntegerMechanism, *, rounding: WordStream, noise: Words
) -> RingArray:
    """Return what a device sends at unit user: to Opacus one person is one sample.

    Parameters
    ----------
    contribution
        The round's whole update in the order of the wire, float32 [d].
    mechanism
        Clip norm, sensitivity, share of noise and modulus.
    rounding, noise
        Streams of the round; on a device from `WordStream.fresh`.

    Returns
    -------
    Ring elements [d].

    Raises
    ------
    PrivacyError
        If the contribution has another size or type, or is not finite.
    """
    quantiser = mechanism.quantiser
    optimizer = SkellamOptimizer(
        contribution[None],
        clip_norm=quantiser.clip_norm,
        noise_multiplier=math.sqrt(mechanism.share_variance) / quantiser.sensitivity,
        quantise=lambda samples: quantiser.quantise(samples[0], rounding),
        noise=lambda: mechanism.noise(noise),
    )
    optimizer.pre_step()
    return mechanism.ring.reduce(optimizer.integers)


def interaction_sum(
    table: ItemTable,
    history: Histories,
    heads: State,
    keys: UInt64Array,
    secret: bytes,
    config: LocalTraining,
    terms: ReleaseTerms,
    *,
    interactions_per_round: int,
) -> InteractionSum:
    """Run a round of one device, noise included; without interactions it releases noise like any other.

    Parameters and errors are those of `palate.client.interaction_release.interaction_sum`, for a batch of one.
    """
    require_interactions(interactions_per_round)
    layout = checked_layout(table, heads, config)
    quantiser, share = terms.mechanism(layout.size).quantiser, SkellamSampler(terms.share_variance)
    window = history.latest(interactions_per_round)
    samples = interaction_samples(keys, window.items, negatives=config.negatives, num_items=table.num_items)
    model, owners = score_model(config.model, config.objective), window.owners.astype(np.int64)
    gradients = sample_gradients(model, table, samples, select_heads(heads, owners))
    words = WordStream(secret, Purpose.NOISE)

    def quantise(clipped: Float32Array) -> Int64Array:
        integers = quantise_samples(-clipped, quantiser, secret)  # descent is minus the gradient
        return np.concatenate([layout.head_part(integers), layout.item_sum(integers, samples, table.num_items)])

    optimizer = SkellamOptimizer(
        gradients,
        clip_norm=terms.clip_norm,
        noise_multiplier=math.sqrt(terms.share_variance) / terms.sensitivity,
        quantise=quantise,
        noise=lambda: np.concatenate(  # the head takes the first words
            [share.draw(layout.head_size, words), share.draw(table.dim * table.num_items, words)]
        ),
    )
    optimizer.pre_step()
    head, items = np.split(optimizer.integers, [layout.head_size])
    return InteractionSum(items, noised_step(heads, head[None], quantiser, config, interactions_per_round))
