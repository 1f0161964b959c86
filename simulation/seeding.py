"""The simulation's seeded randomness. Device and server code cannot import this module; a test sees to it.

On a real device a key comes from the operating system. Here it is a function of the seed, the round and the
person, so that a run repeats exactly and its draws are the same whatever the number of shards.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from palate.models.sampling import Keys, mix

_DEVICES, _PARTICIPATION, _TABLE = range(3)


def device_keys(seed: int, server_round: int, users: npt.NDArray[np.integer]) -> Keys:
    """Keys of some virtual devices for one round, uint64 [len(users)]."""
    return mix(mix(_root(seed, _DEVICES), np.asarray(server_round)), users)


def participants(
    seed: int, server_round: int, users: npt.NDArray[np.integer], fraction: float
) -> npt.NDArray[np.bool_]:
    """Which virtual devices take part in a round: each with probability `fraction`, independently."""
    if fraction >= 1.0:
        return np.ones(len(users), dtype=bool)
    draws = mix(mix(_root(seed, _PARTICIPATION), np.asarray(server_round)), users)
    return draws < np.uint64(fraction * 2.0**64)


def table_rng(seed: int) -> np.random.Generator:
    """Make the generator of the item table's public starting point."""
    return np.random.Generator(np.random.PCG64([seed, _TABLE]))


def _root(seed: int, purpose: int) -> Keys:
    return mix(np.full(1, seed, dtype=np.uint64), np.asarray(purpose))
