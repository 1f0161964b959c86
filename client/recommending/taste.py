"""One person's taste as a sum of sources: the ridge of training, with dislikes, pins and requests in it.

The loss is that of training, with a target for each item that the person spoke about,

    L(p) = sum_{i in S} w_i (y_i - p'x_i)^2  +  a0 sum_{all i} (p'x_i)^2  +  reg |p|^2,

where y is 1 for what was had or liked and `disliked_target` for what was disliked. Its minimum is linear in the
targets, ``p = sum_i w_i y_i N^-1 x_i``, so each item of the history owns a vector, and the vectors add up to the taste.

A *nudge* moves the prior of p along one direction f: more crime films, less horror, things like a given title. It is
an observation ``p'f = before + step`` of great precision, as if the prior had been narrow there (a Gaussian
prior conditioned on a linear observation, Rasmussen & Williams 2006, eq. A.6). Nudges are solved together and each
owns a vector too. Everything stays on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from palate.client.recommending.preferences import Preferences
from palate.models.arrays import Float32Array, Float64Array, IntegerArray
from palate.models.histories import pooling_weights
from palate.models.learning.ridge import gram

if TYPE_CHECKING:
    from palate.models.fitting import Fitting

NudgeKind = Literal["pinned", "muted", "asked", "refused"]
SourceKind = Literal["had", "liked", "disliked", "popular", "pinned", "muted", "asked", "refused", "head"]

LIKED_WEIGHT = 1.0
"""What an item that was liked outright counts at least, however long ago: as much as the newest."""
DISLIKED_WEIGHT = 0.5
DISLIKED_TARGET = -0.5
"""Below indifference, so that similar items fall too; all items already have 0. Chosen on validation items of
MovieLens 1M with ratings of 1 and 2 as dislikes: a stronger pull finds fewer of the items that people come to like."""
COLD_SPREAD = 0.1
"""Standard deviation of the scores of a person of whom nothing is known, who gets what is popular."""
_SAID: dict[SourceKind, str] = {
    "had": "you had {}",
    "liked": "you like {}",
    "disliked": "you do not like {}",
    "popular": "what is popular, because nothing is known of your taste",
    "head": "this device's own trained layer",
}
_TOP = 20
_SOFTNESS = 0.05  # two nudges that say nearly the same, or the opposite, share what they ask for


@dataclass(frozen=True, eq=False)
class Space:
    """What a device computes once per item table.

    Attributes
    ----------
    rows
        Item rows, with a constant column at the end where the model has an intercept, float32 [num_items, k].
    mean
        Mean row, float64 [k].
    covariance
        Of the rows over the catalogue, float64 [k, k].
    prior
        ``a0 X'X + reg I``, float64 [k, k].
    popularity
        Column of popularity, None where there is none.
    """

    rows: Float32Array
    mean: Float64Array
    covariance: Float64Array
    prior: Float64Array
    popularity: int | None

    @property
    def num_items(self) -> int:
        """Rows of the table."""
        return len(self.rows)

    @cached_property
    def prior_inverse(self) -> Float64Array:
        """Inverse of `prior`, float64 [k, k]: how far the taste of somebody unknown is open in each direction."""
        return np.asarray(np.linalg.inv(self.prior))


def space_of(rows: Float32Array, fitting: Fitting, *, popularity: int | None, intercept: bool = False) -> Space:
    """Prepare a table's rows ``[fixed | learned]``, float32 [num_items, row_dim], for `fit`."""
    if intercept:
        rows = np.concatenate([rows, np.ones((len(rows), 1), dtype=np.float32)], axis=1)
    rows = np.ascontiguousarray(rows)
    squared = gram(rows)
    mean = rows.mean(axis=0, dtype=np.float64)
    return Space(
        rows=rows,
        mean=mean,
        covariance=squared / max(len(rows), 1) - np.outer(mean, mean),
        prior=fitting.unobserved_weight * squared + fitting.regularisation * np.eye(rows.shape[1]),
        popularity=popularity,
    )


@dataclass(frozen=True, eq=False)
class Nudge:
    """More or less of something, whatever the history says.

    Attributes
    ----------
    kind
        Whether the profile or a request wants it, and whether more of it or less.
    label
        In words, what was asked for.
    direction
        float64 [k]; a nudge moves ``direction'p``.
    step
        By how much, in units of the person's `reach`.
    """

    kind: NudgeKind
    label: str
    direction: Float64Array
    step: float


def contrast(space: Space, items: IntegerArray) -> Float64Array:
    """Direction from the mean row to the mean of some items, float64 [k]; without popularity."""
    if len(items) == 0:
        return np.zeros_like(space.mean)
    direction = space.rows[items].mean(axis=0, dtype=np.float64) - space.mean
    if space.popularity is not None:
        direction[space.popularity] = 0.0
    return np.asarray(direction)


