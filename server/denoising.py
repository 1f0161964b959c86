"""Release steps: what the server does to a noised sum before it learns from it.

Everything here sees the sum, the public table and the public size of the noise, nothing else: post-processing, which
costs no privacy (Dwork & Roth 2014, proposition 2.1). A step takes the part of the sum that is still in question and
splits it into what it vouches for and what it leaves to the next step; the result is the sum of both.

`project` spends the noise where signal is unlikely: of num_items directions, public columns span a few dozen, and only
as much noise is left in them. `low_rank` or `shrink` then keep of the remainder what stands out from the known noise.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from palate.errors import ConfigError, FederationError
from palate.models.arrays import Float64Array, FloatingArray

_RELATIVE_RANK = 1e-6


class ReleaseConfig(BaseModel):
    """Which release steps a noised sum goes through, in this order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: tuple[str, ...] = Field(
        ("project", "low_rank"),
        description="release steps: project, then low_rank or shrink; none leaves the sum as is",
    )

    @field_validator("steps")
    @classmethod
    def _steps_fit_together(cls, steps: tuple[str, ...]) -> tuple[str, ...]:
        for name in steps:
            if name not in RELEASE_STEPS:
                raise ConfigError(
                    f"unknown release step {name!r}", hint=f"choose among {', '.join(sorted(RELEASE_STEPS))}"
                )
        for earlier, later in itertools.pairwise(steps):
            if not RELEASE_STEPS[earlier].keeps_noise_known:
                raise ConfigError(
                    f"release step {later!r} comes after {earlier!r}, which leaves noise of unknown size",
                    hint=f"put {earlier!r} last",
                )
        if len(set(steps)) < len(steps):
            raise ConfigError(f"release steps {', '.join(steps)} repeat one", hint="name each step at most once")
        return steps


@dataclass(frozen=True, eq=False)
class PublicNoise:
    """What everybody knows about the part of the sum that is still in question.

    Attributes
    ----------
    public
        The table's public fixed columns, float64 [num_items, c].
    noise_std
        Standard deviation of the noise in every direction that has noise.
    directions
        How many orthogonal directions of item space have noise; num_items before any projection.
    row_variance
        Variance of each entry of a row, float64 [num_items]; std squared before any projection.
    """

    public: Float64Array
    noise_std: float
    directions: int
    row_variance: Float64Array


@dataclass(frozen=True, eq=False)
class Parts:
    """One step's answer, float64 [num_items, dim] each: `kept` is done, `rest` goes to the next step."""

    kept: Float64Array
    rest: Float64Array
    noise: PublicNoise


@dataclass(frozen=True)
class ReleaseStep:
    """A named step; `keeps_noise_known` says whether another may follow."""

    apply: Callable[[Float64Array, PublicNoise], Parts]
    keeps_noise_known: bool


def project(total: Float64Array, noise: PublicNoise) -> Parts:
    """Keep the projection on the public columns and a constant, unbiased for the part of the signal in their span.

    Least squares onto a known subspace, as for noised counts with known relations (Hay et al. 2010): of the noise,
    ``rank / num_items`` stays in what is kept, and the rest carries noise that is independent of it.
    """
    basis = span_basis(noise.public)  # [num_items, rank]
    kept = basis @ (basis.T @ total)
    leverage = np.minimum(np.sum(basis**2, axis=1), 1.0)
    left = replace(
        noise,
        directions=noise.directions - basis.shape[1],
        row_variance=noise.row_variance * (1.0 - leverage),
    )
    return Parts(kept, total - kept, left)


def shrink(total: Float64Array, noise: PublicNoise) -> Parts:
    """Shrink every row towards zero by the positive-part James-Stein rule (Baranchik 1964; Balle & Wang 2018).

    Row x of dim entries with noise variance v becomes ``max(0, 1 - (dim - 2) v / |x|^2) x``: for dim > 2 of less
    expected squared error than x itself, whatever the signal. Up to two columns have no such rule and stay as they are.
    """
    excess = max(total.shape[1] - 2, 0) * noise.row_variance  # [num_items]
    energy = np.sum(total**2, axis=1)
    factor = np.maximum(0.0, 1.0 - np.divide(excess, energy, out=np.zeros_like(energy), where=energy > 0))
    return Parts(factor[:, None] * total, np.zeros_like(total), noise)


