"""Local user solve: whole-data weighted ridge (Hu, Koren & Volinsky 2008, eq. 4; Rendle et al. 2022, eq. 2).

One device's loss, over its own items S with weights w and over the whole catalogue:

    L(p) = sum_{i in S} w_i (1 - p'x_i)^2  +  a0 sum_{all i} (p'x_i)^2  +  reg |p|^2

so ``p = (X_S' W X_S + a0 X'X + reg I)^-1 X_S' w``. ``X'X`` is public and computed once per table. The negative
half-gradient with respect to item i is ``e_i p`` with ``e_i = w_i (1 - s_i) [i in S] - a0 s_i``: dense over the
catalogue (it shows no sparsity pattern) and rank one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


def gram(rows: FloatArray) -> npt.NDArray[np.float64]:
    """``X'X`` of the table, float64 [k, k] for rows float32 [num_items, k]."""
    wide = rows.astype(np.float64)
    return np.asarray(wide.T @ wide)


def solve_user(
    rows: FloatArray,
    items: npt.NDArray[np.integer],
    weights: FloatArray,
    table_gram: npt.NDArray[np.float64],
    *,
    unobserved_weight: float,
    regularisation: float,
) -> FloatArray:
    """Fit one person's vector in closed form.

    Parameters
    ----------
    rows
        Item rows, float32 [num_items, k].
    items
        The person's items, int [n]; n = 0 gives the zero vector.
    weights
        Their weights, float32 [n].
    table_gram
        `gram(rows)`, float64 [k, k].
    unobserved_weight, regularisation
        ``a0`` and ``reg`` of the loss.

    Returns
    -------
    float32 [k]
    """
    own = rows[items].astype(np.float64)  # [n, k]
    weighted = own * weights[:, None]
    normal = weighted.T @ own + unobserved_weight * table_gram + regularisation * np.eye(rows.shape[1])
    return np.linalg.solve(normal, weighted.sum(axis=0)).astype(np.float32)


def residuals(
    rows: FloatArray,
    items: npt.NDArray[np.integer],
    weights: FloatArray,
    user: FloatArray,
    *,
    unobserved_weight: float,
) -> FloatArray:
    """Residual ``e`` of one person over the whole catalogue, float32 [num_items]."""
    scores = rows @ user
    out = (-unobserved_weight * scores).astype(np.float32)
    np.add.at(out, items, weights * (1.0 - scores[items]))
    return out
