"""Item gradient of a ridge autoencoder, through its encoder (Steck 2020; Liang et al. 2018 for the setting).

The code of a person is the ridge solution of `ridge.py` on the person's history, ``p = N^-1 X_S' w``: the history
enters through the item table, and no user vector is stored. Decoding an item i of the history with a code that i
itself has shaped teaches the identity, so each is decoded with the code ``p_-i`` that leaves it out:

    L = sum_{i in S} (w_i (1 - s_-i)^2 + a0 s_-i^2)  +  a0 sum_{i not in S} s_i^2,    s_-i = p_-i'x_i,  s_i = p'x_i

Leave-one-out (`ridge.py`) moves an item towards the codes that decode it, and takes codes as given. Here
the rows of the history also learn to *make* codes: the gradient runs through N^-1 and through the leverages, in closed
form with one factorisation. The encoder's part for the catalogue, ``a0 X'X + reg I``, is that of the released table: a
public constant of the round. So outside the history's own rows the update stays dense and of rank one.
"""

from __future__ import annotations

import numpy as np

from palate.models.arrays import Float64Array


def encoder_updates(
    own: Float64Array,
    weights: Float64Array,
    inverse: Float64Array,
    user: Float64Array,
    learned: slice,
    *,
    unobserved_weight: float,
    regularisation: float,
) -> Float64Array:
    """Negative half-gradient of L with respect to the rows of the person's items, as decoded and as encoded.

    With ``z_i = N^-1 x_i``, ``h_i = w_i x_i'z_i`` and ``r_i = 1 - s_-i = (1 - s_i) / (1 - h_i)``, L depends on the rows
    only through all s and the h of the person's items. Let ``alpha_i = -dL/2ds_i``, ``beta_i = -dL/2dh_i``, ``v = N^-1
    sum alpha_i x_i`` over the whole catalogue and ``Q = sum_i beta_i w_i z_i z_i'``. Row i of the history then moves by

        alpha_i p + 2 beta_i w_i z_i + w_i ((1 - s_i) v - (v'x_i) p - 2 Q x_i)

    Parameters
    ----------
    own
        Rows of the person's items, [n, k].
    weights
        Their weights, [n].
    inverse
        N^-1 applied to the rows and to the code: ``z_1 .. z_n`` and ``N^-1 p``, [n + 1, k].
    user
        The code p, [k].
    learned
        Columns that are learned.
    unobserved_weight, regularisation
        ``a0`` and ``reg``.

    Returns
    -------
    float64 [n, dim]
    """
    reached, shrunk = inverse[:-1], inverse[-1]  # z_i, and N^-1 p
    scores = own @ user
    leverage = weights * np.einsum("nk,nk->n", own, reached)  # below 1, as N exceeds w_i x_i x_i' by the ridge
    missing = (1.0 - scores) / (1.0 - leverage)  # r_i
    pull = (weights * missing - unobserved_weight * (1.0 - missing)) / (1.0 - leverage)  # alpha_i on own items
    through_leverage = -pull * missing * weights  # beta_i w_i
    # N p = X_S'w gives the catalogue's part without a pass over it: a0 X'X p = X_S'(w (1 - s)) - reg p
    code_pull = (pull + unobserved_weight * scores - weights * (1.0 - scores)) @ reached + regularisation * shrunk  # v
    mixed = (reached * through_leverage[:, None]).T @ reached[:, learned]  # Q, [k, dim]
    decoding = pull[:, None] * user[learned] + 2.0 * through_leverage[:, None] * reached[:, learned]
    encoding = np.outer(1.0 - scores, code_pull[learned]) - np.outer(own @ code_pull, user[learned])
    return np.asarray(decoding + weights[:, None] * (encoding - 2.0 * (own @ mixed)))
