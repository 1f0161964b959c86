from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from palate.privacy.audit.one_run import FRACTIONS, one_run_bound, p_value
from palate.privacy.errors import PrivacyError


def slow_p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """The theorem's sum, term by term."""
    rate = math.exp(epsilon) / (1 + math.exp(epsilon))
    mass = [math.comb(guesses, k) * rate**k * (1 - rate) ** (guesses - k) for k in range(guesses + 1)]
    steepest = max((math.fsum(mass[correct - i : correct]) / i for i in range(1, correct + 1)), default=0.0)
    return min(1.0, math.fsum(mass[correct:]) + 2 * canaries * delta * steepest)


@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-3])
def test_the_p_value_is_the_sum_of_the_theorem(delta: float):
    for canaries, guesses, correct, epsilon in [
        (50, 20, 20, 0.0),
        (50, 20, 17, 1.0),
        (200, 100, 60, 0.2),
        (9, 9, 1, 3),
    ]:
        fast = p_value(canaries=canaries, guesses=guesses, correct=correct, epsilon=epsilon, delta=delta)
        assert fast == pytest.approx(slow_p_value(canaries, guesses, correct, epsilon, delta), rel=1e-9)


def test_without_delta_it_is_the_binomial_tail():
    for epsilon in (0.0, 0.7, 2.5):
        tail = stats.binomtest(70, 80, 1 / (1 + math.exp(-epsilon)), alternative="greater").pvalue
        assert p_value(canaries=100, guesses=80, correct=70, epsilon=epsilon, delta=0.0) == pytest.approx(tail)


def test_randomised_response_is_refuted_no_more_often_than_the_error():
    """The tight case of the theorem: each coin is told with the truth at odds e^eps."""
    epsilon, error, trials = 1.0, 0.2, 300
    rng = np.random.default_rng(5)
    wrong = 0
    for _ in range(trials):
        included = rng.random(200) < 0.5
        truthful = rng.random(200) < 1 / (1 + math.exp(-epsilon))
        scores = np.where(included == truthful, 1.0, -1.0) + 1e-3 * rng.random(200)
        bound = one_run_bound(scores, included, delta=0.0, error=error, fractions=(1.0,))
        wrong += bound.epsilon > epsilon
    assert stats.binomtest(wrong, trials, error, alternative="greater").pvalue > 1e-3
    assert wrong > 0  # the bound is tight: at this error it is wrong now and then


def test_the_bound_is_the_last_epsilon_that_is_refuted():
    included = np.arange(400) % 2 == 0
    scores = included + 0.1 * np.random.default_rng(1).standard_normal(400)
    bound = one_run_bound(scores, included, delta=1e-6, error=0.05)
    assert (bound.correct, bound.error) == (bound.guesses, 0.05)
    values = [
        p_value(canaries=400, guesses=bound.guesses, correct=bound.correct, epsilon=epsilon, delta=1e-6)
        for epsilon in (bound.epsilon, bound.epsilon + 1e-3)
    ]
    assert values[0] < 0.05 / len(FRACTIONS) <= values[1]


def test_a_perfect_guesser_proves_what_the_number_of_guesses_allows():
    included = np.arange(1000) % 2 == 0
    bound = one_run_bound(included.astype(float), included, delta=0.0, error=0.05, fractions=(1.0,))
    rate = 0.05 ** (1 / 1000)  # rate^1000 = error
    assert bound.epsilon == pytest.approx(math.log(rate / (1 - rate)), abs=2e-4)


def test_delta_and_blind_guesses_lower_the_bound():
    included = np.arange(1000) % 2 == 0
    scores = included + np.random.default_rng(2).standard_normal(1000)
    exact, approximate = (one_run_bound(scores, included, delta=delta, error=0.05).epsilon for delta in (0.0, 1e-4))
    assert 0.0 < approximate < exact
    blind = np.random.default_rng(3).standard_normal(1000)
    assert one_run_bound(blind, included, delta=0.0, error=0.01).epsilon == 0.0
    assert one_run_bound(-scores, included, delta=0.0, error=0.01).epsilon == 0.0


@pytest.mark.parametrize(("guesses", "correct", "epsilon"), [(11, 3, 1.0), (5, 6, 1.0), (5, -1, 1.0), (5, 5, -0.1)])
def test_counts_that_cannot_be_are_refused(guesses: int, correct: int, epsilon: float):
    with pytest.raises(PrivacyError, match="is impossible"):
        p_value(canaries=10, guesses=guesses, correct=correct, epsilon=epsilon, delta=0.0)
