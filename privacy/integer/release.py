"""What one device sends: its quantised contribution plus its share of the noise, modulo 2^b.

The readable path in arrays. The device runs the same steps with Opacus doing the clipping
(`palate.client.private_optimizer`), the simulation for many devices at once; both are tested against this one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from palate.models.arrays import Float32Array, Int64Array
from palate.privacy.integer.csprng import Words, WordStream
from palate.privacy.integer.quantise import Quantiser
from palate.privacy.integer.ring import Ring, RingArray
from palate.privacy.integer.skellam import MAX_VARIANCE, SkellamSampler


@dataclass(frozen=True, kw_only=True)
class IntegerMechanism:
    """Clip, quantise, add a Skellam share, reduce.

    Attributes
    ----------
    quantiser
        Bounds a contribution by its sensitivity ``S``.
    share_variance
        Variance of one device's noise; m honest shares in a sum make a noise multiplier of
        ``sqrt(m * share_variance) / S``.
    ring
        What sums are taken in.

    Raises
    ------
    PrivacyError
        If the variance is not one that can be drawn.
    """

    quantiser: Quantiser
    share_variance: int
    ring: Ring = field(default_factory=Ring)

    def __post_init__(self) -> None:
        SkellamSampler(self.share_variance)  # refuses now what it would refuse in every round

    def noise(self, stream: Words, *, shares: int = 1) -> Int64Array:
        """Draw the sum of some devices' noise in one go, exact by closure, int64 [d]."""
        together = max(1, MAX_VARIANCE // self.share_variance)  # shares that one sampler can draw
        total = np.zeros(self.quantiser.size, dtype=np.int64)
        for start in range(0, shares, together):
            count = min(together, shares - start)
            total += SkellamSampler(count * self.share_variance).draw(self.quantiser.size, stream)
        return total

    def encode(self, values: Float32Array, *, rounding: WordStream, noise: WordStream) -> RingArray:
        """Return what a device with the contribution `values`, float32 [d], sends: ring elements [d].

        Raises
        ------
        PrivacyError
            If the contribution has another size or type, or is not finite.
        """
        return self.ring.reduce(self.quantiser.quantise(values, rounding) + self.noise(noise))

    def decode(self, total: RingArray) -> Float32Array:
        """Read a sum of what devices sent, in the contribution's units, ring elements [d] to float32 [d]."""
        return self.quantiser.decode(self.ring.centre(total))
