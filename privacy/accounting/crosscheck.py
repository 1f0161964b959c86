"""Compare the claim with independent accountants; a number is used only if they agree.

A Skellam release with fine enough integers is as good as a Gaussian one with the same noise multiplier, so the
libraries are asked about that. Their figures are printed next to the claim and never replace it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from palate.privacy.accounting import libraries
from palate.privacy.accounting.events import Composed, Event, GaussianEvent, flatten
from palate.privacy.accounting.guarantee import CrossCheck, Guarantee, account_for
from palate.privacy.accounting.rdp import composed_rdp, rdp_to_epsilon
from palate.privacy.errors import PrivacyError

NUMERIC_TOLERANCE = 0.05
"""Largest difference between the two numerical accountants; Opacus' own error is 0.01."""

RDP_TOLERANCE = 1e-6
"""Largest difference between Renyi accountants at the same orders: the formulas are the same."""


class AccountantsDisagree(PrivacyError):
    """Two accountants give different figures for the same events; none of them can be trusted."""

    exit_code = 4


def gaussian_equivalent(events: Sequence[Event]) -> list[Event]:
    """Replace every event by a Gaussian one with its noise multiplier."""
    return [
        Composed(
            GaussianEvent(noise_multiplier=event.noise_multiplier, unit=event.unit, adjacency=event.adjacency), count
        )
        for event, count in flatten(events)
    ]


def cross_check(events: Sequence[Event], delta: float) -> tuple[CrossCheck, ...]:
    """Ask every accountant about the same events.

    Parameters
    ----------
    events
        What was released.
    delta
        Failure probability of the guarantee.

    Returns
    -------
    The figures, exact or tightest first.

    Raises
    ------
    AccountantsDisagree
        If the numerical accountants differ by more than NUMERIC_TOLERANCE, or the Renyi ones by more than
        RDP_TOLERANCE.
    AccountantUnavailable
        If a library is missing or fails.
    """
    events, orders = gaussian_equivalent(events), libraries.SHARED_ORDERS
    numerical = [
        CrossCheck(accountant="exact Gaussian", epsilon=account_for(events, delta).epsilon),
        CrossCheck(accountant="dp_accounting PLD", epsilon=libraries.google_pld(events, delta)),
        CrossCheck(accountant="Opacus PRV", epsilon=libraries.opacus_prv(events, delta)),
    ]
    renyi = [
        CrossCheck(accountant="RDP", epsilon=rdp_to_epsilon(composed_rdp(events, orders), delta, orders)[0]),
        CrossCheck(accountant="dp_accounting RDP", epsilon=libraries.google_rdp(events, delta)),
        CrossCheck(accountant="Opacus RDP", epsilon=libraries.opacus_rdp(events, delta)),
    ]
    require_agreement(numerical, NUMERIC_TOLERANCE)
    require_agreement(renyi, RDP_TOLERANCE)
    return (*numerical, *renyi)


def require_agreement(checks: Sequence[CrossCheck], tolerance: float) -> None:
    """Raise AccountantsDisagree if the figures spread over more than the tolerance, or if one is not a number."""
    low = min(checks, key=lambda check: check.epsilon)
    high = max(checks, key=lambda check: check.epsilon)
    # Written so that a NaN fails: every comparison with it is false.
    if not all(abs(check.epsilon - low.epsilon) <= tolerance for check in checks):
        raise AccountantsDisagree(
            f"{low.accountant} says epsilon {low.epsilon:.6f}, {high.accountant} says {high.epsilon:.6f}: "
            f"more than {tolerance:g} apart",
            hint="do not publish either figure; report the schedule to the maintainers",
        )


def checked_epsilon(events: Sequence[Event], delta: float) -> Guarantee:
    """Account for the events and add what the other accountants say.

    Raises
    ------
    AccountantsDisagree
        If the accountants differ, or if the claim is lower than a numerical accountant's figure by more than
        NUMERIC_TOLERANCE: a proven bound for discrete noise cannot beat the Gaussian it approaches.
    AccountantUnavailable
        If a library is missing or fails.
    """
    guarantee = account_for(events, delta)
    checks = cross_check(events, delta)
    claim = CrossCheck(accountant=guarantee.accountant, epsilon=guarantee.epsilon)
    tightest = min(checks, key=lambda check: check.epsilon)
    if claim.epsilon < tightest.epsilon:
        require_agreement([claim, tightest], NUMERIC_TOLERANCE)
    return replace(guarantee, cross_checks=checks)
