"""MLP: a two-layer perceptron on [user embedding | item row] (He et al. 2017, eq. 10)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from palate.models.arrays import Float32Array
from palate.models.scores import perceptron
from palate.models.scores.base import A, ScoreModel, Shape


class MLP(ScoreModel):
    """NCF's MLP: with dim 32, hidden 32 and no fixed columns it is 64-32-1."""

    name = "mlp"
    objectives = frozenset({"bce"})

    @staticmethod
    def initial(shape: Shape, rng: np.random.Generator) -> dict[str, Float32Array]:
        """Return a perceptron's parameters; it reads whole rows."""
        return perceptron.initial(shape, shape.row_dim, rng)

    @staticmethod
    def batched(state: Mapping[str, A], rows: A) -> A:
        """Scores of B heads: [B, n, row_dim] to [B, n]."""
        return perceptron.batched(state, rows)
