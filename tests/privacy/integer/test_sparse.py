"""Contributions that are mostly zeros become the integers that they become as whole vectors, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.privacy.integer.csprng import Purpose, WordStream, lanes_at
from palate.privacy.integer.quantise import MOSTLY_ZEROS, Quantiser, clip, l2_norms
from palate.privacy.integer.sparse import SparseVectors, quantise_sparse

KEYS = [number.to_bytes(32, "big") for number in range(1, 7)]


def vectors(seed: int, size: int, magnitude: float) -> np.ndarray:
    """Some devices' vectors, float32 [6, size]; one is all zeros, the others hold few values of any sign and size."""
    rng = np.random.default_rng(seed)
    whole = np.zeros((len(KEYS), size), dtype=np.float32)
    for row in whole[1:]:
        places = rng.choice(size, int(rng.integers(0, -(-size // MOSTLY_ZEROS))), replace=False)
        row[places] = magnitude * rng.standard_normal(len(places)) * 10.0 ** rng.integers(-3, 3, len(places))
    return whole


def sparse(whole: np.ndarray) -> SparseVectors:
    owners, places = np.nonzero(whole)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=len(whole)))])
    return SparseVectors(indptr, places, whole[owners, places])


def dense(given: SparseVectors, size: int) -> np.ndarray:
    whole = np.zeros((len(given.indptr) - 1, size), dtype=np.float32)
    whole[np.repeat(np.arange(len(whole)), np.diff(given.indptr)), given.places] = given.values
    return whole


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(1, 3000), st.sampled_from([1e-33, 1e-4, 0.05, 1.0, 1e6, 1e30]),
    st.sampled_from([128, 1 << 12, 1 << 16]),
)  # fmt: skip
def test_the_integers_are_those_of_the_whole_vector(seed: int, size: int, magnitude: float, sensitivity: int):
    quantiser = Quantiser(clip_norm=0.5, sensitivity=sensitivity, size=size)
    whole = vectors(seed, size, magnitude)
    integers, fits = quantise_sparse(sparse(whole), KEYS, quantiser)
    found = dense(integers, size)
    for row, key, fit, own in zip(whole, KEYS, fits, found, strict=True):
        if fit:
            np.testing.assert_array_equal(own, quantiser.quantise(row, WordStream(key, Purpose.ROUNDING)))
    assert fits[0]


@pytest.mark.parametrize("size", [7, 8, 9, 4097])
@pytest.mark.parametrize("purpose", list(Purpose))
def test_lanes_read_singly_are_those_of_the_stream(size: int, purpose: Purpose):
    rng = np.random.default_rng(size)
    chosen = [np.flatnonzero(rng.random(size) < share) for share in (0.0, 0.1, 1.0, 0.5, 0.0, 0.3)]
    indptr = np.concatenate([[0], np.cumsum([len(places) for places in chosen])])
    expected = [WordStream(key, purpose).lanes(size)[places] for key, places in zip(KEYS, chosen, strict=True)]
    np.testing.assert_array_equal(lanes_at(KEYS, purpose, indptr, np.concatenate(chosen)), np.concatenate(expected))


@pytest.mark.parametrize("size", [1, 16, 511, 512, 513, 5000])
def test_norms_and_clipping_are_those_of_the_whole_vector_to_the_last_bit(size: int):
    whole = vectors(3, size, 1.0)
    norms = l2_norms(whole)
    np.testing.assert_array_equal(dense(sparse(whole).clipped(0.3, scale=7.0), size), clip(whole, 0.3, scale=7.0))
    np.testing.assert_allclose(norms, np.linalg.norm(whole.astype(np.float64), axis=1), rtol=1e-12)
    assert size < 100 or norms.max() > 0.3


def test_values_put_behind_the_vectors_come_after_all_others():
    whole, tail = vectors(5, 200, 1.0), np.arange(18, dtype=np.float32).reshape(6, 3)
    np.testing.assert_array_equal(dense(sparse(whole).extended(tail, 200), 203), np.hstack([whole, tail]))
    assert (sparse(whole).extended(tail, 200).values != 0.0).all()


def test_a_vector_that_passes_the_bound_is_reported(monkeypatch: pytest.MonkeyPatch):
    whole, quantiser = vectors(8, 800, 1.0), Quantiser(clip_norm=0.5, sensitivity=1 << 12, size=800)
    monkeypatch.setattr(Quantiser, "target", property(lambda self: 2.0 * self.sensitivity))
    _, fits = quantise_sparse(sparse(whole), KEYS, quantiser)
    np.testing.assert_array_equal(fits, l2_norms(whole) < 0.25)
    assert 0 < fits.sum() < len(fits)
