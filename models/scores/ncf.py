"""NCF's three models: GMF, MLP and the sum of both, NeuMF (He et al. 2017, eq. 9, 10 and 12).

GMF is the inner product of user vector and item row. Output weights would be redundant: on a device they are as
personal as the user vector and multiply it. MLP is a perceptron on [user embedding | item row] whose first layer is
kept as its two blocks: the user's block is constant for one person and is computed once.

NeuMF's GMF path reads whole rows, its MLP path the learned columns, each with its own user vector. Under the whole-data
loss the GMF path is solved in closed form and the MLP learns what it leaves over; its output layer starts at zero, so
that an untrained head changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from palate.models.arrays import Float32Array, Float64Array
from palate.models.scores.base import A, Head, ScoreModel, Shape, layer, rectified

_PERCEPTRON = "head."
"""Begins the names of a perceptron's parameters."""


class GMF(ScoreModel):
    """Matrix factorisation with popularity and content columns; closed form under the whole-data loss.

    Attributes
    ----------
    user
        Name of the user vector, [1, row_dim].
    """

    name = "gmf"
    objectives = frozenset({"whole", "bce"})
    user: ClassVar[str] = "user.weight"

    @classmethod
    def initial(cls, shape: Shape, rng: np.random.Generator) -> dict[str, Float32Array]:
        """User vector, [1, row_dim]."""
        return {cls.user: rng.normal(0.0, 0.1, (1, shape.row_dim)).astype(np.float32)}

    @classmethod
    def batched(cls, state: Mapping[str, A], rows: A) -> A:
        """Scores of B heads: [B, n, row_dim] to [B, n]."""
        return (rows @ state[cls.user].swapaxes(1, 2)).squeeze(-1)

    @classmethod
    def install(cls, state: dict[str, A], solution: A) -> None:
        """Write solutions [B, row_dim]."""
        state[cls.user] = solution[:, None, :]

    @classmethod
    def solution(cls, state: Mapping[str, A]) -> A:
        """Read back the linear part, [B, row_dim]."""
        return state[cls.user][:, 0]


class MLP(ScoreModel):
    """NCF's MLP on whole rows: with dim 32, hidden 32 and no fixed columns it is 64-32-1."""

    name = "mlp"
    objectives = frozenset({"bce"})

    @classmethod
    def initial(cls, shape: Shape, rng: np.random.Generator) -> dict[str, Float32Array]:
        """Parameters of a fresh perceptron that reads whole rows."""
        return _perceptron(shape, shape.row_dim, rng)

    @classmethod
    def batched(cls, state: Mapping[str, A], rows: A) -> A:
        """Scores of B heads: [B, n, row_dim] to [B, n]; the last columns are read, as many as the weights are wide."""
        user, out = state["head.user.weight"], state["head.out.weight"]
        from_user, from_item = state["head.from_user.weight"], state["head.from_item.weight"]
        own = user @ from_user.swapaxes(1, 2) + state["head.from_user.bias"][:, None]  # [B, 1, hidden]
        read = rows[:, :, rows.shape[2] - from_item.shape[2] :]
        hidden = rectified(read @ from_item.swapaxes(1, 2) + own)  # [B, n, hidden]
        return (hidden @ out.swapaxes(1, 2)).squeeze(-1) + state["head.out.bias"]


class NeuMF(GMF):
    """The default: matrix factorisation with a small personal perceptron on top."""

    name = "neumf"
    residual_head = True
    user = "gmf.user.weight"

    @classmethod
    def initial(cls, shape: Shape, rng: np.random.Generator) -> dict[str, Float32Array]:
        """User vector of the GMF path, and a perceptron on the learned columns whose output layer is zero."""
        gmf, head = super().initial(shape, rng), _perceptron(shape, shape.dim, rng)
        silent = {name: np.zeros_like(head[name]) for name in ("head.out.weight", "head.out.bias")}
        return {**gmf, **head, **silent}

    @classmethod
    def batched(cls, state: Mapping[str, A], rows: A) -> A:
        """Scores of B heads: [B, n, row_dim] to [B, n]."""
        return super().batched(state, rows) + MLP.batched(state, rows)

    @classmethod
    def head_parameters(cls, state: Mapping[str, A]) -> dict[str, A]:
        """Parameters of the MLP path."""
        return {name: value for name, value in state.items() if name.startswith(_PERCEPTRON)}

    @classmethod
    def batched_nonlinear(cls, state: Mapping[str, A], rows: A) -> A:
        """Scores of the MLP paths of B heads: [B, n, row_dim] to [B, n]."""
        return MLP.batched(state, rows)

    @classmethod
    def contributions(cls, head: Head, rows: Float32Array) -> Float64Array:
        """Split what rows add to the perceptron's score of an empty row by column, exactly: float64 [n, k].

        The path integral of the gradient from the empty row to the row (integrated gradients, Sundararajan, Taly & Yan
        2017) has the closed form of DeepLIFT's rescale rule (Shrikumar, Greenside & Kundaje 2017) for one hidden layer
        of rectifiers. Columns that are not read add 0.
        """
        weight, out = head["head.from_item.weight"], head["head.out.weight"][0]
        own = head["head.from_user.weight"] @ head["head.user.weight"][0] + head["head.from_user.bias"]
        base = own.astype(np.float64)
        first = rows.shape[1] - weight.shape[1]
        read = rows[:, first:].astype(np.float64)
        change = read @ weight.T  # [n, hidden]
        gain = np.maximum(base + change, 0.0) - np.maximum(base, 0.0)
        still = change == 0.0
        slope = np.where(still, 0.0, gain / np.where(still, 1.0, change))  # mean slope along the way, in [0, 1]
        parts = np.zeros(rows.shape, dtype=np.float64)
        parts[:, first:] = ((slope * out) @ weight) * read
        return parts


def _perceptron(shape: Shape, width: int, rng: np.random.Generator) -> dict[str, Float32Array]:
    """Parameters of a fresh perceptron that reads the last `width` columns, as PyTorch starts such layers."""
    return {
        "head.user.weight": rng.normal(0.0, 1.0, (1, shape.dim)).astype(np.float32),
        "head.from_user.weight": layer(rng, shape.hidden, shape.dim),
        "head.from_user.bias": layer(rng, shape.hidden, shape.dim)[:, 0],
        "head.from_item.weight": layer(rng, shape.hidden, width),
        "head.out.weight": layer(rng, 1, shape.hidden),
        "head.out.bias": layer(rng, 1, shape.hidden)[:, 0],
    }
