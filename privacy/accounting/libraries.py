"""Independent accountants, asked about our events as Gaussian ones with the same noise multiplier.

Google's dp_accounting (PLD and RDP) and Opacus (PRV and RDP). Each call makes a fresh accountant, because Opacus' share
the state that they are given. Opacus' GDP accountant is not here: it is an approximation that under-reports.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from palate.models.arrays import Float64Array
from palate.privacy.accounting.checks import require_delta
from palate.privacy.accounting.events import Event, flatten
from palate.privacy.errors import PrivacyError

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
        if not math.isfinite(
            figure
        ):  # with almost no noise its grid overflows, and an infinity would count as a disagreement
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
