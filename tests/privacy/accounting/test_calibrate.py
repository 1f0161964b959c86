"""Calibration keeps its target, wastes nothing, and says no when nothing fits."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.privacy.accounting.calibrate import (
    calibrate_gaussian,
    calibrate_skellam,
    rounds_left,
    smallest_noise_multiplier,
)
from palate.privacy.accounting.events import Composed, GaussianEvent, SkellamEvent, Unit
from palate.privacy.accounting.filters import SkellamMeter, budget_nano_for, price_nano
from palate.privacy.accounting.gaussian import epsilon_at
from palate.privacy.accounting.guarantee import account_for
from palate.privacy.accounting.skellam import LEAST_FINE_VARIANCE
from palate.privacy.errors import PrivacyError

DELTA = 1e-5


@settings(max_examples=30, deadline=None)
@given(st.floats(-2, 2), st.floats(-10, -2), st.integers(1, 2000), st.integers(4, 14), st.integers(1, 10**6))
def test_calibrated_noise_never_exceeds_its_target_and_is_within_a_thousandth(
    log10_target: float, log10_delta: float, rounds: int, bits: int, num_values: int
):
    target, delta = 10**log10_target, 10**log10_delta

    def event(noise_multiplier: float) -> SkellamEvent:
        return SkellamEvent(sensitivity=2**bits, variance=(noise_multiplier * 2**bits) ** 2, num_values=num_values)

    found = smallest_noise_multiplier(lambda noise: [Composed(event(noise), rounds)], target, delta)
    again = account_for([Composed(event(found), rounds)], delta)
    assert again.epsilon <= target
    assert account_for([Composed(event(found * (1 - 1e-4)), rounds)], delta).epsilon > target
    at_border = LEAST_FINE_VARIANCE <= event(found).variance < LEAST_FINE_VARIANCE * (1 + 1e-6)
    if again.epsilon > 0 and not at_border:  # it jumps to 0 below total variation delta, and down where noise is fine
        assert again.epsilon >= target * (1 - 1e-3)


@settings(max_examples=30, deadline=None)
@given(st.floats(-1, 2), st.integers(1, 500), st.integers(2, 14), st.integers(1, 10**6))
def test_devices_with_the_same_budget_take_part_to_the_end(
    log10_target: float, rounds: int, bits: int, num_values: int
):
    target = 10**log10_target
    found = calibrate_skellam(epsilon=target, delta=DELTA, rounds=rounds, sensitivity=2**bits, num_values=num_values)
    spent = account_for([Composed(found, rounds)], DELTA).epsilon
    assert spent <= target
    meter = SkellamMeter(2**bits)
    assert rounds * price_nano(meter, [found]) <= budget_nano_for(meter, target, DELTA)
    if bits >= 12 and 0 <= log10_target <= 1:
        assert spent >= target * (1 - 1e-2)


def test_enforcing_the_budget_costs_next_to_nothing_with_fine_integers():
    parameters = {"epsilon": 8.0, "delta": DELTA, "rounds": 50, "sensitivity": 4096, "num_values": 60_000}
    enforced = calibrate_skellam(**parameters).noise_multiplier
    free = smallest_noise_multiplier(
        lambda noise: [Composed(SkellamEvent(sensitivity=4096, variance=(noise * 4096) ** 2, num_values=60_000), 50)],
        8.0,
        DELTA,
    )
    assert free < enforced < free * (1 + 3e-3)


def test_integer_noise_is_sized_on_the_proven_bound():
    found = calibrate_skellam(epsilon=8.0, delta=DELTA, rounds=50, sensitivity=4096, num_values=60_000)
    assert found.noise_multiplier > calibrate_gaussian(epsilon=8.0, delta=DELTA, rounds=50).noise_multiplier
    assert found.noise_multiplier == pytest.approx(4.255, rel=1e-3)


@pytest.mark.parametrize("target", [1.0, 8.0])
def test_search_finds_the_closed_form_for_gaussian_rounds(target: float):
    found = calibrate_gaussian(epsilon=target, delta=DELTA, rounds=50)
    assert 0 <= target - epsilon_at(math.sqrt(50) / found.noise_multiplier, DELTA) < 1e-8 * target


def test_releases_that_spend_everything_leave_no_noise_that_fits():
    spent = GaussianEvent(noise_multiplier=0.5)
    with pytest.raises(PrivacyError, match="no noise multiplier") as caught:
        smallest_noise_multiplier(lambda noise: [spent, GaussianEvent(noise_multiplier=noise)], 8.0, DELTA)
    assert caught.value.hint


def test_an_epsilon_that_protects_nobody_is_refused():
    with pytest.raises(PrivacyError, match="noise multiplier below"):
        calibrate_gaussian(epsilon=1e15, delta=DELTA, rounds=1)


@pytest.mark.parametrize(
    "wrong", [{"epsilon": 0.0}, {"epsilon": float("nan")}, {"delta": 1.0}, {"rounds": 0}, {"sensitivity": -1}]
)
def test_wrong_parameters_are_named(wrong: dict[str, float]):
    good = {"epsilon": 8.0, "delta": DELTA, "rounds": 5, "sensitivity": 4096, "num_values": 100}
    name = next(iter(wrong))
    with pytest.raises(PrivacyError, match=name):
        calibrate_skellam(**{**good, **wrong})


@settings(max_examples=30, deadline=None)
@given(st.floats(0.8, 40), st.floats(0.5, 30), st.integers(1, 30))
def test_rounds_left_fit_and_one_more_does_not(noise_multiplier: float, target: float, spent_rounds: int):
    event = SkellamEvent(sensitivity=4096, variance=(noise_multiplier * 4096) ** 2, num_values=60_000)
    spent = [Composed(event, spent_rounds)]
    left = rounds_left(event, target, DELTA, spent)
    if left:
        assert account_for([Composed(event, spent_rounds + left)], DELTA).epsilon <= target
    assert account_for([Composed(event, spent_rounds + left + 1)], DELTA).epsilon > target


def test_a_calibrated_schedule_leaves_exactly_its_rounds():
    found = calibrate_skellam(epsilon=8.0, delta=DELTA, rounds=50, sensitivity=4096, num_values=60_000)
    assert rounds_left(found, 8.0, DELTA) == 50
    assert rounds_left(found, 8.0, DELTA, [Composed(found, 20)]) == 30
    assert rounds_left(found, 8.0, DELTA, [Composed(found, 50)]) == 0


def test_rounds_that_cost_next_to_nothing_are_not_counted():
    with pytest.raises(PrivacyError, match="more than"):
        rounds_left(GaussianEvent(noise_multiplier=1e9), 8.0, DELTA)


def test_units_do_not_mix_in_a_budget():
    spent = [GaussianEvent(noise_multiplier=1.0, unit=Unit.INTERACTION)]
    with pytest.raises(PrivacyError, match="unit"):
        rounds_left(GaussianEvent(noise_multiplier=1.0), 8.0, DELTA, spent)
