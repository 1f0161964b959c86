"""What crosses the wire is checked field by field, and anything malformed is a WireError and nothing else."""

from __future__ import annotations

import io
import json
import string
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from palate.models.table import ItemTable
from palate.privacy import wire
from palate.privacy.budget import events_of
from palate.privacy.mechanisms.registry import MECHANISMS
from palate.privacy.mechanisms.terms import ReleaseTerms
from palate.privacy.wire import NUM_METRICS, FleetMessage, FleetStep, ItemUpdate, RoundPlan, WireError, array_of_npy

FIXED = np.arange(4, dtype=np.float32).reshape(4, 1)
LEARNED = np.arange(8, dtype=np.float32).reshape(4, 2)
TERMS = ReleaseTerms(clip_norm=0.5, sensitivity=256, share_variance=9, honest_shares=2, roster_size=3)


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


def protected(**changes: Any) -> RoundPlan:
    return plan(**({"unit": "user", "terms": TERMS} | changes))


ARRAYS, SCALARS = plan().to_parts()
PROTECTED = protected().to_parts()[1]
PUBLIC_NUMBERS = ("clip_norm", "sensitivity", "share_variance", "honest_shares", "roster_size", "ring_bits")
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
ALL_TERMS = st.builds(
    ReleaseTerms,
    clip_norm=st.floats(1e-6, 1e6),
    sensitivity=st.integers(256, 65536),
    share_variance=st.integers(1, 10**8),
    honest_shares=st.integers(1, 50),
    roster_size=st.integers(50, 1000),
    ring_bits=st.sampled_from([32, 40, 64]),
)
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
    protection=st.just(("none", None)) | st.tuples(st.text().filter(lambda unit: unit != "none"), ALL_TERMS),
    share=st.floats(0, 1, exclude_min=True),
    training=st.text(),
    evaluation_share=st.floats(0, 1, exclude_max=True),
    most=st.integers(0, 2**40),
)
def test_every_plan_survives_the_round_trip(table, run, number, protection, share, training, evaluation_share, most):
    sent = RoundPlan(
        run=run,
        server_round=number,
        purpose="train" if number else "popularity",
        unit=protection[0],
        terms=protection[1],
        participation=share,
        training=training,
        evaluation_share=evaluation_share,
        interactions_per_round=most,
        fixed=table[0],
        learned=table[1],
    )
    got = RoundPlan.from_parts(*sent.to_parts())
    for name in (
        "run", "server_round", "purpose", "unit", "terms", "participation", "training", "evaluation_share",
        "interactions_per_round", "content_hash", "table_hash", "update_size",
    ):  # fmt: skip
        assert getattr(got, name) == getattr(sent, name)
    np.testing.assert_array_equal(got.fixed, sent.fixed)
    np.testing.assert_array_equal(got.learned, sent.learned)


@given(st.lists(st.booleans(), min_size=1, max_size=40).filter(any), st.integers(0, 3))
def test_a_choice_of_rows_survives_the_round_trip_and_shortens_the_answer(chosen, dim):
    active, table = np.array(chosen), np.zeros((len(chosen), dim), np.float32)
    sent = protected(fixed=table, learned=table, active=active)
    got = RoundPlan.from_parts(*sent.to_parts())
    np.testing.assert_array_equal(got.active, active)
    assert got.content_hash == sent.content_hash
    assert got.update_size == sum(chosen) * dim
    assert replace(got, evaluation_share=0.1).update_size == sum(chosen) * dim + NUM_METRICS


def test_names_of_columns_travel_with_the_table_and_plans_without_are_what_they_were():
    assert "columns" not in PROTECTED
    sent = protected(columns=tuple(f"genre: {at}" for at in range(ARRAYS["fixed"].shape[1])))
    got = RoundPlan.from_parts(*sent.to_parts())
    assert got.columns == sent.columns
    assert got.content_hash == sent.content_hash != protected().content_hash


@pytest.mark.parametrize("first", [7, "", "x\x1b", "x" * 201])
@pytest.mark.parametrize("count", [0, 1])
def test_names_of_columns_that_are_none_are_refused(first, count):
    names = [first, *(f"genre: {at}" for at in range(ARRAYS["fixed"].shape[1] - count))]
    for text in (json.dumps(names), json.dumps(names)[:-1], "{}", "[" * 9999):
        with pytest.raises(WireError, match="columns"):
            RoundPlan.from_parts(ARRAYS, PROTECTED | {"columns": text})


ACTIVE = protected(active=np.array([True, False, True, True])).to_parts()[1]


