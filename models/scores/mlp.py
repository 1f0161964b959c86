"""MLP: a two-layer perceptron on [user embedding | item row] (He et al. 2017, eq. 10)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from palate.models.scores.base import MLPHead, ScoreModel, Shape


class MLP(ScoreModel):
    """NCF's MLP: with dim 32, hidden 32 and no fixed columns it is 64-32-1."""

    name = "mlp"
    objectives = frozenset({"bce"})

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.head = MLPHead(shape, shape.row_dim)

    def forward(self, rows: Tensor) -> Tensor:
        """Scores of item rows: [..., row_dim] to [...]."""
        scores: Tensor = self.head(rows)
        return scores

    @staticmethod
    def batched(state: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """Scores of B heads: [B, n, row_dim] to [B, n]."""
        return MLPHead.batched(state, rows, "head.")
