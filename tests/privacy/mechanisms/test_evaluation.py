"""Metrics that ride behind an update: never a longer contribution, and read back without bias."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from palate.privacy.integer.csprng import Purpose, WordStream
from palate.privacy.mechanisms.evaluation import NoisyMetrics, attach, split_metrics
from palate.privacy.mechanisms.terms import ReleaseTerms
from palate.privacy.wire import NUM_METRICS, ItemUpdate, RoundPlan
from palate.server.decoding import UpdateSum

TABLE = np.zeros((30, 4), np.float32)
WIDE = st.floats(width=32, allow_nan=False, allow_infinity=False)
UNIT = st.floats(0, 1, width=32)


def with_metrics(update: np.ndarray, metrics: np.ndarray, *, clip_norm: float, share: float) -> np.ndarray:
    """One device's update with its metrics behind it, float32 [d] to [d + NUM_METRICS]."""
    clipped = np.empty((1, len(update)), dtype=np.float32)
    tail = attach(update[None], metrics[None], clip_norm=clip_norm, share=share, out=clipped)
    return np.concatenate([clipped[0], tail[0]])


def plan(devices: int, share_variance: int, *, share: float = 0.3, clip_norm: float = 0.5) -> RoundPlan:
    return RoundPlan(
        run="r",
        server_round=1,
        purpose="train",
        unit="user",
        participation=1.0,
        training="{}",
        fixed=TABLE[:, :1],
        learned=TABLE,
        terms=ReleaseTerms(
            clip_norm=clip_norm,
            sensitivity=4096,
            share_variance=share_variance,
            honest_shares=devices,
            roster_size=devices,
        ),
        evaluation_share=share,
    )


@given(
    update=hnp.arrays(np.float32, st.integers(1, 50), elements=WIDE),
    metrics=hnp.arrays(np.float32, NUM_METRICS, elements=UNIT),
    clip_norm=st.floats(1e-6, 1e6),
    share=st.floats(0.01, 0.99),
)
def test_metrics_behind_an_update_never_let_the_norm_pass_the_clip_norm(update, metrics, clip_norm, share):
    vector = with_metrics(update, metrics, clip_norm=clip_norm, share=share).astype(np.float64)
    assert len(vector) == len(update) + NUM_METRICS
    assert math.hypot(*vector) <= clip_norm * (1 + 2**-13)
    assert math.hypot(*vector[-NUM_METRICS:]) <= share * clip_norm * (1 + 2**-20)


@given(
    update=hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(-0.0625, 0.0625, width=32)),
    share=st.floats(0.01, 0.5),
)
def test_an_update_that_is_short_enough_is_left_as_it_is(update, share):
    vector = with_metrics(update, np.ones(NUM_METRICS, np.float32), clip_norm=1.0, share=share)
    np.testing.assert_array_equal(vector[:-NUM_METRICS], update)


def test_many_devices_at_once_are_the_same_as_one_by_one():
    rng = np.random.default_rng(2)
    updates = rng.normal(size=(5, 40)).astype(np.float32) * np.float32([[0.01], [1], [10], [0.1], [0]])
    metrics = rng.uniform(size=(5, NUM_METRICS)).astype(np.float32)
    alone = [with_metrics(updates[k], metrics[k], clip_norm=0.7, share=0.2) for k in range(5)]
    tail = attach(updates, metrics, clip_norm=0.7, share=0.2, out=updates)
    np.testing.assert_array_equal(np.concatenate([updates, tail], axis=1), alone)


def total_of(asked: RoundPlan, metrics: np.ndarray, seed: int) -> np.ndarray:
    """Sum of what devices with these metrics send, through the whole mechanism."""
    summed = UpdateSum(asked)
    mechanism = asked.terms.mechanism(asked.update_size)
    rng = np.random.default_rng(seed)
    for device, own in enumerate(metrics):
        update = rng.normal(size=TABLE.size).astype(np.float32)
        vector = with_metrics(update, own, clip_norm=asked.terms.clip_norm, share=asked.evaluation_share)
        key = seed.to_bytes(16, "big") + device.to_bytes(16, "big")
        rounding, noise = WordStream(key, Purpose.ROUNDING), WordStream(key, Purpose.NOISE)
        summed.add(ItemUpdate(mechanism.encode(vector, rounding=rounding, noise=noise)))
    return summed.total()


def read_back(asked: RoundPlan, metrics: np.ndarray, seed: int) -> tuple[np.ndarray, NoisyMetrics | None]:
    scale = asked.terms.mechanism(asked.update_size).quantiser.scale
    return split_metrics(total_of(asked, metrics, seed), asked, noise_std=asked.terms.noise_std / scale)


def test_metrics_are_read_back_without_bias_and_with_the_deviation_that_they_announce():
    metrics = np.zeros((60, NUM_METRICS), np.float32)
    metrics[:45, 2] = 1.0  # 45 devices have a held-back item
    metrics[:18, 0] = 1.0  # 18 of them hit
    metrics[:18, 1] = 0.5
    asked = plan(60, 400_000)
    read = [read_back(asked, metrics, seed) for seed in range(40)]
    found: list[NoisyMetrics] = [metrics for _, metrics in read]
    assert all(one is not None for one in found)
    for name, truth in (("hit_rate", 18 / 45), ("ndcg", 9 / 45)):
        values = np.array([getattr(one, name) for one in found])
        announced = np.array([getattr(one, f"{name}_std") for one in found])
        assert values.std(ddof=1) == pytest.approx(announced.mean(), rel=0.45)  # 4 standard errors of 40 draws
        assert abs(values.mean() - truth) < 4 * announced.mean() / math.sqrt(len(found))


def test_the_update_comes_back_without_the_metrics_and_exactly_so_where_noise_is_least():
    metrics = np.ones((3, NUM_METRICS), np.float32)
    asked = plan(3, 1)
    update, found = read_back(asked, metrics, 1)
    assert update.shape == (TABLE.size,)
    assert (found.hit_rate, found.ndcg) == pytest.approx((1.0, 1.0), abs=0.01)
    rng = np.random.default_rng(1)
    bound = 0.5 * math.sqrt(1 - 0.3**2)
    raw = [rng.normal(size=TABLE.size) for _ in range(3)]
    np.testing.assert_allclose(update, sum(one * bound / np.linalg.norm(one) for one in raw), atol=2e-3)


def test_a_count_that_drowns_in_noise_is_not_divided_by():
    metrics = np.zeros((60, NUM_METRICS), np.float32)
    asked = plan(60, 10**8)
    update, found = read_back(asked, metrics, 3)
    assert found is None
    assert update.shape == (TABLE.size,)


def test_nothing_is_split_off_where_nothing_was_asked_for():
    total = np.arange(TABLE.size, dtype=np.float64)
    for asked in (
        plan(3, 1, share=0.0),
        replace(plan(3, 1, share=0.0), unit="none", terms=None),
        replace(plan(3, 1), server_round=0, purpose="popularity"),
    ):
        update, found = split_metrics(total, asked, noise_std=0.0)
        assert found is None
        np.testing.assert_array_equal(update, total)
