"""The integer mechanism inside Opacus: its clipping, and Skellam noise in place of its Gaussian.

To Opacus one person is one sample, whose "gradient" is the whole contribution of the round. `DPOptimizer` clips it;
the noise step is replaced: the clipped contribution is quantised, and the device's share of integer noise added
(Agarwal, Kairouz & Liu 2021). Opacus' own noise comes from a generator that can be predicted, with low-order bits
that give away what it was added to.
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from opacus.optimizers import DPOptimizer
from opacus.optimizers.optimizer import _check_processed_flag, _mark_as_processed
from torch import nn

from palate.models.arrays import Float32Array, Int64Array
from palate.privacy.errors import PrivacyError
from palate.privacy.integer.csprng import Words, WordStream
from palate.privacy.integer.release import IntegerMechanism
from palate.privacy.integer.ring import RingArray


class _Contribution(nn.Parameter):
    """A parameter with what Opacus keeps on it."""

    grad_sample: torch.Tensor
    summed_grad: torch.Tensor


class SkellamOptimizer(DPOptimizer):
    """A `DPOptimizer` whose noisy gradient is an integer vector in its own units.

    Parameters
    ----------
    optimizer
        What holds the parameters. Each parameter's `grad_sample` is one person's contribution, [1, ...].
    mechanism
        Clip norm, sensitivity, share of noise and modulus.
    rounding, noise
        Streams of the round; on a device from `WordStream.fresh`.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, mechanism: IntegerMechanism, *, rounding: WordStream, noise: Words
    ) -> None:
        quantiser = mechanism.quantiser
        super().__init__(
            optimizer,
            noise_multiplier=math.sqrt(mechanism.share_variance) / quantiser.sensitivity,
            max_grad_norm=quantiser.clip_norm,
            expected_batch_size=None,
            loss_reduction="sum",
        )
        self._mechanism = mechanism
        self._rounding = rounding
        self._noise = noise
        self._integers: Int64Array | None = None

    @property
    def integers(self) -> Int64Array:
        """Noisy integers of the last step, before reduction, int64 [d]; raises PrivacyError before the first step."""
        if self._integers is None:
            raise PrivacyError("no step has been taken", hint="set grad_sample and call pre_step")
        return self._integers

    def add_noise(self) -> None:
        """Quantise what Opacus has clipped, add integer noise, and put the decoded values into ``p.grad``.

        Raises
        ------
        PrivacyError
            If there was not exactly one sample, or the contribution is not finite or of another size.
        ValueError
            If this contribution was released before: Opacus asks for `zero_grad` between steps.
        """
        if any(len(sample) != 1 for sample in self.grad_samples):
            raise PrivacyError("more or less than one contribution in a step", hint="one person is one sample")
        parameters = cast("list[_Contribution]", self.params)
        clipped = [parameter.summed_grad for parameter in parameters]
        _check_processed_flag(clipped)
        flat = torch.cat([part.reshape(-1) for part in clipped]).detach().numpy()
        integers = self._mechanism.quantiser.quantise(flat, self._rounding) + self._mechanism.noise(self._noise)
        decoded = torch.from_numpy(self._mechanism.quantiser.decode(integers))
        for parameter, part in zip(parameters, torch.split(decoded, [part.numel() for part in clipped]), strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.dtype)
        _mark_as_processed(clipped)
        self._integers = integers


def release(
    contribution: Float32Array, mechanism: IntegerMechanism, *, rounding: WordStream, noise: Words
) -> RingArray:
    """Return what a device sends, its contribution having gone through Opacus.

    Parameters
    ----------
    contribution
        The round's whole update in the order of the wire, float32 [d].
    mechanism, rounding, noise
        As for `SkellamOptimizer`.

    Returns
    -------
    Ring elements [d].

    Raises
    ------
    PrivacyError
        If the contribution has another size or type, or is not finite.
    """
    parameter = _Contribution(torch.zeros(len(contribution)))
    parameter.grad_sample = torch.from_numpy(np.ascontiguousarray(contribution))[None]  # [1, d]
    optimizer = SkellamOptimizer(torch.optim.SGD([parameter], lr=1.0), mechanism, rounding=rounding, noise=noise)
    optimizer.pre_step()
    return mechanism.ring.reduce(optimizer.integers)