def test_plans_of_all_rows_are_what_they_were_before_rows_could_be_chosen():
    assert "active" not in PROTECTED
    assert ACTIVE == PROTECTED | {"active": "b0"}
    assert protected().content_hash == "290cf49bb670a9eed7505ea076dfa43b0a2e7120a2aaa0bcb5c2136d6204ac86"
    assert protected().rules_hash == "7554557c638dc84cb57e2754b9c45c891b1a1e8af213618a502d2cfa2dabee01"
    assert RoundPlan.from_parts(ARRAYS, ACTIVE).rules_hash != protected().rules_hash  # other noise in simulations


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"active": ""}, "2 hexadecimal digits"),
        ({"active": "b"}, "2 hexadecimal digits"),
        ({"active": "b000"}, "2 hexadecimal digits"),
        ({"active": "B0"}, "2 hexadecimal digits"),
        ({"active": " b"}, "2 hexadecimal digits"),
        ({"active": "00"}, "some of 4 items"),
        ({"active": "b8"}, "some of 4 items"),
        ({"active": 176}, "active must be str"),
        ({"purpose": "popularity"}, "no choice of rows in popularity"),
        ({"purpose": "popularity", "server_round": 0}, "no choice of rows in popularity"),
        ({"server_round": 0}, "popularity comes first"),
        ({"unit": "interaction"}, "no choice of rows in train at unit 'interaction'"),
        ({"unit": "both"}, "no choice of rows in train at unit 'both'"),
    ],
)
def test_a_choice_of_rows_is_refused_where_it_is_malformed_or_has_no_place(changes, words):
    with pytest.raises(WireError, match=words):
        RoundPlan.from_parts(ARRAYS, ACTIVE | changes)


def test_a_choice_of_rows_is_refused_without_protection():
    with pytest.raises(WireError, match="no choice of rows in train at unit 'none'"):
        RoundPlan.from_parts(ARRAYS, SCALARS | {"active": "b0"})


def test_a_training_plan_asks_for_the_learned_block_and_a_popularity_plan_for_one_value_an_item():
    assert plan().update_size == 8
    assert plan(purpose="popularity", server_round=0).update_size == 4


def test_metrics_lengthen_the_answer_to_a_training_plan_alone():
    assert plan(evaluation_share=0.1).update_size == 8 + NUM_METRICS
    popularity = plan(evaluation_share=0.1, purpose="popularity", server_round=0)
    assert popularity.update_size == 4
    assert not popularity.asks_for_metrics


def test_the_hash_of_a_plan_tells_every_two_plans_apart():
    plans = [
        plan(), protected(), plan(run="s"), plan(server_round=4), plan(server_round=0, purpose="popularity"),
        plan(participation=0.6), plan(training="{ }"), plan(evaluation_share=0.2), plan(interactions_per_round=5),
        plan(fixed=FIXED + 1), plan(learned=LEARNED + 1), plan(learned=LEARNED[:, :1], fixed=FIXED),
        *(protected(active=np.arange(4) < most) for most in (2, 3, 4)),
        *(protected(terms=replace(TERMS, **{name: getattr(TERMS, name) + 1})) for name in PUBLIC_NUMBERS),
    ]  # fmt: skip
    assert len({one.content_hash for one in plans}) == len(plans)


def test_the_hash_of_a_plans_table_is_the_one_that_the_table_has_itself():
    assert plan().table_hash == ItemTable(FIXED, LEARNED).content_hash


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("version", 1, "version 1 is not 2"),
        ("version", "1", "must be int"),
        ("version", True, "must be int, not bool"),
        ("run", 7, "must be str"),
        ("server_round", 3.0, "must be int"),
        ("server_round", -1, "round -1"),
        ("server_round", 0, "round 0 is not for train"),
        ("purpose", "evaluate", "unknown purpose 'evaluate'"),
        ("unit", None, "must be str"),
        ("participation", 1, "must be float"),
        ("participation", 0.0, "participation 0.0"),
        ("participation", 1.5, "participation 1.5"),
        ("participation", float("nan"), "participation nan"),
        ("training", b"{}", "must be str"),
        ("evaluation_share", 0, "must be float"),
        ("evaluation_share", -0.1, "evaluation_share -0.1"),
        ("evaluation_share", 1.0, "evaluation_share 1.0"),
        ("evaluation_share", float("nan"), "evaluation_share nan"),
        ("interactions_per_round", 1.0, "must be int"),
        ("interactions_per_round", -1, "interactions_per_round -1"),
        ("unit", "user", "unit 'user' needs terms"),
        ("terms.clip_norm", 1.0, "unit 'none' takes no terms"),
        ("extra", 1, "'extra'"),
    ],
)
def test_a_malformed_scalar_is_refused_by_name(field, value, words):
    with pytest.raises(WireError, match=words):
        RoundPlan.from_parts(ARRAYS, {**SCALARS, field: value})


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("unit", "none", "unit 'none' takes no terms"),
        ("terms.clip_norm", 1, "clip_norm must be float"),
        ("terms.clip_norm", 0.0, "clip norm"),
        ("terms.clip_norm", float("nan"), "clip norm"),
        ("terms.sensitivity", 256.0, "sensitivity must be int"),
        ("terms.sensitivity", 0, "sensitivity"),
        ("terms.share_variance", 0, "no noise"),
        ("terms.share_variance", -9, "no noise"),
        ("terms.honest_shares", 0, "honest shares"),
        ("terms.honest_shares", 4, "honest shares"),
        ("terms.roster_size", 1, "honest shares"),
        ("terms.roster_size", 2**40, "modulus of 32 bits"),
        ("terms.ring_bits", True, "ring_bits must be int"),
        ("terms.ring_bits", 65, "65 bits"),
        ("terms.ring_bits", 8, "modulus of 8 bits"),
        ("terms.epsilon", 1.0, "epsilon"),
    ],
)
def test_malformed_terms_are_refused_by_name(field, value, words):
    with pytest.raises(WireError, match=words):
        RoundPlan.from_parts(ARRAYS, {**PROTECTED, field: value})


