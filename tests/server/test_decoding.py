"""The server's sum: integers in a ring come back as the sum of floats plus noise, whatever wraps on the way."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.privacy.integer.csprng import Purpose, WordStream
from palate.privacy.mechanisms.terms import ReleaseTerms
from palate.privacy.wire import ItemUpdate, RoundPlan
from palate.server.decoding import UpdateSum

ITEMS, DIM, DEVICES = 50, 3, 20
RNG = np.random.default_rng(5)
UPDATES = RNG.normal(scale=0.05, size=(DEVICES, ITEMS * DIM)).astype(np.float32)
TERMS = ReleaseTerms(clip_norm=1.0, sensitivity=4096, share_variance=1, honest_shares=DEVICES, roster_size=DEVICES)
PLAN = RoundPlan(
    run="r",
    server_round=1,
    purpose="train",
    unit="user",
    participation=1.0,
    training="{}",
    fixed=np.zeros((ITEMS, 1), np.float32),
    learned=np.zeros((ITEMS, DIM), np.float32),
    terms=TERMS,
)


def messages(plan: RoundPlan) -> list[ItemUpdate]:
    mechanism = plan.terms.mechanism(plan.update_size)
    keys = [bytes([device + 1]) * 32 for device in range(DEVICES)]
    return [
        ItemUpdate(
            mechanism.encode(update, rounding=WordStream(key, Purpose.ROUNDING), noise=WordStream(key, Purpose.NOISE))
        )
        for update, key in zip(UPDATES, keys, strict=True)
    ]


def scale(plan: RoundPlan) -> float:
    return 1.0 if plan.terms is None else plan.terms.mechanism(plan.update_size).quantiser.scale


def summed(plan: RoundPlan, updates: list[ItemUpdate]) -> np.ndarray:
    total = UpdateSum(plan)
    for update in updates:
        total.add(update)
    return total.total()


SENT = messages(PLAN)


def clipped_sum() -> np.ndarray:
    wide = UPDATES.astype(np.float64)
    return (wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1.0)).sum(axis=0)


@pytest.mark.parametrize("bits", [18, 32, 33, 64])
def test_a_sum_in_the_ring_decodes_to_the_sum_of_clipped_floats_plus_noise(bits):
    plan = replace(PLAN, terms=replace(TERMS, ring_bits=bits))
    error = summed(plan, messages(plan)) - clipped_sum()
    rounding = math.sqrt(DEVICES / 4) / 4096  # a rounding has a variance of at most 1/4
    assert error.std() < 1.3 * math.hypot(plan.terms.noise_std / scale(plan), rounding)
    assert np.abs(error).max() < 7 * math.hypot(plan.terms.noise_std / scale(plan), rounding)


def test_the_error_has_the_announced_standard_deviation():
    plan = replace(PLAN, terms=replace(TERMS, share_variance=40_000))
    error = summed(plan, messages(plan)) - clipped_sum()
    assert error.std() == pytest.approx(plan.terms.noise_std / scale(plan), rel=0.25)  # 4 standard errors of 150 values


def test_every_ring_gives_the_same_sum():
    totals = [
        summed(plan, messages(plan))
        for plan in (replace(PLAN, terms=replace(TERMS, ring_bits=bits)) for bits in (18, 32, 64))
    ]
    np.testing.assert_array_equal(totals[0], totals[1])
    np.testing.assert_array_equal(totals[0], totals[2])


@given(order=st.permutations(range(DEVICES)))
def test_a_protected_sum_does_not_depend_on_the_order_to_the_last_bit(order):
    shuffled = [SENT[place] for place in order]
    np.testing.assert_array_equal(summed(PLAN, shuffled), summed(PLAN, SENT))


def test_one_masked_device_says_nothing_alone_but_masks_cancel_in_the_sum():
    """What wraps around modulo 2^32 unwraps: pairwise masks, as secure aggregation adds them."""
    sent = messages(PLAN)
    mask = RNG.integers(0, 2**32, size=PLAN.update_size, dtype=np.uint32)
    masked = [ItemUpdate(sent[0].vector + mask), ItemUpdate(sent[1].vector - mask), *sent[2:]]
    assert np.abs(summed(PLAN, masked[:1])).max() > 1000
    np.testing.assert_array_equal(summed(PLAN, masked), summed(PLAN, sent))


def test_without_protection_the_sum_is_exact_in_float64():
    plan = replace(PLAN, unit="none", terms=None)
    got = summed(plan, [ItemUpdate(update) for update in UPDATES])
    np.testing.assert_allclose(got, UPDATES.astype(np.float64).sum(axis=0), rtol=1e-12, atol=1e-14)


def test_a_sum_of_nothing_is_zero():
    for plan in (PLAN, replace(PLAN, unit="none", terms=None)):
        np.testing.assert_array_equal(UpdateSum(plan).total(), np.zeros(PLAN.update_size))
