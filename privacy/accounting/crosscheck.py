"""Compare the claim with independent accountants; a number is used only if they agree.

They are Google's dp_accounting (PLD and RDP) and Opacus (PRV and RDP). Each call makes a fresh accountant, because
Opacus' share the state that they are given. Opacus' GDP accountant is not here: it is an approximation that
under-reports. A Skellam release with fine enough integers is as good as a Gaussian one with the same noise multiplier,
so the libraries are asked about that. Their figures are printed next to the claim and never replace it.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from palate.models.arrays import Float64Array
from palate.privacy.accounting.checks import require_delta
from palate.privacy.accounting.events import Composed, Event, GaussianEvent, flatten
from palate.privacy.accounting.guarantee import CrossCheck, Guarantee, account_for
from palate.privacy.accounting.rdp import composed_rdp, rdp_to_epsilon
from palate.privacy.errors import PrivacyError

NUMERIC_TOLERANCE = 0.05
"""Largest difference between the two numerical accountants; Opacus' own error is 0.01."""

RDP_TOLERANCE = 1e-6
"""Largest difference between Renyi accountants at the same orders: the formulas are the same."""

SHARED_ORDERS: Float64Array = np.concatenate([np.arange(2.0, 65.0), np.arange(68.0, 257.0, 4.0)])
"""Whole Renyi orders on which the RDP accountants are compared, float64 [num_orders]."""


class AccountantUnavailable(PrivacyError):
    """A library is missing, or cannot compute this schedule."""

    exit_code = 12


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
    events, orders = gaussian_equivalent(events), SHARED_ORDERS
    numerical = [
        CrossCheck(accountant="exact Gaussian", epsilon=account_for(events, delta).epsilon),
        CrossCheck(accountant="dp_accounting PLD", epsilon=google_pld(events, delta)),
        CrossCheck(accountant="Opacus PRV", epsilon=opacus_prv(events, delta)),
    ]
    renyi = [
        CrossCheck(accountant="RDP", epsilon=rdp_to_epsilon(composed_rdp(events, orders), delta, orders)[0]),
        CrossCheck(accountant="dp_accounting RDP", epsilon=google_rdp(events, delta)),
        CrossCheck(accountant="Opacus RDP", epsilon=opacus_rdp(events, delta)),
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


def google_pld(events: Iterable[Event], delta: float) -> float:
    """Epsilon by privacy loss distributions, an upper bound (dp_accounting; Doroshenko et al. 2022).

    Raises
    ------
    AccountantUnavailable
        If dp_accounting is not installed or fails.
    """
    with _named_failure("dp_accounting's PLD", delta):
        from dp_accounting.pld import PLDAccountant

        return float(PLDAccountant().compose(_google_event(events)).get_epsilon(delta))


def google_rdp(events: Iterable[Event], delta: float) -> float:
    """Epsilon by Renyi divergence at SHARED_ORDERS (dp_accounting).

    Raises
    ------
    AccountantUnavailable
        If dp_accounting is not installed or fails.
    """
    with _named_failure("dp_accounting's RDP", delta):
        from dp_accounting.rdp import RdpAccountant

        return float(RdpAccountant(SHARED_ORDERS.tolist()).compose(_google_event(events)).get_epsilon(delta))


def opacus_prv(events: Iterable[Event], delta: float) -> float:
    """Epsilon by privacy random variables, an upper bound within 0.01 (Opacus; Gopi, Lee & Wutschitz 2021).

    Raises
    ------
    AccountantUnavailable
        If Opacus cannot compute it.
    """
    from opacus.accountants import PRVAccountant

    with _named_failure("Opacus' PRV", delta):
        figure = float(_opacus(PRVAccountant, events).get_epsilon(delta))
        # With almost no noise its grid overflows, and an infinity would count as a disagreement.
        if not math.isfinite(figure):
            raise ArithmeticError(f"its epsilon is {figure}")
    return figure


def opacus_rdp(events: Iterable[Event], delta: float) -> float:
    """Epsilon by Renyi divergence at SHARED_ORDERS (Opacus).

    Raises
    ------
    AccountantUnavailable
        If Opacus cannot compute it.
    """
    from opacus.accountants import RDPAccountant

    with _named_failure("Opacus' RDP", delta):
        return max(0.0, float(_opacus(RDPAccountant, events).get_epsilon(delta, alphas=SHARED_ORDERS.tolist())))


def _opacus(kind: Callable[[], Any], events: Iterable[Event]) -> Any:
    accountant = kind()  # at a sampling rate of 1: all take part
    accountant.history = [(event.noise_multiplier, 1.0, count) for event, count in flatten(events)]
    return accountant


def _google_event(events: Iterable[Event]) -> Any:
    import dp_accounting as dp

    return dp.ComposedDpEvent(
        [dp.SelfComposedDpEvent(dp.GaussianDpEvent(event.noise_multiplier), count) for event, count in flatten(events)]
    )


@contextmanager
def _named_failure(accountant: str, delta: float) -> Iterator[None]:
    require_delta(delta)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about edges of their grids; the comparison of the figures is the check
            yield
    except ModuleNotFoundError as error:
        raise AccountantUnavailable(
            "the package dp-accounting is not installed", hint="pip install dp-accounting"
        ) from error
    except (ArithmeticError, RuntimeError, ValueError, MemoryError) as error:
        logging.getLogger(__name__).debug("%s failed", accountant, exc_info=error)
        raise AccountantUnavailable(
            f"{accountant} accountant cannot compute this schedule: {error}",
            hint="compare with fewer rounds or more noise",
        ) from error