@pytest.mark.parametrize("name", PUBLIC_NUMBERS)
def test_a_missing_term_is_refused_by_name(name):
    with pytest.raises(WireError, match=name):
        RoundPlan.from_parts(ARRAYS, {field: value for field, value in PROTECTED.items() if field != f"terms.{name}"})


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
NAMES = st.sampled_from([*PROTECTED, "fixed", "learned", "other", ""]) | st.text(string.printable, max_size=3)


@given(
    base=st.sampled_from([SCALARS, PROTECTED, ACTIVE]),
    scalars=st.dictionaries(NAMES, ANYTHING, max_size=3),
    arrays=st.dictionaries(st.sampled_from(["fixed", "learned", "x"]), ANY_ARRAY, max_size=2),
    dropped=st.sets(NAMES, max_size=2),
)
def test_a_mutated_plan_is_accepted_whole_or_refused_as_wire_error(base, scalars, arrays, dropped):
    mutated = {name: value for name, value in (base | scalars).items() if name not in dropped}
    try:
        accepted = RoundPlan.from_parts({**ARRAYS, **arrays}, mutated)
    except WireError:
        return
    assert set(mutated) - {"active"} == set(PROTECTED if "terms.clip_norm" in mutated else SCALARS)
    assert (accepted.active is None) == ("active" not in mutated)
    assert (accepted.terms is None) == (accepted.unit == "none")
    assert accepted.participation > 0
    assert accepted.fixed.dtype == accepted.learned.dtype == np.float32
    assert accepted.to_parts()[1] == mutated


def plan_of(size: int, bits: int | None = None) -> RoundPlan:
    """A plan that is answered with so many values: modulo 2^bits, or float32."""
    terms = None if bits is None else replace(TERMS, ring_bits=bits)
    table = np.zeros((size, 1), np.float32)
    return plan(unit="none" if bits is None else "user", terms=terms, fixed=table, learned=table)


@given(hnp.arrays(np.float32, st.integers(0, 20), elements=FINITE))
def test_every_exact_update_survives_the_round_trip_as_one_array(vector):
    parts = ItemUpdate(vector).to_parts()
    assert list(parts) == ["update"]
    np.testing.assert_array_equal(ItemUpdate.from_parts(parts, plan_of(len(vector))).vector, vector)


@given(st.sampled_from([12, 32, 33, 64]), st.data())
def test_every_protected_update_survives_the_round_trip_as_one_array_of_integers(bits, data):
    dtype = np.uint32 if bits <= 32 else np.uint64
    vector = data.draw(hnp.arrays(dtype, st.integers(0, 20), elements=st.integers(0, 2**bits - 1)))
    parts = ItemUpdate(vector).to_parts()
    assert list(parts) == ["update"]
    got = ItemUpdate.from_parts(parts, plan_of(len(vector), bits)).vector
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, vector)


@given(
    st.dictionaries(st.sampled_from(["update", "count", "loss"]), ANY_ARRAY, max_size=2),
    st.integers(0, 6),
    st.sampled_from([None, 12, 32, 64]),
)
def test_a_mutated_update_is_accepted_whole_or_refused_as_wire_error(arrays, size, bits):
    try:
        accepted = ItemUpdate.from_parts(arrays, plan_of(size, bits))
    except WireError:
        return
    assert list(arrays) == ["update"]
    assert accepted.vector.dtype == (np.float32 if bits is None else np.uint32 if bits <= 32 else np.uint64)
    assert accepted.vector.shape == (size,)


