"""One person's device: answers plans through the mechanism, keeps its head, and tells nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from oracle import alone
from oracle import device as oracle

from palate.client.guard import Guard
from palate.client.host import DeviceHost, training_of
from palate.models.learning.kernel import Trained
from palate.models.learning.updates import Updates
from palate.models.table import ItemTable, initial_embeddings
from palate.models.training import LocalTraining
from palate.privacy.accounting.events import Unit
from palate.privacy.budget import Promise
from palate.privacy.errors import PrivacyError
from palate.privacy.integer.csprng import Purpose, WordStream
from palate.privacy.ledger.errors import BudgetExceeded
from palate.privacy.ledger.store import LedgerBook
from palate.privacy.ledger.verify import verify_ledger
from palate.privacy.mechanisms.terms import ReleaseTerms
from palate.privacy.wire import NUM_METRICS, RoundPlan, WireError

NUM_ITEMS, DIM = 20, 3
ITEMS = np.array([2, 7, 13, 4], np.int32)
CONFIG = LocalTraining(model="neumf", hidden=3, regularisation=1.0)
TABLE = ItemTable(
    np.zeros((NUM_ITEMS, 1), np.float32),
    initial_embeddings(NUM_ITEMS, DIM, scale=0.3, rng=np.random.default_rng(1)),
)
PLAN = RoundPlan(
    run="r",
    server_round=1,
    purpose="train",
    unit="none",
    participation=1.0,
    training=CONFIG.model_dump_json(),
    fixed=TABLE.fixed,
    learned=TABLE.learned,
)
TERMS = ReleaseTerms(clip_norm=0.5, sensitivity=4096, share_variance=10**6, honest_shares=1, roster_size=1)


def key_of_round(server_round: int) -> np.uint64:
    return np.uint64(100 + server_round)


def device() -> DeviceHost:
    return DeviceHost(ITEMS, key_of_round)


def test_round_zero_is_answered_with_the_popularity_part():
    vector = device().answer(replace(PLAN, server_round=0, purpose="popularity")).vector
    np.testing.assert_array_equal(vector, oracle.popularity_update(ITEMS, NUM_ITEMS))


def test_a_training_round_is_answered_dimension_by_dimension_with_an_update_of_the_planned_size():
    vector = device().answer(PLAN).vector
    assert vector.shape == (PLAN.update_size,)
    expected = oracle.train(TABLE, ITEMS, None, CONFIG, key=key_of_round(1))
    np.testing.assert_allclose(vector, expected.update.T.ravel(), atol=1e-6)
    exact = alone.train(TABLE, ITEMS, None, CONFIG, key=key_of_round(1))
    np.testing.assert_array_equal(vector, exact.update.T.ravel())


def test_the_head_goes_on_from_round_to_round_with_a_fresh_key_each():
    own = device()
    own.answer(PLAN)
    second = own.answer(replace(PLAN, server_round=2)).vector
    state = oracle.train(TABLE, ITEMS, None, CONFIG, key=key_of_round(1)).state
    expected = oracle.train(TABLE, ITEMS, state, CONFIG, key=key_of_round(2))
    np.testing.assert_allclose(second, expected.update.T.ravel(), atol=1e-6)


def scores(own: DeviceHost) -> np.ndarray:
    heads = {name: value[0] for name, value in own.heads(TABLE, CONFIG).items()}
    return alone.score_catalogue(TABLE, ITEMS, heads, CONFIG)


def test_scores_come_from_the_trained_head():
    own = device()
    before = scores(own)
    own.answer(PLAN)
    after = scores(own)
    assert before.shape == after.shape == (NUM_ITEMS,)
    assert not np.array_equal(before, after)


def test_a_device_refuses_every_question():
    with pytest.raises(WireError, match="answers no questions"):
        device().inspect({"part": "test", "round": 1, "full": 1}, {"fixed": TABLE.fixed, "learned": TABLE.learned})


def test_a_unit_without_mechanism_is_refused_before_training():
    own = DeviceHost(ITEMS, lambda server_round: pytest.fail("a refused plan must not be trained on"))
    with pytest.raises(WireError, match="no mechanism for unit 'household'"):
        own.answer(replace(PLAN, unit="household", terms=TERMS))


@pytest.mark.parametrize(
    "training", ["", "{", "[]", '{"epochs": 0}', '{"steal": 1}', '{"epochs": "many"}', '{"learning_rate": Infinity}']
)
def test_training_parameters_that_are_not_valid_are_refused(training):
    with pytest.raises(WireError, match="training parameters are not valid"):
        device().answer(replace(PLAN, training=training))


@pytest.mark.parametrize("purpose", ["popularity", "train"])
@pytest.mark.parametrize(("unit", "terms"), [("none", None), ("interaction", TERMS), ("both", TERMS)])
def test_updates_on_own_items_only_are_refused_where_zeros_would_show_them(tmp_path, purpose, unit, terms):
    """Whatever a server plans: before anything is charged or computed."""
    training = LocalTraining(model="gmf", objective="bce", own_items_only=True).model_dump_json()
    plan = replace(PLAN, unit=unit, terms=terms, purpose=purpose, training=training, interactions_per_round=3)
    kinds = {"none": (), "interaction": (Unit.INTERACTION,), "both": (Unit.USER, Unit.INTERACTION)}[unit]
    promises = {kind: Promise(unit=kind, epsilon=1e4, delta=1e-5) for kind in kinds}
    guard = Guard(tmp_path / "own.sqlite", Ed25519PrivateKey.generate(), "me", promises) if promises else None
    own = DeviceHost(ITEMS, lambda server_round: pytest.fail("a refused plan must not be trained on"), guard)
    with pytest.raises(WireError, match=f"no updates on own items only at unit '{unit}'"):
        own.answer(plan)
    assert not (tmp_path / "own.sqlite").exists()


def test_at_unit_user_a_plan_may_ask_for_updates_on_own_items_only():
    training = CONFIG.model_copy(update={"own_items_only": True})
    assert training_of(replace(PLAN, unit="user", terms=TERMS, training=training.model_dump_json())) == training


def test_every_parameter_of_local_training_survives_the_plan():
    config = LocalTraining(objective="bce", recency_half_life=float("inf"), epochs=3, weight_decay=0.25)
    assert training_of(replace(PLAN, training=config.model_dump_json())) == config


def test_what_training_leaves_behind_is_not_printed():
    update, heads = np.full((2, 2), 13, np.float32), {"user": torch.full((1,), 13.0)}
    assert repr(Trained(update, heads, 13.0)) == "Trained()"


def test_a_device_does_not_print_its_history():
    assert repr(device()) == "DeviceHost(<private>)"
    assert "13" not in str(device())


PROTECTED = replace(PLAN, unit="user", terms=TERMS)
SECRET = bytes(range(32))


SIGNER = Ed25519PrivateKey.generate()


def guarded(tmp_path: Path, *, epsilon: float = 1e6, **how: Any) -> DeviceHost:
    promise = Promise(unit=Unit.USER, epsilon=epsilon, delta=1e-5)
    guard = Guard(tmp_path / "ledger.sqlite", SIGNER, "me", {Unit.USER: promise})
    return DeviceHost(ITEMS, key_of_round, guard, **how)


def decoded(plan: RoundPlan, vector: np.ndarray) -> np.ndarray:
    return plan.terms.mechanism(plan.update_size).decode(vector)


def test_a_device_without_a_ledger_refuses_every_protected_plan():
    with pytest.raises(WireError, match="needs a ledger"):
        device().answer(PROTECTED)


def test_a_protected_answer_is_integers_of_the_planned_size(tmp_path):
    for plan in (
        replace(PROTECTED, server_round=0, purpose="popularity"),
        PROTECTED,
        replace(PROTECTED, server_round=2, evaluation_share=0.2),
    ):
        vector = guarded(tmp_path / str(plan.server_round)).answer(plan).vector
        assert vector.dtype == np.uint32
        assert vector.shape == (plan.update_size,)


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path) -> None:
    for name in ("0", "1", "2", "a", "b"):
        (tmp_path / name).mkdir()


@pytest.mark.parametrize("clip_norm", [1e-3, 1e3])
def test_a_protected_answer_with_next_to_no_noise_is_the_clipped_contribution(tmp_path, clip_norm):
    plan = replace(PROTECTED, terms=replace(TERMS, clip_norm=clip_norm, share_variance=100))
    got = decoded(plan, guarded(tmp_path).answer(plan).vector)
    exact = alone.train(TABLE, ITEMS, None, CONFIG, key=key_of_round(1)).update.T.ravel()
    assert np.linalg.norm(exact) > 1e-2
    clipped = exact * min(1.0, clip_norm / np.linalg.norm(exact))
    np.testing.assert_allclose(got, clipped, atol=6 * 10 * clip_norm / 4096)


def test_metrics_of_the_held_back_item_ride_at_the_end(tmp_path):
    plan = replace(PROTECTED, evaluation_share=0.5, terms=replace(TERMS, share_variance=100))
    unit = 0.5 * 0.5 / np.sqrt(NUM_METRICS)
    tested = decoded(plan, guarded(tmp_path / "a", held_back=9).answer(plan).vector)[-NUM_METRICS:] / unit
    untested = decoded(plan, guarded(tmp_path / "b").answer(plan).vector)[-NUM_METRICS:] / unit
    noise = 6 * 10 * 0.5 / 4096 / unit
    assert tested[2] == pytest.approx(1.0, abs=noise)
    assert -noise <= tested[1] <= tested[0] + 2 * noise
    np.testing.assert_allclose(untested, 0.0, atol=noise)


def test_the_noise_is_fresh_on_every_device_and_in_every_round(tmp_path):
    first, second = guarded(tmp_path / "a"), guarded(tmp_path / "b")
    vectors = [
        host.answer(replace(PROTECTED, server_round=number)).vector for host in (first, second) for number in (1, 2)
    ]
    for place, one in enumerate(vectors):
        for other in vectors[:place]:
            assert (one == other).mean() < 0.1


def test_with_a_given_secret_the_answer_is_what_the_mechanism_encodes(tmp_path):
    vector = guarded(tmp_path, secret_of_round=lambda _: SECRET).answer(PROTECTED).vector
    exact = alone.train(TABLE, ITEMS, None, CONFIG, key=key_of_round(1)).update.T.ravel()
    expected = TERMS.mechanism(len(exact)).encode(
        np.ascontiguousarray(exact),
        rounding=WordStream(SECRET, Purpose.ROUNDING),
        noise=WordStream(SECRET, Purpose.NOISE),
    )
    difference = (vector - expected).astype(np.int32)
    assert np.abs(difference).max() <= 1, "Opacus clips in float32 by its own formula, and may round one step away"


def test_a_protected_round_that_is_asked_for_again_is_not_trained_again(tmp_path, monkeypatch):
    host = guarded(tmp_path)
    first = host.answer(PROTECTED).vector
    monkeypatch.setattr("palate.client.host.train", lambda *_, **__: pytest.fail("it was answered before"))
    np.testing.assert_array_equal(host.answer(PROTECTED).vector, first)


@pytest.mark.parametrize("changes", [{"training": "{"}, {"training": '{"epochs": 0}'}])
def test_a_plan_that_cannot_be_answered_is_refused_without_a_charge(tmp_path, changes):
    with pytest.raises(WireError):
        guarded(tmp_path).answer(replace(PROTECTED, **changes))
    assert not (tmp_path / "ledger.sqlite").exists()


def test_a_table_for_which_the_sensitivity_is_too_small_is_refused_without_a_charge(tmp_path):
    coarse = replace(PROTECTED, terms=replace(TERMS, sensitivity=4))
    with pytest.raises(PrivacyError, match="sensitivity 4 is too small"):
        guarded(tmp_path).answer(coarse)
    assert not (tmp_path / "ledger.sqlite").exists()


def test_a_device_whose_budget_is_spent_computes_nothing(tmp_path):
    host = DeviceHost(
        ITEMS,
        lambda _: pytest.fail("a refused plan must not be trained on"),
        guarded(tmp_path, epsilon=1e-3)._guard,
    )
    with pytest.raises(BudgetExceeded):
        host.answer(PROTECTED)


@pytest.mark.parametrize("plan", [PLAN, replace(PLAN, server_round=0, purpose="popularity")])
def test_a_device_that_keeps_a_budget_never_sends_an_exact_update_whatever_it_is_asked(tmp_path, plan):
    with pytest.raises(WireError, match="protects nothing"):
        guarded(tmp_path).answer(plan)


@pytest.mark.parametrize("failure", ["raises", "not finite"])
def test_a_round_that_fails_inside_is_answered_with_noise_and_stays_charged(tmp_path, monkeypatch, failure):
    """A server that crafts a table so that training fails for members only learns nothing from the answer."""

    def failing(table, *_, sink, **__):
        if failure == "raises":
            raise FloatingPointError
        sink(np.arange(1), Updates(np.full((1, NUM_ITEMS), np.nan, np.float32), np.ones((1, DIM), np.float32)))
        return Trained(table.learned, {}, 0.0)

    host = guarded(tmp_path)
    monkeypatch.setattr("palate.client.host.train", failing)
    got = decoded(PROTECTED, host.answer(PROTECTED).vector)
    step = np.sqrt(TERMS.share_variance) * TERMS.clip_norm / TERMS.sensitivity
    assert 0.3 * step < got.std() < 3 * step
    host.settle()
    assert verify_ledger(tmp_path / "ledger.sqlite", "me", SIGNER.public_key()).state.spent_nano > 0


def test_a_head_is_kept_only_with_the_bytes_of_its_round(tmp_path, monkeypatch):
    host = guarded(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(LedgerBook, "persist", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            host.answer(PROTECTED)
    assert not host._heads
    host.answer(PROTECTED)
    assert list(host._heads) == [(PROTECTED.run, "user")]
