"""Noise that a target needs, and rounds that a budget still holds. Both err towards privacy.

The noise is calibrated on the figure that is claimed afterwards (the proven one, `guarantee.account_for`). A
calibrated run can therefore never report more than its target.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache

from palate.privacy.accounting.checks import require_count, require_delta, require_positive
from palate.privacy.accounting.events import Composed, Event, GaussianEvent, SkellamEvent
from palate.privacy.accounting.filters import SkellamMeter, budget_nano_for, price_nano
from palate.privacy.accounting.guarantee import account_for
from palate.privacy.errors import PrivacyError

SMALLEST_NOISE, LARGEST_NOISE = 2.0**-20, 2.0**40
"""Range of noise multipliers that is searched."""

_RELATIVE_STEP = 1e-9  # of the noise multiplier; epsilon then ends within about twice that of its target
_MAX_ROUNDS = 2**40


def smallest_noise_multiplier(
    events_at: Callable[[float], Sequence[Event]],
    epsilon: float,
    delta: float,
    *,
    enforced_by: SkellamMeter | None = None,
) -> float:
    """Search the smallest noise multiplier whose events stay within (epsilon, delta), by bisection.

    Parameters
    ----------
    events_at
        Everything that is released when the noise multiplier is the argument; more noise must not cost more.
    epsilon
        Largest epsilon allowed; above 0.
    delta
        Failure probability of the guarantee.
    enforced_by
        Meter of a filter with the budget of (epsilon, delta) that must admit all events, charged one by one.

    Raises
    ------
    PrivacyError
        If no noise in the searched range meets the target, or the least noise already does.
    """
    require_positive("epsilon", epsilon)
    require_delta(delta)

    budget_nano = None if enforced_by is None else budget_nano_for(enforced_by, epsilon, delta)

    def meets(noise_multiplier: float) -> bool:
        events = events_at(noise_multiplier)
        if enforced_by is not None and budget_nano is not None and price_nano(enforced_by, events) > budget_nano:
            return False
        return account_for(events, delta).epsilon <= epsilon

    if meets(SMALLEST_NOISE):
        raise PrivacyError(
            f"epsilon {epsilon:g} asks for a noise multiplier below {SMALLEST_NOISE:.0e}",
            hint="so large an epsilon protects nobody: choose a smaller one, or unit none",
        )
    low, high = SMALLEST_NOISE, 2 * SMALLEST_NOISE
    while not meets(high):
        if high >= LARGEST_NOISE:
            raise PrivacyError(
                f"no noise multiplier up to {LARGEST_NOISE:.0e} keeps epsilon within {epsilon:g} at delta {delta:g}",
                hint="raise epsilon or delta, or let other releases spend less of the budget",
            )
        low, high = high, 2 * high
    while high - low > _RELATIVE_STEP * high:
        middle = (low + high) / 2
        low, high = (low, middle) if meets(middle) else (middle, high)
    return high  # it met the target throughout, so what is returned has been checked


def calibrate_skellam(*, epsilon: float, delta: float, rounds: int, sensitivity: int, num_values: int) -> SkellamEvent:
    """Size the integer mechanism for a number of equal rounds, and return one of them.

    Devices whose budget is the same target, and whose ledger counts on this sensitivity, take part to the end. With
    fine integers this costs less than a hundredth of epsilon. The variance of the honest shares' sum is then
    the event's; `dropout.Quorum` splits it.

    Parameters
    ----------
    epsilon, delta
        The guarantee to keep.
    rounds
        Releases with this noise in which one device may take part.
    sensitivity
        S, bound on the L2 norm of a device's integer vector.
    num_values
        Length of the vector.

    Raises
    ------
    PrivacyError
        If a number is out of range or the target cannot be met.
    """
    require_count("rounds", rounds)

    def one_round(noise_multiplier: float) -> SkellamEvent:
        return SkellamEvent(
            sensitivity=sensitivity, variance=(noise_multiplier * sensitivity) ** 2, num_values=num_values
        )

    found = smallest_noise_multiplier(
        lambda noise: [Composed(one_round(noise), rounds)], epsilon, delta, enforced_by=SkellamMeter(sensitivity)
    )
    return one_round(found)


@lru_cache(maxsize=64)  # a search, asked again whenever a fleet's settings are read
def calibrate_gaussian(*, epsilon: float, delta: float, rounds: int) -> GaussianEvent:
    """Size a Gaussian mechanism for a number of rounds, and return one of them.

    Raises
    ------
    PrivacyError
        If a number is out of range or the target cannot be met.
    """
    require_count("rounds", rounds)
    found = smallest_noise_multiplier(
        lambda noise: [Composed(GaussianEvent(noise_multiplier=noise), rounds)], epsilon, delta
    )
    return GaussianEvent(noise_multiplier=found)


def rounds_left(event: Event, epsilon: float, delta: float, spent: Sequence[Event] = ()) -> int:
    """Count how many more times an event may happen before epsilon exceeds the target; 0 if not even once.

    Parameters
    ----------
    event
        The next rounds.
    epsilon, delta
        The budget.
    spent
        What was released before.

    Raises
    ------
    PrivacyError
        If the target or delta is out of range, if the events cannot be composed, or if the event costs so little that
        the count has no meaning.
    """
    require_positive("epsilon", epsilon)
    require_delta(delta)

    def spent_after(count: int) -> float:
        return account_for([*spent, Composed(event, count)], delta).epsilon

    found = bisect_right(range(1, _MAX_ROUNDS + 1), epsilon, key=spent_after)
    if found == _MAX_ROUNDS:
        raise PrivacyError(
            f"more than {_MAX_ROUNDS} rounds fit into epsilon {epsilon:g}", hint="use less noise or a smaller budget"
        )
    return found
