from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.privacy.accounting.events import Adjacency, Unit
from palate.privacy.accounting.guarantee import account_for
from palate.privacy.budget import events_of
from palate.privacy.errors import PrivacyError
from palate.privacy.integer.csprng import Purpose, WordStream
from palate.privacy.integer.quantise import Quantiser, quantise_samples
from palate.privacy.mechanisms.terms import ReleaseTerms
from palate.privacy.wire import RoundPlan

SIZE = 15  # values of a sample: a head of 9, and 3 slots of 2
TERMS = ReleaseTerms(clip_norm=0.5, sensitivity=256, share_variance=90_000, honest_shares=40, roster_size=60)
KEY = bytes(range(32))


def samples(count: int, norm: float, size: int = SIZE) -> np.ndarray:
    values = np.random.default_rng(count).standard_normal((count, size))
    return (norm * values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def one_by_one(values: np.ndarray, quantiser: Quantiser, key: bytes = KEY) -> np.ndarray:
    rounding = WordStream(key, Purpose.ROUNDING)
    return np.stack([quantiser.quantise(sample, rounding) for sample in values])


def plan(unit: str, *, terms: ReleaseTerms | None = TERMS, interactions_per_round: int = 8) -> RoundPlan:
    learned = np.zeros((5, 2), dtype=np.float32)
    return RoundPlan(
        run="run", server_round=1, purpose="train", unit=unit, participation=1.0, training="{}",
        fixed=learned[:, :0], learned=learned, terms=terms, interactions_per_round=interactions_per_round,
    )  # fmt: skip


@pytest.mark.parametrize("size", [1, 4, 15, 600])
@pytest.mark.parametrize("norm", [1e-7, 0.4, 60.0])
def test_samples_are_quantised_as_one_after_the_other(size: int, norm: float):
    quantiser = Quantiser(clip_norm=0.5, sensitivity=256, size=size)
    values = samples(30, norm, size)
    np.testing.assert_array_equal(quantise_samples(values, quantiser, KEY), one_by_one(values, quantiser))


def test_a_sample_that_rounds_again_shifts_the_words_of_the_others_as_on_one_stream(monkeypatch: pytest.MonkeyPatch):
    decided: list[bool] = []
    fits = Quantiser.fits

    def refuse_now_and_then(self: Quantiser, integers: np.ndarray) -> np.ndarray:
        verdict = (integers.sum(axis=1) % 3 > 0) & fits(self, integers)
        decided.extend(verdict)
        return verdict

    monkeypatch.setattr(Quantiser, "fits", refuse_now_and_then)
    values, quantiser = samples(12, 0.4), TERMS.mechanism(SIZE).quantiser
    np.testing.assert_array_equal(quantise_samples(values, quantiser, KEY), one_by_one(values, quantiser))
    assert not all(decided)


@given(
    st.lists(st.lists(st.floats(-(2.0**120), 2.0**120, width=32), min_size=SIZE, max_size=SIZE), max_size=4),
    st.sampled_from([8, 256, 1 << 16]),
    st.binary(min_size=32, max_size=32),
)
def test_integer_norm_of_a_sample_never_exceeds_the_sensitivity(rows: list[list[float]], sensitivity: int, key: bytes):
    values = np.array(rows, dtype=np.float32).reshape(-1, SIZE)
    quantiser = Quantiser(clip_norm=0.5, sensitivity=sensitivity, size=SIZE)
    integers = quantise_samples(values, quantiser, key)
    assert (np.square(integers).sum(axis=1) <= quantiser.sensitivity**2).all()


def test_a_sample_replaced_by_zeros_moves_the_sum_by_at_most_the_sensitivity():
    quantiser = TERMS.mechanism(SIZE).quantiser
    values = samples(20, 3.0)
    present = quantise_samples(values, quantiser, KEY)
    for gone in range(20):
        without = values.copy()
        without[gone] = 0.0
        moved = present.sum(axis=0) - quantise_samples(without, quantiser, KEY).sum(axis=0)
        assert 0 < math.sqrt((moved**2).sum()) <= TERMS.sensitivity
        np.testing.assert_array_equal(moved, present[gone])


def test_all_samples_of_a_person_together_stay_within_b_times_the_sensitivity():
    values = np.repeat(samples(1, 50.0), 16, axis=0)  # the worst case: all of them point the same way
    total = quantise_samples(values, TERMS.mechanism(SIZE).quantiser, KEY).sum(axis=0)
    assert 0.98 * 16 * TERMS.sensitivity < math.sqrt((total**2).sum()) <= 16 * TERMS.sensitivity


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_sample_that_is_not_finite_is_refused(bad: float):
    values = samples(3, 0.2)
    values[1, 4] = bad
    with pytest.raises(PrivacyError, match="1 values that are not finite"):
        quantise_samples(values, TERMS.mechanism(SIZE).quantiser, KEY)


@pytest.mark.parametrize(
    "values", [samples(2, 0.2, 14), samples(2, 0.2).astype(np.float64), samples(2, 0.2)[0]], ids=["size", "type", "1-d"]
)
def test_samples_of_another_shape_or_type_are_refused(values: np.ndarray):
    with pytest.raises(PrivacyError, match="the samples are"):
        quantise_samples(values, TERMS.mechanism(SIZE).quantiser, KEY)


def test_no_samples_are_no_integers():
    assert quantise_samples(samples(0, 1.0), TERMS.mechanism(SIZE).quantiser, KEY).shape == (0, SIZE)


def test_a_slot_that_is_zero_stays_zero():
    values = samples(200, 0.4)
    values[:, 11:13] = 0.0
    assert not quantise_samples(values, TERMS.mechanism(SIZE).quantiser, KEY)[:, 11:13].any()


def test_an_interaction_is_hidden_by_one_share_and_assumes_nothing():
    [event] = events_of(plan("interaction")).values()
    assert (event.sensitivity, event.variance, event.assumptions) == (256, 90_000, ())
    guarantee = account_for([event], 1e-5)
    assert (guarantee.unit, guarantee.amplification) == (Unit.INTERACTION, "none claimed")
    assert guarantee.adjacency is Adjacency.ZERO_OUT


def test_a_person_is_hidden_by_all_honest_shares_with_b_times_the_sensitivity():
    [interaction] = events_of(plan("interaction")).values()
    train = events_of(plan("both", interactions_per_round=8))
    person = train[Unit.USER]
    assert (person.sensitivity, person.variance, person.unit) == (8 * 256, 40 * 90_000, Unit.USER)
    assert person.assumptions
    assert train[Unit.INTERACTION] == interaction
    popularity = events_of(replace(plan("both", interactions_per_round=9), purpose="popularity"))
    assert (popularity[Unit.USER].sensitivity, popularity[Unit.INTERACTION].sensitivity) == (3 * 256, 256)


@pytest.mark.parametrize("unit", ["interaction", "both"])
def test_a_plan_without_terms_or_bound_is_refused(unit: str):
    with pytest.raises(PrivacyError, match="no terms"):
        events_of(plan(unit, terms=None))
    with pytest.raises(PrivacyError, match="interactions_per_round is 0"):
        events_of(plan(unit, interactions_per_round=0))


@pytest.mark.parametrize("unit", ["interaction", "both"])
def test_metrics_of_the_whole_history_cannot_ride_along(unit: str):
    with pytest.raises(PrivacyError, match="cannot carry metrics"):
        events_of(replace(plan(unit), evaluation_share=0.1))
