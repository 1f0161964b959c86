from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from palate.privacy.errors import PrivacyError
from palate.privacy.integer.csprng import Purpose, WordStream
from palate.privacy.integer.quantise import MAX_SENSITIVITY, Quantiser, dithered_floor, squared_norms

KEY = bytes(range(32))
finite = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=True)
vectors = hnp.arrays(np.float32, st.integers(1, 1200), elements=finite)


def rounding(number: int = 0) -> WordStream:
    return WordStream(number.to_bytes(32, "big"), Purpose.ROUNDING)


def exact_squares(integers: np.ndarray) -> int:
    return sum(int(value) ** 2 for value in integers)


@settings(max_examples=300)
@given(vectors, st.sampled_from([64, 100, 1 << 12, 1 << 14, 1 << 16]), st.floats(1e-30, 1e30))
def test_the_integer_norm_never_exceeds_the_sensitivity(values: np.ndarray, sensitivity: int, clip_norm: float):
    quantiser = Quantiser(clip_norm=clip_norm, sensitivity=sensitivity, size=len(values))
    integers = quantiser.quantise(values, rounding())
    assert integers.dtype == np.int64
    assert exact_squares(integers) <= sensitivity**2


@given(vectors.filter(lambda values: 1e-20 < np.abs(values).max() < 1e27), st.sampled_from([1 << 12, 1 << 16]))
def test_decoding_gives_the_contribution_back_to_within_one_step(values: np.ndarray, sensitivity: int):
    norm = math.hypot(*values.astype(np.float64).tolist())
    quantiser = Quantiser(clip_norm=2.0 * norm, sensitivity=sensitivity, size=len(values))
    decoded = quantiser.decode(quantiser.quantise(values, rounding()))
    np.testing.assert_allclose(decoded, values, rtol=1e-5, atol=1.001 / quantiser.scale)


def test_nothing_contributes_nothing():
    quantiser = Quantiser(clip_norm=1.0, sensitivity=1 << 12, size=70_000)
    assert not quantiser.quantise(np.zeros(70_000, dtype=np.float32), rounding()).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_contribution_that_is_not_finite_is_refused(bad: float):
    values = np.zeros(10, dtype=np.float32)
    values[3] = bad
    with pytest.raises(PrivacyError, match="not finite"):
        Quantiser(clip_norm=1.0, sensitivity=64, size=10).quantise(values, rounding())


@pytest.mark.parametrize(
    "values", [np.zeros(9, np.float32), np.zeros(10, np.float64), np.zeros((2, 5), np.float32), np.zeros(10, np.int64)]
)
def test_another_shape_or_type_is_refused(values: np.ndarray):
    with pytest.raises(PrivacyError, match="the update is"):
        Quantiser(clip_norm=1.0, sensitivity=64, size=10).quantise(values, rounding())


def test_rounding_is_unbiased():
    draws = 40_000
    fractions = np.array([-2.75, -1.0, -0.3, -1e-5, 0.0, 0.125, 0.5, 0.999, 7.25], dtype=np.float32)
    scaled = np.tile(fractions, (draws, 1)).reshape(-1)
    rounded = dithered_floor(scaled, rounding().lanes(len(scaled)), np.empty_like(scaled)).reshape(draws, -1)
    error = rounded.mean(axis=0) - fractions
    spread = np.sqrt((fractions - np.floor(fractions)) * (1 - (fractions - np.floor(fractions))) / draws)
    assert (np.abs(error) <= 5 * spread + 2.0**-15).all()


@given(hnp.arrays(np.float32, 64, elements=st.integers(-(2**16), 2**16).map(float)))
def test_integers_far_from_the_dithers_edge_stay_what_they_are(values: np.ndarray):
    lanes = np.full(64, 1 << 14, dtype=np.uint16)
    np.testing.assert_array_equal(dithered_floor(values, lanes, np.empty_like(values)), values)


@pytest.mark.parametrize("value", [0.3, -0.3, 0.0, 5.5, -17.9])
def test_every_lane_rounds_down_or_up_with_the_frequency_of_the_fraction(value: float):
    lanes = np.arange(1 << 16).astype(np.uint16)
    scaled = np.full(1 << 16, value, dtype=np.float32)
    rounded = dithered_floor(scaled, lanes, np.empty_like(scaled))
    assert set(np.unique(rounded)) <= {math.floor(value), math.ceil(value)}
    assert rounded.mean(dtype=np.float64) == pytest.approx(float(scaled[0]), abs=2.0**-16 + abs(value) * 2.0**-24)


@given(st.integers(0, 1500), st.integers(0, 17), st.integers(0, 2**32))
def test_squared_norms_are_exact(size: int, bits: int, seed: int):
    rng = np.random.default_rng(seed)
    integers = rng.integers(-(2**bits), 2**bits + 1, (2, size)).astype(np.float32)
    integers[1] //= 64
    assert squared_norms(integers).tolist() == [exact_squares(row) for row in integers]


