"""The item table: the only thing that devices learn together.

An item is the row ``x_i = [ b_i | c_i | q_i ]``: popularity, public content and learned embedding. The first two
are *fixed* during training rounds; only ``q_i`` is ever aggregated.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from palate.models.arrays import BoolArray, Float32Array


@dataclass(frozen=True, eq=False)
class ItemTable:
    """Public state of the federation.

    Attributes
    ----------
    fixed
        Popularity and public content columns, float32 [num_items, fixed_dim]; fixed_dim may be 0.
    learned
        Learned item embeddings, float32 [num_items, dim].

    Raises
    ------
    ValueError
        If the blocks disagree on the number of items, or hold a value that is not finite.
    """

    fixed: Float32Array
    learned: Float32Array

    def __post_init__(self) -> None:
        for name in ("fixed", "learned"):
            block = getattr(self, name)
            if block.ndim != 2 or block.dtype != np.float32:
                raise ValueError(f"item table: {name} must be a float32 matrix, not {block.dtype} {block.shape}")
            if not np.isfinite(block).all():
                raise ValueError(f"item table: {name} holds values that are not finite")
        if len(self.fixed) != len(self.learned):
            raise ValueError(f"item table: {len(self.fixed)} fixed rows but {len(self.learned)} learned rows")

    @property
    def num_items(self) -> int:
        """Rows of the table."""
        return len(self.learned)

    @property
    def fixed_dim(self) -> int:
        """Columns that do not change in training rounds."""
        return int(self.fixed.shape[1])

    @property
    def dim(self) -> int:
        """Columns that are learned."""
        return int(self.learned.shape[1])

    @property
    def rows(self) -> Float32Array:
        """Whole rows ``[fixed | learned]``, float32 [num_items, fixed_dim + dim]."""
        return np.concatenate([self.fixed, self.learned], axis=1)

    @property
    def content_hash(self) -> str:
        """SHA-256 over shapes and little-endian values; names the table in plans, ledgers and run folders."""
        digest = hashlib.sha256(b"palate item table v1")
        for block in (self.fixed, self.learned):
            digest.update(np.array(block.shape, dtype="<i8").tobytes())
            digest.update(np.ascontiguousarray(block, dtype="<f4").tobytes())
        return digest.hexdigest()

    def with_learned(self, learned: Float32Array) -> ItemTable:
        """Return the table with new embeddings in place of the old ones."""
        return replace(self, learned=np.ascontiguousarray(learned, dtype=np.float32))


def initial_embeddings(num_items: int, dim: int, *, scale: float, rng: np.random.Generator) -> Float32Array:
    """Draw the public starting point: independent normals with standard deviation ``scale``, [num_items, dim]."""
    return rng.normal(0.0, scale, (num_items, dim)).astype(np.float32)


def mixed_embeddings(fixed: Float32Array, dim: int, *, scale: float, rng: np.random.Generator) -> Float32Array:
    """Draw a public starting point: random mixtures of the content columns, larger where items are popular.

    A first update is a device's residual times its answer to the starting columns. Random columns ask nothing in
    particular; mixtures of public content ask about taste, as the range finder of a randomised SVD does with a sketch
    that is aligned with the matrix (Halko, Martinsson & Tropp 2011). With few noised rounds that is most of a round
    gained.

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


def fitted_embeddings(fixed: Float32Array, learned: Float32Array, known: BoolArray) -> Float32Array:
    """Start items that nobody has learned yet beside those that are known: mixtures of content, fitted to the known.

    `mixed_embeddings` draws the mixture of a first run. Once rows are learned, a ridge finds the mixture that explains
    them best, so that a new item begins where items like it are.

    Parameters
    ----------
    fixed
        The table's public columns after the popularity round, float32 [num_items, 1 + c].
    learned
        float32 [num_items, dim]; rows that are not known do not count.
    known
        Rows that are kept as they are, bool [num_items].

    Returns
    -------
    float32 [num_items, dim]
        Other rows are ``b * (content @ W)``, and zero where there is no content.
    """
    mixed = fixed[:, :1].astype(np.float64) * fixed[:, 1:].astype(np.float64)  # [num_items, c]
    gram = mixed[known].T @ mixed[known]
    strength = float(np.trace(gram)) / max(len(gram), 1)
    if strength == 0.0:
        return np.where(known[:, None], learned, np.float32(0.0))
    mixture = np.linalg.solve(gram + strength * np.eye(len(gram)), mixed[known].T @ learned[known].astype(np.float64))
    return np.where(known[:, None], learned, (mixed @ mixture).astype(np.float32))
