"""What a device's owner allows, whatever the server asks: floors that every plan and offer must meet.

A server chooses tables, terms and rosters; the device believes none of them to be kind. A round that breaks a limit
is refused before anything private is touched and before anything is charged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from palate.errors import ConfigError, PalateError
from palate.models.table import ItemTable
from palate.privacy.accounting.events import Unit
from palate.privacy.aggregators.offer import CollectionOffer
from palate.privacy.budget import SENSITIVITY, Promise
from palate.privacy.durations import DAY_SECONDS, write_duration
from palate.privacy.secagg.offer import Offer
from palate.privacy.wire import RoundPlan

MAX_TABLE_VALUE = 1e4
"""Largest magnitude in a table. Popularity is within 6 and content within 1 (`palate.models.popularity`,
`palate.data.content`), so this leaves room, while squares summed over 2^20 rows stay far from float32's limit."""
MAX_DIM = 512
MAX_FIXED_DIM = 4096
DEFAULT_EPSILON = 10.0
DEFAULT_DELTA = 1e-4
LONGEST_WINDOW_SECONDS = 3_650 * DAY_SECONDS
SMALLEST_UNASKED = 3
"""Smallest round that a device agrees to unasked. In a round of two, each learns what the other sent from the sum."""

_CEILINGS = {"epsilon", "delta", "most_rounds_a_day"}
_GAMMA = "--least-gamma"


class RoundUnwelcome(PalateError):
    """A round that this device's owner does not want to take part in; nothing was charged."""

    exit_code = 13


