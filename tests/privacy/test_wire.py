"""What crosses the wire is checked field by field, and anything malformed is a WireError and nothing else."""

from __future__ import annotations

import string
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from palate.privacy import wire
from palate.privacy.mechanisms.registry import MECHANISMS
from palate.privacy.wire import ItemUpdate, RoundPlan, WireError

FIXED = np.arange(4, dtype=np.float32).reshape(4, 1)
LEARNED = np.arange(8, dtype=np.float32).reshape(4, 2)


def plan(**changes: Any) -> RoundPlan:
    fields: dict[str, Any] = {
        "run": "r",
        "server_round": 3,
        "purpose": "train",
        "unit": "none",
        "participation": 0.5,
        "training": "{}",
        "fixed": FIXED,
        "learned": LEARNED,
    }
    return RoundPlan(**(fields | changes))


ARRAYS, SCALARS = plan().to_parts()
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
TABLES = st.tuples(st.integers(0, 6), st.integers(0, 3), st.integers(0, 4)).flatmap(
    lambda sizes: st.tuples(
        hnp.arrays(np.float32, (sizes[0], sizes[1]), elements=FINITE),
        hnp.arrays(np.float32, (sizes[0], sizes[2]), elements=FINITE),
    )
)


@given(
    table=TABLES,
    run=st.text(),
    number=st.integers(0, 2**40),
    unit=st.text(),
    share=st.floats(0, 1, exclude_min=True),
    training=st.text(),
)
def test_every_plan_survives_the_round_trip(table, run, number, unit, share, training):
    sent = RoundPlan(
        run=run,
        server_round=number,
        purpose="train" if number else "popularity",
        unit=unit,
        participation=share,
        training=training,
        fixed=table[0],
        learned=table[1],
    )
    got = RoundPlan.from_parts(*sent.to_parts())
    for name in ("run", "server_round", "purpose", "unit", "participation", "training"):
        assert getattr(got, name) == getattr(sent, name)
    np.testing.assert_array_equal(got.fixed, sent.fixed)
    np.testing.assert_array_equal(got.learned, sent.learned)


def test_a_training_plan_asks_for_the_learned_block_and_a_popularity_plan_for_one_value_an_item():
    assert plan().update_size == 8
    assert plan(purpose="popularity", server_round=0).update_size == 4


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("version", 2, "version 2 is not 1"),
        ("version", "1", "must be int"),
        ("version", True, "must be int, not bool"),
        ("run", 7, "must be str"),
        ("server_round", 3.0, "must be int"),
        ("server_round", -1, "round -1"),
        ("server_round", 0, "round 0 is not for train"),
        ("purpose", "popularity", "round 3 is not for popularity"),
        ("purpose", "evaluate", "unknown purpose 'evaluate'"),
        ("unit", None, "must be str"),
        ("participation", 1, "must be float"),
        ("participation", 0.0, "participation 0.0"),
        ("participation", 1.5, "participation 1.5"),
        ("participation", float("nan"), "participation nan"),
        ("training", b"{}", "must be str"),
        ("extra", 1, "'extra'"),
    ],
)
def test_a_malformed_scalar_is_refused_by_name(field, value, words):
    with pytest.raises(WireError, match=words):
        RoundPlan.from_parts(ARRAYS, {**SCALARS, field: value})


@pytest.mark.parametrize("field", sorted(SCALARS))
def test_a_missing_scalar_is_refused_by_name(field):
    with pytest.raises(WireError, match=field):
        RoundPlan.from_parts(ARRAYS, {name: value for name, value in SCALARS.items() if name != field})


@pytest.mark.parametrize(
    "arrays",
    [
        {"fixed": FIXED},
        {"fixed": FIXED, "learned": LEARNED, "users": LEARNED},
        {"fixed": FIXED[:3], "learned": LEARNED},
        {"fixed": FIXED, "learned": LEARNED.astype(np.float64)},
        {"fixed": FIXED, "learned": LEARNED.astype(">f4")},
        {"fixed": FIXED, "learned": LEARNED.ravel()},
        {"fixed": FIXED, "learned": np.full((4, 2), np.nan, np.float32)},
        {"fixed": np.full((4, 1), np.inf, np.float32), "learned": LEARNED},
        {"fixed": FIXED, "learned": np.array([[object()] * 2] * 4)},
        {"fixed": FIXED, "learned": LEARNED.tolist()},
    ],
)
def test_malformed_tables_are_refused(arrays):
    with pytest.raises(WireError):
        RoundPlan.from_parts(arrays, SCALARS)


