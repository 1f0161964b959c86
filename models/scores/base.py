"""What a score model is: one person's head over item rows, in two equal forms.

The module form is one device's model: plain `torch.nn` layers, so that Opacus can hook every trainable
parameter. The batched form scores many virtual devices at once: the same parameter names, with a leading
dimension [B]. `tests/conformance` holds every registered model to their equality.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

State = dict[str, Tensor]
"""Device state: the parameters of one head, or of B heads with a leading dimension [B]. Never leaves a device."""


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


class ScoreModel(nn.Module, ABC):
    """Score function of one person; the item rows are its input, not its property.

    Attributes
    ----------
    name
        Key in the registry.
    objectives
        The local objectives that can train it.
    intercept
        Whether its linear part has a constant column (closed form only).
    residual_head
        Whether a non-linear head remains to be trained after the closed form.
    through_encoder
        Whether own items learn through the code that they were pooled into too (`palate.models.learning.autoencoding`).
    """

    name: ClassVar[str]
    objectives: ClassVar[frozenset[str]]
    intercept: ClassVar[bool] = False
    residual_head: ClassVar[bool] = False
    through_encoder: ClassVar[bool] = False

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape

    @abstractmethod
    def forward(self, rows: Tensor) -> Tensor:
        """Scores of item rows: float32 [..., row_dim] to [...]."""

    @staticmethod
    @abstractmethod
    def batched(state: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """Scores of B heads on their own rows: [B, n, row_dim] to [B, n]."""

    @classmethod
    def install(cls, state: State, solution: Tensor) -> None:
        """Write closed-form solutions [B, row_dim (+ 1 with intercept)] into a batched state, in place."""
        raise NotImplementedError(f"{cls.name} has no closed form")

    @classmethod
    def solution(cls, state: Mapping[str, Tensor]) -> Tensor:
        """Read back what `install` wrote, [B, row_dim (+ 1 with intercept)]."""
        raise NotImplementedError(f"{cls.name} has no closed form")

    @classmethod
    def head_parameters(cls, state: Mapping[str, Tensor]) -> State:
        """Return the parameters that local SGD trains after the closed form; empty for linear models."""
        del state
        return {}

    def nonlinear(self, rows: Tensor) -> Tensor:
        """Scores of the non-linear part alone, [..., row_dim] to [...]; only models with a residual head have one."""
        raise NotImplementedError(f"{self.name} has no non-linear part")

    @staticmethod
    def batched_nonlinear(state: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """Scores of the non-linear parts of B heads, [B, n, row_dim] to [B, n]."""
        raise NotImplementedError("only models with a residual head have a non-linear part")


class MLPHead(nn.Module):
    """NCF's two-layer perceptron on [user embedding | item columns] (He et al. 2017, eq. 10).

    The first layer is kept as its two blocks: the user's block is constant for one person and is computed once.

    Parameters
    ----------
    shape
        Sizes of the model.
    width
        How many columns of a row it reads, counted from the last; ``dim`` reads the learned ones only.
    """

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        self.width = width
        self.user = nn.Embedding(1, shape.dim)
        self.from_user = nn.Linear(shape.dim, shape.hidden)
        self.from_item = nn.Linear(width, shape.hidden, bias=False)
        self.out = nn.Linear(shape.hidden, 1)

    def forward(self, rows: Tensor) -> Tensor:
        """Scores of item rows: [..., row_dim] to [...]."""
        rows = rows[..., -self.width :]
        own = self.user(torch.zeros(rows.shape[:-1], dtype=torch.long))
        hidden = torch.relu(self.from_user(own) + self.from_item(rows))
        scores: Tensor = self.out(hidden).squeeze(-1)
        return scores

    @staticmethod
    def batched(state: Mapping[str, Tensor], rows: Tensor, prefix: str) -> Tensor:
        """Scores of B heads: [B, n, row_dim] to [B, n]."""
        weight = {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
        own = torch.baddbmm(
            weight["from_user.bias"][:, None], weight["user.weight"], weight["from_user.weight"].transpose(1, 2)
        )  # [B, 1, hidden]
        rows = rows[..., -weight["from_item.weight"].shape[2] :]
        hidden = torch.relu(own + torch.bmm(rows, weight["from_item.weight"].transpose(1, 2)))  # [B, n, hidden]
        out = torch.bmm(hidden, weight["out.weight"].transpose(1, 2)) + weight["out.bias"][:, None]  # [B, n, 1]
        return out.squeeze(-1)
