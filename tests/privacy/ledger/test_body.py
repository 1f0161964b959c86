"""Bodies: one value has one spelling, and a charge is never too small."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.privacy.accounting.events import SkellamEvent
from palate.privacy.accounting.filters import SkellamMeter
from palate.privacy.ledger import body, canonical
from palate.privacy.ledger.errors import MalformedBody

VALUES = st.one_of(st.integers(0, canonical.MAX_INT), st.text(st.characters(min_codepoint=32, max_codepoint=126)))
NAMES = st.text(st.characters(min_codepoint=32, max_codepoint=126))


@given(st.dictionaries(NAMES, VALUES))
def test_canonical_json_comes_back_as_it_went_in(fields: dict[str, int | str]):
    assert canonical.decode(canonical.encode(fields)) == fields


@given(st.dictionaries(NAMES, VALUES, min_size=1), st.data())
def test_two_spellings_of_one_object_are_never_both_accepted(fields: dict[str, int | str], data: st.DataObject):
    shuffled = dict(data.draw(st.permutations(list(fields.items()))))
    spelt = json.dumps(shuffled, indent=data.draw(st.sampled_from([None, 0, 2]))).encode()
    if spelt != canonical.encode(fields):
        with pytest.raises(MalformedBody):
            canonical.decode(spelt)


@pytest.mark.parametrize(
    "text",
    [
        b"", b"null", b"[]", b"1", b'"a"', b"{", b'{"a":1}\n', b' {"a":1}', b'{"a": 1}', b'{"b":1,"a":1}',
        b'{"a":1,"a":1}', b'{"a":1.0}', b'{"a":1e3}', b'{"a":-1}', b'{"a":-0}', b'{"a":01}', b'{"a":true}',
        b'{"a":null}', b'{"a":[]}', b'{"a":{}}', b'{"a":NaN}', b'{"a":9007199254740992}', b'{"a":"\\u0041"}',
        b'{"a":"\\u00e9"}', '{"a":"é"}'.encode(), b'{"a":"\\n"}', b'{"a":"\\/"}', b'{"\\u0000":1}', b"\xff",
        b"\xef\xbb\xbf{}", '{"a":1}'.encode("utf-16"), b'{"a":' + b"9" * 5000 + b"}", b"[" * 60000,
        b'{"a":"' + b"x" * 70000 + b'"}',
    ],
)  # fmt: skip
def test_what_is_not_canonical_is_refused(text: bytes):
    with pytest.raises(MalformedBody):
        canonical.decode(text)


@given(st.integers(1, 1 << 20), st.integers(1, 1 << 60))
def test_a_charge_is_rounded_up_and_by_less_than_one(clip_int: int, sum_var_int: int):
    ratio = Fraction(clip_int**2, sum_var_int)
    exact = 10**9 * (ratio + Fraction(5, 2 * sum_var_int) * ratio)
    if exact > canonical.MAX_INT:
        with pytest.raises(MalformedBody, match="negligible"):
            body.charge_nano(clip_int, sum_var_int)
    else:
        assert exact <= body.charge_nano(clip_int, sum_var_int) < exact + 1


@pytest.mark.parametrize("clip_int", [1, 2, 3, 17, 256, 4096, 2**14 - 1, 2**20])
@pytest.mark.parametrize("sum_var_int", [2, 3, 4, 5, 1000, 2**20 + 1, 67_108_863, 67_108_864, 2**49, 2**53])
def test_a_charge_is_the_accountants_price_of_a_skellam_release_of_any_length(clip_int: int, sum_var_int: int):
    price = SkellamMeter(1).price_nano(SkellamEvent(sensitivity=clip_int, variance=sum_var_int))
    if price > canonical.MAX_INT:
        with pytest.raises(MalformedBody, match="negligible"):
            body.charge_nano(clip_int, sum_var_int)
    else:
        assert body.charge_nano(clip_int, sum_var_int) == price


@given(st.integers(1, 1 << 14), st.integers(1, 1 << 60), st.integers(1, 1 << 20))
def test_a_charge_covers_vectors_of_every_length_and_gaussian_noise(clip_int: int, sum_var_int: int, num_values: int):
    try:
        charge = body.charge_nano(clip_int, sum_var_int)
    except MalformedBody:
        return
    event = SkellamEvent(sensitivity=clip_int, variance=sum_var_int, num_values=num_values)
    assert charge >= SkellamMeter(1).price_nano(event)
    assert charge >= Fraction(10**9 * clip_int**2, sum_var_int)


def test_sixteen_rounds_at_noise_multiplier_two_cost_four_and_a_little():
    assert 4 * body.NANO < 16 * body.charge_nano(4096, (2 * 4096) ** 2) == 4 * body.NANO + 160


@pytest.mark.parametrize(("clip_int", "sum_var_int"), [(0, 1), (1, 0), (-1, 1), (1, -1), (1 << 30, 1)])
def test_missing_noise_cannot_be_charged(clip_int: int, sum_var_int: int):
    with pytest.raises(MalformedBody):
        body.charge_nano(clip_int, sum_var_int)


@pytest.mark.parametrize(("delta", "text"), [(1e-5, "1e-5"), (2.5e-6, "2.5e-6"), (0.1, "1e-1"), (1.25e-10, "1.25e-10")])
def test_delta_is_spelt_one_way(policy, delta: float, text: str):
    assert body.delta_text(delta) == text
    assert policy(delta=body.delta_text(delta)).delta == text


@pytest.mark.parametrize("delta", [0.0, 1.0, -0.1, 2.0, float("nan"), float("inf")])
def test_a_delta_that_is_no_probability_is_refused(delta: float):
    with pytest.raises(MalformedBody):
        body.delta_text(delta)


@pytest.mark.parametrize("text", ["0.00001", "1E-5", "1e-05", "1.0e-5", "10e-6", "1e5", "", "0e-5"])
def test_another_spelling_of_delta_is_refused(policy, text: str):
    with pytest.raises(MalformedBody):
        policy(delta=text)


def test_every_kind_comes_back_as_it_went_in(policy, intent, outcome):
    seen = body.Checkpoint(
        run="r", round=1, origin="example.org/log", tree_size=1, root=body.hash_text(b""), receipt=""
    )
    for seq, event in enumerate([policy(), intent(1), outcome(1), seen], start=1):
        assert body.decode(body.encode(event, seq)) == (seq, event)


def test_an_intent_states_the_fields_of_the_format(intent):
    assert set(json.loads(body.encode(intent(3), 7))) == {
        "seq", "kind", "run", "round", "mechanism", "unit", "adjacency", "clip_int", "sum_var_int", "m_honest",
        "n1", "sampling", "model", "transcript", "charge_nano",
    }  # fmt: skip


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60), st.integers(1, 10**9))
def test_a_template_writes_what_the_encoder_writes(run: str, seq: int):
    event = body.Outcome(run=run + '"seq":1', round=1, status="withheld", payload="", receipt="")
    before, after = body.split_at_seq(event)
    assert before + str(seq).encode() + after == body.encode(event, seq)


@pytest.mark.parametrize(
    "changes",
    [
        {"clip_int": 0}, {"sum_var_int": 0}, {"clip_int": 1.0}, {"clip_int": True}, {"n1": 0}, {"m_honest": 0},
        {"m_honest": 101}, {"round": -1}, {"round": 1 << 53}, {"run": "r\n"}, {"run": "é"}, {"run": "x" * 201},
        {"model": ""}, {"model": "sha256:" + "A" * 64}, {"transcript": "sha256:" + "a" * 63}, {"mechanism": None},
    ],
)  # fmt: skip
def test_an_intent_out_of_bounds_cannot_be_made(intent, changes: dict[str, object]):
    with pytest.raises(MalformedBody):
        intent(**({"round": 1} | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "lost"}, {"status": "released", "payload": ""}, {"status": "withheld"},
        {"status": "written-off"}, {"payload": "sha256:"},
        {"receipt": "none"},
    ],
)  # fmt: skip
def test_an_outcome_that_contradicts_itself_cannot_be_made(outcome, changes: dict[str, object]):
    with pytest.raises(MalformedBody):
        outcome(1, **changes)


def _changed(text: bytes, **changes: int | str | None) -> bytes:
    fields = json.loads(text) | changes
    return canonical.encode({name: value for name, value in fields.items() if value is not None})


@pytest.mark.parametrize(
    "changes",
    [
        {"charge_nano": 250_000_009}, {"charge_nano": 250_000_011}, {"charge_nano": None}, {"charge_nano": "250000010"},
        {"seq": 0}, {"seq": "1"}, {"seq": None}, {"kind": "NOTE"}, {"kind": None}, {"kind": 1}, {"kind": "OUTCOME"},
        {"extra": 1}, {"run": None}, {"round": "1"}, {"sum_var_int": 1 << 50},
    ],
)  # fmt: skip
def test_a_body_with_a_wrong_field_is_refused(intent, changes: dict[str, int | str | None]):
    text = body.encode(intent(1), 1)
    assert body.decode(text)[0] == 1
    with pytest.raises(MalformedBody):
        body.decode(_changed(text, **changes))
