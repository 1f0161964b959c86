"""What may be claimed: which theorem is used, and what is said with every epsilon."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.privacy.accounting.dropout import local_event
from palate.privacy.accounting.events import (
    Assumption,
    Composed,
    GaussianEvent,
    SkellamEvent,
    Unit,
)
from palate.privacy.accounting.gaussian import epsilon_at
from palate.privacy.accounting.guarantee import account_for, round_up
from palate.privacy.errors import PrivacyError

DELTA = 1e-5


def skellam(noise_multiplier: float, sensitivity: int = 4096) -> SkellamEvent:
    return SkellamEvent(sensitivity=sensitivity, variance=(noise_multiplier * sensitivity) ** 2, num_values=60_000)


def test_gaussian_rounds_get_the_exact_figure():
    guarantee = account_for([Composed(GaussianEvent(noise_multiplier=5.0), 50)], DELTA)
    assert guarantee.epsilon == pytest.approx(6.573, rel=5e-4)
    assert "exact Gaussian" in guarantee.accountant


def test_different_gaussian_rounds_compose_exactly():
    guarantee = account_for([GaussianEvent(noise_multiplier=1.0), GaussianEvent(noise_multiplier=2.0)], DELTA)
    assert guarantee.epsilon == pytest.approx(epsilon_at(math.sqrt(1.25), DELTA), rel=1e-9)


@pytest.mark.parametrize(("noise_multiplier", "rounds"), [(5.0, 50), (20.0, 200), (1.081, 1), (2.0, 5)])
def test_coarse_skellam_rounds_get_the_renyi_figure_and_not_the_gaussian_one(noise_multiplier: float, rounds: int):
    coarse = math.isqrt(int(2**15 / noise_multiplier**2))  # steps that leave the variance below 2^16
    guarantee = account_for([Composed(skellam(noise_multiplier, sensitivity=coarse), rounds)], DELTA)
    exact = epsilon_at(math.sqrt(rounds) / noise_multiplier, DELTA)
    assert "Skellam RDP" in guarantee.accountant
    assert 1.05 * exact < guarantee.epsilon < 1.13 * exact


@pytest.mark.parametrize(("noise_multiplier", "rounds"), [(5.0, 50), (20.0, 200), (1.081, 1), (2.0, 5)])
def test_fine_skellam_rounds_get_the_figure_of_gaussians_that_are_a_little_narrower(
    noise_multiplier: float, rounds: int
):
    guarantee = account_for([Composed(skellam(noise_multiplier), rounds)], DELTA)
    exact = epsilon_at(math.sqrt(rounds) / noise_multiplier, DELTA)
    assert "mixed Gaussians" in guarantee.accountant
    assert exact < guarantee.epsilon < 1.003 * exact


def test_mixed_rounds_pay_for_every_kind_of_noise():
    plain, integer = Composed(GaussianEvent(noise_multiplier=5.0), 20), Composed(skellam(5.0), 30)
    mixed = account_for([plain, integer], DELTA)
    assert "mixed Gaussians" in mixed.accountant
    assert (
        epsilon_at(math.sqrt(50) / 5.0, DELTA)
        < mixed.epsilon
        < account_for([Composed(skellam(5.0), 50)], DELTA).epsilon
    )
    assert set(mixed.assumptions) == set(plain.event.assumptions) | set(integer.event.assumptions)


def test_every_claim_says_whom_it_protects_and_what_it_rests_on():
    guarantee = account_for([skellam(4.0)], DELTA)
    assert guarantee.unit is Unit.USER
    assert guarantee.amplification == "none claimed"
    assert Assumption.HONEST_FRACTION in guarantee.assumptions
    text = str(guarantee)
    for part in ("per user", "zero-out", "amplification: none claimed", "honest survivors", "delta 1e-05"):
        assert part in text


def test_ten_rounds_cost_far_more_than_one():
    one = account_for([skellam(1.0)], DELTA).epsilon
    ten = account_for([skellam(1.0)] * 10, DELTA).epsilon
    assert ten == account_for([Composed(skellam(1.0), 10)], DELTA).epsilon
    assert ten > 3 * one


@given(st.floats(0.5, 40), st.integers(1, 300), st.integers(1, 300), st.floats(1.01, 5))
@settings(max_examples=60, deadline=None)
def test_epsilon_grows_with_rounds_and_falls_with_noise_and_delta(noise: float, rounds: int, more: int, factor: float):
    def cost(noise_multiplier: float, count: int, delta: float) -> float:
        return account_for([Composed(skellam(noise_multiplier), count)], delta).epsilon

    base = cost(noise, rounds, DELTA)
    assert cost(noise, rounds + more, DELTA) > base
    assert cost(noise * factor, rounds, DELTA) < base
    assert cost(noise, rounds, DELTA * factor) < base


@given(st.floats(0.5, 40), st.integers(1, 300), st.floats(0.5, 40), st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_composition_costs_at_most_the_sum_of_both_parts(first: float, rounds: int, second: float, others: int):
    left, right = Composed(skellam(first), rounds), Composed(skellam(second), others)
    together = account_for([left, right], 2 * DELTA).epsilon
    # Basic composition: epsilons and deltas add up; a sound accountant never reports more.
    assert together <= account_for([left], DELTA).epsilon + account_for([right], DELTA).epsilon
    assert together >= account_for([left], 2 * DELTA).epsilon


def test_one_share_alone_is_no_protection():
    # Per round, noise multiplier 1 split over 100 devices: one device's own noise is a tenth of its sensitivity.
    local = local_event(skellam(1.0), honest=100)
    assert local.noise_multiplier == pytest.approx(0.1)
    assert epsilon_at(1 / local.noise_multiplier, 1e-6) == pytest.approx(96.7, rel=1e-3)
    assert account_for([local], 1e-6).epsilon > 96.7
    assert account_for([local], DELTA).assumptions == ()


@pytest.mark.parametrize(("value", "text"), [(1.0, "1.000"), (1.0001, "1.001"), (6.5725, "6.573"), (1e-9, "0.001")])
def test_printed_costs_are_rounded_up(value: float, text: str):
    assert round_up(value) == text
    assert round_up(math.inf) == "inf"


@pytest.mark.parametrize("delta", [0.0, 1.0, 2.0, -1.0, float("nan")])
def test_a_delta_that_is_no_probability_is_refused(delta: float):
    with pytest.raises(PrivacyError, match="delta") as caught:
        account_for([skellam(1.0)], delta)
    assert caught.value.hint