@dataclass(frozen=True, kw_only=True)
class OwnerLimits:
    """Floors and ceilings of one device.

    Attributes
    ----------
    epsilon, delta
        The device's budget at unit user; its ledger enforces it.
    every_seconds
        How long a window is after which the budget renews; 0 for one that is for life.
    smallest_cohort
        Fewest devices on a roster, and fewest in a sum: the least batch of two aggregators.
    least_tau_thousandths
        Quorum of survivors among peers, at least, in thousandths of the roster.
    least_gamma_thousandths
        Corrupt devices that an offer must allow for, at least, in thousandths of the roster, or of all registered
        devices of two aggregators.
    least_own_noise
        Standard deviation of this device's own share of noise over the sensitivity, at least; what protects it if
        everybody else in the round is corrupt. 0 asks for none.
    most_rounds_a_day
        Rounds begun within 24 hours, at most.
    least_parties
        Parties that would have to work together to read what this device sends, at least, by the keys that it pinned:
        1, or 2 where the fleet protects also from a party that breaks the protocol.

    Raises
    ------
    ConfigError
        If a number is out of range.
    """

    epsilon: float
    delta: float
    smallest_cohort: int = 10
    least_tau_thousandths: int = 500
    least_gamma_thousandths: int = 0
    least_own_noise: float = 0.0
    most_rounds_a_day: int = 100
    least_parties: int = 1
    every_seconds: int = 0

    def __post_init__(self) -> None:
        _check("epsilon", self.epsilon, above=0.0, most=1e6)
        _check("delta", self.delta, above=0.0, most=0.5)
        _check("smallest_cohort", self.smallest_cohort, above=1, most=1 << 20)
        _check("least_tau_thousandths", self.least_tau_thousandths, above=499, most=999)
        _check("least_gamma_thousandths", self.least_gamma_thousandths, above=-1, most=499)
        _check("least_own_noise", self.least_own_noise, above=-math.ulp(0.0), most=1e6)
        _check("most_rounds_a_day", self.most_rounds_a_day, above=0, most=1 << 20)
        _check("least_parties", self.least_parties, above=0, most=2)
        if self.every_seconds and not DAY_SECONDS <= self.every_seconds <= LONGEST_WINDOW_SECONDS:
            raise ConfigError(
                f"a budget that renews every {write_duration(self.every_seconds)} is not accepted",
                hint=f"from 1d to {write_duration(LONGEST_WINDOW_SECONDS)}, or life",
            )

    @property
    def promises(self) -> dict[Unit, Promise]:
        """What the device's ledgers promise: a whole person, for that is what a fleet's rounds protect."""
        promise = Promise(
            unit=Unit.USER,
            epsilon=self.epsilon,
            delta=self.delta,
            sensitivity=SENSITIVITY,
            every_seconds=self.every_seconds,
        )
        return {Unit.USER: promise}

    def to_values(self) -> dict[str, int | float]:
        """Return the fields by name."""
        return asdict(self)

    def with_changes(self, changes: Mapping[str, float | int]) -> OwnerLimits:
        """Return the limits with some of them changed; raises as `from_values`."""
        return OwnerLimits.from_values({**self.to_values(), **changes})

    def tightened(self, other: OwnerLimits) -> OwnerLimits:
        """Return the stricter of each of two limits; a budget for life is stricter than one that renews."""
        mine, theirs = self.to_values(), other.to_values()
        strict = {name: (min if name in _CEILINGS else max)(mine[name], theirs[name]) for name in mine}
        for_life = not (self.every_seconds and other.every_seconds)
        return OwnerLimits.from_values({**strict, **({"every_seconds": 0} if for_life else {})})

    @staticmethod
    def from_values(values: dict[str, Any]) -> OwnerLimits:
        """Rebuild limits from their fields.

        Raises
        ------
        ConfigError
            If a field is missing, unknown, of another type or out of range.
        """
        expected = {each.name: each.type for each in fields(OwnerLimits)}
        values = {"least_parties": 1, "every_seconds": 0, **values}  # earlier versions kept no such limits
        if set(values) != set(expected):
            raise ConfigError(
                f"limits: {', '.join(sorted(set(values) ^ set(expected)))} are missing or not known",
                hint="enrol anew with this version of palate",
            )
        for name, kind in expected.items():
            if type(values[name]).__name__ != kind:
                raise ConfigError(f"limits: {name} must be {kind}", hint="enrol anew with this version of palate")
        return OwnerLimits(**values)

    def check(
        self, plan: RoundPlan, offer: Offer | CollectionOffer, *, num_items: int, began_lately: int, parties: int
    ) -> None:
        """Refuse a round that the owner does not want.

        Parameters
        ----------
        plan, offer
            What the server asks; they have been compared (`check_plan` of the offer).
        num_items
            Rows of the fleet's catalogue.
        began_lately
            Rounds that this device began within the last 24 hours.
        parties
            How many would have to work together to read what this device sends (`FleetProfile.parties`).

        Raises
        ------
        RoundUnwelcome
            With the value and the limit that it broke.
        """
        if plan.unit != Unit.USER or plan.terms is None:
            raise RoundUnwelcome(
                f"the round protects unit {plan.unit!r}; devices of a fleet take part at unit 'user' only",
                hint="the operator plans unit user",
            )
        terms = plan.terms
        own_noise = math.sqrt(terms.share_variance) / terms.sensitivity
        of_offer: tuple[tuple[str, float, float, str], ...]
        if isinstance(offer, Offer):
            of_offer = (
                ("the offer's smallest roster", offer.n_min, self.smallest_cohort, "--smallest-cohort"),
                ("the offer's tau in thousandths", offer.tau_thousandths, self.least_tau_thousandths, "--least-tau"),
                ("the offer's gamma in thousandths", offer.gamma_thousandths, self.least_gamma_thousandths, _GAMMA),
            )
        else:  # gamma, a share of the registered, was checked with the register (`Offered.checked`)
            of_offer = (("the offer's least batch", offer.least_batch, self.smallest_cohort, "--smallest-cohort"),)
        floors = (
            ("the roster's planned size", terms.roster_size, self.smallest_cohort, "--smallest-cohort"),
            *of_offer,
            ("the number of parties that would have to work together", parties, self.least_parties, "--least-parties"),
            ("this device's own noise over the sensitivity", own_noise, self.least_own_noise, "--least-own-noise"),
        )
        for what, value, least, option in floors:
            if value < least:
                raise RoundUnwelcome(
                    f"{what} is {value:g}, the owner asks for at least {least:g}",
                    hint=f"change it, if you agree, with palate client limits {option}",
                )
        if began_lately >= self.most_rounds_a_day:
            raise RoundUnwelcome(
                f"{began_lately} rounds began within a day, the owner allows {self.most_rounds_a_day}",
                hint="wait, or change it with palate client limits --most-rounds-a-day",
            )
        check_table(plan, num_items)


def check_table(table: RoundPlan | ItemTable, num_items: int) -> None:
    """Refuse a table that is not of this catalogue, or of a size or magnitude that no honest run has.

    Raises
    ------
    RoundUnwelcome
        With the value and the bound that it broke.
    """
    if len(table.learned) != num_items:
        raise RoundUnwelcome(
            f"the table has {len(table.learned)} rows, the catalogue has {num_items}",
            hint="ask the operator for a new welcome",
        )
    for name, block, widest in (("fixed", table.fixed, MAX_FIXED_DIM), ("learned", table.learned, MAX_DIM)):
        if not 0 < block.shape[1] <= widest and (name, block.shape[1]) != ("fixed", 0):
            raise RoundUnwelcome(
                f"the table has {block.shape[1]} {name} columns, 1 to {widest} are accepted", hint="ask the operator"
            )
        largest = float(np.abs(block).max(initial=0.0))
        if not largest <= MAX_TABLE_VALUE:  # true for NaN
            raise RoundUnwelcome(
                f"the table's {name} columns hold {largest:g}, at most {MAX_TABLE_VALUE:g} is accepted",
                hint="the operator's run has diverged, or its server is not honest",
            )


def _check(name: str, value: float, *, above: float, most: float) -> None:
    if not above < value <= most:
        raise ConfigError(f"{name} is {value}, it must be above {above:g} and at most {most:g}", hint="choose another")