def test_an_array_beyond_the_size_limit_is_refused(monkeypatch):
    monkeypatch.setattr(wire, "MAX_VALUES", 7)
    with pytest.raises(WireError, match="8 values, at most 7"):
        RoundPlan.from_parts(ARRAYS, SCALARS)


ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=5), st.just([1])
)
ANY_ARRAY = st.one_of(
    ANYTHING,
    hnp.arrays(
        st.sampled_from([np.float32, np.float64, np.int8, np.complex64, np.bool_, "U2", "O", "M8[s]"]),
        hnp.array_shapes(min_dims=0, max_dims=3, max_side=5),
    ),
)
NAMES = st.sampled_from([*SCALARS, "fixed", "learned", "other", ""]) | st.text(string.printable, max_size=3)


@given(
    scalars=st.dictionaries(NAMES, ANYTHING, max_size=3),
    arrays=st.dictionaries(st.sampled_from(["fixed", "learned", "x"]), ANY_ARRAY, max_size=2),
    dropped=st.sets(NAMES, max_size=2),
)
def test_a_mutated_plan_is_accepted_whole_or_refused_as_wire_error(scalars, arrays, dropped):
    mutated = {name: value for name, value in (SCALARS | scalars).items() if name not in dropped}
    try:
        accepted = RoundPlan.from_parts({**ARRAYS, **arrays}, mutated)
    except WireError:
        return
    assert set(mutated) == set(SCALARS)
    assert accepted.participation > 0
    assert accepted.fixed.dtype == accepted.learned.dtype == np.float32


@given(hnp.arrays(np.float32, st.integers(0, 20), elements=FINITE))
def test_every_update_survives_the_round_trip_as_one_array(vector):
    parts = ItemUpdate(vector).to_parts()
    assert list(parts) == ["update"]
    np.testing.assert_array_equal(ItemUpdate.from_parts(parts, size=len(vector)).vector, vector)


@given(st.dictionaries(st.sampled_from(["update", "count", "loss"]), ANY_ARRAY, max_size=2), st.integers(0, 6))
def test_a_mutated_update_is_accepted_whole_or_refused_as_wire_error(arrays, size):
    try:
        accepted = ItemUpdate.from_parts(arrays, size=size)
    except WireError:
        return
    assert list(arrays) == ["update"]
    assert accepted.vector.dtype == np.float32
    assert accepted.vector.shape == (size,)


@pytest.mark.parametrize(
    "update",
    [
        np.zeros(7, np.float32),
        np.zeros(9, np.float32),
        np.zeros((8, 1), np.float32),
        np.zeros(8),
        np.zeros(8, np.int32),
        np.array([0, 0, 0, 0, 0, 0, 0, np.nan], np.float32),
        np.array([0, 0, 0, 0, 0, 0, 0, np.inf], np.float32),
    ],
)
def test_an_update_of_another_size_type_or_with_nan_is_refused(update):
    with pytest.raises(WireError):
        ItemUpdate.from_parts({"update": update}, size=8)


def test_an_update_with_company_is_refused():
    vector = np.zeros(8, np.float32)
    with pytest.raises(WireError, match="count"):
        ItemUpdate.from_parts({"update": vector, "count": np.ones(1, np.float32)}, size=8)


def test_an_update_does_not_print_its_values():
    assert repr(ItemUpdate(np.full(3, 13, np.float32))) == "ItemUpdate()"


def test_no_protection_releases_the_update_exactly_and_says_so():
    mechanism = MECHANISMS["none"]
    np.testing.assert_array_equal(mechanism.release(LEARNED).vector, LEARNED.ravel())
    assert mechanism.label == "no privacy"


def test_units_without_a_mechanism_are_not_registered():
    assert set(MECHANISMS) == {"none"}
