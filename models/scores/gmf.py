"""GMF: the inner product of user vector and item row (He et al. 2017, eq. 9 with constant output weights).

Output weights would be redundant: on a device they are as personal as the user vector and multiply it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from palate.models.scores.base import ScoreModel, Shape, State


class GMF(ScoreModel):
    """Matrix factorisation with popularity and content columns; closed form under the whole-data loss."""

    name = "gmf"
    objectives = frozenset({"whole", "bce"})

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.user = nn.Embedding(1, shape.row_dim)
        nn.init.normal_(self.user.weight, std=0.1)

    def forward(self, rows: Tensor) -> Tensor:
        """Scores of item rows: [..., row_dim] to [...]."""
        own = self.user(torch.zeros(rows.shape[:-1], dtype=torch.long))
        scores: Tensor = (own * rows).sum(-1)
        return scores

    @staticmethod
    def batched(state: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """Scores of B heads: [B, n, row_dim] to [B, n]."""
        return torch.bmm(rows, state["user.weight"].transpose(1, 2)).squeeze(-1)

    @classmethod
    def install(cls, state: State, solution: Tensor) -> None:
        """Write solutions [B, row_dim]."""
        state["user.weight"] = solution[:, None, :]

    @classmethod
    def solution(cls, state: Mapping[str, Tensor]) -> Tensor:
        """Read back the linear part, [B, row_dim]."""
        return state["user.weight"][:, 0]
