"""The simulation's randomness is a function of seed, round and person, and of nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from palate.simulation.seeding import _capped, device_keys, participants, survivors, table_rng

USERS = np.arange(2000)


def test_keys_do_not_depend_on_who_is_asked_for():
    keys = device_keys(7, 3, USERS)
    np.testing.assert_array_equal(device_keys(7, 3, USERS[1500:1600]), keys[1500:1600])
    np.testing.assert_array_equal(device_keys(7, 3, USERS[::-1]), keys[::-1])


def test_keys_differ_between_seeds_rounds_and_people():
    keys = np.concatenate([device_keys(seed, number, USERS) for seed in (0, 1, 2**62) for number in (0, 1, 2)])
    assert len(np.unique(keys)) == len(keys)


def test_everybody_takes_part_in_a_cohort_of_all():
    assert participants(1, 5, len(USERS), len(USERS)).all()


@pytest.mark.parametrize("cohort", [1, 20, 600, 1999])
@pytest.mark.parametrize("cap", [None, 3])
def test_a_cohort_has_its_size_and_repeats(cohort, cap):
    drawn = participants(4, 1, len(USERS), cohort, cap=cap)
    assert drawn.sum() == cohort
    np.testing.assert_array_equal(drawn, participants(4, 1, len(USERS), cohort, cap=cap))


def test_rounds_and_seeds_draw_other_cohorts():
    first = participants(4, 1, len(USERS), 600)
    for other in (participants(4, 2, len(USERS), 600), participants(5, 1, len(USERS), 600)):
        together = int((first & other).sum())
        assert stats.hypergeom(2000, 600, 600).sf(together) > 1e-3
        assert stats.hypergeom(2000, 600, 600).cdf(together) > 1e-3


def test_over_many_rounds_everybody_is_drawn_equally_often():
    counts = sum(participants(4, number, 300, 60).astype(int) for number in range(500))
    assert counts.sum() == 500 * 60
    assert stats.chisquare(counts).statistic == pytest.approx(300 * 0.8, rel=0.3)


@pytest.mark.parametrize(("cohort", "cap", "rounds"), [(60, 1, 5), (100, 3, 7), (7, 2, 80)])
def test_nobody_is_in_more_training_rounds_than_the_cap_and_cohorts_stay_full(cohort, cap, rounds):
    """As long as `(rounds - 1) cohort <= cap (people - cohort)`, which the configuration asks for."""
    assert (rounds - 1) * cohort <= cap * (300 - cohort)
    drawn = [participants(6, number, 300, cohort, cap=cap) for number in range(1, rounds + 1)]
    assert [int(one.sum()) for one in drawn] == [cohort] * rounds
    assert max(sum(one.astype(int) for one in drawn)) == cap


def test_capped_cohorts_are_the_same_whichever_round_is_asked_for_first():
    forwards = [participants(9, number, 50, 20, cap=2) for number in (1, 2, 3, 4)]
    _capped.cache_clear()
    backwards = [participants(9, number, 50, 20, cap=2) for number in (4, 3, 2, 1)]
    np.testing.assert_array_equal(forwards, backwards[::-1])


def test_the_popularity_round_is_not_counted_against_the_cap():
    assert participants(9, 0, 50, 50, cap=1).all()
    assert participants(9, 1, 50, 50, cap=1).all()
    assert not participants(9, 2, 50, 50, cap=1).any()


def test_as_many_drop_out_as_are_said_to_and_only_from_the_cohort():
    drawn = participants(4, 3, len(USERS), 600)
    surviving = survivors(4, 3, drawn, 150)
    assert surviving.sum() == 450
    assert not (surviving & ~drawn).any()
    np.testing.assert_array_equal(surviving, survivors(4, 3, drawn, 150))
    np.testing.assert_array_equal(survivors(4, 3, drawn, 0), drawn)
    assert not np.array_equal(surviving, survivors(5, 3, drawn, 150))


def test_taking_part_says_nothing_about_the_key():
    drawn = participants(4, 1, len(USERS), 1000)
    keys = device_keys(4, 1, USERS).astype(np.float64)
    assert stats.ks_2samp(keys[drawn], keys[~drawn]).pvalue > 1e-3


def test_the_starting_table_repeats_with_its_seed_and_differs_without():
    first, second, other = (table_rng(seed).normal(size=9) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert not np.allclose(first, other)
