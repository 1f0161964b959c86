"""Forms of titles, ready to be looked up letter by letter, and to be filtered before they are compared so.

Each form has a hash, and a *signature*: 64 bits, one set for each pair of letters in it. Inserting or deleting a letter
takes one pair away and adds two, so that the signatures of forms at indel distance d differ in at most 3 d bits (the
count filter of Gravano et al., VLDB 2001). So a million titles are searched in a few passes over arrays.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from rapidfuzz import fuzz, process

from palate.models.arrays import BoolArray, Int32Array, Int64Array, UInt64Array

VERSION = 1
"""Changes with what is kept of an index (`FormIndex.to_bytes`)."""

_HASH = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio: Knuth's multiplicative hashing
_PAIR = 0xC2B2AE3D27D4EB4F
_WORD = (1 << 64) - 1
_BLANK = ord(" ")
_BLOCK = 1 << 14
_ROUNDING = 1e-9
CANDIDATES = 2048
"""Forms that a search compares letter by letter."""


@dataclass(frozen=True, eq=False)
class FormIndex:
    """Forms of titles, the longest first.

    Attributes
    ----------
    text
        All forms, one after the other.
    starts
        Where each begins in it, and its end, int64 [num_forms + 1].
    owners
        Row of the title of each form, int32 [num_forms].
    whole
        Whether it is a form of the whole title, bool [num_forms].
    signatures
        Pairs of letters of each form, uint64 [num_forms].
    hashes
        Ascending, uint64 [num_forms].
    order
        Form of each hash, int32 [num_forms].
    years
        Year of each title, 0 where unknown, int32 [num_items].
    """

    text: str
    starts: Int64Array
    owners: Int32Array
    whole: BoolArray
    signatures: UInt64Array
    hashes: UInt64Array
    order: Int32Array
    years: Int32Array

    @staticmethod
    def of(titles: Sequence[str], years: Int32Array) -> FormIndex:
        """Index some titles; where `years` is 0, the year at the end of the title counts."""
        from palate.data.title_forms import forms_of  # needs Polars

        found = forms_of(titles)
        lengths = found.forms.str.len_chars().to_numpy().astype(np.int64)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        text = found.forms.str.join("").item() if len(lengths) else ""
        hashes, signatures = _hashes(text, starts)
        order = np.argsort(hashes, kind="stable").astype(np.int32)
        return FormIndex(
            text,
            starts,
            found.owners,
            found.whole,
            signatures,
            hashes[order],
            order,
            np.where(years > 0, years, found.years).astype(np.int32),
        )

    def __len__(self) -> int:
        return len(self.owners)

    def form(self, at: int) -> str:
        """Return one form."""
        return self.text[self.starts[at] : self.starts[at + 1]]

    def of_form(self, form: str) -> Iterator[int]:
        """Numbers of all forms that are these letters."""
        wanted = np.uint64(_hash_of(form)[0])
        first, last = self.hashes.searchsorted(wanted), self.hashes.searchsorted(wanted, side="right")
        return (at for at in self.order[first:last].tolist() if self.form(at) == form)

    def similar(self, wanted: str, least: float) -> list[tuple[int, float]]:
        """All forms of at least a normalised indel similarity, each with it; both in percent."""
        apart = 1 - least / 100
        longest, shortest = len(wanted) * (1 + apart) / (1 - apart), len(wanted) * (1 - apart) / (1 + apart)
        first = int(self._shorter.searchsorted(-longest - _ROUNDING))
        last = int(self._shorter.searchsorted(-shortest + _ROUNDING, side="right"))
        most = np.floor(apart * (len(wanted) - self._shorter[first:last]) + _ROUNDING).astype(np.int64)  # the distance
        most -= (
            most + len(wanted) + self._shorter[first:last]
        ) & 1  # it is odd where the lengths differ by an odd number
        signature = np.uint64(_hash_of(wanted)[1])
        near = np.bitwise_count(self.signatures[first:last] ^ signature) <= 3 * most
        numbers = first + np.flatnonzero(near)
        places = zip(self.starts[numbers].tolist(), self.starts[numbers + 1].tolist(), strict=True)
        forms = [self.text[start:end] for start, end in places]
        found = process.extract(wanted, forms, scorer=fuzz.ratio, score_cutoff=least, limit=None)
        return [(int(numbers[at]), score) for _, score, at in found]

    def sharing(self, wanted: str) -> list[int]:
        """Return the `CANDIDATES` forms that share most pairs of letters with a text, shorter ones first."""
        shared = np.bitwise_count(self.signatures & np.uint64(_hash_of(wanted)[1]))
        counts = np.bincount(shared, minlength=65)[::-1].cumsum()[::-1]  # forms that share at least so many
        enough = max(int(np.flatnonzero(counts >= CANDIDATES).max(initial=1)), 1)
        found = np.flatnonzero(shared >= enough)[::-1]
        best = found[np.argsort(-shared[found].astype(np.int8), kind="stable")]
        return [int(at) for at in best[:CANDIDATES]]

    @cached_property
    def _shorter(self) -> Int64Array:
        """Minus the length of each form: ascending, int64 [num_forms]."""
        return -np.diff(self.starts)

    def to_bytes(self) -> bytes:
        """Return a form to keep; `from_bytes` reads it."""
        arrays = {each.name: getattr(self, each.name) for each in fields(self)}
        arrays["text"] = np.frombuffer(self.text.encode("utf-8"), dtype=np.uint8)
        with io.BytesIO() as file:
            np.savez(file, **arrays)
            return file.getvalue()

    @staticmethod
    def from_bytes(data: bytes) -> FormIndex:
        """Read what `to_bytes` wrote."""
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            found = {each.name: arrays[each.name] for each in fields(FormIndex)}
        return FormIndex(**{**found, "text": found["text"].tobytes().decode("utf-8")})


def _hashes(text: str, starts: Int64Array) -> tuple[UInt64Array, UInt64Array]:
    """Hash and signature of each form, block by block, so that a block's arrays stay in the processor's cache."""
    num_forms = len(starts) - 1
    hashes, signatures = np.zeros(num_forms, dtype=np.uint64), np.zeros(num_forms, dtype=np.uint64)
    for first in range(0, num_forms, _BLOCK):
        block = starts[first : first + _BLOCK + 1]
        _hash_block(
            text[block[0] : block[-1]],
            block - block[0],
            hashes[first : first + _BLOCK],
            signatures[first : first + _BLOCK],
        )
    return hashes, signatures


def _hash_block(text: str, starts: Int64Array, hashes: UInt64Array, signatures: UInt64Array) -> None:
    """Fill in hashes and signatures, letter after letter of all forms that have so many; the longest come first."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    shorter = -np.diff(starts)
    before = np.full(len(shorter), _BLANK, dtype=np.uint64)
    for place in range(-int(shorter[0]) + 1):
        longer = int(np.searchsorted(shorter, -place))  # forms that have a letter here
        ended = slice(longer, int(np.searchsorted(shorter, -place, side="right")))
        signatures[ended] |= _bit(before[ended], np.uint64(_BLANK))
        letter = codes[starts[:longer] + place]
        hashes[:longer] *= np.uint64(_HASH)
        hashes[:longer] += letter
        signatures[:longer] |= _bit(before[:longer], letter)
        before = letter


def _bit(first: UInt64Array, second: UInt64Array | np.uint64) -> UInt64Array:
    pair = (first << np.uint64(21)) + second
    return np.uint64(1) << (pair * np.uint64(_PAIR) >> np.uint64(58))


def _hash_of(form: str) -> tuple[int, int]:
    """Hash and signature of one form."""
    found, signature, before = 0, 0, _BLANK
    for letter in map(ord, form):
        found = (found * _HASH + letter) & _WORD
        signature |= 1 << ((((before << 21) + letter) * _PAIR & _WORD) >> 58)
        before = letter
    return found, signature | 1 << ((((before << 21) + _BLANK) * _PAIR & _WORD) >> 58)
