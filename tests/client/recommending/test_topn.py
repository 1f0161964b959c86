"""The best items of one person against the ranking of many, whatever the ties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from palate.client.recommending.topn import best_items
from palate.errors import ConfigError
from palate.models import lists

LEVELS = hnp.arrays(np.float32, st.integers(1, 3000), elements=st.sampled_from([-1.0, 0.0, 0.25, 2.0]))


@given(LEVELS, st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_best_items_are_those_of_the_ranking_for_many_people_with_ties_in_item_order(scores, seed, count):
    allowed = np.random.default_rng(seed).random(len(scores)) < 0.7
    expected = lists.top_items(scores[None], ~allowed[None], count)[0]
    assert best_items(scores, allowed, count).tolist() == expected[expected != lists.NO_ITEM].tolist()


def test_blocks_cut_nothing_that_belongs_in_the_list():
    scores = np.random.default_rng(0).normal(size=50_000).astype(np.float32)
    assert (
        best_items(scores, np.ones(50_000, dtype=bool), 25).tolist() == np.argsort(-scores, kind="stable")[:25].tolist()
    )


def test_scores_that_are_not_finite_and_empty_lists_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        best_items(np.array([0.0, np.nan]), np.ones(2, dtype=bool), 1)
    with pytest.raises(ConfigError, match="length is 0"):
        best_items(np.zeros(2), np.ones(2, dtype=bool), 0)