def test_a_vector_that_rounding_would_lengthen_is_rounded_again_and_then_towards_zero():
    size = 4096
    quantiser = Quantiser(clip_norm=1.0, sensitivity=100, size=size)

    class Upwards:
        """Lanes that always round up, which no amount of trying mends."""

        calls = 0

        def lanes(self, count: int) -> np.ndarray:
            self.calls += 1
            return np.full(count, 0xFFFF, dtype=np.uint16)

    stream = Upwards()
    values = np.full(size, 1.0 / math.sqrt(size), dtype=np.float32)  # each value is just above one step
    integers = quantiser.quantise(values, stream)
    assert stream.calls == 8
    np.testing.assert_array_equal(integers, np.trunc(quantiser.scaled(values[None])[0]))
    assert exact_squares(integers) <= 100**2


def test_a_full_contribution_is_nearly_always_accepted_at_once():
    rng = np.random.default_rng(5)
    size = 3000
    quantiser = Quantiser(clip_norm=1.0, sensitivity=1 << 12, size=size)
    refused = 0
    for number in range(200):
        scaled = quantiser.scaled(rng.standard_normal((1, size)).astype(np.float32))
        refused += not quantiser.fits(
            dithered_floor(scaled, rounding(number).lanes(size)[None], np.empty_like(scaled))
        )[0]
    assert refused <= 2  # at most e^-8 each


def test_scaling_to_the_bound_costs_less_than_a_thousandth():
    quantiser = Quantiser(clip_norm=1.0, sensitivity=1 << 12, size=3706 * 8)
    assert 0.999 < quantiser.target / quantiser.sensitivity < 1.0


def test_a_contribution_above_the_clip_norm_is_clipped_here_too():
    values = np.array([30.0, 40.0], dtype=np.float32)
    quantiser = Quantiser(clip_norm=1.0, sensitivity=1 << 12, size=2)
    np.testing.assert_allclose(quantiser.decode(quantiser.quantise(values, rounding())), [0.6, 0.8], atol=1e-3)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"clip_norm": 0.0}, "clip norm 0.0"),
        ({"clip_norm": math.nan}, "clip norm nan"),
        ({"clip_norm": math.inf}, "clip norm inf"),
        ({"clip_norm": 1e-320}, "clip norm 1e-320"),
        ({"sensitivity": 0}, "sensitivity 0"),
        ({"sensitivity": MAX_SENSITIVITY + 1}, "sensitivity 65537"),
        ({"size": 0}, "0 values"),
        ({"size": 30_000, "sensitivity": 64}, "too small for 30000 values"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict, complaint: str):
    with pytest.raises(PrivacyError, match=complaint):
        Quantiser(**{"clip_norm": 1.0, "sensitivity": 1 << 12, "size": 100} | change)


@given(st.integers(1, 1 << 20))
def test_the_hint_for_a_small_sensitivity_works(size: int):
    try:
        Quantiser(clip_norm=1.0, sensitivity=2, size=size)
    except PrivacyError as refused:
        Quantiser(clip_norm=1.0, sensitivity=int(refused.hint.rsplit(" ", 1)[1]), size=size)


@pytest.mark.parametrize("sensitivity", [1, 5, 100, 4096, MAX_SENSITIVITY])
def test_the_bound_is_the_square_of_the_sensitivity_and_not_one_more(sensitivity: int):
    quantiser = Quantiser(clip_norm=1.0, sensitivity=max(sensitivity, 64), size=600)
    bound = quantiser.sensitivity
    integers = np.zeros((4, 600), dtype=np.float32)
    integers[:, 0] = bound
    integers[1, 599] = 1.0  # S^2 + 1
    integers[2, 300] = -1.0
    integers[3, 0] = bound + 1  # (S + 1)^2
    assert quantiser.fits(integers).tolist() == [True, False, False, False]


def test_a_vector_just_above_the_bound_is_not_released():
    """Rounded up throughout, its norm is between S and S + 1, which a bound of (S + 1)^2 would let pass."""

    class Upwards:
        def lanes(self, count: int) -> np.ndarray:
            return np.full(count, 0xFFFF, dtype=np.uint16)

    quantiser = Quantiser(clip_norm=1.0, sensitivity=100, size=590)
    values = np.full(590, 0.001 / quantiser.scale, dtype=np.float32)
    values[0] = 0.9999
    scaled = quantiser.scaled(values[None])
    rounded = dithered_floor(scaled, Upwards().lanes(590)[None], np.empty_like(scaled))[0]
    assert 100**2 < exact_squares(rounded) <= 101**2
    assert exact_squares(quantiser.quantise(values, Upwards())) <= 100**2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_never_fits(bad: float):
    integers = np.zeros((3, 600), dtype=np.float32)
    integers[1, 599] = integers[2, 0] = bad
    assert Quantiser(clip_norm=1.0, sensitivity=4096, size=600).fits(integers).tolist() == [True, False, False]
