"""Draws are functions of key and counter: uniform, independent of company, and blind to what is held out."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle.device import epoch_samples
from scipy import stats

from palate.models.sampling import draw_items, mix, stream

# First outputs of SplitMix64 for two seeds, from its authors' C code.
SPLITMIX = {
    0: [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F],
    1234567: [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431],
}


@pytest.mark.parametrize("seed", SPLITMIX)
def test_mixing_is_splitmix64(seed):
    outputs = mix(np.full(1, seed, np.uint64), np.arange(len(SPLITMIX[seed])))
    assert outputs.tolist() == SPLITMIX[seed]


def test_draws_cover_the_catalogue_uniformly():
    num_items = 97
    keys = stream(np.arange(500, dtype=np.uint64), 1)
    drawn = draw_items(keys[:, None], np.arange(400), num_items)
    counts = np.bincount(drawn.ravel(), minlength=num_items)
    assert len(counts) == num_items
    assert stats.chisquare(counts).pvalue > 1e-3


def test_draws_of_one_device_are_uncorrelated_with_its_neighbours():
    drawn = draw_items(np.arange(2, dtype=np.uint64)[:, None], np.arange(20_000), 10)
    table = np.histogram2d(drawn[0], drawn[1], bins=10)[0]
    assert stats.chi2_contingency(table).pvalue > 1e-3


@given(st.integers(0, 2**64 - 1), st.lists(st.integers(0, 2**64 - 1), max_size=5), st.integers(1, 10**6))
def test_a_device_draws_the_same_alone_and_among_others(key, others, num_items):
    alone = draw_items(np.array([key], np.uint64), np.arange(7), num_items)
    together = draw_items(np.array([*others, key], np.uint64)[:, None], np.arange(7), num_items)
    np.testing.assert_array_equal(together[-1], alone)
    assert (alone >= 0).all()
    assert (alone < num_items).all()


def samples(key: int = 9, epoch: int = 0, items: np.ndarray | None = None, negatives: int = 3):
    own = np.array([4, 8, 15, 16, 23, 42], np.int32) if items is None else items
    return epoch_samples(np.uint64(key), epoch, own, negatives=negatives, num_items=50)


def test_an_epoch_visits_every_positive_once_with_its_negatives():
    order, drawn = samples()
    assert sorted(order.tolist()) == list(range(6))
    assert drawn.shape == (6, 4)
    np.testing.assert_array_equal(drawn[:, 0], np.array([4, 8, 15, 16, 23, 42])[order])


def test_epochs_and_keys_differ_in_order_and_negatives():
    seen = {(key, epoch): samples(key, epoch) for key in (9, 10) for epoch in (0, 1)}
    assert len({tuple(order.tolist()) for order, _ in seen.values()}) == 4
    assert len({drawn[:, 1:].tobytes() for _, drawn in seen.values()}) == 4


def test_negatives_do_not_depend_on_what_the_history_holds():
    _, drawn = samples()
    _, others = samples(items=np.array([0, 1, 2, 3, 5, 6], np.int32))
    np.testing.assert_array_equal(drawn[:, 1:], others[:, 1:])


def test_held_out_items_and_positives_are_drawn_as_negatives_like_any_other():
    drawn = np.concatenate([samples(key, negatives=20)[1][:, 1:].ravel() for key in range(200)])
    counts = np.bincount(drawn, minlength=50)
    assert stats.chisquare(counts).pvalue > 1e-3
    assert counts.min() > 0
    assert "held" not in " ".join(inspect.signature(epoch_samples).parameters)


def test_an_empty_history_gives_no_samples():
    order, drawn = samples(items=np.zeros(0, np.int32))
    assert len(order) == 0
    assert drawn.shape == (0, 4)
