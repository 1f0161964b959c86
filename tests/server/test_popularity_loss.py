"""What noise costs lists by popularity: estimated from the noisy sum alone, and compared with what it really costs."""

from __future__ import annotations

import numpy as np
import pytest

from palate.models.metrics import hit_rate, ranks_sampled
from palate.server.popularity_loss import hit_rates, possible_loss

ITEMS, PEOPLE = 1_000, 1_500.0


def frequencies(exponent: float) -> np.ndarray:
    """How often each item is taken: a power law, as in shops."""
    law = np.arange(1.0, ITEMS + 1) ** -exponent
    return PEOPLE * law / law.sum()


def true_loss(taken: np.ndarray, noise_std: float, share: float) -> float:
    """Hit rate of lists with the whole budget, less that with a share of it, by what people really take."""
    rng = np.random.default_rng(7)

    def quality(std: float) -> float:
        draws = [float(taken @ hit_rates(taken + rng.normal(0.0, std, ITEMS))) for _ in range(20)]
        return float(np.mean(draws)) / float(taken.sum())

    return quality(noise_std * np.sqrt(share)) - quality(noise_std)


@pytest.mark.parametrize("exponent", [0.6, 1.0])
@pytest.mark.parametrize("noise_std", [0.5, 2.0, 8.0])
@pytest.mark.parametrize("share", [0.15, 0.6])
def test_the_estimate_bounds_the_loss_that_there_is_and_is_near_it(exponent, noise_std, share):
    taken, rng = frequencies(exponent), np.random.default_rng(3)
    found = [
        possible_loss(taken + rng.normal(0.0, noise_std, ITEMS), noise_std=noise_std, share=share, rng=rng)
        for _ in range(6)
    ]
    error = 2.0 * float(np.std(found)) / np.sqrt(len(found)) + 0.002
    truth = true_loss(taken, noise_std, share)
    assert truth - error < np.mean(found) < 4.0 * truth + error


def test_nothing_is_lost_without_noise_or_with_the_whole_budget():
    taken, rng = frequencies(1.0), np.random.default_rng(1)
    assert possible_loss(taken, noise_std=0.0, share=0.1, rng=rng) == 0.0
    assert possible_loss(taken, noise_std=3.0, share=1.0, rng=rng) == 0.0
    assert possible_loss(taken[:1], noise_std=3.0, share=0.1, rng=rng) == 0.0


def test_more_noise_and_a_smaller_share_may_lose_more():
    taken, noise = frequencies(1.0), np.random.default_rng(4).normal(size=ITEMS)
    loss = {
        (std, share): possible_loss(taken + std * noise, noise_std=std, share=share, rng=np.random.default_rng(1))
        for std in (0.5, 4.0)
        for share in (0.2, 0.8)
    }
    assert loss[4.0, 0.2] > loss[0.5, 0.2] > loss[0.5, 0.8]
    assert loss[4.0, 0.2] > loss[4.0, 0.8]


def test_hit_rates_are_those_of_the_sampled_protocol():
    rng = np.random.default_rng(2)
    scores = rng.normal(size=500)
    target = np.arange(500).repeat(400)
    others = rng.integers(0, 499, (len(target), 99))
    others += others >= target[:, None]  # anybody but the item itself
    hits = hit_rate(ranks_sampled(scores[target], scores[others]), 10).reshape(500, 400).mean(axis=1)
    np.testing.assert_allclose(hit_rates(scores), hits, atol=0.12)
    assert abs(float((hit_rates(scores) - hits).mean())) < 0.003


def test_ties_count_against_an_item():
    np.testing.assert_array_equal(hit_rates(np.zeros(50)), np.zeros(50))
    assert hit_rates(np.array([1.0, 0.0])).tolist() == [1.0, 0.0]
