"""The item table checks itself, names itself by content, and derives popularity from a sum."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.models.popularity import log_column
from palate.models.table import ItemTable, initial_embeddings


def table(num_items: int = 5, fixed_dim: int = 2, dim: int = 3) -> ItemTable:
    values = np.arange(num_items * (fixed_dim + dim), dtype=np.float32).reshape(num_items, -1)
    return ItemTable(values[:, :fixed_dim].copy(), values[:, fixed_dim:].copy())


def test_rows_are_fixed_columns_then_learned_columns():
    built = table()
    assert (built.num_items, built.fixed_dim, built.dim) == (5, 2, 3)
    np.testing.assert_array_equal(built.rows, np.arange(25, dtype=np.float32).reshape(5, 5))


@pytest.mark.parametrize(
    ("fixed", "learned"),
    [
        (np.zeros((3, 1)), np.zeros((3, 2), np.float32)),
        (np.zeros((3, 1), np.float32), np.zeros((3, 2), np.float16)),
        (np.zeros(3, np.float32), np.zeros((3, 2), np.float32)),
        (np.zeros((3, 1), np.float32), np.zeros((4, 2), np.float32)),
        (np.full((3, 1), np.nan, np.float32), np.zeros((3, 2), np.float32)),
        (np.zeros((3, 1), np.float32), np.full((3, 2), -np.inf, np.float32)),
    ],
)
def test_wrong_types_shapes_and_infinite_values_are_refused(fixed, learned):
    with pytest.raises(ValueError, match="item table"):
        ItemTable(fixed, learned)


def test_content_hash_is_sha256_over_shapes_and_little_endian_values():
    built = ItemTable(np.array([[1.5]], np.float32), np.array([[-2.0, 3.0]], np.float32))
    text = b"palate item table v1" + struct.pack("<qqf", 1, 1, 1.5) + struct.pack("<qqff", 1, 2, -2.0, 3.0)
    assert built.content_hash == hashlib.sha256(text).hexdigest()


def test_content_hash_sees_every_value_and_the_border_between_the_blocks():
    base = table()
    hashes = {base.content_hash, ItemTable(base.rows[:, :1].copy(), base.rows[:, 1:].copy()).content_hash}
    for place in np.ndindex(base.learned.shape):
        changed = base.learned.copy()
        changed[place] = np.nextafter(changed[place], np.float32(np.inf))
        hashes.add(base.with_learned(changed).content_hash)
    assert len(hashes) == 2 + base.learned.size


def test_with_learned_keeps_the_fixed_columns_and_leaves_the_old_table_alone():
    base = table()
    new = base.with_learned(base.learned + 1)
    np.testing.assert_array_equal(new.fixed, base.fixed)
    np.testing.assert_array_equal(new.learned, base.learned + 1)
    assert base.content_hash == table().content_hash


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_popularity_is_between_zero_and_one_and_keeps_the_order_even_with_noise(counts):
    weighted = np.array(counts)
    column = log_column(weighted)
    assert column.dtype == np.float32
    assert column.min() >= 0
    assert column.max() <= 1
    order = np.argsort(weighted)
    assert (np.diff(column[order]) >= 0).all()


def test_equally_popular_items_all_get_zero():
    np.testing.assert_array_equal(log_column(np.full(4, 7.0)), np.zeros(4))


def test_starting_point_repeats_with_its_generator_and_has_the_asked_scale():
    drawn = initial_embeddings(500, 40, scale=0.3, rng=np.random.default_rng(4))
    np.testing.assert_array_equal(drawn, initial_embeddings(500, 40, scale=0.3, rng=np.random.default_rng(4)))
    assert drawn.dtype == np.float32
    assert drawn.std() == pytest.approx(0.3, rel=0.02)
    assert drawn.mean() == pytest.approx(0.0, abs=0.01)
