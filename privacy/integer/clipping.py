"""L2 clipping of one person's whole contribution.

A clip in floating point bounds the norm only up to rounding, and a norm in floating point is itself rounded. Nothing
private rests on it: the exact bound is the integer check in `palate.privacy.integer.quantise`.
"""

from __future__ import annotations

import numpy as np

from palate.models.arrays import Float32Array, Float64Array
from palate.privacy.errors import PrivacyError

_BLOCK = 512
_SAFE_NORMS = (1e-12, 1e15)  # squares of such values neither vanish nor overflow in float32
_FLOAT32 = np.finfo(np.float32)


def l2_norms(values: Float32Array) -> Float64Array:
    """L2 norms of vectors, float32 [n, d] to float64 [n]; each depends on its own vector only, to the last bit.

    Squares are summed in float32 by blocks and the blocks in float64: the relative error is below 2^-15.
    """
    whole = values.shape[1] - values.shape[1] % _BLOCK
    blocks, rest = values[:, :whole].reshape(len(values), -1, _BLOCK), values[:, whole:]
    with np.errstate(over="ignore", under="ignore"):
        squares = np.vecdot(blocks, blocks).sum(axis=1, dtype=np.float64) + np.vecdot(rest, rest)
    norms: Float64Array = np.sqrt(squares)
    unsafe = ~((norms > _SAFE_NORMS[0]) & (norms < _SAFE_NORMS[1]))
    if unsafe.any():
        wide = values[unsafe].astype(np.float64)
        norms[unsafe] = np.sqrt(np.vecdot(wide, wide))
    return norms


def require_finite(values: Float32Array) -> None:
    """Raise PrivacyError if a value is NaN or infinite: it would pass through every bound."""
    if not np.isfinite(values).all():
        count = int(np.count_nonzero(~np.isfinite(values)))
        raise PrivacyError(
            f"the update holds {count} values that are not finite",
            hint="lower the learning rate; nothing has left the device",
        )


def clip(
    values: Float32Array, clip_norm: float, *, scale: float = 1.0, out: Float32Array | None = None
) -> Float32Array:
    """Shorten vectors to an L2 norm of at most `clip_norm` each, and multiply them by `scale`.

    Parameters
    ----------
    values
        Whole contributions of n people, finite, float32 [n, d].
    clip_norm
        Bound ``C``, in the units of `values`; positive.
    scale
        Unit of the result. What is within the bound is multiplied by it and not changed otherwise.
    out
        May receive the result; may be `values`.

    Returns
    -------
    float32 [n, d] with norms of at most ``scale * clip_norm (1 + 2^-14)``.
    """
    factors = scale * (clip_norm / np.maximum(l2_norms(values), clip_norm))  # [n]
    extreme = (factors < _FLOAT32.tiny) | (factors > _FLOAT32.max)
    wide = values[extreme] * factors[extreme, None]  # float64: such a factor is no float32
    clipped: Float32Array = np.multiply(values, np.where(extreme, 1.0, factors).astype(np.float32)[:, None], out=out)
    clipped[extreme] = wide
    return clipped
