"""What a device asks of every offer, whatever the server says."""

from __future__ import annotations

import math
from dataclasses import dataclass

from palate.privacy.secagg.errors import OfferRefused
from palate.privacy.secagg.offer import Offer


@dataclass(frozen=True, kw_only=True)
class DevicePolicy:
    """What a device asks of every offer, whatever the server says.

    Attributes
    ----------
    smallest_cohort
        Least n_min, at least 2.
    gamma_thousandths
        Corrupt devices that every offer must allow for at least, in thousandths of the roster: the most that the owner
        believes may collude. It holds for every roster that the server may choose, not for the fleet's average.
    largest_roster
        Most devices that this one is willing to share with.

    Raises
    ------
    OfferRefused
        If a number is out of range.
    """

    smallest_cohort: int
    gamma_thousandths: int
    largest_roster: int = 1000

    def __post_init__(self) -> None:
        if self.smallest_cohort < 2 or not 0 <= self.gamma_thousandths < 500:
            raise OfferRefused(
                f"a policy with cohorts of {self.smallest_cohort} and gamma {self.gamma_thousandths}/1000 protects"
                " nobody: at least 2, and below 500",
                hint="choose larger cohorts",
            )

    def check(self, offer: Offer) -> None:
        """Check an offer.

        Raises
        ------
        OfferRefused
            If it asks for less than the policy does.
        """
        for name, least, most in (
            ("n_min", self.smallest_cohort, math.inf),
            ("gamma_thousandths", self.gamma_thousandths, math.inf),
            ("max_roster", 0, self.largest_roster),
        ):
            value = getattr(offer, name)
            if not least <= value <= most:
                bound = f"at least {least}" if value < least else f"at most {most}"
                raise OfferRefused(
                    f"{name} is {value}, this device's policy asks for {bound}", hint="decline, or change the policy"
                )
