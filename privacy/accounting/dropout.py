"""Noise that survives dropouts and collusion: every device adds a share, sized for the fewest honest survivors.

A round completes only with more than tau of its roster; of those, at most the colluding fraction gamma of the roster
know (or leave out) their own shares. m = floor(tau n) + 1 - floor(gamma n) honest shares are therefore always in the
sum, and each has variance (z S)^2 / m. Extra survivors only add noise: the price is a wider sum, never privacy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

from palate.privacy.accounting.checks import require_count, require_positive, require_share
from palate.privacy.accounting.events import SkellamEvent
from palate.privacy.errors import PrivacyError


@dataclass(frozen=True, kw_only=True)
class Quorum:
    """Fractions of the roster: devices that must survive a round, and devices that may collude.

    Attributes
    ----------
    tau
        Survivor quorum: a round needs floor(tau n) + 1 survivors; in (0, 1).
    gamma
        Fraction of the roster that may collude with the server; in [0, 1).

    Raises
    ------
    PrivacyError
        If a fraction is out of range, or tau < (1 + gamma) / 2: two different survivor sets could then both be
        confirmed, and two sums of one round revealed.
    """

    tau: float
    gamma: float = 0.0

    def __post_init__(self) -> None:
        require_share("tau", self.tau, zero=True)
        require_share("gamma", self.gamma, zero=True)
        if 2 * Fraction(str(self.tau)) < 1 + Fraction(str(self.gamma)):
            raise PrivacyError(
                f"tau is {self.tau:g}, it must be at least (1 + gamma) / 2 = {(1 + self.gamma) / 2:g}",
                hint="raise tau, or assume fewer colluding devices",
            )

    def survivors_needed(self, roster_size: int) -> int:
        """Fewest survivors with which a round of `roster_size` devices completes: floor(tau n) + 1."""
        require_count("roster_size", roster_size)
        return share_of(self.tau, roster_size) + 1

    def honest_survivors(self, roster_size: int) -> int:
        """Fewest honest shares in any completed sum, m = floor(tau n) + 1 - floor(gamma n); at least 1."""
        return self.survivors_needed(roster_size) - share_of(self.gamma, roster_size)

    def share_variance(self, noise_multiplier: float, sensitivity: int, roster_size: int) -> float:
        """Variance that each device adds per coordinate, (z S)^2 / m, rounded up.

        Parameters
        ----------
        noise_multiplier
            z, standard deviation that m honest shares reach together over the sensitivity.
        sensitivity
            S, bound on the L2 norm of one device's integer vector.
        roster_size
            n, devices on the round's roster.

        Raises
        ------
        PrivacyError
            If a number is out of range.
        """
        require_positive("noise_multiplier", noise_multiplier)
        require_count("sensitivity", sensitivity)
        honest = self.honest_survivors(roster_size)
        exact = (Fraction(noise_multiplier) * sensitivity) ** 2 / honest
        share = float(exact)
        return share if Fraction(share) >= exact else math.nextafter(share, math.inf)

    def std_inflation(self, roster_size: int, dropout: float) -> float | None:
        """Tell how much wider than the planned z S the noise of the sum is when everybody is honest.

        Parameters
        ----------
        roster_size
            n, devices on the roster.
        dropout
            Fraction of the roster that drops out, in [0, 1).

        Returns
        -------
        sqrt(survivors / m), or None if too few survive and the round is abandoned.
        """
        require_share("dropout", dropout, zero=True)
        survivors = roster_size - share_of(dropout, roster_size)
        if survivors < self.survivors_needed(roster_size):
            return None
        return math.sqrt(survivors / self.honest_survivors(roster_size))


def local_event(event: SkellamEvent, honest: int) -> SkellamEvent:
    """Return the release of a single device if secure aggregation fails: the same vector under one share of noise.

    Its epsilon is no protection by itself, and belongs next to the central one wherever that is shown.

    Parameters
    ----------
    event
        The round as planned, with the variance of `honest` shares.
    honest
        m, number of honest shares that the variance was split over.
    """
    require_count("honest", honest)
    return replace(event, variance=event.variance / honest, assumptions=())


def share_of(fraction: float, size: int) -> int:
    """Count a share of `size` devices, rounded down: floor(0.29 * 100) is 29, as written.

    In floats it is 28, which would count one colluder as honest.
    """
    return math.floor(Fraction(str(fraction)) * size)
