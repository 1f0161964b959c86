"""What a device asks of every offer, whatever the server says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

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
        believes may collude. It is about every roster that the server may choose, not about the fleet's average.
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
        if offer.n_min < self.smallest_cohort:
            _refuse("n_min", offer.n_min, f"at least {self.smallest_cohort}")
        if offer.gamma_thousandths < self.gamma_thousandths:
            _refuse("gamma_thousandths", offer.gamma_thousandths, f"at least {self.gamma_thousandths}")
        if offer.max_roster > self.largest_roster:
            _refuse("max_roster", offer.max_roster, f"at most {self.largest_roster}")


def _refuse(name: str, value: object, bound: str) -> NoReturn:
    raise OfferRefused(
        f"{name} is {value}, this device's policy asks for {bound}", hint="decline, or change the policy"
    )
