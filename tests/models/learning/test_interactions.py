"""Samples of single interactions: where their integers go, and what they are drawn from."""

from __future__ import annotations

import numpy as np

from palate.models.learning.interactions import SampleLayout, first_slots, interaction_samples

LAYOUT = SampleLayout(head_size=9, slots=3, dim=2)
KEY, NUM_ITEMS = np.uint64(77), 50


def test_moving_slots_into_the_table_keeps_the_norm_of_a_sample_and_the_order_of_the_wire():
    rng = np.random.default_rng(4)
    integers = rng.integers(-50, 50, (1, LAYOUT.size))
    items = np.array([[6, 0, 3]])
    summed = LAYOUT.item_sum(integers, items, 7)
    assert (summed**2).sum() + (LAYOUT.head_part(integers) ** 2).sum() == (integers**2).sum()
    np.testing.assert_array_equal(summed.reshape(2, 7)[:, [6, 0, 3]], integers[0, 9:].reshape(3, 2).T)


def test_samples_add_up_in_the_table():
    rng = np.random.default_rng(5)
    integers, items = rng.integers(-(2**16), 2**16, (40, LAYOUT.size)), rng.integers(0, 7, (40, 3))
    expected = np.zeros((7, 2), dtype=np.int64)
    np.add.at(expected, items.reshape(-1), integers[:, 9:].reshape(-1, 2))
    np.testing.assert_array_equal(LAYOUT.item_sum(integers, items, 7), expected.T.reshape(-1))


def test_negatives_come_from_the_whole_catalogue_and_repeats_do_not_count():
    items = np.arange(3, dtype=np.int32)
    drawn = [interaction_samples(np.array([key], np.uint64), items, negatives=4, num_items=3) for key in range(100)]
    seen_items = np.concatenate([each[:, 1:].reshape(-1) for each in drawn])
    assert np.bincount(seen_items, minlength=3).min() > 300  # positives among them
    for each in drawn:
        for sample, real in zip(each.tolist(), first_slots(each).tolist(), strict=True):
            assert real == [item not in sample[:place] for place, item in enumerate(sample)]


def test_negatives_of_an_interaction_stay_when_another_goes():
    items = np.random.default_rng(6).permutation(NUM_ITEMS)[:10].astype(np.int32)
    whole = interaction_samples(np.array([KEY]), items, negatives=4, num_items=NUM_ITEMS)
    fewer = interaction_samples(np.array([KEY]), np.delete(items, 3), negatives=4, num_items=NUM_ITEMS)
    np.testing.assert_array_equal(fewer, np.delete(whole, 3, axis=0))
    other = interaction_samples(np.array([KEY + np.uint64(1)]), items, negatives=4, num_items=NUM_ITEMS)
    assert (other[:, 1:] != whole[:, 1:]).mean() > 0.9
