"""The integer mechanism for many virtual devices at once: the fast twin of `palate.privacy.integer.release`.

Each device's contribution is quantised by itself, with its own stream, exactly as on one device: the sum of integers
is the same for the same keys. What is spared is the noise: the sum of n shares is one Skellam draw with n times the
variance (closure under summation), so a round draws once and not once a device.

A contribution is laid out dimension by dimension, ``update.T.reshape(-1)``: so a rank-one update fills long rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from palate.models.arrays import Float32Array, Int64Array
from palate.models.learning.updates import DeviceUpdates
from palate.privacy.errors import PrivacyError
from palate.privacy.integer.clipping import require_finite
from palate.privacy.integer.csprng import Purpose, Words, WordStream, padded_lanes
from palate.privacy.integer.quantise import Quantiser, dithered_floor
from palate.privacy.integer.release import IntegerMechanism
from palate.privacy.integer.ring import RingArray
from palate.privacy.mechanisms.evaluation import attach

_EXACT_FLOAT32 = 1 << 24
_VALUES_PER_GROUP = 1 << 18  # devices whose contributions fit into the processor's cache go through each step together


@dataclass(frozen=True, eq=False)
class Contributions:
    """What some devices would send, before clipping: their updates, and behind them their metrics if asked for.

    Attributes
    ----------
    updates
        The devices' updates.
    metrics
        float32 [num_devices, NUM_METRICS], or None.
    share
        Part of the clip norm that carries the metrics; see `palate.privacy.mechanisms.evaluation`.
    """

    updates: DeviceUpdates
    metrics: Float32Array | None = None
    share: float = 0.0

    @property
    def size(self) -> int:
        """Values of one contribution."""
        update_size = int(self.updates.vectors.shape[1] * self.updates.errors.shape[1])
        return update_size + (0 if self.metrics is None else int(self.metrics.shape[1]))

    def flat(self, start: int, stop: int, clip_norm: float, out: Float32Array) -> Float32Array:
        """Write the contributions of devices start to stop into `out`, float32 [stop - start, size]."""
        shape = (stop - start, self.updates.vectors.shape[1], self.updates.errors.shape[1])
        update = out[:, : shape[1] * shape[2]]
        self.updates.dense(start, stop, update.reshape(shape))  # a view: rows are contiguous
        if self.metrics is not None:
            out[:, update.shape[1] :] = attach(
                update, self.metrics[start:stop], clip_norm=clip_norm, share=self.share, out=update
            )
        return out


def quantised_sum(
    contributions: DeviceUpdates | Contributions, keys: Sequence[bytes], quantiser: Quantiser
) -> Int64Array:
    """Sum of every device's quantised contribution.

    Parameters
    ----------
    contributions
        What the devices would send before clipping.
    keys
        The devices' keys of the round, 32 bytes each; only their rounding streams are used.
    quantiser
        Clip norm and sensitivity.

    Returns
    -------
    int64 [size]

    Raises
    ------
    PrivacyError
        If a contribution is not finite, the sizes disagree, or a key is missing.
    """
    given = contributions if isinstance(contributions, Contributions) else Contributions(contributions)
    updates = given.updates
    if given.size != quantiser.size or len(keys) != updates.num_devices:
        raise PrivacyError(
            f"{updates.num_devices} contributions of {given.size} values with {len(keys)} keys,"
            f" for a mechanism of {quantiser.size} values",
            hint="one key a device, and a mechanism of the plan's size",
        )
    for block in (updates.errors, updates.vectors, updates.row_values):
        require_finite(block)
    exact_devices = _EXACT_FLOAT32 // quantiser.sensitivity  # so many sums of integers float32 still holds exactly
    group = min(exact_devices, max(1, _VALUES_PER_GROUP // quantiser.size))
    dense = np.empty((group, quantiser.size), dtype=np.float32)
    lanes = np.empty((group, padded_lanes(quantiser.size)), dtype="<u2")
    integers = np.empty((group, quantiser.size), dtype=np.float32)
    total = np.zeros(quantiser.size, dtype=np.int64)
    partial, waiting = np.zeros(quantiser.size, dtype=np.float32), 0
    for start in range(0, updates.num_devices, group):
        people = keys[start : start + group]
        count = len(people)
        flat = given.flat(start, start + count, quantiser.clip_norm, dense[:count])
        for place, key in enumerate(people):
            WordStream(key, Purpose.ROUNDING).fill(lanes[place])
        rounded = dithered_floor(
            quantiser.scaled(flat, out=flat), lanes[:count, : quantiser.size], integers[:count]
        )  # fmt: skip
        for place, fits in enumerate(quantiser.fits(rounded)):
            if fits:
                partial += rounded[place]
            else:
                device = start + place
                again = given.flat(device, device + 1, quantiser.clip_norm, dense[place : place + 1]).reshape(-1)
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
    if num_devices == 0:
        return mechanism.ring.reduce(integers)
    return mechanism.ring.reduce(integers + mechanism.noise(noise, shares=num_devices))
