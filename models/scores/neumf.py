"""NeuMF: a GMF path plus an MLP path (He et al. 2017, eq. 12), each with its own user vector.

The GMF path reads whole rows, the MLP path the learned columns. Under the whole-data loss the GMF path is solved in
closed form and the MLP learns what it leaves over; its output layer starts at zero, so that an untrained head changes
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from palate.models.arrays import Float32Array, Float64Array
from palate.models.scores import perceptron
from palate.models.scores.base import A, Head, ScoreModel, Shape
from palate.models.scores.gmf import GMF


class NeuMF(ScoreModel):
    """The default: matrix factorisation with a small personal perceptron on top."""

    name = "neumf"
    objectives = frozenset({"whole", "bce"})
    residual_head = True

    @staticmethod
    def initial(shape: Shape, rng: np.random.Generator) -> dict[str, Float32Array]:
        """User vector of the GMF path, and a perceptron on the learned columns whose output layer is zero."""
        gmf, head = GMF.initial(shape, rng), perceptron.initial(shape, shape.dim, rng)
        silent = {name: np.zeros_like(head[name]) for name in ("head.out.weight", "head.out.bias")}
        return {"gmf.user.weight": gmf["user.weight"], **head, **silent}

    @staticmethod
    def batched(state: Mapping[str, A], rows: A) -> A:
        """Scores of B heads: [B, n, row_dim] to [B, n]."""
        return GMF.batched({"user.weight": state["gmf.user.weight"]}, rows) + perceptron.batched(state, rows)

    @classmethod
    def install(cls, state: dict[str, A], solution: A) -> None:
        """Write solutions [B, row_dim] of the GMF path."""
        state["gmf.user.weight"] = solution[:, None, :]

    @classmethod
    def solution(cls, state: Mapping[str, A]) -> A:
        """Read back the linear part, [B, row_dim]."""
        return state["gmf.user.weight"][:, 0]

    @classmethod
    def head_parameters(cls, state: Mapping[str, A]) -> dict[str, A]:
        """Parameters of the MLP path."""
        return perceptron.parameters(state)

    @staticmethod
    def batched_nonlinear(state: Mapping[str, A], rows: A) -> A:
        """Scores of the MLP paths of B heads: [B, n, row_dim] to [B, n]."""
        return perceptron.batched(state, rows)

    @classmethod
    def contributions(cls, head: Head, rows: Float32Array) -> Float64Array:
        """Split the perceptron's score by column, exactly."""
        return perceptron.contributions(head, rows)
