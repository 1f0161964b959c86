"""DP-SGD inside Opacus with integer noise: one step over a device's interactions, clipped one by one.

`DPOptimizer` clips each interaction's gradient over all parameters jointly (Abadi et al. 2016). Each clipped gradient
is then quantised by itself, so that the sensitivity holds in integers; and in place of Opacus' Gaussian, whose
low-order bits give away what it was added to, the head's sum gets Skellam noise (Agarwal, Kairouz & Liu 2021).
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from opacus.optimizers import DPOptimizer
from opacus.optimizers.optimizer import _check_processed_flag, _mark_as_processed
from torch import Tensor, nn

from palate.models.arrays import BoolArray, Float32Array, Int64Array
from palate.privacy.errors import PrivacyError
from palate.privacy.integer.csprng import Words
from palate.privacy.integer.skellam import SkellamSampler
from palate.privacy.mechanisms.interaction import SampleLayout, quantise_samples
from palate.privacy.mechanisms.terms import ReleaseTerms


class _Trained(nn.Parameter):
    """A parameter with what Opacus keeps on it."""

    grad_sample: Tensor
    summed_grad: Tensor | None


class InteractionOptimizer(DPOptimizer):
    """A `DPOptimizer` that steps the head by noisy integers and keeps the integers of the items.

    Signs are those of descent: integers are minus the gradient. Item rows stay where they are, for a device answers
    with their sum.

    Parameters
    ----------
    optimizer
        Holds the head's parameters in the order of its state, then the item rows that the samples touch; each with a
        `grad_sample` [N, ...].
    slots
        Row of each slot among those, int64 [N, slots].
    real
        Which slots count; the others repeat an item of their sample, bool [N, slots].
    layout, terms
        Sizes of a sample, clip norm, sensitivity and noise.
    interactions_per_round
        B, the public divisor of the head's step.
    secret
        The device's secret of the round, 32 bytes, for the roundings.
    noise
        Stream of the round's noise; the head takes the first words.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        slots: Int64Array,
        real: BoolArray,
        layout: SampleLayout,
        terms: ReleaseTerms,
        interactions_per_round: int,
        secret: bytes,
        noise: Words,
    ) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=math.sqrt(terms.share_variance) / terms.sensitivity,
            max_grad_norm=terms.clip_norm,
            expected_batch_size=interactions_per_round,
            loss_reduction="mean",
        )
        self._slots = slots
        self._real = real
        self._layout = layout
        self._terms = terms
        self._secret = secret
        self._noise = noise
        self._clipped: Float32Array | None = None
        self._integers: Int64Array | None = None

    @property
    def integers(self) -> Int64Array:
        """Integers of the last step without noise, int64 [N, layout.size]; raises PrivacyError before the first."""
        if self._integers is None:
            raise PrivacyError("no step has been taken", hint="run a backward pass and call step")
        return self._integers

    def clip_and_accumulate(self) -> None:
        """Let Opacus clip one sample after the other, and keep each in the compact space, minus its gradient.

        Raises
        ------
        ValueError
            If these gradients were used before: Opacus asks for `zero_grad` between steps.
        """
        parameters = cast("list[_Trained]", self.params)
        samples = self.grad_samples  # [N, ...] each
        for parameter in parameters:
            _check_processed_flag(parameter.grad_sample)
        clipped = np.empty((len(self._slots), self._layout.size), dtype=np.float32)
        for place in range(len(self._slots)):
            for parameter, sample in zip(parameters, samples, strict=True):
                parameter.grad_sample = sample[place : place + 1]
                parameter.summed_grad = None
            super().clip_and_accumulate()  # type: ignore[no-untyped-call]
            *head, items = [cast("Tensor", parameter.summed_grad) for parameter in parameters]
            own = items.numpy()[self._slots[place]] * self._real[place, :, None]  # [slots, dim]
            clipped[place] = -np.concatenate([*(part.reshape(-1).numpy() for part in head), own.reshape(-1)])
        for parameter, sample in zip(parameters, samples, strict=True):
            parameter.grad_sample = sample
            parameter.summed_grad = None
            _mark_as_processed(sample)
        self._clipped = clipped

    def add_noise(self) -> None:
        """Quantise the clipped samples, add integer noise to the head's sum, and decode it into ``p.grad``.

        Raises
        ------
        PrivacyError
            If nothing was clipped since the last step, or a gradient is not finite.
        """
        if self._clipped is None:
            raise PrivacyError("no clipped gradients to add noise to", hint="call step after a backward pass")
        quantiser = self._layout.quantiser(self._terms)
        integers = quantise_samples(self._clipped, quantiser, self._secret)
        noise = SkellamSampler(self._terms.share_variance).draw(self._layout.head_size, self._noise)
        descent = torch.from_numpy(quantiser.decode(self._layout.head_part(integers) + noise))
        *head, items = self.params
        for parameter, part in zip(head, torch.split(descent, [part.numel() for part in head]), strict=True):
            parameter.grad = -part.view_as(parameter).to(parameter.dtype)
        items.grad = torch.zeros_like(items)
        self._clipped, self._integers = None, integers
