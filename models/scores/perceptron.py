"""NCF's two-layer perceptron on [user embedding | item columns] (He et al. 2017, eq. 10), as a part of score models.

The first layer is kept as its two blocks: the user's block is constant for one person and is computed once. It reads
as many columns of a row as its weights are wide, counted from the last.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from palate.models.arrays import Float32Array, Float64Array
from palate.models.scores.base import A, Head, Shape, rectified

PREFIX = "head."
"""Of the names of its parameters."""


def initial(shape: Shape, width: int, rng: np.random.Generator) -> dict[str, Float32Array]:
    """Parameters of a fresh perceptron that reads the last `width` columns, as PyTorch starts such layers."""
    return {
        "head.user.weight": rng.normal(0.0, 1.0, (1, shape.dim)).astype(np.float32),
        "head.from_user.weight": layer(rng, shape.hidden, shape.dim),
        "head.from_user.bias": layer(rng, shape.hidden, shape.dim)[:, 0],
        "head.from_item.weight": layer(rng, shape.hidden, width),
        "head.out.weight": layer(rng, 1, shape.hidden),
        "head.out.bias": layer(rng, 1, shape.hidden)[:, 0],
    }


def layer(rng: np.random.Generator, outputs: int, inputs: int) -> Float32Array:
    """Weights of a linear layer, uniform within ``1 / sqrt(inputs)``, float32 [outputs, inputs]."""
    bound = 1.0 / np.sqrt(inputs)
    return rng.uniform(-bound, bound, (outputs, inputs)).astype(np.float32)


def batched(state: Mapping[str, A], rows: A) -> A:
    """Scores of B perceptrons: [B, n, k] to [B, n]."""
    user, out = state["head.user.weight"], state["head.out.weight"]
    from_user, from_item = state["head.from_user.weight"], state["head.from_item.weight"]
    own = user @ from_user.swapaxes(1, 2) + state["head.from_user.bias"][:, None]  # [B, 1, hidden]
    read = rows[:, :, rows.shape[2] - from_item.shape[2] :]
    hidden = rectified(read @ from_item.swapaxes(1, 2) + own)  # [B, n, hidden]
    return (hidden @ out.swapaxes(1, 2)).squeeze(-1) + state["head.out.bias"]


def parameters(state: Mapping[str, A]) -> dict[str, A]:
    """Return what of a state is the perceptron's."""
    return {name: value for name, value in state.items() if name.startswith(PREFIX)}


def contributions(head: Head, rows: Float32Array) -> Float64Array:
    """Split what rows add to the score of an empty row by column, exactly: float32 [n, k] to float64 [n, k].

    The path integral of the gradient from the empty row to the row (integrated gradients, Sundararajan, Taly & Yan
    2017) has the closed form of DeepLIFT's rescale rule (Shrikumar, Greenside & Kundaje 2017) for one hidden layer of
    rectifiers. Columns that are not read add 0.
    """
    weight, out = head["head.from_item.weight"], head["head.out.weight"][0]
    own = (head["head.from_user.weight"] @ head["head.user.weight"][0] + head["head.from_user.bias"]).astype(np.float64)
    first = rows.shape[1] - weight.shape[1]
    read = rows[:, first:].astype(np.float64)
    change = read @ weight.T  # [n, hidden]
    gain = np.maximum(own + change, 0.0) - np.maximum(own, 0.0)
    still = change == 0.0
    slope = np.where(still, 0.0, gain / np.where(still, 1.0, change))  # mean slope along the way, in [0, 1]
    parts = np.zeros(rows.shape, dtype=np.float64)
    parts[:, first:] = ((slope * out) @ weight) * read
    return parts
