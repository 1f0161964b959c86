from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.privacy.errors import PrivacyError
from palate.privacy.integer.ring import Ring

BITS = st.integers(2, 64)
INT64 = st.integers(-(2**63), 2**63 - 1)


@given(BITS, st.data())
def test_centre_undoes_reduce_for_what_the_ring_can_hold(bits: int, data: st.DataObject):
    values = data.draw(st.lists(st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)))
    signed = np.array(values, dtype=np.int64)
    np.testing.assert_array_equal(Ring(bits=bits).centre(Ring(bits=bits).reduce(signed)), signed)


@given(BITS, INT64)
def test_reduction_is_the_remainder(bits: int, value: int):
    assert int(Ring(bits=bits).reduce(np.array([value], dtype=np.int64))[0]) == value % 2**bits


@given(BITS, INT64, INT64)
def test_adding_before_and_after_reduction_agree(bits: int, left: int, right: int):
    ring = Ring(bits=bits)
    summed = ring.add(*(ring.reduce(np.array([value], dtype=np.int64)) for value in (left, right)))
    assert int(summed[0]) == (left + right) % 2**bits


@pytest.mark.parametrize(("bits", "dtype"), [(24, np.uint32), (32, np.uint32), (33, np.uint64), (64, np.uint64)])
def test_elements_take_the_narrower_word(bits: int, dtype: type):
    assert Ring(bits=bits).reduce(np.array([-1], dtype=np.int64)).dtype == dtype


@pytest.mark.parametrize("bits", [-1, 0, 1, 65])
def test_a_modulus_outside_its_range_is_refused(bits: int):
    with pytest.raises(PrivacyError, match=f"{bits} bits"):
        Ring(bits=bits)


def test_room_is_checked_for_the_worst_coordinate():
    sums = {"devices": 6040, "sensitivity": 1 << 14, "sum_variance": (26 << 14) ** 2}
    Ring(bits=32).require_room(**sums)
    with pytest.raises(PrivacyError, match="modulus of 24 bits") as refused:
        Ring(bits=24).require_room(**sums)
    assert refused.value.hint.startswith("use 28 bits")
    Ring(bits=28).require_room(**sums)
    with pytest.raises(PrivacyError):
        Ring(bits=27).require_room(**sums)


def test_room_ends_exactly_where_the_centred_range_does():
    Ring(bits=8).require_room(devices=115, sensitivity=1, sum_variance=0)
    with pytest.raises(PrivacyError, match="may reach 128"):
        Ring(bits=8).require_room(devices=116, sensitivity=1, sum_variance=0)