def low_rank(total: Float64Array, noise: PublicNoise) -> Parts:
    """Shrink singular values, optimal in Frobenius norm for white noise of known size (Gavish & Donoho 2017).

    With m <= n the sides of the matrix, ``beta = m / n`` and a singular value ``y std sqrt(n)``, it becomes
    ``sqrt((y^2 - beta - 1)^2 - 4 beta) / y`` in the same units where ``y > 1 + sqrt(beta)``, the edge of what noise
    alone makes, and 0 elsewhere. After `project` the noise lives in fewer than num_items directions, which counts.
    """
    long, short = max(noise.directions, total.shape[1]), min(noise.directions, total.shape[1])
    if short < 1:
        return Parts(np.zeros_like(total), np.zeros_like(total), noise)
    beta, unit = short / long, noise.noise_std * math.sqrt(long)
    left, sizes, right = np.linalg.svd(total, full_matrices=False)
    shrunk = np.zeros_like(sizes)
    seen = sizes / unit > 1.0 + math.sqrt(beta)
    squared = (sizes[seen] / unit) ** 2
    shrunk[seen] = np.sqrt(np.maximum((squared - beta - 1.0) ** 2 - 4.0 * beta, 0.0) / squared) * unit
    return Parts((left * shrunk) @ right, np.zeros_like(total), noise)


RELEASE_STEPS: dict[str, ReleaseStep] = {
    "project": ReleaseStep(project, keeps_noise_known=True),
    "shrink": ReleaseStep(shrink, keeps_noise_known=False),
    "low_rank": ReleaseStep(low_rank, keeps_noise_known=False),
}


def denoise(total: Float64Array, *, noise_std: float, public: FloatingArray, config: ReleaseConfig) -> Float64Array:
    """Estimate the sum without noise from the sum with noise.

    Parameters
    ----------
    total
        Decoded sum of the updates with its noise, float64 [num_items, dim].
    noise_std
        Standard deviation of the noise in each entry, in the units of `total`: noise multiplier times clip norm.
        At 0 the sum is returned as it is.
    public
        The table's public fixed columns, [num_items, c]; c may be 0.
    config
        The steps.

    Returns
    -------
    float64 [num_items, dim]

    Raises
    ------
    FederationError
        If the sum, the noise or the columns are not finite, the noise is negative, or the sizes disagree.
    """
    columns = np.asarray(public, dtype=np.float64)
    if total.ndim != 2 or columns.ndim != 2 or len(columns) != len(total):
        raise FederationError(
            f"a sum of shape {total.shape} and public columns of shape {columns.shape} do not share their items",
            hint="give both one row per item of the same table",
        )
    if not (math.isfinite(noise_std) and noise_std >= 0):
        raise FederationError(
            f"noise of standard deviation {noise_std} is not a finite number of at least 0",
            hint="take it from the round's release terms",
        )
    if not (np.isfinite(total).all() and np.isfinite(columns).all()):
        raise FederationError(
            "the sum or the public columns hold a value that is not finite", hint="drop the round and ask again"
        )
    rest = total.copy()
    if noise_std == 0:
        return rest
    noise = PublicNoise(columns, noise_std, len(total), np.full(len(total), noise_std**2))
    result = np.zeros_like(rest)
    for name in config.steps:
        parts = RELEASE_STEPS[name].apply(rest, noise)
        result += parts.kept
        rest, noise = parts.rest, parts.noise
    return result + rest


def span_basis(public: Float64Array) -> Float64Array:
    """Orthonormal basis of the public columns and a constant, float64 [num_items, rank]."""
    columns = np.column_stack([public, np.ones(len(public))])
    left, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    return left[:, sizes > _RELATIVE_RANK * sizes.max(initial=0.0)]
