"""What a score model is: one person's head over item rows, defined once for NumPy and PyTorch.

A model says how its parameters start and how they score. The formulas use only what both kinds of arrays understand
(``@``, ``+``, `swapaxes`, indexing, `rectified`). So training differentiates the code that recommends, and a device
that only recommends does not load PyTorch. All are written for B heads at once, with a leading dimension [B].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, TypeVar

import numpy as np

from palate.models.arrays import Float32Array, Float64Array

if TYPE_CHECKING:
    from torch import Tensor

A = TypeVar("A", Float32Array, "Tensor")
"""A NumPy array or a PyTorch tensor."""

State = dict[str, "Tensor"]
"""Device state: the parameters of one head, or of B heads with a leading dimension [B]. Never leaves a device."""

Head = Mapping[str, Float32Array]
"""The parameters of one head by name, without a batch dimension, as NumPy arrays."""

_CHUNK = 65_536


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes that a head is built for."""

    fixed_dim: int
    dim: int
    hidden: int

    @property
    def row_dim(self) -> int:
        """Width of an item row ``[fixed | learned]``."""
        return self.fixed_dim + self.dim


class ScoreModel(ABC):
    """Score function of one person; the item rows are its input, not its property.

    A model is a class that is never instantiated. What it needs beyond `initial` and `batched` depends on what trains
    it: `install` and `solution` for the objective "whole", the non-linear functions for a `residual_head`.

    Attributes
    ----------
    name
        Key in the registry: a Python identifier of at most 32 characters.
    objectives
        The local objectives that can train it.
    intercept
        Whether its linear part has a constant column (closed form only).
    residual_head
        Whether a non-linear head remains to be trained after the closed form.
    through_encoder
        Whether own items learn through the code that they were pooled into too (`palate.models.learning.autoencoding`).
    serving
        Parameters of local training in which the copy that recommends differs from the one that trains.
    """

    name: ClassVar[str]
    objectives: ClassVar[frozenset[str]]
    intercept: ClassVar[bool] = False
    residual_head: ClassVar[bool] = False
    through_encoder: ClassVar[bool] = False
    serving: ClassVar[Mapping[str, object]] = MappingProxyType({})

    @staticmethod
    @abstractmethod
    def initial(shape: Shape, rng: np.random.Generator) -> dict[str, Float32Array]:
        """Return the parameters of a fresh head by name, without batch dimension, float32.

        `rng` is public and the same on every device, so heads start alike everywhere.
        """

    @staticmethod
    @abstractmethod
    def batched(state: Mapping[str, A], rows: A) -> A:
        """Scores of B heads on their own rows: [B, n, row_dim] to [B, n]."""

    @classmethod
    def install(cls, state: dict[str, A], solution: A) -> None:
        """Write closed-form solutions [B, row_dim (+ 1 with intercept)] into a batched state, in place."""
        raise NotImplementedError(f"{cls.name} has no closed form")

    @classmethod
    def solution(cls, state: Mapping[str, A]) -> A:
        """Read back what `install` wrote, [B, row_dim (+ 1 with intercept)]."""
        raise NotImplementedError(f"{cls.name} has no closed form")

    @classmethod
    def head_parameters(cls, state: Mapping[str, A]) -> dict[str, A]:
        """Return the parameters that local SGD trains after the closed form; empty for linear models."""
        del state
        return {}

    @staticmethod
    def batched_nonlinear(state: Mapping[str, A], rows: A) -> A:
        """Scores of the non-linear parts of B heads, [B, n, row_dim] to [B, n]; with a residual head only.

        Training may leave out the fixed columns of the rows: a residual head reads the learned ones, from the end.
        """
        raise NotImplementedError("only models with a residual head have a non-linear part")

    @classmethod
    def contributions(cls, head: Head, rows: Float32Array) -> Float64Array:
        """Split what rows add to the non-linear score of an empty row by column: [n, k] to float64 [n, k].

        The columns are filled in one after the other, from the first and from the last, and each gets the mean of what
        it changed. So the parts add up to the difference of the two scores. A model may know a better split.
        """
        count, width = rows.shape
        order = np.arange(width)
        parts = np.zeros((count, width))
        for filled in (np.tri(width + 1, width, -1), np.tri(width + 1, width, -1)[:, ::-1]):  # [width + 1, width]
            steps = (rows[:, None, :] * filled).astype(np.float32).reshape(-1, width)
            scores = ResidualHead(cls, head, width).scores(steps).astype(np.float64).reshape(count, width + 1)
            at = order if filled[1, 0] else order[::-1]
            parts[:, at] += 0.5 * np.diff(scores, axis=1)
        return parts


@dataclass(frozen=True, eq=False)
class ResidualHead:
    """The trained non-linear part of one person's head, for recommending and explaining with NumPy alone.

    Attributes
    ----------
    model
        Its score model, one with a residual head.
    parameters
        Of the whole head or of its non-linear part.
    row_dim
        Width of item rows; a constant column behind them is not read.
    """

    model: type[ScoreModel]
    parameters: Head
    row_dim: int

    def scores(self, rows: Float32Array) -> Float32Array:
        """Scores of the non-linear part, float32 [n, row_dim (+ 1)] to [n]."""
        state = {name: value[None] for name, value in self.model.head_parameters(self.parameters).items()}
        scores = np.empty(len(rows), dtype=np.float32)
        for start in range(0, len(rows), _CHUNK):  # a catalogue's hidden layer at once would not fit the cache
            part = slice(start, start + _CHUNK)
            scores[part] = self.model.batched_nonlinear(state, rows[None, part, : self.row_dim])[0]
        return scores

    @property
    def empty_score(self) -> float:
        """Score of a row of zeros."""
        return float(self.scores(np.zeros((1, self.row_dim), dtype=np.float32))[0])

    def contributions(self, rows: Float32Array) -> Float64Array:
        """Split what rows add to `empty_score` by column: float32 [n, row_dim (+ 1)] to float64 of that shape."""
        parts = np.zeros(rows.shape, dtype=np.float64)
        parts[:, : self.row_dim] = self.model.contributions(self.parameters, rows[:, : self.row_dim])
        return parts


def layer(rng: np.random.Generator, outputs: int, inputs: int) -> Float32Array:
    """Weights of a fresh linear layer, uniform within ``1 / sqrt(inputs)``, float32 [outputs, inputs]."""
    bound = 1.0 / np.sqrt(inputs)
    return rng.uniform(-bound, bound, (outputs, inputs)).astype(np.float32)


def rectified(values: A) -> A:
    """Set negative values to 0."""
    return np.maximum(values, np.float32(0.0)) if isinstance(values, np.ndarray) else values.relu()


def joined(left: A, right: A) -> A:
    """Join two arrays along their last axis."""
    if isinstance(left, np.ndarray):
        return np.concatenate([left, right], axis=-1)
    import torch  # loaded already: these are its tensors

    return torch.cat([left, right], dim=-1)
