"""Damaged copies of a message: bits flipped, bytes cut, added, doubled and overwritten."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def mutations(data: bytes, count: int, *, seed: int = 7) -> Iterator[bytes]:
    """Yield `count` byte strings that are not `data`, each one to three changes away from it."""
    rng = np.random.default_rng(seed)
    made = 0
    while made < count:
        changed = bytearray(data)
        for _ in range(int(rng.integers(1, 4))):
            place = int(rng.integers(0, max(1, len(changed))))
            match int(rng.integers(0, 6)):
                case 0 | 1 if changed:
                    changed[place] ^= 1 << int(rng.integers(0, 8))
                case 2:
                    del changed[place:]
                case 3:
                    changed[place:place] = rng.bytes(int(rng.integers(1, 9)))
                case 4:
                    changed[place:place] = changed[place : place + 40]
                case _:
                    changed[place : place + 4] = b"\xff" * 4
        if bytes(changed) != data:
            made += 1
            yield bytes(changed)
