"""The simulation's randomness is a function of seed, round and person, and of nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from palate.simulation.seeding import device_keys, participants, table_rng

USERS = np.arange(2000)


def test_keys_do_not_depend_on_who_is_asked_for():
    keys = device_keys(7, 3, USERS)
    np.testing.assert_array_equal(device_keys(7, 3, USERS[1500:1600]), keys[1500:1600])
    np.testing.assert_array_equal(device_keys(7, 3, USERS[::-1]), keys[::-1])


def test_keys_differ_between_seeds_rounds_and_people():
    keys = np.concatenate([device_keys(seed, number, USERS) for seed in (0, 1, 2**62) for number in (0, 1, 2)])
    assert len(np.unique(keys)) == len(keys)


def test_everybody_takes_part_at_one():
    assert participants(1, 5, USERS, 1.0).all()


@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.9, np.nextafter(1.0, 0.0)])
def test_participation_is_reproducible_independent_of_shards_and_of_the_asked_size(fraction):
    drawn = participants(4, 2, USERS, fraction)
    np.testing.assert_array_equal(drawn, participants(4, 2, USERS, fraction))
    np.testing.assert_array_equal(participants(4, 2, USERS[1::3], fraction), drawn[1::3])
    assert stats.binomtest(int(drawn.sum()), len(USERS), fraction).pvalue > 1e-3


def test_over_many_rounds_everybody_is_drawn_equally_often():
    counts = sum(participants(4, number, USERS[:300], 0.2).astype(int) for number in range(500))
    assert counts.mean() == pytest.approx(100, rel=0.02)
    assert stats.chisquare(counts).statistic == pytest.approx(300 * 0.8, rel=0.3)


def test_taking_part_says_nothing_about_the_key():
    drawn = participants(4, 1, USERS, 0.5)
    keys = device_keys(4, 1, USERS).astype(np.float64)
    assert stats.ks_2samp(keys[drawn], keys[~drawn]).pvalue > 1e-3


def test_the_starting_table_repeats_with_its_seed_and_differs_without():
    first, second, other = (table_rng(seed).normal(size=9) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert not np.allclose(first, other)
