from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from palate.privacy.audit.canaries import MIN_CANARIES, draw_canaries
from palate.privacy.errors import PrivacyError


def test_canaries_are_unit_vectors_and_nearly_orthogonal():
    canaries = draw_canaries(np.random.default_rng(1), 200, 2000)
    gram = canaries.directions @ canaries.directions.T
    np.testing.assert_allclose(np.diag(gram), 1.0, atol=1e-5)
    cosines = gram[np.triu_indices(200, 1)]
    assert cosines.std() == pytest.approx(1 / np.sqrt(2000), rel=0.02)
    assert np.abs(cosines).max() < 6 / np.sqrt(2000)


def test_a_coordinate_of_a_direction_is_distributed_as_on_the_sphere():
    directions = draw_canaries(np.random.default_rng(2), 1000, 1000).directions[:, 0]
    beta = stats.beta(0.5, (1000 - 1) / 2)  # law of a squared coordinate
    assert stats.kstest(directions.astype(np.float64) ** 2, beta.cdf).pvalue > 1e-3


def test_coins_are_fair_and_do_not_depend_on_directions():
    sides = [draw_canaries(np.random.default_rng(seed), 20, 20) for seed in range(500)]
    heads = sum(int(one.included.sum()) for one in sides)
    assert stats.binomtest(heads, 500 * 20).pvalue > 1e-3
    signs = np.concatenate([one.directions[:, 0] > 0 for one in sides])
    coins = np.concatenate([one.included for one in sides])
    assert stats.fisher_exact(np.histogram2d(signs, coins, bins=2)[0]).pvalue > 1e-3


def test_the_same_generator_gives_the_same_canaries_and_another_gives_others():
    first, again, other = (draw_canaries(np.random.default_rng(seed), 50, 60) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.directions, again.directions)
    np.testing.assert_array_equal(first.included, again.included)
    assert (first.directions != other.directions).all()
    assert (first.included != other.included).any()


@pytest.mark.parametrize(
    ("count", "num_values", "complaint"),
    [(MIN_CANARIES - 1, 100, "fewer than"), (101, 100, "do not fit"), (1 << 14, 1 << 15, "are more than")],
)
def test_too_few_too_many_or_too_large_canaries_are_refused(count: int, num_values: int, complaint: str):
    with pytest.raises(PrivacyError, match=complaint) as refused:
        draw_canaries(np.random.default_rng(0), count, num_values)
    assert refused.value.hint
