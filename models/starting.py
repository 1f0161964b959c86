"""A public starting point for the learned columns: mixtures of what is known about the items.

A first update is a device's residual times its answer to the starting columns. Random columns ask nothing in
particular; mixtures of public content ask about taste, as the range finder of a randomised SVD does with a sketch that
is aligned with the matrix (Halko, Martinsson & Tropp 2011). With few noised rounds that is most of a round gained.
"""

from __future__ import annotations

import numpy as np

from palate.models.arrays import Float32Array
from palate.models.table import initial_embeddings


def mixed_embeddings(fixed: Float32Array, dim: int, *, scale: float, rng: np.random.Generator) -> Float32Array:
    """Draw random mixtures of the content columns, larger where items are popular.

    Parameters
    ----------
    fixed
        The table's public columns after the popularity round, float32 [num_items, 1 + c]: popularity, then content.
    dim
        Columns to make.
    scale
        Their root mean square.
    rng
        Public seed, as for `initial_embeddings`.

    Returns
    -------
    float32 [num_items, dim]
        Column j is ``b * (content @ normal_j)``, all scaled together; independent normals where there is no content
        or where popularity is the same everywhere, as nothing is left to mix then.
    """
    popularity, content = fixed[:, :1].astype(np.float64), fixed[:, 1:].astype(np.float64)
    mixed = popularity * (content @ rng.normal(size=(content.shape[1], dim)))  # [num_items, dim]
    size = float(np.sqrt(np.mean(mixed**2))) if mixed.size else 0.0
    if size == 0.0:
        return initial_embeddings(len(fixed), dim, scale=scale, rng=rng)
    return (mixed * (scale / size)).astype(np.float32)
