"""The controls that spend a budget: what they release is private to the last digit of the claim, and no less useful."""

from dataclasses import replace

import numpy as np
import pytest
from oracle.device import solve_user

from palate.errors import ConfigError
from palate.models.histories import Histories, recency_weights
from palate.models.learning.kernel import popularity_sum
from palate.models.popularity import saturating_column
from palate.models.scores.registry import serving_training
from palate.models.training import LocalTraining
from palate.privacy.accounting.events import SkellamEvent, Unit
from palate.privacy.accounting.guarantee import account_for
from palate.privacy.budget import Promise
from palate.privacy.errors import PrivacyError
from palate.simulation.baselines import private_controls
from palate.simulation.baselines.base import FitData
from palate.simulation.baselines.private_controls import (
    SENSITIVITY,
    fit_dp_content,
    fit_dp_popularity,
    noised_popularity,
    whole_budget_terms,
)
from palate.simulation.baselines.registry import BASELINES

NUM_USERS, NUM_ITEMS = 60, 500
EVERYBODY = np.arange(NUM_USERS, dtype=np.int32)


def promise(epsilon=2.0, delta=1e-5):
    return Promise(unit=Unit.USER, epsilon=epsilon, delta=delta)


@pytest.fixture(scope="module")
def history():
    rng = np.random.default_rng(5)
    sequences = [rng.permutation(NUM_ITEMS)[: rng.integers(0, 9)].astype(np.int32) for _ in range(NUM_USERS)]
    indptr = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])]).astype(np.int64)
    return Histories(indptr, np.concatenate(sequences))


def exact(history):
    return popularity_sum(history, NUM_ITEMS)


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 8.0])
def test_the_release_spends_the_budget_and_not_more(epsilon):
    terms = whole_budget_terms(promise(epsilon), num_users=NUM_USERS, num_items=NUM_ITEMS)
    event = SkellamEvent(sensitivity=SENSITIVITY, variance=terms.sum_variance, num_values=NUM_ITEMS)
    claimed = account_for([event], 1e-5).epsilon
    assert 0.999 * epsilon < claimed <= epsilon


@pytest.mark.parametrize(("epsilon", "sigma"), [(1.0, 3.731), (2.0, 1.994), (8.0, 0.600)])
def test_the_noise_is_that_of_the_exact_gaussian_and_the_few_per_cent_of_the_proven_figure(epsilon, sigma):
    """An independent source: the analytic Gaussian mechanism of Balle & Wang (2018) at delta 1e-5."""
    found = whole_budget_terms(promise(epsilon), num_users=NUM_USERS, num_items=NUM_ITEMS).noise_multiplier
    assert sigma < found < 1.12 * sigma


def test_the_noise_in_the_sum_is_as_large_as_the_terms_say(history):
    released = noised_popularity(history, NUM_ITEMS, promise(), noise_seed=1)
    errors = (released.values - exact(history)) / released.noise_std
    assert abs(errors.std() - 1.0) < 0.12  # 4 standard errors of 500 draws
    assert abs(errors.mean()) < 0.18
    assert released.noise_std == pytest.approx(1.994, rel=0.12)


def test_with_a_lavish_budget_the_sum_is_the_popularity_round_without_noise(history):
    released = noised_popularity(history, NUM_ITEMS, promise(epsilon=1e6), noise_seed=1)
    np.testing.assert_allclose(released.values, exact(history), atol=0.05)


def test_nobody_can_move_what_is_released_by_more_than_the_sensitivity(history, monkeypatch):
    """Leave out one person and keep everybody's words: the integers move by at most S."""
    integers = []
    monkeypatch.setattr(
        private_controls,
        "release_sum",
        lambda total, num, mechanism, noise: integers.append(total.copy()) or mechanism.ring.reduce(total),
    )
    noised_popularity(history, NUM_ITEMS, promise(), noise_seed=3)
    for person in (0, 7, 31):
        kept = history.items.copy()
        lengths = history.lengths.copy()
        keep = np.ones(len(kept), dtype=bool)
        keep[history.indptr[person] : history.indptr[person + 1]] = False
        lengths[person] = 0
        without = Histories(np.concatenate([[0], np.cumsum(lengths)]), kept[keep])
        noised_popularity(without, NUM_ITEMS, promise(), noise_seed=3)
        moved = np.linalg.norm(integers[0] - integers[-1])
        assert moved <= SENSITIVITY
        assert (moved > 0.9 * SENSITIVITY) == (history.lengths[person] > 0)


