from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from palate.client.private_optimizer import SkellamOptimizer, release
from palate.privacy.errors import PrivacyError
from palate.privacy.integer.csprng import Purpose, WordStream
from palate.privacy.integer.quantise import Quantiser
from palate.privacy.integer.release import IntegerMechanism

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


def optimizer_with(*samples: torch.Tensor) -> SkellamOptimizer:
    parameters = []
    for sample in samples:
        parameter = nn.Parameter(torch.zeros(sample.shape[1:]))
        parameter.grad_sample = sample
        parameters.append(parameter)
    return SkellamOptimizer(torch.optim.SGD(parameters, lr=1.0), mechanism(), **streams())


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


def test_clipping_is_done_by_opacus():
    optimizer = optimizer_with(torch.from_numpy(contribution(30 * CLIP_NORM))[None])
    optimizer.pre_step()
    [parameter] = optimizer.params
    assert float(parameter.summed_grad.norm()) == pytest.approx(CLIP_NORM, rel=1e-4)


def test_the_gradient_is_the_decoded_integers_and_the_step_uses_it():
    optimizer = optimizer_with(torch.from_numpy(contribution(0.1))[None])
    optimizer.step()
    [parameter] = optimizer.params
    np.testing.assert_array_equal(parameter.grad.numpy(), mechanism().quantiser.decode(optimizer.integers))
    np.testing.assert_array_equal(parameter.detach().numpy(), -parameter.grad.numpy())


def test_several_parameters_are_one_contribution():
    values = contribution(0.1)
    parts = optimizer_with(torch.from_numpy(values[:1000].reshape(1, 50, 20)), torch.from_numpy(values[None, 1000:]))
    whole = optimizer_with(torch.from_numpy(values)[None])
    parts.pre_step()
    whole.pre_step()
    np.testing.assert_array_equal(parts.integers, whole.integers)
    joined = torch.cat([parameter.grad.reshape(-1) for parameter in parts.params])
    assert torch.equal(joined, whole.params[0].grad)


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
    optimizer = optimizer_with(torch.zeros(1, SIZE))
    assert optimizer.noise_multiplier == pytest.approx(0.5)
    assert optimizer.max_grad_norm == CLIP_NORM


@pytest.mark.parametrize("people", [0, 2])
def test_more_or_less_than_one_person_is_refused(people: int):
    with pytest.raises(PrivacyError, match="one contribution"):
        optimizer_with(torch.zeros(people, SIZE)).pre_step()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_contribution_that_is_not_finite_is_refused(bad: float):
    values = contribution(0.1)
    values[7] = bad
    with pytest.raises(PrivacyError, match="not finite"):
        release(values, mechanism(), **streams())


def test_a_contribution_cannot_be_released_twice():
    optimizer = optimizer_with(torch.from_numpy(contribution(0.1))[None])
    optimizer.pre_step()
    with pytest.raises(ValueError, match="zero_grad"):
        optimizer.pre_step()
    with pytest.raises(ValueError, match="zero_grad"):
        optimizer.add_noise()


def test_integers_exist_only_after_a_step():
    with pytest.raises(PrivacyError, match="no step"):
        _ = optimizer_with(torch.zeros(1, SIZE)).integers
