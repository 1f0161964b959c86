"""What was released, as frozen data: one event per noisy release. Epsilon is computed elsewhere.

An event says how much noise covers how much of one person, who that person is (`unit`), what is compared with what
(`adjacency`), and under which conditions it holds (`assumptions`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from palate.privacy.accounting.checks import require_count, require_positive
from palate.privacy.errors import PrivacyError


class Unit(StrEnum):
    """Whose presence the guarantee hides."""

    USER = "user"
    INTERACTION = "interaction"


class Adjacency(StrEnum):
    """Which two worlds must look alike."""

    ZERO_OUT = "zero-out: the unit's contribution is replaced by zeros"
    REPLACE_ONE = "replace-one: the unit's contribution is replaced by any other"


class Assumption(StrEnum):
    """Assumptions of the guarantee besides the noise, as text."""

    TRUSTED_AGGREGATION = "whoever forms the sum shows nothing but the noisy sum"
    SECURE_AGGREGATION = "secure aggregation holds: the server sees the sum, not a device's own vector"
    HONEST_FRACTION = "at least the planned number of honest survivors add their share of the noise"
    REAL_NUMBERS = "noise is modelled as a real number; the released value must not show its floating-point grid"


@dataclass(frozen=True, kw_only=True)
class GaussianEvent:
    """One release with Gaussian noise.

    Attributes
    ----------
    noise_multiplier
        Noise standard deviation in the sum over the sensitivity (sigma / C); above 0.

    Raises
    ------
    PrivacyError
        If the noise multiplier is not a finite positive number.
    """

    noise_multiplier: float
    unit: Unit = Unit.USER
    adjacency: Adjacency = Adjacency.ZERO_OUT
    assumptions: tuple[Assumption, ...] = (Assumption.TRUSTED_AGGREGATION, Assumption.REAL_NUMBERS)

    def __post_init__(self) -> None:
        require_positive("noise_multiplier", self.noise_multiplier)


@dataclass(frozen=True, kw_only=True)
class SkellamEvent:
    """One release of an integer vector with Skellam noise, the sum of the honest devices' shares.

    Attributes
    ----------
    sensitivity
        S, bound on the L2 norm of one unit's integer vector; a positive integer, checked in integers on the device.
    variance
        V, variance of the noise in every coordinate of the sum, from honest shares only; above 0.
    num_values
        d, length of the vector, which bounds the L1 sensitivity; None where a record does not tell, as in a ledger.

    Raises
    ------
    PrivacyError
        If a number is out of range.
    """

    sensitivity: int
    variance: float
    num_values: int | None = None
    unit: Unit = Unit.USER
    adjacency: Adjacency = Adjacency.ZERO_OUT
    assumptions: tuple[Assumption, ...] = (Assumption.SECURE_AGGREGATION, Assumption.HONEST_FRACTION)

    def __post_init__(self) -> None:
        require_count("sensitivity", self.sensitivity)
        require_positive("variance", self.variance)
        if self.num_values is not None:
            require_count("num_values", self.num_values)

    @property
    def noise_multiplier(self) -> float:
        """Standard deviation of the noise over the sensitivity, sqrt(V) / S."""
        return math.sqrt(self.variance) / self.sensitivity


BasicEvent = GaussianEvent | SkellamEvent


@dataclass(frozen=True)
class Composed:
    """The same event, `count` times over: adaptive, on the same people, with fresh noise each time."""

    event: BasicEvent | Composed
    count: int

    def __post_init__(self) -> None:
        require_count("count", self.count)


Event = BasicEvent | Composed


def flatten(events: Iterable[Event]) -> tuple[tuple[BasicEvent, int], ...]:
    """Every basic event with the number of times that it happened, in order of first appearance.

    Raises
    ------
    PrivacyError
        If there are no events, or if they protect different units or use different adjacencies: such numbers cannot
        be added.
    """
    counts: dict[BasicEvent, int] = {}
    for event in events:
        count, basic = 1, event
        while isinstance(basic, Composed):
            count, basic = count * basic.count, basic.event
        counts[basic] = counts.get(basic, 0) + count
    if not counts:
        raise PrivacyError("no events to account for", hint="give at least one event")
    for name in ("unit", "adjacency"):
        values = sorted({str(getattr(event, name)) for event in counts})
        if len(values) > 1:
            raise PrivacyError(
                f"events of different {name} cannot be composed: {' and '.join(values)}",
                hint=f"account for each {name} on its own",
            )
    return tuple(counts.items())
