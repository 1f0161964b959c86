"""Interaction level: every single interaction is hidden by the device's own noise, whoever else is honest (DP-SGD).

One sample is an interaction with its sampled negatives. Its gradient with respect to *all* trainable parameters, the
device's head and the item rows, is clipped jointly (Abadi et al. 2016) and turned into integers of L2 norm at most S;
to their sum the device adds Skellam noise (Agarwal, Kairouz & Liu 2021) of the full variance in every coordinate,
head and items alike. A head that learned without noise would carry one interaction into all later item gradients, and
the claim would be false.

At most B interactions of a person enter a round, so by the triangle inequality that person's integers have norm at
most B S: under the sum of m honest devices' noise the same release protects people too (unit "both"). In a popularity
round a person's items differ, so their one-hot contributions are orthogonal and the norm is at most sqrt(B) S.

A sample touches few rows of the item table; `palate.models.learning.interactions` lays it out in a compact space.
"""

from __future__ import annotations

import numpy as np

from palate.models.arrays import Float32Array, Int64Array
from palate.privacy.errors import PrivacyError
from palate.privacy.integer.csprng import Purpose, WordStream
from palate.privacy.integer.quantise import Quantiser, dithered_floor, require_finite
from palate.privacy.mechanisms.terms import ReleaseTerms

_LANES_PER_WORD = 4


def quantise_samples(samples: Float32Array, quantiser: Quantiser, key: bytes) -> Int64Array:
    """Turn each sample's contribution into integers by itself.

    The integers are those of `Quantiser.quantise` on one sample after the other with one stream of the key, so they do
    not depend on how many samples are worked on together.

    Parameters
    ----------
    samples
        Contributions in the compact space, float32 [N, size]; clipped here if they are not yet.
    quantiser
        Clip norm C and sensitivity S of a sample.
    key
        The device's secret of the round, 32 bytes; only its rounding stream is used.

    Returns
    -------
    int64 [N, size], each row with L2 norm at most S.

    Raises
    ------
    PrivacyError
        If the shape or type is not as announced, or a value is not finite.
    """
    if samples.ndim != 2 or samples.shape[1] != quantiser.size or samples.dtype != np.float32:
        raise PrivacyError(
            f"the samples are {samples.dtype} {samples.shape}, not float32 (N, {quantiser.size})",
            hint="lay each sample out as head and slots",
        )
    require_finite(samples)
    count = len(samples)
    if count == 0:
        return np.zeros(samples.shape, dtype=np.int64)
    padded = -(-quantiser.size // _LANES_PER_WORD) * _LANES_PER_WORD  # every sample starts with a word of its own
    lanes = WordStream(key, Purpose.ROUNDING).lanes(count * padded).reshape(count, padded)[:, : quantiser.size]
    integers = dithered_floor(quantiser.scaled(samples), lanes, np.empty_like(samples))
    if not quantiser.fits(integers).all():  # rare: whoever rounds again takes the words of those that follow
        rounding = WordStream(key, Purpose.ROUNDING)
        return np.stack([quantiser.quantise(sample, rounding) for sample in samples])
    return integers.astype(np.int64)


def popularity_scale(terms: ReleaseTerms) -> float:
    """Integer steps per unit of a popularity sum, S / C."""
    return terms.sensitivity / terms.clip_norm


def require_interactions(interactions_per_round: int) -> None:
    """Raise PrivacyError unless a round takes a bounded, positive number of a person's interactions."""
    if interactions_per_round < 1:
        raise PrivacyError(
            f"interactions_per_round is {interactions_per_round}, it must be at least 1",
            hint="bound what one person can put into a round, for example by 64",
        )
