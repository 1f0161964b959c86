from __future__ import annotations

import numpy as np
import pytest

from palate.privacy.errors import PrivacyError
from palate.privacy.integer.csprng import Purpose, WordStream

KEY = bytes(range(32))
# AES-256 of the all-zero block under the all-zero key (NIST AESAVS, GFSbox/VarKey style known answer).
ZERO_BLOCK = bytes.fromhex("dc95c078a2408989ad48a21492842087")


def test_words_are_the_keystream_of_aes_in_counter_mode():
    class Zero:
        """Not a purpose of ours: it makes the first counter block all zeros, the block of the known answer."""

        name = "ZERO"

        def __int__(self) -> int:
            return 0

    words = WordStream(bytes(32), Zero()).words(2)
    assert words.astype("<u8").tobytes() == ZERO_BLOCK


def test_words_do_not_depend_on_how_they_are_asked_for():
    at_once = WordStream(KEY, Purpose.NOISE).words(100)
    stream = WordStream(KEY, Purpose.NOISE)
    np.testing.assert_array_equal(np.concatenate([stream.words(n) for n in (1, 0, 37, 62)]), at_once)


def test_streams_of_one_key_differ_by_purpose_and_by_key():
    streams = [WordStream(KEY, purpose) for purpose in Purpose] + [WordStream(bytes(32), Purpose.NOISE)]
    words = np.concatenate([stream.words(1000) for stream in streams])
    assert len(np.unique(words)) == len(words)


def test_lanes_are_the_words_from_the_lowest_lane_up():
    words = WordStream(KEY, Purpose.ROUNDING).words(3)
    lanes = WordStream(KEY, Purpose.ROUNDING).lanes(10)
    expected = [(int(word) >> shift) & 0xFFFF for word in words for shift in (0, 16, 32, 48)]
    assert lanes.tolist() == expected[:10]


def test_a_call_for_lanes_uses_up_whole_words():
    stream = WordStream(KEY, Purpose.ROUNDING)
    stream.lanes(5)
    assert stream.words(1)[0] == WordStream(KEY, Purpose.ROUNDING).words(3)[2]


def test_fresh_streams_never_repeat():
    drawn = {int(WordStream.fresh(Purpose.NOISE).words(1)[0]) for _ in range(100)}
    assert len(drawn) == 100


def test_the_key_is_never_shown():
    shown = repr(WordStream(KEY, Purpose.NOISE))
    assert shown == "WordStream(noise, <sealed>)"
    assert not any(value == KEY for value in vars(WordStream(KEY, Purpose.NOISE)).values())


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_key_of_another_length_is_refused(length: int):
    with pytest.raises(PrivacyError, match=f"32 bytes, not {length}"):
        WordStream(bytes(length), Purpose.NOISE)
