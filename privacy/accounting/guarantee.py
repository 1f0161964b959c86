"""From events to a guarantee: the smallest figure that is *proven* for the mechanism that ran.

Gaussian releases have an exact answer. Skellam releases have two proofs, of which the smaller figure counts: the Renyi
bound of their paper, and, where the noise is fine enough, the exact answer for the Gaussians that it is a mixture of.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Any

from palate.privacy.accounting.checks import MIN_DELTA, require_delta
from palate.privacy.accounting.events import (
    Adjacency,
    Assumption,
    BasicEvent,
    Event,
    GaussianEvent,
    SkellamEvent,
    Unit,
    flatten,
)
from palate.privacy.accounting.gaussian import epsilon_at
from palate.privacy.accounting.rdp import composed_rdp, rdp_to_epsilon
from palate.privacy.accounting.skellam import (
    LARGEST_EXPONENT,
    LARGEST_SENSITIVITY,
    gaussian_distance,
    gaussian_variance,
    is_fine,
)

NO_AMPLIFICATION = "none claimed"
LOCAL_WARNING = "One device's share alone, if secure aggregation fails: it is no protection by itself."
_MARGIN = 1e-12  # relative: covers the rounding of the sum of squared mu


@dataclass(frozen=True, kw_only=True)
class CrossCheck:
    """Epsilon of another accountant for the same events as Gaussian ones; information, not a claim."""

    accountant: str
    epsilon: float


@dataclass(frozen=True, kw_only=True)
class Guarantee:
    """An epsilon with its unit, adjacency, accountant and assumptions.

    Attributes
    ----------
    epsilon, delta
        The claim, rounded up.
    unit, adjacency
        Whom it protects, and which two worlds are compared.
    accountant
        The theorem that the figure comes from.
    amplification
        What sampling is counted on: "none claimed".
    assumptions
        What must hold besides the noise.
    cross_checks
        Figures of other accountants, if they were asked.
    """

    epsilon: float
    delta: float
    unit: Unit
    adjacency: Adjacency
    accountant: str
    amplification: str
    assumptions: tuple[Assumption, ...]
    cross_checks: tuple[CrossCheck, ...] = ()

    def __str__(self) -> str:
        return (
            f"epsilon {round_up(self.epsilon)} at delta {self.delta:g} per {self.unit} ({self.adjacency}); "
            f"{self.accountant}; amplification: {self.amplification}; assuming: {'; '.join(self.assumptions)}"
        )


def as_dict(guarantee: Guarantee) -> dict[str, Any]:
    """Return a guarantee as JSON values: an epsilon is never given without its meaning."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(guarantee)))
    return values


def round_up(value: float, digits: int = 3) -> str:
    """Decimal text of a cost, never below it: 1.0001 reads 1.001."""
    if not math.isfinite(value):
        return str(value)
    return str(Decimal(value).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_CEILING))


def account_for(events: Sequence[Event], delta: float) -> Guarantee:
    """Account for everything that was released about the same people.

    Parameters
    ----------
    events
        All releases, in any order; of one unit and one adjacency.
    delta
        Failure probability of the guarantee, above 0 and below 1.

    Raises
    ------
    PrivacyError
        If delta is out of range, or the events are empty or cannot be composed.
    """
    require_delta(delta)
    released = flatten(events)
    kinds = {type(event) for event, _ in released}
    if kinds == {GaussianEvent}:
        mu = math.sqrt(math.fsum(count * event.noise_multiplier**-2 for event, count in released))
        return _describe(released, epsilon_at(mu, delta), delta, "exact Gaussian (Balle & Wang 2018)")
    figure, _ = rdp_to_epsilon(composed_rdp(events), delta)
    source = "Skellam RDP (Agarwal, Kairouz & Liu 2021)" if kinds == {SkellamEvent} else "RDP (Mironov 2017)"
    exact = _mixture_epsilon(released, delta, at_most=figure)
    if exact < figure:
        figure, source = exact, "Skellam noise as mixed Gaussians, exact (Balle & Wang 2018)"
    return _describe(released, figure, delta, source)


def _mixture_epsilon(released: Sequence[tuple[BasicEvent, int]], delta: float, *, at_most: float) -> float:
    """Epsilon of Skellam releases by the Gaussians that their noise is a mixture of (docs/skellam-as-gaussians.md).

    Each value of the noise is within `gaussian_distance` of such a mixture. Only values that the contribution moves
    matter, at most S^2 of whole numbers with norm S, and each costs (1 + e^epsilon) times that distance of delta.

    Returns
    -------
    The figure, or infinity where it proves nothing; `at_most` is an epsilon that is proven already.
    """
    if at_most > LARGEST_EXPONENT:
        return math.inf
    mu_squared = distance = 0.0
    for event, count in released:
        match event:
            case GaussianEvent():
                mu_squared += count * event.noise_multiplier**-2
            case SkellamEvent() if is_fine(event.variance) and event.sensitivity <= LARGEST_SENSITIVITY:
                mu_squared += count * event.sensitivity**2 / gaussian_variance(event.variance)
                distance += count * _moved(event) * gaussian_distance(event.variance)
            case _:
                return math.inf
    left = delta - distance * (1.0 + math.exp(at_most))
    return epsilon_at(math.sqrt(mu_squared * (1 + _MARGIN)), left) if left >= MIN_DELTA else math.inf


def _moved(event: SkellamEvent) -> int:
    values = event.sensitivity**2
    return values if event.num_values is None else min(values, event.num_values)


def _describe(released: Sequence[tuple[BasicEvent, int]], figure: float, delta: float, accountant: str) -> Guarantee:
    first, _ = released[0]
    return Guarantee(
        epsilon=figure,
        delta=delta,
        unit=first.unit,
        adjacency=first.adjacency,
        accountant=accountant,
        amplification=NO_AMPLIFICATION,
        assumptions=tuple(dict.fromkeys(text for event, _ in released for text in event.assumptions)),
    )
