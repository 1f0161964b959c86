"""Other people's accountants, asked about our events taken as Gaussian ones with the same noise multiplier.

Google's dp_accounting (PLD and RDP) and Opacus (PRV and RDP). Each call makes a fresh accountant, because Opacus' share
the state that they are given. Opacus' GDP accountant is not here: it is an approximation that under-reports.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from palate.models.arrays import Float64Array
from palate.privacy.accounting.checks import require_delta
from palate.privacy.accounting.events import Event, flatten
from palate.privacy.errors import PrivacyError

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARED_ORDERS: Float64Array = np.concatenate([np.arange(2.0, 65.0), np.arange(68.0, 257.0, 4.0)])
"""Whole Renyi orders on which the RDP accountants are compared, float64 [num_orders]."""


class AccountantUnavailable(PrivacyError):
    """A library is missing, or cannot compute this schedule."""

    exit_code = 12


def google_pld(events: Iterable[Event], delta: float) -> float:
    """Epsilon by privacy loss distributions, an upper bound (dp_accounting; Doroshenko et al. 2022).

    Raises
    ------
    AccountantUnavailable
        If dp_accounting is not installed or fails.
    """
    require_delta(delta)
    dp = _dp_accounting()
    with _named_failure("dp_accounting's PLD"):
        return float(dp.pld.PLDAccountant().compose(_google_event(dp, events)).get_epsilon(delta))


def google_rdp(events: Iterable[Event], delta: float) -> float:
    """Epsilon by Renyi divergence at SHARED_ORDERS (dp_accounting).

    Raises
    ------
    AccountantUnavailable
        If dp_accounting is not installed or fails.
    """
    require_delta(delta)
    dp = _dp_accounting()
    with _named_failure("dp_accounting's RDP"):
        accountant = dp.rdp.RdpAccountant(SHARED_ORDERS.tolist())
        return float(accountant.compose(_google_event(dp, events)).get_epsilon(delta))


def opacus_prv(events: Iterable[Event], delta: float) -> float:
    """Epsilon by privacy random variables, an upper bound within 0.01 (Opacus; Gopi, Lee & Wutschitz 2021).

    Raises
    ------
    AccountantUnavailable
        If Opacus cannot compute it.
    """
    require_delta(delta)
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = _opacus_history(events)
    with _named_failure("Opacus' PRV"):
        figure = float(accountant.get_epsilon(delta))
        if not math.isfinite(figure):  # with next to no noise its grid overflows, and an infinity would be "no accord"
            raise ArithmeticError(f"its epsilon is {figure}")
    return figure


def opacus_rdp(events: Iterable[Event], delta: float) -> float:
    """Epsilon by Renyi divergence at SHARED_ORDERS (Opacus).

    Raises
    ------
    AccountantUnavailable
        If Opacus cannot compute it.
    """
    require_delta(delta)
    from opacus.accountants.analysis import rdp

    orders = SHARED_ORDERS.tolist()
    with _named_failure("Opacus' RDP"):
        total = np.zeros_like(SHARED_ORDERS)
        for sigma, rate, steps in _opacus_history(events):
            total += rdp.compute_rdp(q=rate, noise_multiplier=sigma, steps=steps, orders=orders)
        figure, _ = rdp.get_privacy_spent(orders=orders, rdp=total.tolist(), delta=delta)
    return max(0.0, float(figure))


def _opacus_history(events: Iterable[Event]) -> list[tuple[float, float, int]]:
    return [(event.noise_multiplier, 1.0, count) for event, count in flatten(events)]  # sampling rate 1: all take part


def _google_event(dp: Any, events: Iterable[Event]) -> Any:
    return dp.ComposedDpEvent(
        [dp.SelfComposedDpEvent(dp.GaussianDpEvent(event.noise_multiplier), count) for event, count in flatten(events)]
    )


def _dp_accounting() -> Any:
    try:
        import dp_accounting
    except ModuleNotFoundError as error:
        raise AccountantUnavailable(
            "the package dp-accounting is not installed", hint="pip install dp-accounting"
        ) from error
    return dp_accounting


@contextmanager
def _named_failure(accountant: str) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about edges of their grids; the comparison of the figures is the check
            yield
    except (ArithmeticError, RuntimeError, ValueError, MemoryError) as error:
        logging.getLogger(__name__).debug("%s failed", accountant, exc_info=error)
        raise AccountantUnavailable(
            f"{accountant} accountant cannot compute this schedule: {error}",
            hint="compare with fewer rounds or more noise",
        ) from error
