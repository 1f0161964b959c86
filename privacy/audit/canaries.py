"""Canaries: invented people whose contributions are random directions (Andrew et al. 2023, arXiv:2302.03098).

In d dimensions two random directions have a cosine of about 1/sqrt(d), so a thousand canaries can be looked for in one
release, each as if it were the only one. A fair coin decides for each whether it takes part; the attack guesses which
did.

Directions and coins come from a numpy generator. Mechanisms take their randomness from word streams
(`palate.privacy.integer.csprng`), so the two cannot be the same source.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from palate.models.arrays import BoolArray, Float32Array
from palate.privacy.errors import PrivacyError

MIN_CANARIES = 20
"""With fewer, one side may be too small to measure its spread."""

_MAX_VALUES = 1 << 28  # a gibibyte of directions


@dataclass(frozen=True, eq=False)
class Canaries:
    """Canaries of one game.

    Attributes
    ----------
    directions
        Unit vectors, float32 [num_canaries, num_values].
    included
        Whether each canary takes part, bool [num_canaries].
    """

    directions: Float32Array
    included: BoolArray

    @property
    def crowding(self) -> float:
        """Canaries a dimension: how far their scores are from independent."""
        people, num_values = self.directions.shape
        return float(people / num_values)


def draw_canaries(rng: np.random.Generator, count: int, num_values: int) -> Canaries:
    """Draw directions uniformly from the sphere, and a fair coin for each.

    Parameters
    ----------
    rng
        Of the auditor, never of the mechanism.
    count
        Number of canaries.
    num_values
        Dimensions of a contribution; at least `count`, so that directions can be distinguished.

    Raises
    ------
    PrivacyError
        If there are too few canaries, more than dimensions, or more values than memory is meant to hold.
    """
    if count < MIN_CANARIES:
        raise PrivacyError(
            f"{count} canaries are fewer than {MIN_CANARIES}", hint="use hundreds; intervals shrink with their root"
        )
    if count > num_values:
        raise PrivacyError(
            f"{count} canaries do not fit into {num_values} dimensions: their directions would overlap",
            hint="use fewer canaries, or longer contributions",
        )
    if count * num_values > _MAX_VALUES:
        raise PrivacyError(
            f"{count} canaries of {num_values} values are more than {_MAX_VALUES} values",
            hint="use fewer canaries and more repeats, or shorter contributions",
        )
    directions = rng.standard_normal((count, num_values), dtype=np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return Canaries(directions=directions, included=rng.random(count) < 0.5)
