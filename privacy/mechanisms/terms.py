"""Terms of protection in a plan: the public numbers of one noisy release, the same for every device of a round.

The terms are enough to build the mechanism, name its accounting event and write the ledger's entry. Nobody needs an
epsilon for that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from palate.privacy.errors import PrivacyError
from palate.privacy.integer.quantise import IntegerMechanism, Quantiser
from palate.privacy.integer.ring import Ring


@dataclass(frozen=True, kw_only=True)
class ReleaseTerms:
    """One release of a sum: how much of a unit goes in, and how much noise covers it.

    Attributes
    ----------
    clip_norm
        C, L2 bound of the unit's contribution, in its own units.
    sensitivity
        S, the same bound in integer steps.
    share_variance
        Variance of the noise that one device adds to every coordinate, in steps squared.
    honest_shares
        m, fewest honest shares of noise in a released sum; 1 where a device's own noise must do.
    roster_size
        n1, devices asked.
    ring_bits
        Sums are taken modulo 2^ring_bits.

    Raises
    ------
    PrivacyError
        If a number is out of range, or a sum over the roster could wrap around.
    """

    clip_norm: float
    sensitivity: int
    share_variance: int
    honest_shares: int
    roster_size: int
    ring_bits: int = 32

    def __post_init__(self) -> None:
        if not 1 <= self.honest_shares <= self.roster_size:
            raise PrivacyError(
                f"{self.honest_shares} honest shares are not between 1 and the roster of {self.roster_size}",
                hint="size the noise for devices that take part",
            )
        if self.share_variance < 1:
            raise PrivacyError(f"a share of variance {self.share_variance} is no noise", hint="use at least 1")
        self.mechanism(1)  # refuses bounds that no contribution could have
        Ring(bits=self.ring_bits).require_room(
            devices=self.roster_size,
            sensitivity=self.sensitivity,
            sum_variance=self.roster_size * self.share_variance,
        )

    @property
    def sum_variance(self) -> int:
        """Variance that can be counted on in every coordinate of the sum: V = m times the share's."""
        return self.honest_shares * self.share_variance

    @property
    def noise_multiplier(self) -> float:
        """Standard deviation of that noise over the sensitivity."""
        return math.sqrt(self.sum_variance) / self.sensitivity

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise in a coordinate if the whole roster adds its share, in integer steps."""
        return math.sqrt(self.roster_size * self.share_variance)

    def mechanism(self, num_values: int) -> IntegerMechanism:
        """Build the mechanism for contributions of `num_values` values."""
        quantiser = Quantiser(clip_norm=self.clip_norm, sensitivity=self.sensitivity, size=num_values)
        return IntegerMechanism(quantiser=quantiser, share_variance=self.share_variance, ring=Ring(bits=self.ring_bits))


@dataclass(frozen=True, kw_only=True)
class RunTerms:
    """Terms of a whole run: one popularity round, then equal training rounds."""

    popularity: ReleaseTerms
    train: ReleaseTerms
