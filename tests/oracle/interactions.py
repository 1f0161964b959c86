"""One interaction's gradient, clipped, by one backward pass each (Abadi et al. 2016)."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from oracle.device import LocalModel, head_of
from palate.models.arrays import Float64Array, Int32Array
from palate.models.scores.base import State
from palate.models.table import ItemTable
from palate.models.training import LocalTraining


def descents(
    table: ItemTable, samples: Int32Array, state: State, config: LocalTraining, *, clip_norm: float
) -> Float64Array:
    """Minus each sample's gradient, clipped as Opacus does; samples [N, 1 + k] to float64 [N, head + slots x dim]."""
    rows = []
    for sample in samples:
        head = head_of(table, config, state)
        model = LocalModel(table, head).double()
        distinct = list(dict.fromkeys(sample.tolist()))  # the positive, then each other item once
        scores = model(torch.tensor(distinct))
        loss = functional.softplus(-scores[0]) + functional.softplus(scores[1:]).sum()
        loss.backward()
        slots = np.zeros((len(sample), table.dim))
        for item in distinct:
            slots[sample.tolist().index(item)] = model.item.weight.grad[item].numpy()
        joint = -np.concatenate([*(value.grad.reshape(-1).numpy() for value in head.parameters()), slots.reshape(-1)])
        rows.append(joint * min(1.0, clip_norm / (np.linalg.norm(joint) + 1e-6)))
    return np.array(rows)
