"""Packed words: one spelling, the fewest bytes, and sums modulo 2^b."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.privacy.aggregators.errors import CollectionError
from palate.privacy.aggregators.planes import PlaneSum, pack, packed_size, plane_widths, unpack


@given(bits=st.integers(2, 63), length=st.integers(1, 40), seed=st.integers(0, 1 << 30))
def test_words_come_back_from_their_planes(bits: int, length: int, seed: int):
    words = np.random.default_rng(seed).integers(0, 1 << bits, length, dtype=np.uint64)
    packed = pack(words, bits)
    assert len(packed) == packed_size(length, bits) <= -(-length * bits // 8) + len(plane_widths(bits))
    assert np.array_equal(unpack(packed, length, bits), words)


@given(bits=st.integers(2, 63), length=st.integers(1, 20), count=st.integers(0, 9), seed=st.integers(0, 1 << 30))
def test_sums_wrap_modulo_two_to_the_b(bits: int, length: int, count: int, seed: int):
    vectors = np.random.default_rng(seed).integers(0, 1 << bits, (count, length), dtype=np.uint64)
    total = PlaneSum(length, bits)
    for vector in vectors:
        total.add(pack(vector, bits))
    expected = [sum(int(word) for word in column) % (1 << bits) for column in vectors.T] if count else [0] * length
    assert [int(word) for word in total.words()] == expected


def test_twenty_bits_take_two_and_a_half_bytes():
    assert plane_widths(20) == (16, 4)
    assert packed_size(60_000, 20) == 150_000


def test_a_plane_holds_low_bits_first():
    assert pack(np.array([0x1_2345, 0xA_BCDE, 0x7_0000], dtype=np.uint32), 20) == bytes.fromhex("4523 debc 0000 a1 07")


def test_set_bits_behind_the_last_word_are_refused():
    packed = bytearray(pack(np.array([1, 2, 3], dtype=np.uint32), 20))
    packed[-1] |= 0x80
    with pytest.raises(CollectionError, match="behind the last word"):
        unpack(bytes(packed), 3, 20)


@pytest.mark.parametrize("bits", [0, 1, 64])
def test_other_widths_are_refused(bits: int):
    with pytest.raises(CollectionError, match="between 2 and 63"):
        packed_size(10, bits)


def test_another_size_is_refused():
    with pytest.raises(CollectionError, match="are not 3 words"):
        PlaneSum(3, 20).add(bytes(7))
