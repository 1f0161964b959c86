"""The public numbers of one release: what they say about the noise is what the mechanism draws."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.privacy.errors import PrivacyError
from palate.privacy.integer.csprng import Purpose, WordStream
from palate.privacy.mechanisms.terms import ReleaseTerms
from palate.privacy.wire import RoundPlan, WireError

TERMS = ReleaseTerms(clip_norm=0.5, sensitivity=4096, share_variance=90_000, honest_shares=6, roster_size=8)
SCALARS = asdict(TERMS)
TABLE = np.zeros((4, 2), np.float32)
PLAN = RoundPlan(
    run="r",
    server_round=1,
    purpose="train",
    unit="user",
    participation=1.0,
    training="{}",
    fixed=TABLE,
    learned=TABLE,
    terms=TERMS,
)
ANYTHING = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.binary(max_size=3))


def from_the_wire(values: dict[str, Any]) -> ReleaseTerms:
    """Read terms with these values as a plan brings them."""
    arrays, scalars = PLAN.to_parts()
    rest = {name: value for name, value in scalars.items() if not name.startswith("terms.")}
    return RoundPlan.from_parts(arrays, rest | {f"terms.{name}": value for name, value in values.items()}).terms


@given(
    clip_norm=st.floats(1e-30, 1e30),
    sensitivity=st.integers(256, 2**16),
    variance=st.integers(1, 10**9),
    shares=st.tuples(st.integers(1, 100), st.integers(1, 100)).map(sorted),
    bits=st.integers(32, 64),
)
def test_terms_survive_the_round_trip(clip_norm, sensitivity, variance, shares, bits):
    terms = ReleaseTerms(
        clip_norm=clip_norm,
        sensitivity=sensitivity,
        share_variance=variance,
        honest_shares=shares[0],
        roster_size=shares[1],
        ring_bits=bits,
    )
    assert from_the_wire(asdict(terms)) == terms


@given(
    changed=st.dictionaries(st.sampled_from([*SCALARS, "epsilon"]), ANYTHING, min_size=1, max_size=3),
    dropped=st.sets(st.sampled_from(sorted(SCALARS)), max_size=1),
)
def test_mutated_terms_are_accepted_whole_or_refused_as_wire_error(changed, dropped):
    values: dict[str, Any] = {name: value for name, value in (SCALARS | changed).items() if name not in dropped}
    try:
        accepted = from_the_wire(values)
    except WireError:
        return
    assert asdict(accepted) == values
    assert 0 < accepted.clip_norm < math.inf
    assert accepted.sensitivity >= 1
    assert 1 <= accepted.honest_shares <= accepted.roster_size
    assert accepted.sum_variance >= 1


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("clip_norm", 0.0, "clip norm 0.0"),
        ("clip_norm", -1.0, "clip norm -1.0"),
        ("clip_norm", math.inf, "clip norm inf"),
        ("clip_norm", math.nan, "clip norm nan"),
        ("sensitivity", 0, "sensitivity 0"),
        ("sensitivity", 1, "sensitivity 1 is too small"),
        ("sensitivity", 2**16 + 1, "sensitivity 65537"),
        ("share_variance", 0, "no noise"),
        ("share_variance", 10**40, "variance"),
        ("honest_shares", 0, "0 honest shares"),
        ("honest_shares", 9, "9 honest shares are not between 1 and the roster of 8"),
        ("ring_bits", 1, "1 bits"),
        ("ring_bits", 65, "65 bits"),
        ("ring_bits", 16, "modulus of 16 bits"),
        ("roster_size", 2**20, "modulus of 32 bits"),
    ],
)
def test_a_number_out_of_range_is_refused_when_the_terms_are_made_and_not_in_a_round(field, value, words):
    with pytest.raises(PrivacyError, match=words) as refused:
        replace(TERMS, **{field: value})
    assert refused.value.hint


def test_room_for_the_sum_is_checked_to_the_last_contribution():
    bits = 16  # room for 2^15 - 1
    small = ReleaseTerms(
        clip_norm=1.0, sensitivity=256, share_variance=1, honest_shares=1, roster_size=127, ring_bits=bits
    )
    tail = 12 * (math.isqrt(127) + 1)
    assert 127 * 256 + tail < 2**15 <= 128 * 256 + tail
    with pytest.raises(PrivacyError, match="a sum of 128 contributions"):
        replace(small, roster_size=128)
    with pytest.raises(PrivacyError, match="a sum of 127 contributions"):
        replace(small, share_variance=9)


def test_the_announced_noise_is_that_of_the_honest_shares_and_the_expected_that_of_the_roster():
    assert TERMS.sum_variance == 6 * 90_000
    assert TERMS.noise_multiplier == pytest.approx(math.sqrt(540_000) / 4096)
    assert TERMS.noise_std == pytest.approx(math.sqrt(8 / 6) * TERMS.noise_multiplier * 4096)


def test_the_mechanism_draws_the_noise_that_the_terms_announce():
    size, devices = 4000, 8
    mechanism = TERMS.mechanism(size)
    total = np.zeros(size, dtype=np.uint64)
    for device in range(devices):
        key = bytes([device]) * 32
        sent = mechanism.encode(
            np.zeros(size, np.float32),
            rounding=WordStream(key, Purpose.ROUNDING),
            noise=WordStream(key, Purpose.NOISE),
        )
        assert sent.dtype == np.uint32
        total += sent
    noise = mechanism.ring.centre(mechanism.ring.add(total, np.zeros(size, dtype=np.uint64)))
    assert noise.std() == pytest.approx(TERMS.noise_std, rel=0.05)  # 4.5 standard errors of 4000 values
    assert abs(noise.mean()) < 5 * TERMS.noise_std / math.sqrt(size)