def test_noise_from_the_operating_system_never_repeats(history):
    first, second = (noised_popularity(history, NUM_ITEMS, promise()).values for _ in range(2))
    assert (first != second).mean() > 0.9


def test_popularity_scores_are_the_released_sum_for_everybody(history):
    scores = fit_dp_popularity(FitData(history, NUM_ITEMS, promise=promise(), noise_seed=2)).scores(EVERYBODY)
    released = noised_popularity(history, NUM_ITEMS, promise(), noise_seed=2)
    np.testing.assert_array_equal(scores, np.tile(released.values, (NUM_USERS, 1)))


def test_every_person_is_fitted_as_a_device_fits_itself_with_the_runs_parameters(history):
    training = LocalTraining(regularisation=7.0, recency_half_life=40.0, serving_half_life=3.0)
    content = np.random.default_rng(1).normal(size=(NUM_ITEMS, 3)).astype(np.float32)
    data = FitData(history, NUM_ITEMS, content, training=training, promise=promise(), noise_seed=2)
    scorer = fit_dp_content(data)
    released = noised_popularity(history, NUM_ITEMS, promise(), noise_seed=2)
    column = saturating_column(released.values, noise_std=released.noise_std)
    rows = np.column_stack([column, content]).astype(np.float32)
    np.testing.assert_array_equal(scorer.items, rows)
    serving = serving_training(training)
    assert serving.recency_half_life == 3.0
    for user in (0, 11, 42):
        own = history.of(user)
        expected = solve_user(
            rows,
            own,
            recency_weights(np.arange(len(own))[::-1], half_life=3.0, floor=serving.recency_floor),
            unobserved_weight=serving.unobserved_weight,
            regularisation=7.0,
        )
        np.testing.assert_allclose(scorer.users[user], expected, atol=1e-5)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan")])
def test_a_budget_that_is_none_is_refused(history, epsilon):
    with pytest.raises(PrivacyError, match="epsilon"):
        fit_dp_popularity(FitData(history, NUM_ITEMS, promise=promise(epsilon)))


@pytest.mark.parametrize("name", ["dp_popularity", "dp_content"])
@pytest.mark.parametrize("given", [None, Promise(unit=Unit.INTERACTION, epsilon=2.0, delta=1e-5)])
def test_a_control_without_a_budget_for_whole_people_is_refused_not_fitted_in_the_clear(history, name, given):
    with pytest.raises(ConfigError, match="whole people"):
        BASELINES[name].fit(FitData(history, NUM_ITEMS, promise=given))


def test_content_only_is_dp_content_without_the_noise(history):
    """Else noise could seem to help: the two must differ in nothing but the popularity column's noise."""
    content = np.random.default_rng(1).normal(size=(NUM_ITEMS, 3)).astype(np.float32)
    known = FitData(history, NUM_ITEMS, content, training=LocalTraining(regularisation=7.0, serving_half_life=3.0))
    plain = BASELINES["content_only"].fit(known)
    lavish = BASELINES["dp_content"].fit(replace(known, promise=promise(epsilon=1e6), noise_seed=2))
    np.testing.assert_allclose(plain.items, lavish.items, atol=0.1)
    np.testing.assert_allclose(plain.users, lavish.users, atol=0.02)
    other = BASELINES["content_only"].fit(replace(known, training=LocalTraining(regularisation=70.0)))
    assert np.abs(plain.users - other.users).max() > 0.01, "the run's own parameters must matter"
