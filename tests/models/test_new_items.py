"""Rows of items that nobody has had: what is unknown is filled in from what is public, and nothing else moves."""

import numpy as np
import pytest

from palate.models.new_items import introduce
from palate.models.table import ItemTable

NUM_ITEMS, NEW = 60, np.array([3, 17, 59])
KNOWN = np.setdiff1d(np.arange(NUM_ITEMS), NEW)


@pytest.fixture
def table():
    """Embeddings are a linear function of content; the new items' own are nonsense, and their popularity is least."""
    rng = np.random.default_rng(6)
    content = rng.normal(size=(NUM_ITEMS, 5))
    learned = content @ rng.normal(size=(5, 3)) + 0.7
    popularity = rng.uniform(1.0, 6.0, NUM_ITEMS)
    popularity[NEW], learned[NEW] = 0.0, 99.0
    fixed = np.column_stack([popularity, content]).astype(np.float32)
    return ItemTable(fixed, learned.astype(np.float32)), content @ np.linalg.lstsq(
        np.column_stack([content[KNOWN], np.ones(len(KNOWN))]), learned[KNOWN], rcond=None
    )[0][:5] + 0.7


def test_a_new_item_is_as_popular_as_items_are_on_average(table):
    given, _ = table
    found = introduce(given, NEW)
    np.testing.assert_allclose(found.fixed[NEW, 0], given.fixed[KNOWN, 0].mean(), rtol=1e-6)


def test_a_new_items_embedding_is_what_its_content_predicts(table):
    given, truth = table
    found = introduce(given, NEW).learned[NEW]
    spread = truth.std()
    assert np.abs(found - truth[NEW]).max() < 0.15 * spread, "the ridge pulls a little towards the mean"


def test_known_items_and_content_stay_as_they_are(table):
    given, _ = table
    found = introduce(given, NEW)
    np.testing.assert_array_equal(found.rows[KNOWN], given.rows[KNOWN])
    np.testing.assert_array_equal(found.fixed[:, 1:], given.fixed[:, 1:])


def test_what_the_table_said_of_new_items_does_not_matter(table):
    given, _ = table
    fixed, learned = given.fixed.copy(), given.learned.copy()
    fixed[NEW, 0], learned[NEW] = 5.0, -3.0
    np.testing.assert_array_equal(introduce(ItemTable(fixed, learned), NEW).rows, introduce(given, NEW).rows)


@pytest.mark.parametrize("fixed_dim", [0, 1])
def test_without_content_a_new_item_gets_the_mean_embedding(fixed_dim):
    rng = np.random.default_rng(2)
    given = ItemTable(rng.random((9, fixed_dim), dtype=np.float32), rng.random((9, 4), dtype=np.float32))
    np.testing.assert_allclose(introduce(given, np.array([0])).learned[0], given.learned[1:].mean(axis=0), rtol=1e-5)


def test_a_table_without_learned_columns_is_fine():
    given = ItemTable(np.arange(8, dtype=np.float32)[:, None], np.zeros((8, 0), dtype=np.float32))
    assert introduce(given, np.array([7])).fixed[7, 0] == 3.0


def test_a_catalogue_of_new_items_only_is_refused():
    with pytest.raises(ValueError, match="all 3 items"):
        introduce(ItemTable(np.zeros((3, 1), dtype=np.float32), np.zeros((3, 1), dtype=np.float32)), np.arange(3))
