from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from palate.client import release as batch
from palate.client.opacus_release import release
from palate.client.release import quantised_sum, release_sum
from palate.models.histories import Histories, offsets
from palate.models.learning.updates import RowValues, SparseUpdates, Updates
from palate.privacy.errors import PrivacyError
from palate.privacy.integer.csprng import Purpose, WordStream
from palate.privacy.integer.quantise import IntegerMechanism, Quantiser
from palate.privacy.wire import NUM_METRICS

DEVICES, NUM_ITEMS, DIM, SENSITIVITY = 12, 90, 7, 1 << 12
KEYS = [device.to_bytes(32, "big") for device in range(DEVICES)]


def updates(size: float) -> Updates:
    rng = np.random.default_rng(8)
    counts = rng.integers(0, 20, DEVICES)
    counts[0] = 0
    rows = [rng.choice(NUM_ITEMS, count, replace=False) for count in counts]
    return Updates(
        errors=(size * rng.standard_normal((DEVICES, NUM_ITEMS))).astype(np.float32),
        vectors=rng.standard_normal((DEVICES, DIM)).astype(np.float32),
        further=RowValues(
            Histories(offsets(counts), np.concatenate(rows).astype(np.int32)),
            (size * rng.standard_normal((counts.sum(), DIM))).astype(np.float32),
        ),
    )


def sparse_updates(size: float, dim: int = DIM) -> SparseUpdates:
    """Updates on single rows of devices with few, many and no items; several values fall on the same row."""
    rng = np.random.default_rng(9)
    counts = np.array([0, 1, 2, 3, 4, 5, 6, 8, 15, 40, 90, 0])
    own = [rng.choice(NUM_ITEMS, count, replace=False) for count in counts]
    rows = Histories(offsets(counts), np.concatenate(own).astype(np.int32))
    twice = RowValues(
        Histories(2 * rows.indptr, np.concatenate([np.tile(items, 2) for items in own]).astype(np.int32)),
        (size * rng.standard_normal((2 * counts.sum(), dim))).astype(np.float32),
    )
    return SparseUpdates.of(
        [RowValues(rows, (size * rng.standard_normal((counts.sum(), dim))).astype(np.float32)), twice], NUM_ITEMS
    )


def quantiser(sensitivity: int = SENSITIVITY) -> Quantiser:
    return Quantiser(clip_norm=1.0, sensitivity=sensitivity, size=NUM_ITEMS * DIM)


def one_by_one(given: Updates | SparseUpdates, sensitivity: int = SENSITIVITY) -> np.ndarray:
    return sum(
        quantiser(sensitivity).quantise(given.dense(device, device + 1).reshape(-1), WordStream(key, Purpose.ROUNDING))
        for device, key in enumerate(KEYS)
    )


@pytest.mark.parametrize("size", [1e-6, 0.01, 0.05, 100.0])
@pytest.mark.parametrize("sensitivity", [64, SENSITIVITY, 1 << 16])
def test_the_sum_is_that_of_the_devices_one_by_one(size: float, sensitivity: int):
    np.testing.assert_array_equal(
        quantised_sum(updates(size), KEYS, quantiser(sensitivity)), one_by_one(updates(size), sensitivity)
    )


@pytest.mark.parametrize("size", [1e-6, 0.01, 0.05, 100.0])
@pytest.mark.parametrize("sensitivity", [64, SENSITIVITY, 1 << 16])
def test_of_updates_on_single_rows_too(size: float, sensitivity: int, monkeypatch: pytest.MonkeyPatch):
    given, expected = sparse_updates(size), one_by_one(sparse_updates(size), sensitivity)
    np.testing.assert_array_equal(quantised_sum(given, KEYS, quantiser(sensitivity)), expected)
    monkeypatch.setattr(batch, "_SPARSE_VALUES_PER_GROUP", 30)
    np.testing.assert_array_equal(quantised_sum(given, KEYS, quantiser(sensitivity)), expected)


@pytest.mark.parametrize("size", [1e-6, 0.05, 100.0])
def test_metrics_behind_sparse_updates_are_those_behind_whole_ones(size: float):
    given, share = sparse_updates(size), 0.3
    metrics = np.random.default_rng(5).random((DEVICES, NUM_METRICS)).astype(np.float32)
    metrics[3] = 0.0
    longer = Quantiser(clip_norm=1.0, sensitivity=SENSITIVITY, size=NUM_ITEMS * DIM + NUM_METRICS)
    expected = np.zeros(longer.size, dtype=np.int64)
    for device, key in enumerate(KEYS):
        flat = np.empty((1, longer.size), dtype=np.float32)
        batch.contributions(given, device, device + 1, flat, clip_norm=1.0, metrics=metrics, share=share)
        expected += longer.quantise(flat[0], WordStream(key, Purpose.ROUNDING))
    np.testing.assert_array_equal(quantised_sum(given, KEYS, longer, metrics, share), expected)


