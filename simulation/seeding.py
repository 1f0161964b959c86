"""The simulation's seeded randomness. Device and server code cannot import this module; a test checks it.

On a real device a key comes from the operating system. Here it is a function of the seed, the round and the
person, so that a run repeats exactly and its draws are the same whatever the number of shards. Nothing here makes
noise: that comes from a secret (`palate.simulation.noise_keys`).
"""

from __future__ import annotations

import threading
from functools import lru_cache

import numpy as np

from palate.models.arrays import BoolArray, IntegerArray, UInt64Array
from palate.models.sampling import mix

_DEVICES, _PARTICIPATION, _TABLE, _DROPOUT = range(4)


def device_keys(seed: int, server_round: int, users: IntegerArray) -> UInt64Array:
    """Keys of some virtual devices for one round, uint64 [len(users)]."""
    return mix(mix(_root(seed, _DEVICES), np.asarray(server_round)), users)


def participants(seed: int, server_round: int, num_users: int, cohort: int, *, cap: int | None = None) -> BoolArray:
    """Which virtual devices take part in a round: a cohort of fixed size, drawn anew in every round.

    Parameters
    ----------
    num_users, cohort
        Devices in the federation, and those drawn.
    cap
        Most training rounds in which one device takes part; those who have reached it are not drawn.

    Returns
    -------
    bool [num_users], with `cohort` of them True; fewer if the cap leaves fewer.
    """
    if cap is None or server_round == 0:
        return _cohort(seed, server_round, np.ones(num_users, dtype=bool), cohort)
    return _capped(seed, num_users, cohort, cap).of_round(server_round)


def _cohort(seed: int, server_round: int, eligible: BoolArray, cohort: int) -> BoolArray:
    draws = mix(mix(_root(seed, _PARTICIPATION), np.asarray(server_round)), np.arange(len(eligible)))
    draws[~eligible] = np.iinfo(np.uint64).max
    chosen = np.zeros(len(eligible), dtype=bool)
    chosen[np.argsort(draws, kind="stable")[:cohort]] = True
    return chosen & eligible


class _CappedCohorts:
    """Cohorts of all rounds so far: who is eligible depends on those before."""

    def __init__(self, seed: int, num_users: int, cohort: int, cap: int) -> None:
        self._seed, self._cohort, self._cap = seed, cohort, cap
        self._taken = np.zeros(num_users, dtype=np.int64)
        self._rounds: list[BoolArray] = []
        self._lock = threading.Lock()  # nodes are threads

    def of_round(self, server_round: int) -> BoolArray:
        """Who takes part in a training round, bool [num_users]."""
        with self._lock:
            while len(self._rounds) < server_round:
                chosen = _cohort(self._seed, len(self._rounds) + 1, self._taken < self._cap, self._cohort)
                self._taken += chosen
                self._rounds.append(chosen)
            return self._rounds[server_round - 1].copy()


_capped = lru_cache(maxsize=4)(_CappedCohorts)


def survivors(seed: int, server_round: int, taking_part: BoolArray, dropouts: int) -> BoolArray:
    """Who of a cohort does not drop out of a round, bool [num_users]; `dropouts` of them do."""
    draws = mix(mix(_root(seed, _DROPOUT), np.asarray(server_round)), np.arange(len(taking_part)))
    draws[~taking_part] = np.iinfo(np.uint64).max
    surviving = taking_part.copy()
    surviving[np.argsort(draws, kind="stable")[:dropouts]] = False
    return surviving


def table_rng(seed: int) -> np.random.Generator:
    """Make the generator of the item table's public starting point."""
    return np.random.Generator(np.random.PCG64([seed, _TABLE]))


def _root(seed: int, purpose: int) -> UInt64Array:
    return mix(np.full(1, seed, dtype=np.uint64), np.asarray(purpose))
