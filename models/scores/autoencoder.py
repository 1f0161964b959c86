"""Autoencoder: the user code is computed from the history through the item table (Steck 2020; Liang et al. 2018).

The encoder is the ridge solution on the rows of the history, so a device stores no user vector: history and released
table give it. The decoder is the inner product with item rows, as in GMF. What differs from GMF is how items learn:
each own item is decoded with the code that leaves it out, and the gradient runs through the encoder as well
(`palate.models.learning.autoencoding`).

There is no objective "bce": its steps train a stored vector. For the same reason units that protect single interactions
refuse the model: a code depends on all of a history, and so would every sample's gradient.
"""

from __future__ import annotations

from palate.models.scores.ncf import GMF


class Autoencoder(GMF):
    """Ridge encoder, inner-product decoder; closed form only."""

    name = "autoencoder"
    objectives = frozenset({"whole"})
    through_encoder = True
