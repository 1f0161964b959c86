from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats
from scipy.special import ive

from palate.privacy.errors import PrivacyError
from palate.privacy.integer import skellam
from palate.privacy.integer.csprng import Purpose, WordStream
from palate.privacy.integer.skellam import MAX_VARIANCE, SkellamSampler, half_pmf, tail_cut

mpmath = pytest.importorskip("mpmath", reason="mpmath is the second opinion on the table")


def noise(number: int = 0) -> WordStream:
    return WordStream(number.to_bytes(32, "big"), Purpose.NOISE)


def fit(values: np.ndarray, variance: float) -> float:
    """p-value of the chi-square test of Skellam with this variance, tails pooled to 20 expected counts or more."""
    reach = int(10 * math.sqrt(variance)) + 20
    support = np.arange(-reach, reach + 1)
    expected = len(values) * ive(np.abs(support), variance)
    inner = support[expected >= 20]
    low, high = inner[0], inner[-1]
    clipped = np.clip(values, low - 1, high + 1)
    counts = np.bincount(clipped - (low - 1), minlength=high - low + 3)
    inside = expected[(support >= low) & (support <= high)]
    tail = (len(values) - inside.sum()) / 2
    return float(stats.chisquare(counts, np.concatenate([[tail], inside, [tail]])).pvalue)


@pytest.mark.parametrize("variance", [1, 3, 9, 400, 250_000])
def test_draws_have_the_skellam_distribution(variance: int):
    values = SkellamSampler(variance).draw(200_000, noise())
    assert fit(values, variance) > 1e-4
    assert abs(values.mean()) < 5 * math.sqrt(variance / len(values))
    assert values.var() == pytest.approx(variance, rel=5 * math.sqrt((2 + 1 / variance) / len(values)))


def test_the_fit_notices_a_variance_that_is_three_percent_off():
    assert fit(SkellamSampler(412).draw(200_000, noise()), 400) < 1e-4


@pytest.mark.parametrize(("devices", "variance"), [(7, 2), (40, 9), (3, 1000)])
def test_the_sum_of_shares_is_skellam_with_the_summed_variance(devices: int, variance: int):
    total = sum(SkellamSampler(variance).draw(100_000, noise(device)) for device in range(devices))
    assert fit(total, devices * variance) > 1e-4


@pytest.mark.parametrize("variance", [Fraction(1), Fraction(7, 3), Fraction(900), Fraction(20_000)])
def test_the_table_agrees_with_the_bessel_function_to_150_bits(variance: Fraction):
    weights = half_pmf(variance, tail_cut(float(variance), 128))
    with mpmath.workprec(400):
        exact = mpmath.mpf(variance.numerator) / variance.denominator
        for k in (1, len(weights) // 3, len(weights) - 1):
            expected = mpmath.besseli(k, exact) / mpmath.besseli(0, exact)
            assert abs(mpmath.mpf(weights[k]) / weights[0] - expected) < mpmath.mpf(2) ** -150


@pytest.mark.parametrize("variance", [1, 50])
def test_thresholds_are_within_the_stated_distance_of_the_exact_distribution(variance: int):
    table = skellam._table(Fraction(variance))
    with mpmath.workprec(400):
        reached = mpmath.mpf(0)
        for k, (high, low) in enumerate(zip(table.high, table.low, strict=True)):
            reached += mpmath.exp(-variance) * mpmath.besseli(k, variance) * (2 if k else 1)
            threshold = (int(high) << 64 | int(low)) * mpmath.mpf(2) ** -127
            assert abs(threshold - reached) < mpmath.mpf(2) ** -125


@pytest.mark.parametrize("variance", [0.5, 1, 37, 1e4, 1e8])
@pytest.mark.parametrize("bits", [10, 40])
def test_no_more_than_the_stated_mass_lies_beyond_the_cut(variance: float, bits: int):
    cut = tail_cut(variance, bits)
    beyond = 2 * stats.skellam.sf(cut - 1, variance / 2, variance / 2) if variance < 1e6 else (
        2 * stats.norm.sf(cut / math.sqrt(variance))
    )  # fmt: skip
    assert beyond <= 2.0**-bits
    assert cut < 3 * math.sqrt(2 * bits * variance) + 3 * bits


class Forged:
    """Words written by hand."""

    def __init__(self, *words: int) -> None:
        self._words = list(words)

    def words(self, count: int) -> np.ndarray:
        taken, self._words = self._words[:count], self._words[count:]
        return np.array(taken, dtype=np.uint64)


@pytest.mark.parametrize(("offset", "magnitude"), [(-1, 4), (0, 5), (1, 5)])
@pytest.mark.parametrize("sign", [0, 1])
def test_a_tie_in_the_upper_bits_is_settled_by_the_lower_ones(offset: int, magnitude: int, sign: int):
    table = skellam._table(Fraction(9))
    words = Forged(int(table.high[4]) << 1 | sign, int(table.low[4]) + offset)
    assert SkellamSampler(9).draw(1, words).tolist() == [-magnitude if sign else magnitude]


def test_the_ends_of_the_range_of_words_are_the_centre_and_the_cut():
    table = skellam._table(Fraction(9))
    assert SkellamSampler(9).draw(2, Forged(0, 1)).tolist() == [0, 0]
    last = len(table.high) - 1
    lowest = 2**64 - 1
    drawn = SkellamSampler(9).draw(2, Forged(2**64 - 2, 2**64 - 1, *[lowest] * 2)).tolist()
    assert drawn == [last, -last]


def test_every_word_is_searched_as_the_thresholds_say():
    words = noise(3).words(5000)
    table = skellam._table(Fraction(3))
    drawn = SkellamSampler(3).draw(5000, noise(3))
    np.testing.assert_array_equal(np.abs(drawn), np.searchsorted(table.high, words >> np.uint64(1), side="right"))
    np.testing.assert_array_equal(drawn < 0, (words & np.uint64(1) == 1) & (drawn != 0))


def test_parts_of_a_large_variance_add_up_to_the_same_distribution(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(skellam, "MAX_TABLE_VARIANCE", 4)
    sampler = SkellamSampler(30)
    assert sampler.parts == 8
    assert fit(sampler.draw(100_000, noise()), 30) > 1e-4


def test_a_variance_of_many_tables_is_met():
    variance = (4 << 14) ** 2
    values = SkellamSampler(variance).draw(20_000, noise()) / math.sqrt(variance)
    assert SkellamSampler(variance).parts == 16
    assert values.var() == pytest.approx(1.0, rel=5 * math.sqrt(2 / len(values)))
    assert stats.kstest(values, "norm").pvalue > 1e-4


def statistical_distance(variance: int) -> float:
    """Bound the total variation distance of one value: thresholds rounded by 2^-127, tails of 2^-128."""
    parts = SkellamSampler(variance).parts
    entries = len(skellam._table(Fraction(variance, parts)).high)
    return parts * (entries * 2.0**-127 + 2.0 * 2.0**-128)


def test_the_distance_from_the_exact_distribution_stays_below_2_to_the_minus_96():
    assert 2.0**-127 < statistical_distance(9) < 2.0**-118
    assert statistical_distance(MAX_VARIANCE) < 2.0**-96


@pytest.mark.parametrize("variance", [-1, 0, MAX_VARIANCE + 1])
def test_a_variance_outside_its_range_is_refused(variance: int):
    with pytest.raises(PrivacyError, match=f"variance of {variance} "):
        SkellamSampler(variance)
