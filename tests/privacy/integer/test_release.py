from __future__ import annotations

import math

import numpy as np
import pytest

from palate.privacy.errors import PrivacyError
from palate.privacy.integer.csprng import Purpose, WordStream
from palate.privacy.integer.quantise import IntegerMechanism, Quantiser
from palate.privacy.integer.ring import Ring

DEVICES, SIZE, SENSITIVITY = 30, 2000, 1 << 12


def streams(device: int) -> dict[str, WordStream]:
    key = device.to_bytes(32, "big")
    return {"rounding": WordStream(key, Purpose.ROUNDING), "noise": WordStream(key, Purpose.NOISE)}


def mechanism(noise_multiplier: float, bits: int = 32) -> IntegerMechanism:
    return IntegerMechanism(
        quantiser=Quantiser(clip_norm=0.5, sensitivity=SENSITIVITY, size=SIZE),
        share_variance=math.ceil((noise_multiplier * SENSITIVITY) ** 2 / DEVICES),
        ring=Ring(bits=bits),
    )


def contributions() -> np.ndarray:
    return np.random.default_rng(1).normal(0.0, 0.01, (DEVICES, SIZE)).astype(np.float32)


def test_the_decoded_sum_is_the_clipped_sum_plus_noise_of_the_stated_size():
    noise_multiplier, integer = 1.0, mechanism(1.0)
    updates = contributions()
    ring, total = integer.ring, integer.ring.reduce(np.zeros(SIZE, dtype=np.int64))
    for device, update in enumerate(updates):
        total = ring.add(total, integer.encode(update, **streams(device)))
    norms = np.linalg.norm(updates, axis=1, keepdims=True)
    error = integer.decode(total) - (updates * np.minimum(1.0, 0.5 / norms)).sum(axis=0)
    spread = noise_multiplier * 0.5 * SENSITIVITY / integer.quantiser.target
    assert abs(error.std() / spread - 1.0) < 5 / math.sqrt(2 * SIZE)
    assert abs(error.mean()) < 5 * spread / math.sqrt(SIZE)


def test_every_message_is_in_the_ring_and_looks_uniform_in_a_small_one():
    messages = np.concatenate(
        [mechanism(8.0, bits=8).encode(update, **streams(device)) for device, update in enumerate(contributions())]
    )
    counts = np.bincount(messages, minlength=256)
    assert len(counts) == 256
    assert (np.abs(counts - len(messages) / 256) < 6 * math.sqrt(len(messages) / 256)).all()


def test_two_devices_with_the_same_update_send_different_messages():
    update = contributions()[0]
    first, second = (mechanism(1.0).encode(update, **streams(device)) for device in (1, 2))
    assert (first != second).mean() > 0.99


def test_a_mechanism_without_noise_is_refused():
    with pytest.raises(PrivacyError, match="variance of 0"):
        IntegerMechanism(quantiser=mechanism(1.0).quantiser, share_variance=0)