@dataclass(frozen=True)
class Source:
    """Where a part of a score comes from: an item that the person spoke about, a label in words, or the head."""

    kind: SourceKind
    label: str = ""
    item: int = -1

    def in_words(self, titles: Sequence[str]) -> str:
        """Say it, with the titles of the catalogue: "you like Heat (1995)", or what was asked for."""
        return self.label or _SAID.get(self.kind, self.kind).format(titles[self.item] if self.item >= 0 else "")


@dataclass(frozen=True, eq=False)
class Taste:
    """A fitted taste; it is never printed and never sent.

    Attributes
    ----------
    sources
        Where it comes from, [m].
    vectors
        What each source adds to the taste, float64 [m, k].
    covariance
        ``N^-1`` of the history, float64 [k, k]: how far the taste is still open in each direction.
    own
        How many of the sources, counted from the first, are items that were had or liked.
    weights
        Weights of those items in the ridge, float64 [own].
    """

    sources: tuple[Source, ...]
    vectors: Float64Array
    covariance: Float64Array
    own: int
    weights: Float64Array

    @cached_property
    def vector(self) -> Float64Array:
        """The taste, float64 [k]."""
        return np.asarray(self.vectors.sum(axis=0))

    def scores(self, rows: Float32Array) -> Float32Array:
        """Scores of rows, float32 [n, k] to [n]."""
        return np.asarray(rows @ self.vector.astype(np.float32))


def fit(space: Space, preferences: Preferences, fitting: Fitting, nudges: Sequence[Nudge] = ()) -> Taste:
    """Fit a taste in closed form.

    Parameters
    ----------
    space
        The item table, prepared.
    preferences
        What counts of what the person said.
    fitting
        Half-life and floor of the weights; the ridge's parameters are in `space`.
    nudges
        More or less of something; without direction in this table they change nothing.

    Returns
    -------
    Taste
        Without any history it is popularity, besides dislikes and nudges.
    """
    own = np.asarray(preferences.items, dtype=np.int64)
    ages = np.arange(len(own))[::-1]
    own_weights = pooling_weights(ages, fitting).astype(np.float64)
    if preferences.strengths is not None:
        own_weights *= preferences.strengths
    liked = np.isin(own, np.array(sorted(preferences.liked), dtype=np.int64))
    own_weights[liked] = np.maximum(own_weights[liked], LIKED_WEIGHT)
    disliked = np.array(preferences.disliked, dtype=np.int64)
    spoken = space.rows[np.concatenate([own, disliked])].astype(np.float64)  # [n, k]
    weights = np.concatenate([own_weights, np.full(len(disliked), DISLIKED_WEIGHT)])
    targets = np.concatenate([np.ones(len(own)), np.full(len(disliked), DISLIKED_TARGET)])
    normal = space.prior + (spoken * weights[:, None]).T @ spoken
    inverse = np.linalg.inv(normal)
    inverse = 0.5 * (inverse + inverse.T)
    vectors = (weights * targets)[:, None] * (spoken @ inverse)  # [n, k]
    sources = [
        Source("liked" if is_liked else "had", item=int(i)) for i, is_liked in zip(own, liked.tolist(), strict=True)
    ]
    sources += [Source("disliked", item=int(item)) for item in disliked]
    if len(own) == 0:
        cold = np.zeros_like(space.mean)
        if space.popularity is not None:
            variance = max(float(space.covariance[space.popularity, space.popularity]), 0.0)
            cold[space.popularity] = COLD_SPREAD / np.sqrt(variance) if variance > 0 else 0.0
        vectors = np.concatenate([vectors, cold[None]])
        sources.append(Source("popular"))
    useful = [nudge for nudge in nudges if np.any(nudge.direction)]
    if useful:
        vectors = np.concatenate([vectors, _nudged(space, inverse, vectors.sum(axis=0), useful)])
        sources += [Source(nudge.kind, nudge.label) for nudge in useful]
    return Taste(tuple(sources), vectors, inverse, len(own), own_weights)


def reach(scores: Float32Array) -> float:
    """Spread of the best scores: the 20th best score less the mean score; `COLD_SPREAD` where all are equal.

    Scores of a taste have a long tail, so that their standard deviation says little about what it takes to reach the
    top of a list; this does, whatever the catalogue and the history.
    """
    if len(scores) == 0:
        return COLD_SPREAD
    place = max(len(scores) - _TOP, len(scores) // 2)
    return float(np.partition(scores, place)[place] - scores.mean(dtype=np.float64)) or COLD_SPREAD


def _nudged(space: Space, inverse: Float64Array, vector: Float64Array, nudges: Sequence[Nudge]) -> Float64Array:
    """Return what each nudge adds to the taste, float64 [m, k]."""
    directions = np.stack([nudge.direction for nudge in nudges])  # [m, k]
    answers = directions @ inverse  # [m, k]
    crossed = answers @ directions.T  # [m, m]
    softened = crossed + _SOFTNESS * np.diag(np.diag(crossed))
    unit = reach(space.rows @ vector.astype(np.float32))
    steps = unit * np.array([nudge.step for nudge in nudges])
    return np.asarray(np.linalg.solve(softened, steps)[:, None] * answers)