@pytest.mark.parametrize(
    "update",
    [
        np.zeros(7, np.float32),
        np.zeros(9, np.float32),
        np.zeros((8, 1), np.float32),
        np.zeros(8),
        np.zeros(8, np.int32),
        np.zeros(8, np.uint32),
        np.array([0, 0, 0, 0, 0, 0, 0, np.nan], np.float32),
        np.array([0, 0, 0, 0, 0, 0, 0, np.inf], np.float32),
    ],
)
def test_an_exact_update_of_another_size_type_or_with_nan_is_refused(update):
    with pytest.raises(WireError):
        ItemUpdate.from_parts({"update": update}, plan())


@pytest.mark.parametrize(
    ("bits", "update"),
    [
        (32, np.zeros(7, np.uint32)),
        (32, np.zeros(9, np.uint32)),
        (32, np.zeros((8, 1), np.uint32)),
        (32, np.zeros(8, np.int32)),
        (32, np.zeros(8, np.uint64)),
        (32, np.zeros(8, ">u4")),
        (32, np.zeros(8, np.float32)),
        (64, np.zeros(8, np.uint32)),
        (12, np.full(8, 2**12, np.uint32)),
        (33, np.full(8, 2**33, np.uint64)),
        (32, [0] * 8),
    ],
)
def test_a_protected_update_of_another_size_type_or_range_is_refused(bits, update):
    with pytest.raises(WireError):
        ItemUpdate.from_parts({"update": update}, plan_of(8, bits))


def test_an_update_with_company_is_refused():
    vector = np.zeros(8, np.float32)
    with pytest.raises(WireError, match="count"):
        ItemUpdate.from_parts({"update": vector, "count": np.ones(1, np.float32)}, plan())


def test_an_update_does_not_print_its_values():
    assert repr(ItemUpdate(np.full(3, 13, np.float32))) == "ItemUpdate()"


def test_no_protection_accounts_for_nothing_and_says_so():
    assert events_of(plan()) == {}
    assert MECHANISMS["none"].label == "no privacy"


def test_units_without_a_mechanism_are_not_registered():
    assert set(MECHANISMS) == {"user", "interaction", "both", "none"}
    assert all(mechanism.unit == unit for unit, mechanism in MECHANISMS.items())


def test_popularity_may_be_asked_for_again_under_a_later_number():
    arrays, scalars = plan().to_parts()
    again = RoundPlan.from_parts(arrays, scalars | {"purpose": "popularity", "server_round": 3})
    assert (again.purpose, again.server_round, again.update_size) == ("popularity", 3, len(LEARNED))


MESSAGE = FleetMessage(step=FleetStep.MASK, run="r", server_round=2, body=b"\x00secret")


def test_a_fleet_message_survives_the_way_and_does_not_print_its_body():
    assert FleetMessage.from_scalars(MESSAGE.to_scalars()) == MESSAGE
    assert "secret" not in repr(MESSAGE)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("version", 2, "version 2 is not 1"),
        ("version", True, "must be int, not bool"),
        ("step", "train", "unknown step 'train'"),
        ("step", 1, "must be str"),
        ("run", b"r", "must be str"),
        ("server_round", -1, "round -1"),
        ("server_round", "2", "must be int"),
        ("body", "text", "must be bytes"),
        ("loss", 0.5, "'loss'"),
    ],
)
def test_a_malformed_fleet_message_is_refused_by_name(field, value, words):
    with pytest.raises(WireError, match=words):
        FleetMessage.from_scalars(MESSAGE.to_scalars() | {field: value})


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.zeros((0, 3), dtype=np.uint32),
        np.array(3.0),
        np.arange(3, dtype=">i4"),
    ],
)
def test_an_array_survives_the_way_as_npy(array):
    read = array_of_npy(npy(array))
    assert read.dtype == array.dtype
    assert read.flags.writeable
    np.testing.assert_array_equal(read, array)


ONES = npy(np.ones(4))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY\x01\x00",
        ONES[:-1],
        ONES + b"x",
        ONES.replace(b"(4,), }        ", b"(4000000000000,), }"),
        ONES.replace(b"(4,)", b"(-4,)"),
        ONES.replace(b"<f8", b"|O8"),
        ONES.replace(b"<f8", b"__i"),
    ],
)
def test_bytes_that_are_no_array_are_refused_before_room_is_made_for_them(data):
    assert data != ONES
    with pytest.raises(WireError):
        array_of_npy(data)
