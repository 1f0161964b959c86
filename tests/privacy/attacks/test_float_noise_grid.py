"""The grid attack on float noise (after Mironov 2012): torch's normal numbers lie on a grid that a signal leaves.

torch fills blocks of 16 float32 values by Box-Muller, with angles ``2 pi k / 2^24`` rounded to float32. Where nothing
was added, the angle of a pair is such a number up to the last digit; where an update was added, however small beside
the noise, it is anything. With rows of 16 values each row is a block, so the released table tells which items a
person has touched.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from opacus.optimizers import DPOptimizer
from torch import nn

from palate.client.opacus_release import release
from palate.privacy.integer.csprng import Purpose, WordStream
from palate.privacy.integer.quantise import IntegerMechanism, Quantiser

Area = Callable[[np.ndarray, np.ndarray], float]

NUM_ITEMS, DIM, TOUCHED = 2000, 16, 1000
SENSITIVITY = 1 << 12


def update() -> tuple[np.ndarray, np.ndarray]:
    """An update of norm 1 on half of the items, float32 [num_items, dim], and which items those are."""
    rng = np.random.default_rng(11)
    touched = np.zeros(NUM_ITEMS, dtype=bool)
    touched[rng.choice(NUM_ITEMS, TOUCHED, replace=False)] = True
    values = np.where(touched[:, None], rng.standard_normal((NUM_ITEMS, DIM)), 0.0)
    return (values / np.linalg.norm(values)).astype(np.float32), touched


def distance_from_grid(table: np.ndarray, deviation: float) -> np.ndarray:
    """How far the angles of a row's pairs are from the nearest float32 grid angle, in grid steps, [num_items]."""
    scaled = table.astype(np.float64) / np.float32(deviation)
    angles = np.arctan2(scaled[:, 8:], scaled[:, :8]) % (2 * np.pi)  # [num_items, 8]
    step = 2 * np.pi / 2**24
    nearby = np.floor(angles / step) + np.arange(-1, 3)[:, None, None]  # [4, num_items, 8]
    grid = np.float32(2 * np.pi) * (nearby * 2.0**-24).astype(np.float32)
    return (np.abs(grid.astype(np.float64) - angles).min(axis=0) / step).mean(axis=1)


@pytest.mark.parametrize("noise_multiplier", [1.0, 10.0, 1000.0])
def test_the_gaussian_noise_of_opacus_gives_away_the_touched_items(noise_multiplier: float, area_under_curve: Area):
    values, touched = update()
    parameter = nn.Parameter(torch.zeros(values.shape))
    parameter.grad_sample = torch.from_numpy(values)[None]
    optimizer = DPOptimizer(
        torch.optim.SGD([parameter], lr=1.0),
        noise_multiplier=noise_multiplier,
        max_grad_norm=1.0,
        expected_batch_size=None,
        loss_reduction="sum",
        generator=torch.Generator().manual_seed(4),
    )
    optimizer.pre_step()
    distances = distance_from_grid(parameter.grad.numpy(), noise_multiplier)
    assert area_under_curve(distances[touched], distances[~touched]) > 0.999


def released_by_the_mechanism(noise_multiplier: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Integers, decoded table and touched items of one release with the whole noise, [num_items, dim]."""
    values, touched = update()
    mechanism = IntegerMechanism(
        quantiser=Quantiser(clip_norm=1.001, sensitivity=SENSITIVITY, size=values.size),
        share_variance=round((noise_multiplier * SENSITIVITY) ** 2),
    )
    key = bytes(range(32))
    sent = release(
        values.reshape(-1),
        mechanism,
        rounding=WordStream(key, Purpose.ROUNDING),
        noise=WordStream(key, Purpose.NOISE),
    )
    integers = mechanism.ring.centre(sent).reshape(values.shape)
    return integers, mechanism.decode(sent).reshape(values.shape), touched


@pytest.mark.parametrize("noise_multiplier", [10.0, 100.0])
def test_the_grid_attack_learns_nothing_from_the_integer_mechanism(noise_multiplier: float, area_under_curve: Area):
    _, decoded, touched = released_by_the_mechanism(noise_multiplier)
    distances = distance_from_grid(decoded, noise_multiplier)
    area = area_under_curve(distances[touched], distances[~touched])
    assert abs(area - 0.5) < 0.05  # four standard errors


def test_low_bits_and_sizes_of_the_integers_tell_nothing_either(area_under_curve: Area):
    integers, decoded, touched = released_by_the_mechanism(10.0)
    scores = {
        "parity": (integers & 1).sum(axis=1),
        "low bits": (integers & 15).sum(axis=1),
        "norm": np.linalg.norm(decoded, axis=1),
    }
    for name, score in scores.items():
        area = area_under_curve(score[touched], score[~touched])
        assert abs(area - 0.5) < 0.05, name
