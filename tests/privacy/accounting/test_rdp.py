"""Renyi accounting: conversion against the exact answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.privacy.accounting.events import Composed, GaussianEvent
from palate.privacy.accounting.gaussian import epsilon_at
from palate.privacy.accounting.rdp import ORDERS, composed_rdp, rdp_to_epsilon
from palate.privacy.errors import PrivacyError

DELTA = 1e-5


@given(st.floats(0.3, 200), st.integers(1, 500), st.floats(1e-10, 1e-2))
@settings(max_examples=60, deadline=None)
def test_conversion_is_never_below_the_exact_answer(sigma: float, rounds: int, delta: float):
    converted, _ = rdp_to_epsilon(composed_rdp([Composed(GaussianEvent(noise_multiplier=sigma), rounds)]), delta)
    assert converted >= epsilon_at(math.sqrt(rounds) / sigma, delta)


@pytest.mark.parametrize(("sigma", "rounds", "expected"), [(5, 50, 7.077), (2, 50, 22.02), (20, 200, 3.189)])
def test_order_grid_loses_nothing_against_the_best_order(sigma: float, rounds: int, expected: float):
    converted, order = rdp_to_epsilon(composed_rdp([Composed(GaussianEvent(noise_multiplier=sigma), rounds)]), DELTA)
    assert converted == pytest.approx(expected, rel=5e-4)
    dense = np.arange(order - 0.5, order + 0.5, 1e-4)
    best, _ = rdp_to_epsilon(rounds * dense / (2 * sigma**2), DELTA, dense)
    assert converted <= best * 1.0005


@given(st.lists(st.tuples(st.floats(0.5, 50), st.integers(1, 40)), min_size=1, max_size=4))
@settings(max_examples=30, deadline=None)
def test_composition_adds_and_ignores_order(rounds: list[tuple[float, int]]):
    events = [Composed(GaussianEvent(noise_multiplier=sigma), count) for sigma, count in rounds]
    forwards = composed_rdp(events)
    np.testing.assert_allclose(forwards, composed_rdp(events[::-1]), rtol=1e-12)
    np.testing.assert_allclose(forwards, sum(composed_rdp([event]) for event in events), rtol=1e-11)


def test_no_divergence_needs_no_epsilon():
    assert rdp_to_epsilon(np.zeros_like(ORDERS), DELTA)[0] == 0.0


def test_shared_bounds_cannot_be_changed_by_a_caller():
    event = GaussianEvent(noise_multiplier=1.0)
    composed_rdp([event])[:] = 0
    assert composed_rdp([event])[0] > 0
    with pytest.raises(ValueError, match="read-only"):
        ORDERS[0] = 2.0


@pytest.mark.parametrize("delta", [0.0, 1.0, float("nan")])
def test_conversion_refuses_a_delta_that_is_no_probability(delta: float):
    with pytest.raises(PrivacyError, match="delta"):
        rdp_to_epsilon(np.ones_like(ORDERS), delta)
