"""What leaves devices at unit user: whole contributions, quantised one by one, and noise. For one device or thousands.

Each device's contribution is quantised by itself, under its own key, so the sum of integers is the same however many
are worked on together. What a shard spares is noise: the sum of n shares is one Skellam draw with n times the variance
(closure under summation). A device clips and draws its noise inside Opacus (`palate.client.opacus_release`); a test
holds both to the same integers.

A contribution is laid out dimension by dimension, ``update.T.reshape(-1)``: so a rank-one update fills long rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from palate.models.arrays import BoolArray, Float32Array, Int32Array, Int64Array, UInt64Array
from palate.models.histories import Histories
from palate.models.learning.kernel import PEOPLE_PER_CHUNK, scorer_of
from palate.models.learning.updates import SparseUpdates, Updates
from palate.models.metrics import hit_rate, ndcg, ranks_sampled
from palate.models.sampling import draw_items, stream
from palate.models.scores.base import State
from palate.models.table import ItemTable
from palate.models.training import LocalTraining
from palate.privacy.errors import PrivacyError
from palate.privacy.integer.csprng import Purpose, Words, WordStream, padded_lanes
from palate.privacy.integer.quantise import (
    MOSTLY_ZEROS,
    IntegerMechanism,
    Quantiser,
    dithered_floor,
    require_finite,
)
from palate.privacy.integer.ring import RingArray
from palate.privacy.integer.sparse import SparseVectors, quantise_sparse
from palate.privacy.mechanisms.evaluation import attach, attach_sparse
from palate.privacy.wire import NUM_METRICS

NUM_NEGATIVES = 99
TOP_K = 10

_EVALUATION_STREAM = 1 << 20  # far above the epochs of local training, which number their streams from 0
_EXACT_FLOAT32 = 1 << 24
_VALUES_PER_GROUP = 1 << 18  # devices whose contributions fit into the processor's cache go through each step together
_SPARSE_VALUES_PER_GROUP = 1 << 16


def contributions(
    updates: Updates | SparseUpdates,
    start: int,
    stop: int,
    out: Float32Array,
    *,
    clip_norm: float,
    metrics: Float32Array | None = None,
    share: float = 0.0,
    full: bool = False,
) -> Float32Array:
    """Write what devices start to stop would send before clipping into `out`, float32 [stop - start, size].

    `metrics`, float32 [num_devices, NUM_METRICS], go behind the updates, with a `share` of the clip norm
    (`palate.privacy.mechanisms.evaluation`). `full` says that no update is mostly zeros.
    """
    update = out[:, : updates.size]
    updates.dense(start, stop, update.reshape(stop - start, updates.dim, updates.num_items))  # a view
    if metrics is not None:
        own = metrics[start:stop]
        out[:, updates.size :] = attach(update, own, clip_norm=clip_norm, share=share, out=update, full=full)
    return out


def quantised_sum(
    updates: Updates | SparseUpdates,
    keys: Sequence[bytes],
    quantiser: Quantiser,
    metrics: Float32Array | None = None,
    share: float = 0.0,
) -> Int64Array:
    """Sum of every device's quantised contribution.

    Parameters
    ----------
    updates
        The devices' updates, before clipping.
    keys
        The devices' keys of the round, 32 bytes each; only their rounding streams are used.
    quantiser
        Clip norm and sensitivity.
    metrics, share
        As for `contributions`.

    Returns
    -------
    int64 [size]

    Raises
    ------
    PrivacyError
        If a contribution is not finite, the sizes disagree, or a key is missing.
    """
    size = updates.size + (0 if metrics is None else NUM_METRICS)
    if size != quantiser.size or len(keys) != updates.num_devices:
        raise PrivacyError(
            f"{updates.num_devices} contributions of {size} values with {len(keys)} keys,"
            f" for a mechanism of {quantiser.size} values",
            hint="one key a device, and a mechanism of the plan's size",
        )
    if isinstance(updates, Updates):
        return _dense_sum(updates, keys, quantiser, metrics, share)
    mostly_zeros = MOSTLY_ZEROS * (updates.dim * updates.rows.lengths + NUM_METRICS) < updates.size  # [num_devices]
    total = np.zeros(size, dtype=np.int64)
    for devices, summed in ((np.flatnonzero(mostly_zeros), _sparse_sum), (np.flatnonzero(~mostly_zeros), _dense_sum)):
        if len(devices):
            chosen = [keys[device] for device in devices.tolist()]
            own = None if metrics is None else metrics[devices]
            total += summed(updates.select(devices), chosen, quantiser, own, share)
    return total


def _sparse_sum(
    updates: SparseUpdates,
    keys: Sequence[bytes],
    quantiser: Quantiser,
    metrics: Float32Array | None,
    share: float,
) -> Int64Array:
    """`quantised_sum` of devices whose contributions are mostly zeros; the integers are the same."""
    require_finite(updates.values)
    total = np.zeros(quantiser.size, dtype=np.int64)
    ends = updates.rows.indptr * updates.dim
    start = 0
    while start < updates.num_devices:
        stop = max(start + 1, int(np.searchsorted(ends, ends[start] + _SPARSE_VALUES_PER_GROUP, side="right")) - 1)
        vectors = _flat(updates, start, stop)
        if metrics is not None:
            vectors = attach_sparse(
                vectors, metrics[start:stop], updates.size, clip_norm=quantiser.clip_norm, share=share
            )
        integers, fits = quantise_sparse(vectors, keys[start:stop], quantiser)
        kept = np.repeat(fits, np.diff(integers.indptr))
        np.add.at(total, integers.places[kept], integers.values[kept].astype(np.int64))
        for device in (start + np.flatnonzero(~fits)).tolist():
            whole = np.empty((1, quantiser.size), dtype=np.float32)
            contributions(
                updates, device, device + 1, whole, clip_norm=quantiser.clip_norm, metrics=metrics, share=share
            )
            total += quantiser.quantise(whole[0], WordStream(keys[device], Purpose.ROUNDING))
        start = stop
    return total


def _flat(updates: SparseUpdates, start: int, stop: int) -> SparseVectors:
    """Lay out the updates of devices start to stop dimension by dimension."""
    own = slice(updates.rows.indptr[start], updates.rows.indptr[stop])
    indptr, lengths = updates.rows.indptr[start : stop + 1] - own.start, updates.rows.lengths[start:stop]
    owners, dim = np.repeat(np.arange(stop - start), lengths), np.arange(updates.dim)
    first = (updates.dim - 1) * indptr[owners] + np.arange(len(owners))  # where the first value of each row goes
    target = first[:, None] + lengths[owners, None] * dim  # [N, dim]
    places, values = np.empty(target.size, dtype=np.int64), np.empty(target.size, dtype=np.float32)
    places[target] = updates.rows.items[own, None] + updates.num_items * dim
    values[target] = updates.values[own]
    return SparseVectors.of(updates.dim * indptr, places, values)


def _dense_sum(
    updates: Updates | SparseUpdates,
    keys: Sequence[bytes],
    quantiser: Quantiser,
    metrics: Float32Array | None,
    share: float,
) -> Int64Array:
    """`quantised_sum` of devices whose contributions have values almost everywhere."""
    size = quantiser.size
    for block in updates.blocks:
        require_finite(block)
    exact_devices = _EXACT_FLOAT32 // quantiser.sensitivity  # so many sums of integers float32 still holds exactly
    group = min(exact_devices, max(1, _VALUES_PER_GROUP // size))
    dense, integers = np.empty((group, size), dtype=np.float32), np.empty((group, size), dtype=np.float32)
    lanes = np.empty((group, padded_lanes(size)), dtype="<u2")
    total = np.zeros(size, dtype=np.int64)
    partial, waiting = np.zeros(size, dtype=np.float32), 0
    full = isinstance(updates, Updates) and bool((MOSTLY_ZEROS * updates.fewest_values > 2 * size).all())

    def flat(start: int, stop: int, out: Float32Array) -> Float32Array:
        norm = quantiser.clip_norm
        return contributions(updates, start, stop, out, clip_norm=norm, metrics=metrics, share=share, full=full)

    for start in range(0, updates.num_devices, group):
        people = keys[start : start + group]
        count = len(people)
        values = flat(start, start + count, dense[:count])
        for place, key in enumerate(people):
            WordStream(key, Purpose.ROUNDING).fill(lanes[place])
        scaled = quantiser.scaled(values, out=values, full=full)
        rounded = dithered_floor(scaled, lanes[:count, :size], integers[:count])
        fits = quantiser.fits(rounded)
        partial += rounded.sum(axis=0) if fits.all() else rounded[fits].sum(axis=0)
        for place in np.flatnonzero(~fits).tolist():
            again = flat(start + place, start + place + 1, dense[place : place + 1]).reshape(-1)
            total += quantiser.quantise(again, WordStream(people[place], Purpose.ROUNDING))
        waiting += count
        if waiting + group > exact_devices:
            total += partial.astype(np.int64)
            partial[:], waiting = 0.0, 0
    return total + partial.astype(np.int64)


def release_sum(integers: Int64Array, num_devices: int, mechanism: IntegerMechanism, noise: Words) -> RingArray:
    """Add the noise shares of all devices to the sum of their quantised contributions, and reduce.

    Parameters
    ----------
    integers
        What `quantised_sum` gave, over all devices of the round, int64 [d].
    num_devices
        How many devices are in the sum; with none nothing is added.
    mechanism
        The devices' mechanism.
    noise
        Stream of the round's noise.

    Returns
    -------
    Ring elements [d], distributed as the sum of the devices' messages.
    """
    return mechanism.ring.reduce(integers + mechanism.noise(noise, shares=num_devices))


def metrics_of(
    table: ItemTable,
    histories: Histories,
    held_out: Int32Array,
    fitted: State,
    keys: UInt64Array,
    config: LocalTraining,
) -> Float32Array:
    """Let devices test a table on the items that they held back: the rank of each among random items.

    Negatives come from the whole public catalogue by the device's own key. Those that are in the person's history do
    not compete. So the figures are close to those of the sampled protocol (He et al. 2017), and need nobody else's
    data.

    Parameters
    ----------
    histories, held_out
        Of the devices; -1 without a held-back item, int32 [m].
    fitted
        Their heads, fitted to this table, [m, ...].
    keys
        Their sampling keys of the round, uint64 [m].

    Returns
    -------
    float32 [m, NUM_METRICS], zeros for devices without a held-back item.
    """
    metrics = np.zeros((len(held_out), NUM_METRICS), dtype=np.float32)
    able, scorer = np.flatnonzero(held_out >= 0), scorer_of(table, fitted, config)
    for start in range(0, len(able), PEOPLE_PER_CHUNK):
        people = able[start : start + PEOPLE_PER_CHUNK]
        candidates = draw_candidates(keys[people], held_out[people], table.num_items)
        own = histories.select(people)
        known = np.zeros((len(people), table.num_items), dtype=np.bool_)
        known[own.owners, own.items] = True
        known[np.arange(len(people)), held_out[people]] = True
        competing = ~np.take_along_axis(known, candidates[:, 1:], axis=1)
        metrics[people] = device_metrics(scorer.score_items(people.astype(np.int32), candidates), competing)
    return metrics


def draw_candidates(keys: UInt64Array, targets: Int32Array, num_items: int) -> Int32Array:
    """Return each person's held-back item and its negatives, int32 [n, 1 + NUM_NEGATIVES], for keys uint64 [n]."""
    counters = np.arange(NUM_NEGATIVES)[None, :]
    negatives = draw_items(stream(keys, _EVALUATION_STREAM)[:, None], counters, num_items)
    return np.concatenate([targets[:, None], negatives], axis=1).astype(np.int32)


def device_metrics(scores: Float32Array, competing: BoolArray) -> Float32Array:
    """Hit and gain of each person's held-back item, and a 1 that counts them.

    Parameters
    ----------
    scores
        Scores of the candidates, the held-back item first, float32 [n, 1 + NUM_NEGATIVES].
    competing
        Which negatives compete, bool [n, NUM_NEGATIVES].

    Returns
    -------
    float32 [n, 3]
        HR and NDCG at 10, each in [0, 1], and 1.
    """
    ranks = ranks_sampled(scores[:, 0], scores[:, 1:], competing=competing)
    ones = np.ones(len(ranks))
    return np.column_stack([hit_rate(ranks, TOP_K), ndcg(ranks, TOP_K), ones]).astype(np.float32)
