"""The round's state machine: popularity first, then updates, and a snapshot that goes on exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from palate.models.popularity import log_column
from palate.models.table import initial_embeddings
from palate.models.training import LocalTraining
from palate.privacy.accounting.events import Unit
from palate.privacy.accounting.guarantee import account_for
from palate.privacy.budget import events_of
from palate.privacy.charging import intents
from palate.privacy.mechanisms.terms import ReleaseTerms, RunTerms
from palate.privacy.wire import NUM_METRICS, RoundPlan
from palate.server.coordinator import Coordinator, sum_of_user_weights
from palate.server.decoding import noise_std
from palate.server.denoising import ReleaseConfig
from palate.server.optimisers import OPTIMISERS, Curvature, OptimiserConfig
from palate.server.settings import Schedule, ServerSettings
from palate.server.store import RunStore

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


# Only items that stand out are learned.

TERMS = ReleaseTerms(clip_norm=1.0, sensitivity=4096, share_variance=10**6, honest_shares=20, roster_size=20)


def with_head(
    head: float,
    optimiser: str = "curvature",
    *,
    items: int = 60,
    content: int = 2,
    groups: int = 0,
    **schedule: Any,
) -> Coordinator:
    steps = () if groups else ReleaseConfig().steps
    filtering = {"groups": groups, "item_regularisation": 0.0, "decay": 1.0} if groups else {"momentum": 0.5}
    settings = ServerSettings(
        run="r", unit="user", terms=RunTerms(popularity=TERMS, train=TERMS), population=20, evaluation_share=0.1,
        schedule=Schedule(**({"rounds": ROUNDS, "dim": DIM, "head": head} | schedule)),
        optimiser=OptimiserConfig(name=optimiser, **filtering),
        training=LocalTraining(own_items_only=groups > 0),
        release=ReleaseConfig(steps=steps),
    )  # fmt: skip
    embeddings = initial_embeddings(items, DIM, scale=0.1, rng=np.random.default_rng(2))
    columns = np.random.default_rng(1).normal(size=(items, content)).astype(np.float32)
    return Coordinator(settings, columns, embeddings)


def pulled(built: Coordinator) -> np.ndarray:
    """A sum of updates for the rows that the plan asks for, and of metrics."""
    plan = built.plan()
    rows = plan.learned if plan.active is None else plan.learned[plan.active]
    update = np.random.default_rng(plan.server_round).normal(size=rows.size) + rows.T.ravel()
    return np.concatenate([update, np.zeros(plan.update_size - rows.size)])


@pytest.mark.parametrize("survivors", [None, 16])
def test_items_whose_popularity_is_that_far_above_its_noise_are_learned(survivors):
    built = with_head(3.0)
    assert built.plan().active is None
    noise = noise_std(built.plan(), survivors)
    total = noise * np.linspace(0.0, 6.0, 60)
    built.apply(total, survivors=survivors)
    plan = built.plan()
    np.testing.assert_array_equal(plan.active, total >= 3.0 * noise)
    assert plan.update_size == 30 * DIM + NUM_METRICS
    assert RoundPlan.from_parts(*plan.to_parts()).content_hash == plan.content_hash
    assert built.example_plans()[0].active is None


@pytest.mark.parametrize("items", [4, 60])
def test_where_nothing_stands_out_the_best_known_items_are_learned(items):
    built = with_head(1e9, items=items)
    total = np.random.default_rng(6).permutation(items).astype(np.float64)
    built.apply(total)
    np.testing.assert_array_equal(built.plan().active, total >= items - 2 * DIM)


@pytest.mark.parametrize("start", ["random", "content"])
@pytest.mark.parametrize("content", [0, 2])
@pytest.mark.parametrize("optimiser", sorted(OPTIMISERS))
def test_rows_outside_the_head_stay_at_zero_and_all_others_move(optimiser, start, content):
    built = with_head(3.0, optimiser, start=start, content=content)
    built.apply(noise_std(built.plan()) * np.linspace(0.0, 6.0, 60))
    active, before = built.plan().active, built.table.learned
    for learned in (before, built.apply(pulled(built)).table.learned, built.apply(pulled(built)).table.learned):
        assert not learned[~active].any()
        assert learned[active].all()
    assert (built.table.learned[active] != before[active]).all()


def test_starting_embeddings_and_steps_are_as_large_over_all_rows_as_without_a_head():
    sizes = []
    for head in (0.0, 3.0):
        built = with_head(head, start="content")
        built.apply(noise_std(built.plan()) * np.linspace(0.0, 6.0, 60))
        start = built.table.learned
        unobserved = built.settings.training.unobserved_weight * sum_of_user_weights(built.popularity, 20)
        scale = np.sqrt(built.popularity + unobserved)[:, None]  # steps have a known size in its metric
        change = built.apply(pulled(built)).table.learned - start
        sizes.append((np.linalg.norm(start), np.linalg.norm(scale * change)))
    np.testing.assert_allclose(sizes[0], sizes[1], rtol=1e-5)


def test_each_row_of_a_sum_moves_its_own_item():
    built = with_head(3.0, "average")
    built.apply(noise_std(built.plan()) * np.linspace(0.0, 6.0, 60))
    active, before = built.plan().active, built.table.learned
    pull = np.zeros((30, DIM))
    pull[7, 1] = 1e6  # more than the ridge
    built.apply(np.concatenate([pull.T.ravel(), np.zeros(NUM_METRICS)]))
    moved = np.abs(built.table.learned - before)
    assert np.unravel_index(moved.argmax(), moved.shape) == (np.flatnonzero(active)[7], 1)
    assert np.sort(moved.ravel())[-2] < 1.0


@pytest.mark.parametrize(("optimiser", "groups"), [*((name, 0) for name in sorted(OPTIMISERS)), ("curvature", 3)])
def test_a_restored_run_learns_the_same_rows(tmp_path, optimiser, groups):
    popularity = np.random.default_rng(5).exponential(size=60)
    whole, parts = with_head(3.0, optimiser, groups=groups), with_head(3.0, optimiser, groups=groups)
    while not whole.finished:
        for built in (whole, parts):
            built.apply(popularity if built.applied == 0 else pulled(built))
        again = with_head(3.0, optimiser, groups=groups)
        store = RunStore(tmp_path)
        store.save(parts.snapshot(), {})
        kept = store.load({})
        assert kept is not None
        again.restore(kept)
        parts = again
        assert parts.plan().content_hash == whole.plan().content_hash
    assert parts.table.content_hash == whole.table.content_hash


def test_the_optimiser_is_told_the_noise_and_the_rows(monkeypatch):
    built, told, step = with_head(3.0, groups=3), [], Curvature.step
    monkeypatch.setattr(Curvature, "step", lambda self, given: told.append(given) or step(self, given))
    noises = []
    while not built.finished:
        survivors = 16 if built.applied == 2 else None
        noises.append(noise_std(built.plan(), survivors) * (20 / 16 if survivors else 1.0))
        popularity = noises[0] * np.linspace(0.0, 6.0, 60)
        built.apply(popularity if built.applied == 0 else pulled(built), survivors=survivors)
    assert [given.noise_std for given in told] == pytest.approx(noises[1:])
    for given in told:
        np.testing.assert_array_equal(given.active, built.plan().active)


def test_with_groups_the_table_is_its_start_and_the_filtered_way_so_far():
    built = with_head(3.0, groups=3)
    built.apply(noise_std(built.plan()) * np.linspace(0.0, 6.0, 60))
    active, start = built.plan().active, built.table.learned
    for _ in range(ROUNDS):
        built.apply(pulled(built))
    way = built.settings.optimiser.step_size * built.snapshot().optimiser["filtered"]
    np.testing.assert_allclose(built.table.learned[active] - start[active], way, atol=1e-5)
    assert np.abs(way).max() > 0.01


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


# Popularity again, in place of training rounds.


def terms_of_a_run(*, popularity: int = 400, train: int = 900) -> RunTerms:
    """Noise of variance 20 shares of so many steps squared, for 64 steps."""
    common = {"sensitivity": 64, "honest_shares": 20, "roster_size": 20}
    return RunTerms(
        popularity=ReleaseTerms(clip_norm=1.0, share_variance=popularity, **common),
        train=ReleaseTerms(clip_norm=1e-3, share_variance=train, **common),
    )


def noisy(tolerance: float, **schedule: Any) -> Coordinator:
    settings = ServerSettings(
        run="r",
        unit="user",
        terms=terms_of_a_run(),
        population=20,
        schedule=Schedule(**({"rounds": ROUNDS, "dim": DIM, "popularity_tolerance": tolerance} | schedule)),
        optimiser=OptimiserConfig(name="curvature", relative=True),
    )
    content = np.random.default_rng(1).normal(size=(200, 2)).astype(np.float32)
    return Coordinator(settings, content, initial_embeddings(200, DIM, scale=0.1, rng=np.random.default_rng(2)))


def noisy_total(plan: RoundPlan) -> np.ndarray:
    rng = np.random.default_rng(plan.server_round)
    if plan.purpose == "popularity":
        return 60.0 / np.arange(1.0, 201.0) + rng.normal(0.0, noise_std(plan), 200)
    return rng.normal(0.0, noise_std(plan), plan.update_size)


def test_popularity_is_asked_again_with_the_noise_and_the_charge_of_a_training_round():
    built = noisy(1e-6)
    first = built.plan()
    built.apply(noisy_total(first))
    (_, train), again = built.example_plans(), built.plan()
    assert (again.purpose, again.server_round, again.update_size) == ("popularity", 1, 200)
    event, planned = events_of(again)[Unit.USER], events_of(train)[Unit.USER]
    assert (event.sensitivity, event.variance) == (planned.sensitivity, planned.variance)
    assert event.num_values < planned.num_values
    assert intents(again)[Unit.USER].charge_nano == intents(train)[Unit.USER].charge_nano
    assert account_for([event], 1e-5).epsilon <= account_for([planned], 1e-5).epsilon
    assert noise_std(again) == pytest.approx(1.5 * noise_std(first))  # its parts have norm 1, as in the first round
    assert RoundPlan.from_parts(*again.to_parts()).purpose == "popularity"


def test_popularity_sums_are_averaged_by_what_each_is_worth():
    built = noisy(1e-6)
    totals, noise = [], noise_std(built.plan())
    for _ in range(2):
        totals.append(noisy_total(built.plan()))
        built.apply(totals[-1])
    np.testing.assert_allclose(built.popularity, (9 * totals[0] + 4 * totals[1]) / 13, rtol=1e-5)
    assert built.snapshot().popularity_noise == pytest.approx(noise * (9 / 13) ** 0.5)


def test_a_run_whose_every_round_went_to_popularity_has_learned_nothing_and_asks_no_more():
    built = noisy(1e-9)
    purposes = []
    while not built.finished:
        purposes.append(built.plan().purpose)
        outcome = built.apply(noisy_total(built.plan()))
    assert purposes == ["popularity"] * (1 + ROUNDS)
    assert not outcome.table.learned.any()


def test_a_single_training_round_is_not_left_over(monkeypatch):
    monkeypatch.setattr("palate.server.coordinator.possible_loss", lambda *_, share, **__: 0.8 - share)
    built, purposes = noisy(0.1), []
    while not built.finished:
        purposes.append(built.plan().purpose)
        built.apply(noisy_total(built.plan()))
    assert purposes == ["popularity"] * (1 + ROUNDS)


@pytest.mark.parametrize("tolerance", [0.0, 0.99])
def test_where_popularity_is_exact_enough_it_is_asked_once(tolerance):
    built = noisy(tolerance)
    purposes = []
    while not built.finished:
        purposes.append(built.plan().purpose)
        built.apply(noisy_total(built.plan()))
    assert purposes == ["popularity"] + ["train"] * ROUNDS


def test_a_lost_round_is_asked_again_for_the_same_and_a_restored_run_goes_on_as_it_would_have(tmp_path, monkeypatch):
    monkeypatch.setattr("palate.server.coordinator.possible_loss", lambda *_, share, **__: 0.7 - share)
    whole, stopped = noisy(0.1), noisy(0.1)
    store, purposes = RunStore(tmp_path), []
    while not whole.finished:
        plan = whole.plan()
        purposes.append(plan.purpose)
        whole.abandon()
        assert whole.plan().purpose == plan.purpose
        whole.next_round = plan.server_round
        whole.apply(noisy_total(plan))
        stopped.apply(noisy_total(plan))
        store.save(stopped.snapshot(), {})
        stopped = noisy(0.1)
        stopped.restore(store.load({}))
        assert stopped.finished or stopped.plan().content_hash == whole.plan().content_hash
    assert purposes == ["popularity"] * 3 + ["train"] * 2
    np.testing.assert_array_equal(stopped.table.learned, whole.table.learned)
