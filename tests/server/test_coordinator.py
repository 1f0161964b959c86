"""The round's state machine: popularity first, then updates, and a snapshot that goes on exactly."""

from __future__ import annotations

import numpy as np
import pytest

from palate.models.popularity import log_column
from palate.models.table import initial_embeddings
from palate.models.training import LocalTraining
from palate.privacy.mechanisms.budget import RunTerms
from palate.privacy.mechanisms.terms import ReleaseTerms
from palate.server.coordinator import Coordinator, sum_of_user_weights
from palate.server.optimisers import OPTIMISERS, OptimiserConfig
from palate.server.settings import Schedule, ServerSettings

NUM_ITEMS, DIM, ROUNDS = 12, 3, 4
CONTENT = np.random.default_rng(1).normal(size=(NUM_ITEMS, 2)).astype(np.float32)


def coordinator(optimiser: str = "curvature", **schedule: float) -> Coordinator:
    settings = ServerSettings(
        run="r",
        unit="none",
        population=20,
        schedule=Schedule(**({"rounds": ROUNDS, "dim": DIM} | schedule)),
        optimiser=OptimiserConfig(name=optimiser, momentum=0.5),
    )
    embeddings = initial_embeddings(NUM_ITEMS, DIM, scale=0.1, rng=np.random.default_rng(2))
    return Coordinator(settings, CONTENT, embeddings)


def total_for(built: Coordinator) -> np.ndarray:
    """A sum of updates that depends on the table, as real ones do."""
    plan = built.plan()
    rng = np.random.default_rng(plan.server_round)
    if plan.purpose == "popularity":
        return rng.exponential(size=plan.update_size)
    return rng.normal(size=plan.update_size) + plan.learned.T.ravel()


def test_round_zero_asks_for_popularity_and_fills_the_first_column_alone():
    built = coordinator()
    plan = built.plan()
    assert (plan.purpose, plan.server_round, plan.update_size) == ("popularity", 0, NUM_ITEMS)
    np.testing.assert_array_equal(plan.fixed[:, 0], np.zeros(NUM_ITEMS))
    total = total_for(built)
    outcome = built.apply(total)
    assert (outcome.server_round, outcome.purpose, outcome.update_rms) == (0, "popularity", 0.0)
    np.testing.assert_array_equal(outcome.table.fixed[:, 0], log_column(total.astype(np.float32)))
    np.testing.assert_array_equal(outcome.table.fixed[:, 1:], CONTENT)
    np.testing.assert_array_equal(outcome.table.learned, plan.learned)


def test_training_rounds_move_the_learned_columns_alone():
    built = coordinator()
    built.apply(total_for(built))
    plan = built.plan()
    assert (plan.purpose, plan.server_round, plan.update_size) == ("train", 1, NUM_ITEMS * DIM)
    assert LocalTraining.model_validate_json(plan.training) == built.settings.training
    outcome = built.apply(total_for(built))
    np.testing.assert_array_equal(outcome.table.fixed, plan.fixed)
    change = outcome.table.learned - plan.learned
    assert outcome.update_rms == pytest.approx(np.sqrt(np.mean(change**2)), rel=1e-4)
    assert outcome.update_rms > 0


def test_the_average_optimiser_adds_the_mean_update_less_the_ridge():
    settings = ServerSettings(
        run="r",
        unit="none",
        population=20,
        schedule=Schedule(rounds=1, dim=DIM, participation=0.5),
        optimiser=OptimiserConfig(name="average", step_size=1.0, item_regularisation=0.25),
    )
    built = Coordinator(settings, CONTENT, np.ones((NUM_ITEMS, DIM), np.float32))
    built.apply(np.full(NUM_ITEMS, 2.0))
    outcome = built.apply(np.full(NUM_ITEMS * DIM, 3.0))
    ridge = 0.25 * 10**2 / (2.0 * NUM_ITEMS)
    np.testing.assert_allclose(outcome.table.learned, 1 + (3.0 - ridge) / 10, rtol=1e-6)


@pytest.mark.parametrize("lengths", [[9] * 7, [1, 2, 30, 100]])
def test_the_sum_of_user_weights_is_bounded_from_below_by_what_popularity_tells(lengths):
    activity = np.array(lengths, dtype=np.float64)
    true = np.sum(activity**-0.5)
    estimate = sum_of_user_weights(np.array([np.sum(activity**0.5)]), devices=len(lengths))
    assert estimate <= true * (1 + 1e-12)
    if len(set(lengths)) == 1:
        assert estimate == pytest.approx(true)


