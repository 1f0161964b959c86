"""Score models as plain `torch.nn` layers, as Opacus needs them to hook every trainable parameter of one device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from palate.models.scores.base import ScoreModel, Shape
from palate.models.scores.registry import initial_head, score_model


class Head(nn.Module):
    """One person's head in layers; parameters are named as in the model's state."""

    def __init__(self, model: type[ScoreModel]) -> None:
        super().__init__()
        self.model = model

    def forward(self, rows: Tensor) -> Tensor:
        """Scores of item rows: float32 [..., row_dim] to [...]."""
        raise NotImplementedError

    def nonlinear(self, rows: Tensor) -> Tensor:
        """Scores of the non-linear part alone, [..., row_dim] to [...]."""
        raise NotImplementedError(f"{self.model.name} has no non-linear part")


class _GMFHead(Head):
    def __init__(self, model: type[ScoreModel], shape: Shape) -> None:
        super().__init__(model)
        self.user = nn.Embedding(1, shape.row_dim)

    def forward(self, rows: Tensor) -> Tensor:
        scores: Tensor = (self.user(torch.zeros(rows.shape[:-1], dtype=torch.long)) * rows).sum(-1)
        return scores


class _LinearHead(Head):
    def __init__(self, model: type[ScoreModel], shape: Shape) -> None:
        super().__init__(model)
        self.out = nn.Linear(shape.row_dim, 1)

    def forward(self, rows: Tensor) -> Tensor:
        scores: Tensor = self.out(rows).squeeze(-1)
        return scores


class _Perceptron(nn.Module):
    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        self.width = width
        self.user = nn.Embedding(1, shape.dim)
        self.from_user = nn.Linear(shape.dim, shape.hidden)
        self.from_item = nn.Linear(width, shape.hidden, bias=False)
        self.out = nn.Linear(shape.hidden, 1)

    def forward(self, rows: Tensor) -> Tensor:
        own = self.user(torch.zeros(rows.shape[:-1], dtype=torch.long))
        hidden = torch.relu(self.from_user(own) + self.from_item(rows[..., -self.width :]))
        scores: Tensor = self.out(hidden).squeeze(-1)
        return scores


class _MLPHead(Head):
    def __init__(self, model: type[ScoreModel], shape: Shape) -> None:
        super().__init__(model)
        self.head = _Perceptron(shape, shape.row_dim)

    def forward(self, rows: Tensor) -> Tensor:
        scores: Tensor = self.head(rows)
        return scores


class _NeuMFHead(Head):
    def __init__(self, model: type[ScoreModel], shape: Shape) -> None:
        super().__init__(model)
        self.gmf = _GMFHead(model, shape)
        self.head = _Perceptron(shape, shape.dim)

    def forward(self, rows: Tensor) -> Tensor:
        scores: Tensor = self.gmf(rows) + self.head(rows)
        return scores

    def nonlinear(self, rows: Tensor) -> Tensor:
        scores: Tensor = self.head(rows)
        return scores


_MODULES: dict[str, Callable[[type[ScoreModel], Shape], Head]] = {
    "gmf": _GMFHead,
    "mlp": _MLPHead,
    "neumf": _NeuMFHead,
    "linear": _LinearHead,
    "autoencoder": _GMFHead,
    "sequential": _GMFHead,
}


def initial_state(name: str, objective: str, shape: Shape) -> dict[str, Tensor]:
    """Public starting point of a head as tensors."""
    return {key: torch.from_numpy(value) for key, value in initial_head(name, objective, shape).items()}


def build(name: str, objective: str, shape: Shape) -> Head:
    """Build one device's head at its public starting point."""
    head = _MODULES[name](score_model(name, objective), shape)
    head.load_state_dict(initial_state(name, objective, shape))
    return head
