"""NeuMF: a GMF path plus an MLP path (He et al. 2017, eq. 12), each with its own user vector.

The GMF path reads whole rows, the MLP path the learned columns. Under the whole-data loss the GMF path is solved in
closed form and the MLP learns what it leaves over; its output layer starts at zero, so that an untrained head changes
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from palate.models.scores.base import MLPHead, ScoreModel, Shape, State
from palate.models.scores.gmf import GMF


class NeuMF(ScoreModel):
    """The default: matrix factorisation with a small personal perceptron on top."""

    name = "neumf"
    objectives = frozenset({"whole", "bce"})
    residual_head = True

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.gmf = GMF(shape)
        self.head = MLPHead(shape, shape.dim)
        nn.init.zeros_(self.head.out.weight)
        nn.init.zeros_(self.head.out.bias)

    def forward(self, rows: Tensor) -> Tensor:
        """Scores of item rows: [..., row_dim] to [...]."""
        scores: Tensor = self.gmf(rows) + self.head(rows)
        return scores

    @staticmethod
    def batched(state: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """Scores of B heads: [B, n, row_dim] to [B, n]."""
        return GMF.batched({"user.weight": state["gmf.user.weight"]}, rows) + NeuMF.batched_nonlinear(state, rows)

    @classmethod
    def install(cls, state: State, solution: Tensor) -> None:
        """Write solutions [B, row_dim] of the GMF path."""
        state["gmf.user.weight"] = solution[:, None, :]

    @classmethod
    def solution(cls, state: Mapping[str, Tensor]) -> Tensor:
        """Read back the linear part, [B, row_dim]."""
        return state["gmf.user.weight"][:, 0]

    @classmethod
    def head_parameters(cls, state: Mapping[str, Tensor]) -> State:
        """Parameters of the MLP path."""
        return {name: value for name, value in state.items() if name.startswith("head.")}

    def nonlinear(self, rows: Tensor) -> Tensor:
        """Scores of the MLP path alone: [..., row_dim] to [...]."""
        scores: Tensor = self.head(rows)
        return scores

    @staticmethod
    def batched_nonlinear(state: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """Scores of the MLP paths of B heads: [B, n, row_dim] to [B, n]."""
        return MLPHead.batched(state, rows, "head.")
