"""Filters: whatever an adversary chooses next, the budget's promise covers what was let through."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.privacy.accounting.events import Composed, Event, GaussianEvent, SampledGaussianEvent, SkellamEvent
from palate.privacy.accounting.filters import (
    NANO,
    BudgetExceeded,
    BudgetFilter,
    GdpMeter,
    RenyiMeter,
    ZcdpMeter,
    budget_nano_for,
)
from palate.privacy.accounting.guarantee import epsilon
from palate.privacy.accounting.skellam import skellam_rdp
from palate.privacy.errors import PrivacyError

DELTA = 1e-5
METERS = [ZcdpMeter(), GdpMeter(), RenyiMeter(4)]

gaussians = st.builds(GaussianEvent, noise_multiplier=st.floats(0.3, 100))
skellams = st.builds(
    lambda sensitivity, noise, num_values: SkellamEvent(
        sensitivity=sensitivity, variance=(noise * sensitivity) ** 2, num_values=num_values
    ),
    st.integers(1, 2**14),
    st.floats(0.3, 100),
    st.integers(1, 10**6),
)


def through(meter, budget_nano: int, events: list[Event]) -> list[Event]:
    """Offer the events one by one and return those that the filter let through."""
    budget = BudgetFilter(meter, budget_nano)
    passed = []
    for event in events:
        try:
            budget.charge(event)
        except BudgetExceeded:
            continue
        passed.append(event)
    assert budget.spent_nano <= budget_nano
    return passed


@settings(max_examples=60, deadline=None)
@given(st.lists(gaussians | skellams, min_size=1, max_size=30), st.floats(0.5, 30))
@pytest.mark.parametrize("meter", [ZcdpMeter(), RenyiMeter(32)], ids=["zcdp", "renyi"])
def test_what_a_filter_lets_through_stays_within_its_promise(meter, events: list[Event], target: float):
    passed = through(meter, budget_nano_for(meter, target, DELTA), events)
    if passed:
        assert epsilon(passed, DELTA).epsilon <= target


@settings(max_examples=60, deadline=None)
@given(st.lists(gaussians, min_size=1, max_size=30), st.floats(0.5, 30))
def test_the_gaussian_filter_is_exact_and_stays_within_its_promise(events: list[Event], target: float):
    passed = through(GdpMeter(), budget_nano_for(GdpMeter(), target, DELTA), events)
    if passed:
        assert epsilon(passed, DELTA).epsilon <= target


@given(gaussians)
def test_gaussian_charges_are_rounded_up_by_less_than_a_billionth(event: GaussianEvent):
    exact = NANO / Fraction(event.noise_multiplier) ** 2
    for meter in (ZcdpMeter(), GdpMeter()):
        assert 0 <= meter.price_nano(event) - exact < 1


@given(skellams)
def test_the_skellam_charge_covers_the_bound_at_every_whole_order(event: SkellamEvent):
    rho = ZcdpMeter().price_nano(event) / NANO / 2
    orders = np.arange(2.0, 2000.0)
    assert np.all(skellam_rdp(event, orders) <= orders * rho * (1 + 1e-12))


def test_fine_skellam_noise_is_charged_like_gaussian_noise_plus_a_trace():
    event = SkellamEvent(sensitivity=4096, variance=4.0 * 4096**2, num_values=60_000)
    plain = NANO * 4096**2 / event.variance
    assert plain < ZcdpMeter().price_nano(event) < plain * (1 + 1e-6)


@pytest.mark.parametrize("meter", METERS, ids=lambda meter: type(meter).__name__)
def test_the_budget_for_a_target_is_the_largest_that_keeps_it(meter):
    budget = budget_nano_for(meter, 8.0, DELTA)
    assert meter.epsilon(budget, DELTA) <= 8.0
    assert meter.epsilon(budget + 2, DELTA) > 8.0
    assert BudgetFilter(meter, budget).epsilon(DELTA) == meter.epsilon(budget, DELTA)


def test_the_release_that_would_exceed_the_budget_is_refused_and_not_charged():
    budget = BudgetFilter(GdpMeter(), 2 * NANO)
    round_ = GaussianEvent(noise_multiplier=1.0)
    assert budget.charge(round_) == NANO
    with pytest.raises(BudgetExceeded, match=r"costs 2\.0+, 1\.0+ is left of 2\.0+") as caught:
        budget.charge(Composed(round_, 2))
    assert caught.value.hint
    assert budget.left_nano == NANO
    assert budget.charge(round_) == NANO
    assert budget.left_nano == 0
    with pytest.raises(BudgetExceeded):
        budget.charge(GaussianEvent(noise_multiplier=1e9))


def test_spending_resumes_where_the_ledger_left_off():
    budget = BudgetFilter(ZcdpMeter(), NANO, spent_nano=NANO - 1)
    with pytest.raises(BudgetExceeded):
        budget.charge(GaussianEvent(noise_multiplier=1e3))
    overspent = BudgetFilter(ZcdpMeter(), NANO, spent_nano=2 * NANO)
    assert overspent.left_nano == 0


def test_a_meter_refuses_what_it_cannot_price():
    sampled = SampledGaussianEvent(sampling_rate=0.1, noise_multiplier=1.0)
    integer = SkellamEvent(sensitivity=64, variance=4096.0, num_values=10)
    for meter, event in [
        (ZcdpMeter(), sampled),
        (GdpMeter(), sampled),
        (GdpMeter(), integer),
        (RenyiMeter(4.5), integer),
        (RenyiMeter(257), sampled),
    ]:
        with pytest.raises(PrivacyError) as caught:
            BudgetFilter(meter, 10**15).charge(event)
        assert not isinstance(caught.value, BudgetExceeded)


def test_a_fixed_order_prices_sampled_rounds():
    sampled = SampledGaussianEvent(sampling_rate=0.01, noise_multiplier=1.0)
    meter = RenyiMeter(8)
    passed = through(meter, budget_nano_for(meter, 3.0, DELTA), [sampled] * 2000)
    assert 100 < len(passed) < 2000
    assert epsilon(passed, DELTA).epsilon <= 3.0


def test_an_order_that_cannot_reach_the_target_says_so():
    with pytest.raises(PrivacyError, match="out of this filter's reach"):
        budget_nano_for(RenyiMeter(2), 0.5, DELTA)


@pytest.mark.parametrize("bad", [-1, 0.5, True])
def test_budgets_are_whole_numbers(bad):
    with pytest.raises(PrivacyError, match="budget_nano"):
        BudgetFilter(ZcdpMeter(), bad)
    with pytest.raises(PrivacyError, match="order"):
        RenyiMeter(1.0)
