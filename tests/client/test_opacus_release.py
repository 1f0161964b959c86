from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from palate.client.opacus_release import SkellamOptimizer, release
from palate.privacy.errors import PrivacyError
from palate.privacy.integer.csprng import Purpose, WordStream
from palate.privacy.integer.quantise import IntegerMechanism, Quantiser

SIZE, SENSITIVITY, CLIP_NORM = 1500, 1 << 12, 0.5


def mechanism(noise_multiplier: float = 0.5) -> IntegerMechanism:
    return IntegerMechanism(
        quantiser=Quantiser(clip_norm=CLIP_NORM, sensitivity=SENSITIVITY, size=SIZE),
        share_variance=math.ceil((noise_multiplier * SENSITIVITY) ** 2),
    )


def streams(number: int = 0) -> dict[str, WordStream]:
    key = number.to_bytes(32, "big")
    return {"rounding": WordStream(key, Purpose.ROUNDING), "noise": WordStream(key, Purpose.NOISE)}


def contribution(norm: float) -> np.ndarray:
    values = np.random.default_rng(2).standard_normal(SIZE)
    return (values * norm / np.linalg.norm(values)).astype(np.float32)


def optimizer_of(samples: np.ndarray) -> SkellamOptimizer:
    """An optimizer whose noise is 1 everywhere, and that hands on what Opacus has clipped, in millionths."""
    return SkellamOptimizer(
        samples,
        clip_norm=CLIP_NORM,
        noise_multiplier=0.5,
        quantise=lambda clipped: np.rint(1e6 * clipped.sum(axis=0)).astype(np.int64),
        noise=lambda: np.ones(SIZE, dtype=np.int64),
    )


def test_within_the_clip_norm_opacus_and_plain_arrays_send_the_same_integers():
    values = contribution(0.9 * CLIP_NORM)
    np.testing.assert_array_equal(release(values, mechanism(), **streams()), mechanism().encode(values, **streams()))


def test_beyond_the_clip_norm_they_differ_by_float_rounding_only():
    values = contribution(30 * CLIP_NORM)
    ring = mechanism().ring
    sent = [
        ring.centre(m) for m in (release(values, mechanism(), **streams()), mechanism().encode(values, **streams()))
    ]
    difference = np.abs(sent[0] - sent[1])
    assert difference.max() <= 1
    assert difference.mean() < 0.01


def test_clipping_is_done_by_opacus_and_noise_comes_after_it():
    values = contribution(30 * CLIP_NORM)
    optimizer = optimizer_of(values[None])
    optimizer.pre_step()
    expected = values * CLIP_NORM / np.linalg.norm(values.astype(np.float64))
    np.testing.assert_allclose(optimizer.integers - 1, 1e6 * expected, atol=1.0)


def test_each_sample_is_clipped_by_itself():
    short, long = contribution(0.1), contribution(30 * CLIP_NORM)
    optimizer = optimizer_of(np.stack([short, long, -long]))
    optimizer.pre_step()
    np.testing.assert_allclose(optimizer.integers - 1, 1e6 * short, atol=2.0)


def test_no_samples_are_noise_alone():
    optimizer = optimizer_of(np.zeros((0, SIZE), np.float32))
    optimizer.pre_step()
    np.testing.assert_array_equal(optimizer.integers, np.ones(SIZE))


def test_the_sum_over_devices_has_noise_of_the_stated_size():
    devices = 40
    share = mechanism(1.0 / math.sqrt(devices))
    values = contribution(0.5 * CLIP_NORM)
    total = sum(share.ring.centre(release(values, share, **streams(device))) for device in range(devices))
    noise = total - devices * share.quantiser.scaled(values[None])[0].astype(np.float64)
    assert noise.std() / SENSITIVITY == pytest.approx(1.0, rel=5 / math.sqrt(2 * SIZE))


def test_noise_comes_from_the_stream_and_not_from_torch():
    values = contribution(0.1)
    torch.manual_seed(1)
    first = release(values, mechanism(), **streams(1))
    torch.manual_seed(1)
    assert (release(values, mechanism(), **streams(2)) != first).mean() > 0.99


def test_opacus_sees_the_noise_multiplier_of_one_share():
    optimizer = optimizer_of(np.zeros((1, SIZE), np.float32))
    assert optimizer.noise_multiplier == pytest.approx(0.5)
    assert optimizer.max_grad_norm == CLIP_NORM


@pytest.mark.parametrize("size", [SIZE - 1, SIZE + 1])
def test_a_contribution_of_another_size_is_refused(size: int):
    with pytest.raises(PrivacyError, match="the update is"):
        release(np.zeros(size, np.float32), mechanism(), **streams())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_contribution_that_is_not_finite_is_refused(bad: float):
    values = contribution(0.1)
    values[7] = bad
    with pytest.raises(PrivacyError, match="not finite"):
        release(values, mechanism(), **streams())


def test_samples_cannot_be_released_twice():
    optimizer = optimizer_of(contribution(0.1)[None])
    with pytest.raises(PrivacyError, match="no step"):
        _ = optimizer.integers
    with pytest.raises(PrivacyError, match="nothing was clipped"):
        optimizer.add_noise()
    optimizer.pre_step()
    with pytest.raises(ValueError, match="zero_grad"):
        optimizer.pre_step()
    with pytest.raises(PrivacyError, match="nothing was clipped"):
        optimizer.add_noise()
