"""Rows for items that nobody has had yet (item cold start).

That an item is new is public: its publisher has just announced it. Its popularity is then unknown, not low: the column
is set to the mean, so that content decides. Its learned embedding is what the table's own content columns predict, by
a ridge from content to embeddings over the items that have been learned (Gantner et al. 2010, attribute-to-feature
mapping). Both follow from the public table alone: every device can compute them, and they cost no privacy.
"""

from __future__ import annotations

import numpy as np

from palate.models.arrays import BoolArray, Float32Array, IntegerArray
from palate.models.table import ItemTable

RIDGE = 0.01
"""Ridge of the mapping, relative to the mean size of a content column over the learned items."""


def introduce(table: ItemTable, new: IntegerArray) -> ItemTable:
    """Give new items their rows.

    Parameters
    ----------
    table
        A trained table: popularity, then centred content columns, then learned columns.
    new
        Rows of the new items, int64 [n]; nothing that the table says of their popularity or embedding is used.

    Returns
    -------
    ItemTable
        The rows of all other items are what they were.

    Raises
    ------
    ValueError
        If all items are new, so that there is nothing to go by.
    """
    known = np.ones(table.num_items, dtype=np.bool_)
    known[new] = False
    if not known.any():
        raise ValueError(f"all {table.num_items} items are new, at least one must have been learned")
    fixed, learned = table.fixed.copy(), table.learned.copy()
    if table.fixed_dim:
        fixed[new, 0] = fixed[known, 0].mean()
    learned[new] = _mapped(fixed[:, 1:], learned, known)[new]
    return ItemTable(fixed, learned)


def _mapped(content: Float32Array, learned: Float32Array, known: BoolArray) -> Float32Array:
    """Predict embeddings of all items from content, float32 [num_items, dim]; their mean where there is no content."""
    given, wanted = content[known].astype(np.float64), learned[known].astype(np.float64)
    centre, mean = given.mean(axis=0), wanted.mean(axis=0)
    given -= centre
    gram = given.T @ given  # [c, c]
    ridge = RIDGE * max(float(np.trace(gram)) / max(len(gram), 1), 1e-12)
    mapping = np.linalg.solve(gram + ridge * np.eye(len(gram)), given.T @ (wanted - mean))  # [c, dim]
    return np.asarray((content - centre) @ mapping + mean, dtype=np.float32)
