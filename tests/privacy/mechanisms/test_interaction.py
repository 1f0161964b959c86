from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.privacy.accounting.events import Adjacency, Unit
from palate.privacy.accounting.guarantee import epsilon
from palate.privacy.budget import events_of
from palate.privacy.errors import PrivacyError
from palate.privacy.integer.csprng import Purpose, WordStream
from palate.privacy.integer.quantise import Quantiser
from palate.privacy.mechanisms.interaction import (
    SampleLayout,
    popularity_integers,
    popularity_scale,
    quantise_samples,
    sum_items,
)
from palate.privacy.mechanisms.terms import ReleaseTerms
from palate.privacy.wire import RoundPlan

LAYOUT = SampleLayout(head_size=9, slots=3, dim=2)
TERMS = ReleaseTerms(clip_norm=0.5, sensitivity=256, share_variance=90_000, honest_shares=40, roster_size=60)
KEY = bytes(range(32))


def samples(count: int, norm: float, size: int = LAYOUT.size) -> np.ndarray:
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
    values, quantiser = samples(12, 0.4), LAYOUT.quantiser(TERMS)
    np.testing.assert_array_equal(quantise_samples(values, quantiser, KEY), one_by_one(values, quantiser))
    assert not all(decided)


@given(
    st.lists(
        st.lists(st.floats(-(2.0**120), 2.0**120, width=32), min_size=LAYOUT.size, max_size=LAYOUT.size), max_size=4
    ),
    st.sampled_from([8, 256, 1 << 16]),
    st.binary(min_size=32, max_size=32),
)
def test_integer_norm_of_a_sample_never_exceeds_the_sensitivity(rows: list[list[float]], sensitivity: int, key: bytes):
    values = np.array(rows, dtype=np.float32).reshape(-1, LAYOUT.size)
    quantiser = Quantiser(clip_norm=0.5, sensitivity=sensitivity, size=LAYOUT.size)
    integers = quantise_samples(values, quantiser, key)
    assert (np.square(integers).sum(axis=1) <= quantiser.sensitivity**2).all()


def test_a_sample_replaced_by_zeros_moves_the_sum_by_at_most_the_sensitivity():
    quantiser = LAYOUT.quantiser(TERMS)
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
    total = quantise_samples(values, LAYOUT.quantiser(TERMS), KEY).sum(axis=0)
    assert 0.98 * 16 * TERMS.sensitivity < math.sqrt((total**2).sum()) <= 16 * TERMS.sensitivity


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_sample_that_is_not_finite_is_refused(bad: float):
    values = samples(3, 0.2)
    values[1, 4] = bad
    with pytest.raises(PrivacyError, match="1 values that are not finite"):
        quantise_samples(values, LAYOUT.quantiser(TERMS), KEY)


@pytest.mark.parametrize(
    "values", [samples(2, 0.2, 14), samples(2, 0.2).astype(np.float64), samples(2, 0.2)[0]], ids=["size", "type", "1-d"]
)
def test_samples_of_another_shape_or_type_are_refused(values: np.ndarray):
    with pytest.raises(PrivacyError, match="the samples are"):
        quantise_samples(values, LAYOUT.quantiser(TERMS), KEY)


def test_no_samples_are_no_integers():
    assert quantise_samples(samples(0, 1.0), LAYOUT.quantiser(TERMS), KEY).shape == (0, LAYOUT.size)


def test_a_slot_that_is_zero_stays_zero():
    values = samples(200, 0.4)
    values[:, 11:13] = 0.0
    assert not quantise_samples(values, LAYOUT.quantiser(TERMS), KEY)[:, 11:13].any()


def test_moving_slots_into_the_table_keeps_the_norm_of_a_sample_and_the_order_of_the_wire():
    rng = np.random.default_rng(4)
    integers = rng.integers(-50, 50, (1, LAYOUT.size))
    items = np.array([[6, 0, 3]])
    summed = sum_items(LAYOUT.item_part(integers), items, 7)
    assert (summed**2).sum() + (LAYOUT.head_part(integers) ** 2).sum() == (integers**2).sum()
    np.testing.assert_array_equal(summed.reshape(2, 7)[:, [6, 0, 3]], integers[0, 9:].reshape(3, 2).T)


def test_samples_add_up_in_the_table():
    rng = np.random.default_rng(5)
    slots, items = rng.integers(-(2**16), 2**16, (40, 3, 2)), rng.integers(0, 7, (40, 3))
    expected = np.zeros((7, 2), dtype=np.int64)
    np.add.at(expected, items.reshape(-1), slots.reshape(-1, 2))
    np.testing.assert_array_equal(sum_items(slots, items, 7), expected.T.reshape(-1))


def test_an_item_of_a_device_counts_once_and_exactly():
    terms = replace(TERMS, clip_norm=1.0, sensitivity=100)
    integers = popularity_integers(np.array([2, 0, 2]), 4, terms)
    assert (integers / popularity_scale(terms)).tolist() == [1.0, 0.0, 1.0, 0.0]
    one_less = popularity_integers(np.array([2]), 4, terms)
    assert math.sqrt(((integers - one_less) ** 2).sum()) == terms.sensitivity


@pytest.mark.parametrize("count", [1, 2, 10, 36])
def test_popular_items_of_a_person_stay_within_the_root_of_b_times_the_sensitivity(count: int):
    integers = popularity_integers(np.random.default_rng(count).permutation(40)[:count], 40, TERMS)
    asked = plan("both", interactions_per_round=count)
    bound = events_of(replace(asked, purpose="popularity"))[Unit.USER].sensitivity
    assert bound - 1 < math.sqrt((integers**2).sum()) <= bound
    assert bound <= events_of(asked)[Unit.USER].sensitivity == count * TERMS.sensitivity


def test_an_interaction_is_hidden_by_one_share_and_assumes_nothing():
    [event] = events_of(plan("interaction")).values()
    assert (event.sensitivity, event.variance, event.assumptions) == (256, 90_000, ())
    guarantee = epsilon([event], 1e-5)
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
