"""Noise for dropouts and collusion: any completed sum holds the noise that was promised."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.privacy.accounting.dropout import Quorum
from palate.privacy.errors import PrivacyError

quorums = st.tuples(st.integers(50, 99), st.integers(0, 49)).filter(lambda q: 2 * q[0] >= 100 + q[1])


@pytest.mark.parametrize(
    ("tau", "gamma", "inflation"),
    [
        (0.6, 0.2, [1.58, 1.50, 1.32]),
        (0.7, 0.1, [1.29, 1.22, 1.08]),
        (0.8, 0.05, [1.15, 1.10, None]),
    ],
)
def test_reference_table_of_inflation(tau: float, gamma: float, inflation: list[float | None]):
    quorum = Quorum(tau=tau, gamma=gamma)
    # At a dropout of exactly 1 - tau one survivor is missing, so the last column stands just before it.
    for dropout, expected in zip([0.0, 0.1, 0.2999], inflation, strict=True):
        found = quorum.std_inflation(10_000, dropout)
        assert found == (None if expected is None else pytest.approx(expected, abs=0.0051))


def test_a_round_at_the_edge_of_its_quorum_is_abandoned():
    quorum = Quorum(tau=0.7, gamma=0.1)
    assert quorum.survivors_needed(100) == 71
    assert quorum.std_inflation(100, 0.29) is not None
    assert quorum.std_inflation(100, 0.30) is None


@given(quorums, st.integers(1, 10_000), st.integers(0, 99))
def test_honest_shares_of_every_completed_sum_reach_the_planned_noise(fractions, roster_size: int, dropout: int):
    quorum = Quorum(tau=fractions[0] / 100, gamma=fractions[1] / 100)
    share = Fraction(quorum.share_variance(3.0, 4096, roster_size))
    colluding = roster_size * fractions[1] // 100
    survivors = roster_size - roster_size * dropout // 100
    if survivors >= quorum.survivors_needed(roster_size):
        assert (survivors - colluding) * share >= (3 * 4096) ** 2
        assert quorum.std_inflation(roster_size, dropout / 100) >= 1
    else:
        assert quorum.std_inflation(roster_size, dropout / 100) is None


def test_fractions_are_taken_as_written():
    # floor(0.29 * 100) is 28 in floating point: one colluding device would count as honest.
    assert math.floor(0.29 * 100) == 28
    assert Quorum(tau=0.7, gamma=0.29).honest_survivors(100) == 71 - 29


def test_without_collusion_and_with_half_a_quorum_more_than_half_the_shares_count():
    assert Quorum(tau=0.5).honest_survivors(100) == 51


@pytest.mark.parametrize(("tau", "gamma"), [(0.5, 0.1), (0.6, 0.3), (0.1, 0.0)])
def test_a_quorum_that_allows_two_sums_is_refused(tau: float, gamma: float):
    with pytest.raises(PrivacyError, match=r"\(1 \+ gamma\) / 2") as caught:
        Quorum(tau=tau, gamma=gamma)
    assert caught.value.hint


def test_a_quorum_exactly_at_the_bound_is_allowed():
    assert Quorum(tau=0.6, gamma=0.2).honest_survivors(1000) == 401


@pytest.mark.parametrize("bad", [-0.1, 1.0, float("nan")])
def test_fractions_out_of_range_are_refused(bad: float):
    with pytest.raises(PrivacyError, match="tau"):
        Quorum(tau=bad)
    with pytest.raises(PrivacyError, match="gamma"):
        Quorum(tau=0.9, gamma=bad)
    with pytest.raises(PrivacyError, match="dropout"):
        Quorum(tau=0.9).std_inflation(10, bad)
    with pytest.raises(PrivacyError, match="roster_size"):
        Quorum(tau=0.9).survivors_needed(0)