@pytest.mark.parametrize("optimiser", sorted(OPTIMISERS))
def test_a_popularity_sum_that_noise_made_negative_is_borne(optimiser):
    built = coordinator(optimiser)
    built.apply(np.linspace(-3.0, -1.0, NUM_ITEMS))
    assert np.isfinite(built.apply(total_for(built)).table.learned).all()


def test_a_run_is_finished_after_round_zero_and_all_training_rounds():
    built = coordinator()
    done = []
    while not built.finished:
        done.append(built.apply(total_for(built)).server_round)
    assert done == list(range(ROUNDS + 1))


@pytest.mark.parametrize("optimiser", sorted(OPTIMISERS))
@pytest.mark.parametrize("stop", range(ROUNDS + 1))
def test_a_restored_snapshot_goes_on_to_exactly_the_same_table(optimiser, stop):
    whole = coordinator(optimiser)
    while not whole.finished:
        whole.apply(total_for(whole))
    first = coordinator(optimiser)
    for _ in range(stop + 1):
        first.apply(total_for(first))
    second = coordinator(optimiser)
    second.restore(first.snapshot())
    assert second.snapshot().server_round == stop
    while not second.finished:
        second.apply(total_for(second))
    assert second.table.content_hash == whole.table.content_hash


def test_an_abandoned_round_is_asked_again_under_the_next_number():
    built = coordinator()
    built.abandon()
    assert (built.plan().purpose, built.plan().server_round) == ("popularity", 1)
    built.apply(total_for(built))
    before = built.table.content_hash
    built.abandon()
    assert (built.plan().purpose, built.plan().server_round, built.table.content_hash) == ("train", 3, before)


def test_abandoned_rounds_change_nothing_in_what_is_learned():
    smooth, rough = coordinator("adam"), coordinator("adam")
    rough.abandon()
    while not smooth.finished:
        total = total_for(smooth)
        smooth.apply(total)
        rough.apply(total)
        rough.abandon()
        again = coordinator("adam")
        again.restore(rough.snapshot())
        rough = again
    assert rough.finished
    assert rough.table.content_hash == smooth.table.content_hash
    assert rough.snapshot().server_round == 2 * (ROUNDS + 1)


def test_a_snapshot_is_not_changed_by_the_rounds_after_it():
    built = coordinator("momentum")
    built.apply(total_for(built))
    built.apply(total_for(built))
    snapshot = built.snapshot()
    name, velocity = snapshot.table.content_hash, snapshot.optimiser["velocity"].copy()
    built.apply(total_for(built))
    assert snapshot.table.content_hash == name
    np.testing.assert_array_equal(snapshot.optimiser["velocity"], velocity)


@pytest.mark.parametrize(("participation", "cohort"), [(1.0, 20), (0.25, 5), (0.12, 2), (1e-9, 1)])
def test_the_cohort_follows_participation_and_is_never_empty(participation, cohort):
    assert coordinator(participation=participation).settings.cohort == cohort


def test_a_sum_of_survivors_moves_the_table_as_the_whole_cohorts_would():
    whole, partly = coordinator("average"), coordinator("average")
    for built, share in ((whole, 1.0), (partly, 0.75)):  # 15 of 20 devices, alike
        built.apply(share * total_for(built), survivors=None if share == 1.0 else 15)
        built.apply(share * total_for(built), survivors=None if share == 1.0 else 15)
    np.testing.assert_allclose(partly.popularity, whole.popularity, rtol=1e-6)
    np.testing.assert_allclose(partly.table.learned, whole.table.learned, rtol=1e-5)


def test_the_noise_of_survivors_is_theirs_scaled_to_the_cohort(monkeypatch):
    terms = ReleaseTerms(clip_norm=1.0, sensitivity=4096, share_variance=10_000, honest_shares=5, roster_size=20)
    settings = ServerSettings(
        run="r", unit="user", terms=RunTerms(popularity=terms, train=terms), population=20,
        schedule=Schedule(rounds=1, dim=DIM),
    )  # fmt: skip
    built = Coordinator(settings, CONTENT, np.zeros((NUM_ITEMS, DIM), dtype=np.float32))
    seen = []
    monkeypatch.setattr(Coordinator, "_take_popularity", lambda self, noise: seen.append(noise))
    plan = built.plan()
    built.apply(np.ones(NUM_ITEMS), survivors=16)
    scale = terms.mechanism(plan.update_size).quantiser.scale
    assert seen == [pytest.approx((16 * 10_000) ** 0.5 / scale * 20 / 16)]
