"""Counter-based sampling: every draw of local training is a pure function of (key, counter).

A device's draws depend only on its own key, never on other devices. So a device draws the same negatives alone and
among thousands, in any order of work. Keys are 64-bit: a real device takes a fresh one from the operating system for
every round, the simulation derives them from its seed.

The mixing function is SplitMix64's finaliser (Steele, Lea & Flood 2014). It samples training data; it is not
cryptographic and must never make privacy noise.
"""

from __future__ import annotations

import numpy as np

from palate.models.arrays import Int32Array, IntegerArray, UInt64Array

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)


def mix(keys: UInt64Array, counters: IntegerArray) -> UInt64Array:
    """Hash keys with counters; both broadcast. uint64 in, uint64 out."""
    with np.errstate(over="ignore"):
        z = keys + (counters.astype(np.uint64) + np.uint64(1)) * _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * _MIX1
        z = (z ^ (z >> np.uint64(27))) * _MIX2
        mixed: UInt64Array = z ^ (z >> np.uint64(31))
        return mixed


def stream(keys: UInt64Array, purpose: int) -> UInt64Array:
    """Derive an independent key for a purpose (epoch, step, ...)."""
    return mix(keys ^ _MIX1, np.asarray(purpose))


def draw_items(keys: UInt64Array, counters: IntegerArray, num_items: int) -> Int32Array:
    """Draw items uniformly from the whole public catalogue.

    From the whole catalogue, never from "items without an interaction": a sampler that avoids held-out items tells
    the model which they are, and a sampler that avoids positives makes the draw depend on private data.
    The bias of the multiply-shift method is below num_items / 2**32.
    """
    high = mix(keys, counters) >> np.uint64(32)
    return ((high * np.uint64(num_items)) >> np.uint64(32)).astype(np.int32)