def test_updates_on_single_rows_are_the_sum_of_their_parts():
    given = updates(1.0)
    assert given.further is not None
    both = [given.further, given.further]
    expected = Updates(np.zeros_like(given.errors), np.zeros_like(given.vectors), RowValues.joined(both))
    found, active = SparseUpdates.of(both, NUM_ITEMS), np.random.default_rng(4).random(NUM_ITEMS) < 0.3
    np.testing.assert_array_equal(found.dense(0, DEVICES), expected.dense(0, DEVICES))
    np.testing.assert_array_equal(found.dense(3, 5), expected.dense(3, 5))
    np.testing.assert_array_equal(found.on_rows(active).dense(0, DEVICES), expected.on_rows(active).dense(0, DEVICES))
    some = np.array([5, 2, 0])
    np.testing.assert_array_equal(found.select(some).dense(0, 3), expected.select(some).dense(0, 3))
    assert all((np.diff(found.rows.of(device)) > 0).all() for device in range(DEVICES))


@pytest.mark.parametrize("zeros", [0.0, 0.5, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("further", [False, True])
def test_of_updates_with_zeros_in_their_factors_too(zeros: float, further: bool):
    given = updates(100.0)
    given.errors[np.random.default_rng(3).random(given.errors.shape) < zeros] = 0.0
    given.vectors[5:8] = 0.0
    whole = given if further else Updates(given.errors, given.vectors)
    counts = np.count_nonzero(whole.dense(0, DEVICES), axis=(1, 2))
    assert (whole.fewest_values <= counts).all()
    np.testing.assert_array_equal(quantised_sum(whole, KEYS, quantiser()), one_by_one(whole))


def test_an_update_is_its_rank_one_part_plus_its_rows():
    given = updates(1.0)
    for device in range(DEVICES):
        expected = np.outer(given.errors[device], given.vectors[device])
        further = given.further.select(np.array([device]))
        np.add.at(expected, further.rows.items, further.values)
        np.testing.assert_allclose(given.dense(device, device + 1)[0], expected.T, rtol=1e-5, atol=1e-6)


def test_updates_on_some_rows_are_the_same_updates_without_the_others():
    given, active = updates(1.0), np.random.default_rng(4).random(NUM_ITEMS) < 0.3
    whole, part = given.dense(0, DEVICES), given.on_rows(active).dense(0, DEVICES)
    assert part.shape == (DEVICES, DIM, active.sum())
    np.testing.assert_array_equal(part, whole[:, :, active])
    np.testing.assert_array_equal(given.on_rows(np.ones(NUM_ITEMS, dtype=bool)).dense(0, DEVICES), whole)


def test_a_device_that_has_to_round_again_gets_the_same_words(monkeypatch: pytest.MonkeyPatch):
    attempts: list[bool] = []
    fits = Quantiser.fits

    def refuse_now_and_then(self: Quantiser, integers: np.ndarray) -> np.ndarray:
        decided = integers.sum(axis=1) % 3 > 0
        attempts.extend(decided)
        return decided & fits(self, integers)

    monkeypatch.setattr(Quantiser, "fits", refuse_now_and_then)
    np.testing.assert_array_equal(quantised_sum(updates(0.05), KEYS, quantiser()), one_by_one(updates(0.05)))
    assert not all(attempts)


def test_a_sparse_device_that_has_to_round_again_gets_the_same_words(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Quantiser, "target", property(lambda self: 1.002 * self.sensitivity))
    once, fits = batch.quantise_sparse, list[bool]()

    def watched(*given):
        integers, kept = once(*given)
        fits.extend(kept)
        return integers, kept

    monkeypatch.setattr(batch, "quantise_sparse", watched)
    given = sparse_updates(100.0)
    np.testing.assert_array_equal(quantised_sum(given, KEYS, quantiser(64)), one_by_one(given, 64))
    assert 0 < sum(fits) < len(fits)


def test_partial_sums_are_flushed_before_float32_would_round(monkeypatch: pytest.MonkeyPatch):
    flushed = quantised_sum(updates(0.05), KEYS, quantiser())
    monkeypatch.setattr(batch, "_EXACT_FLOAT32", 5 * SENSITIVITY)
    assert len(KEYS) > 5
    np.testing.assert_array_equal(quantised_sum(updates(0.05), KEYS, quantiser()), flushed)
    monkeypatch.setattr(batch, "_EXACT_FLOAT32", SENSITIVITY)
    np.testing.assert_array_equal(quantised_sum(updates(0.05), KEYS, quantiser()), flushed)


@pytest.mark.parametrize("devices_per_group", [1, 5, 100])
def test_the_size_of_groups_changes_nothing(devices_per_group: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batch, "_VALUES_PER_GROUP", devices_per_group * quantiser().size)
    np.testing.assert_array_equal(quantised_sum(updates(0.05), KEYS, quantiser()), one_by_one(updates(0.05)))


def test_many_full_contributions_on_one_value_sum_up_exactly():
    devices, sensitivity = 600, 1 << 16
    full = Updates(np.full((devices, 1), 1.0, np.float32), np.full((devices, 1), 1.0, np.float32))
    single = Quantiser(clip_norm=1.0, sensitivity=sensitivity, size=1)
    keys = [number.to_bytes(32, "big") for number in range(devices)]
    total = quantised_sum(full, keys, single)
    expected = sum(int(single.quantise(np.ones(1, np.float32), WordStream(key, Purpose.ROUNDING))[0]) for key in keys)
    assert total.tolist() == [expected]
    assert expected > 2**24


def test_with_the_same_noise_words_the_federation_sends_what_its_devices_send():
    mechanism = IntegerMechanism(quantiser=quantiser(), share_variance=5000)
    given = updates(0.02)  # all within the clip norm, where Opacus changes nothing
    ring, total = mechanism.ring, mechanism.ring.reduce(np.zeros(NUM_ITEMS * DIM, dtype=np.int64))
    noise = np.zeros(NUM_ITEMS * DIM, dtype=np.int64)
    for device, key in enumerate(KEYS):
        contribution = given.dense(device, device + 1).reshape(-1)
        assert np.linalg.norm(contribution) < 1.0 - 1e-5
        streams = {"rounding": WordStream(key, Purpose.ROUNDING), "noise": WordStream(key, Purpose.NOISE)}
        total = ring.add(total, release(contribution, mechanism, **streams))
        noise += mechanism.noise(WordStream(key, Purpose.NOISE))
    np.testing.assert_array_equal(ring.reduce(quantised_sum(given, KEYS, quantiser()) + noise), total)


def test_one_draw_for_all_shares_has_the_distribution_of_their_sum():
    mechanism = IntegerMechanism(
        quantiser=Quantiser(clip_norm=1.0, sensitivity=1 << 12, size=20_000), share_variance=5000
    )
    zeros = np.zeros(20_000, dtype=np.int64)
    drawn = mechanism.ring.centre(release_sum(zeros, DEVICES, mechanism, WordStream(bytes(32), Purpose.NOISE)))
    summed = sum(mechanism.noise(WordStream(key, Purpose.NOISE)) for key in KEYS[1:]) + mechanism.noise(
        WordStream(bytes([7] * 32), Purpose.NOISE)
    )
    assert drawn.var() == pytest.approx(DEVICES * 5000, rel=5 * math.sqrt(2 / 20_000))
    assert stats.ks_2samp(drawn, summed).pvalue > 1e-4


def test_a_round_without_devices_adds_no_noise():
    mechanism = IntegerMechanism(quantiser=quantiser(), share_variance=5000)
    nothing = np.zeros(NUM_ITEMS * DIM, dtype=np.int64)
    assert not release_sum(nothing, 0, mechanism, WordStream(bytes(32), Purpose.NOISE)).any()


@pytest.mark.parametrize("block", ["errors", "vectors", "values"])
def test_an_update_that_is_not_finite_is_refused(block: str):
    given = updates(0.05)
    getattr(given.further if block == "values" else given, block)[0, 0] = np.nan
    with pytest.raises(PrivacyError, match="not finite"):
        quantised_sum(given, KEYS, quantiser())


@pytest.mark.parametrize("device", [2, 10])
def test_a_sparse_update_that_is_not_finite_is_refused(device: int):
    given = sparse_updates(0.05)
    given.values[given.rows.indptr[device], 0] = np.inf
    with pytest.raises(PrivacyError, match="not finite"):
        quantised_sum(given, KEYS, quantiser())


def test_a_missing_key_or_another_table_is_refused():
    with pytest.raises(PrivacyError, match="with 11 keys"):
        quantised_sum(updates(0.05), KEYS[1:], quantiser())
    other = Quantiser(clip_norm=1.0, sensitivity=SENSITIVITY, size=NUM_ITEMS)
    with pytest.raises(PrivacyError, match="mechanism of 90 values"):
        quantised_sum(updates(0.05), KEYS, other)
