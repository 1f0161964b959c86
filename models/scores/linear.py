"""Linear head on the item row, with a bias and no user embedding (PFedRec: Zhang et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from palate.models.scores.base import ScoreModel, Shape, State


class LinearHead(ScoreModel):
    """PFedRec's personal score function."""

    name = "linear"
    objectives = frozenset({"whole", "bce"})
    intercept = True

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.out = nn.Linear(shape.row_dim, 1)

    def forward(self, rows: Tensor) -> Tensor:
        """Scores of item rows: [..., row_dim] to [...]."""
        scores: Tensor = self.out(rows).squeeze(-1)
        return scores

    @staticmethod
    def batched(state: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """Scores of B heads: [B, n, row_dim] to [B, n]."""
        return torch.bmm(rows, state["out.weight"].transpose(1, 2)).squeeze(-1) + state["out.bias"]

    @classmethod
    def install(cls, state: State, solution: Tensor) -> None:
        """Write solutions [B, row_dim + 1]; the last column is the bias."""
        state["out.weight"] = solution[:, None, :-1]
        state["out.bias"] = solution[:, -1:]

    @classmethod
    def solution(cls, state: Mapping[str, Tensor]) -> Tensor:
        """Read back weights and bias, [B, row_dim + 1]."""
        return torch.cat([state["out.weight"][:, 0], state["out.bias"]], dim=1)
