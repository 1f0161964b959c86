"""Prices of a ledger: whatever an adversary chooses next, the budget's promise covers what was let through."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.privacy.accounting.events import GaussianEvent, SkellamEvent
from palate.privacy.accounting.filters import NANO, SkellamMeter, budget_nano_for, price_nano
from palate.privacy.accounting.guarantee import account_for
from palate.privacy.accounting.skellam import skellam_rdp
from palate.privacy.errors import PrivacyError

DELTA = 1e-5
METER = SkellamMeter(1)  # counts on nothing

skellams = st.builds(
    lambda sensitivity, noise, num_values: SkellamEvent(
        sensitivity=sensitivity, variance=(noise * sensitivity) ** 2, num_values=num_values
    ),
    st.integers(1, 2**14),
    st.floats(0.3, 100),
    st.integers(1, 10**6),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(skellams, min_size=1, max_size=30), st.floats(0.5, 30))
def test_what_fits_into_a_budget_stays_within_its_promise(events: list[SkellamEvent], target: float):
    left, passed = budget_nano_for(METER, target, DELTA), []
    for event in events:
        if METER.price_nano(event) <= left:
            left -= METER.price_nano(event)
            passed.append(event)
    if passed:
        assert account_for(passed, DELTA).epsilon <= target
        assert price_nano(METER, passed) <= budget_nano_for(METER, target, DELTA)


@given(skellams)
def test_the_charge_covers_the_bound_at_every_whole_order(event: SkellamEvent):
    rho = METER.price_nano(event) / NANO / 2
    orders = np.arange(2.0, 2000.0)
    assert np.all(skellam_rdp(event, orders) <= orders * rho * (1 + 1e-12))


def test_fine_noise_is_charged_like_gaussian_noise_plus_a_trace():
    event = SkellamEvent(sensitivity=4096, variance=4.0 * 4096**2, num_values=60_000)
    plain = NANO * 4096**2 / event.variance
    assert plain < METER.price_nano(event) < plain * (1 + 1e-6)


@pytest.mark.parametrize("sensitivity", [1, 64, 4096])
def test_the_budget_for_a_target_is_the_largest_that_keeps_it(sensitivity: int):
    meter = SkellamMeter(sensitivity)
    budget = budget_nano_for(meter, 8.0, DELTA)
    assert meter.epsilon(budget, DELTA) <= 8.0
    assert meter.epsilon(budget + 2, DELTA) > 8.0


def test_a_meter_refuses_what_it_cannot_price():
    with pytest.raises(PrivacyError, match="no price for GaussianEvent"):
        METER.price_nano(GaussianEvent(noise_multiplier=1.0))


def test_a_target_that_no_budget_can_promise_is_refused():
    with pytest.raises(PrivacyError, match="out of this filter's range"):
        budget_nano_for(METER, 1e-7, DELTA)
