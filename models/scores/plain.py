"""Heads as plain arrays: the same scores as `models/scores/`, without PyTorch, and split over the columns of a row.

A device that only recommends need not wait for PyTorch to load. A perceptron with one hidden layer of rectifiers is
split exactly: the path integral of its gradient from the empty row to the row (integrated gradients, Sundararajan,
Taly & Yan 2017) has the closed form of DeepLIFT's rescale rule (Shrikumar, Greenside & Kundaje 2017), and its parts
add up to the difference of the two scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from palate.errors import ConfigError
from palate.models.arrays import Float32Array, Float64Array

Arrays = Mapping[str, Float32Array]
"""One head's parameters by name, as in `ScoreModel.state_dict`, without a batch dimension."""

_CHUNK = 65_536


@dataclass(frozen=True, eq=False)
class Perceptron:
    """NCF's two-layer perceptron for one person; its user block is a constant by now.

    Attributes
    ----------
    own
        What the user embedding and the bias give each hidden unit, [hidden].
    weight
        From the last `width` columns of a row to the hidden units, [hidden, width].
    out
        From the hidden units to the score, [hidden].
    bias
        Of the score.
    """

    own: Float32Array
    weight: Float32Array
    out: Float32Array
    bias: float

    @property
    def width(self) -> int:
        """Columns of a row that it reads, counted from the last."""
        return int(self.weight.shape[1])

    def scores(self, rows: Float32Array) -> Float32Array:
        """Scores of rows, float32 [n, k] to [n]."""
        scores = np.empty(len(rows), dtype=np.float32)
        for start in range(0, len(rows), _CHUNK):  # a catalogue's hidden layer at once would not fit the cache
            part = slice(start, start + _CHUNK)
            hidden = np.maximum(rows[part, rows.shape[1] - self.width :] @ self.weight.T + self.own, 0.0)
            scores[part] = hidden @ self.out + self.bias
        return scores

    @property
    def empty_score(self) -> float:
        """Score of a row of zeros."""
        return float(np.maximum(self.own.astype(np.float64), 0.0) @ self.out + self.bias)

    def contributions(self, rows: Float32Array) -> Float64Array:
        """Split what rows add to `empty_score` by column, float32 [n, k] to float64 [n, k]; unread ones add 0."""
        read = rows[:, rows.shape[1] - self.width :].astype(np.float64)
        own = self.own.astype(np.float64)
        change = read @ self.weight.T  # [n, hidden]
        gain = np.maximum(own + change, 0.0) - np.maximum(own, 0.0)
        still = change == 0.0
        slope = np.where(still, 0.0, gain / np.where(still, 1.0, change))  # mean slope along the way, in [0, 1]
        parts = np.zeros(rows.shape, dtype=np.float64)
        parts[:, rows.shape[1] - self.width :] = ((slope * self.out) @ self.weight) * read
        return parts


@dataclass(frozen=True, eq=False)
class PlainHead:
    """One person's head, read from its state.

    Attributes
    ----------
    linear
        Weights of the row's columns, and of the constant column where the model has an intercept; float32
        [row_dim (+ 1)], None where the model has no linear part.
    perceptron
        The non-linear part, None where the model has none.
    """

    linear: Float32Array | None
    perceptron: Perceptron | None


def plain_head(model: str, state: Arrays) -> PlainHead:
    """Read a head's state.

    Raises
    ------
    ConfigError
        If the model has no plain form.
    """
    if model not in _PLAIN:
        raise ConfigError(f"model {model!r} has no plain form", hint=f"use one of {', '.join(sorted(_PLAIN))}")
    return _PLAIN[model](state)


def has_intercept(model: str) -> bool:
    """Whether the model's linear part has a constant column."""
    return model == "linear"


def _gmf(state: Arrays) -> PlainHead:
    return PlainHead(state["user.weight"][0], None)


def _linear(state: Arrays) -> PlainHead:
    return PlainHead(np.concatenate([state["out.weight"][0], state["out.bias"]]), None)


def _perceptron(state: Arrays) -> Perceptron:
    own = state["head.from_user.weight"] @ state["head.user.weight"][0] + state["head.from_user.bias"]
    return Perceptron(
        own, state["head.from_item.weight"], state["head.out.weight"][0], float(state["head.out.bias"][0])
    )


def _mlp(state: Arrays) -> PlainHead:
    return PlainHead(None, _perceptron(state))


def _neumf(state: Arrays) -> PlainHead:
    return PlainHead(state["gmf.user.weight"][0], _perceptron(state))


_PLAIN: dict[str, Callable[[Arrays], PlainHead]] = {
    "gmf": _gmf,
    "linear": _linear,
    "mlp": _mlp,
    "neumf": _neumf,
    "autoencoder": _gmf,
    "sequential": _gmf,
}
