"""How sure a recommendation is: how well lists have known this person, times how much is known about such items.

The question "would a list have found what I chose?" has unbiased examples on the device: the person's newest items.
Each is scored by the taste that was fitted without it (leave-one-out residuals in closed form: Allen 1974), and the
`track` is how many of them would have been in a list of ten from the whole catalogue, had they been unknown.

The other factor is the ridge's posterior variance (Rasmussen & Williams 2006, eq. 2.8): `evidence` is the share of the
prior variance of the item's score that the history has removed. The unknown noise level cancels in the ratio.

Neither is a probability of pleasure. How product and thresholds were chosen, and what "strong" was worth on the very
people they were chosen on, is in docs/experiments.md; on others nobody has measured it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from palate.client.recommending.taste import Space, Taste
from palate.models.arrays import Float64Array, IntegerArray

LEAST_HISTORY = 5
"""Shorter histories have no track."""
RECENT = 20
"""Newest items that the track is taken over."""

Level = Literal["strong", "fair", "a guess"]
_STRONG, _FAIR = 0.09, 0.04  # of track times evidence; about the best and the middle two fifths on MovieLens 1M


@dataclass(frozen=True)
class Track:
    """How many of a person's newest items lists of ten would have found."""

    found: int
    of: int

    @property
    def sentence(self) -> str:
        """Say it as somebody who recommends would."""
        return f"I would have guessed {self.found} of your last {self.of}"


@dataclass(frozen=True)
class Confidence:
    """How sure one recommendation is.

    Attributes
    ----------
    track
        How well lists have known the person; None where the history is too short to tell.
    evidence
        Share of the prior variance of the score that the history has removed, in [0, 1].
    """

    track: Track | None
    evidence: float

    @property
    def level(self) -> Level:
        """As one word."""
        known = self.track.found / self.track.of * self.evidence if self.track is not None else 0.0
        if known >= _STRONG:
            return "strong"
        return "fair" if known >= _FAIR else "a guess"

    @property
    def sentence(self) -> str:
        """What the figures say."""
        if self.track is None:
            return "a guess: too little history to tell"
        return f"{self.level}: {self.track.sentence}"


def left_out_scores(space: Space, taste: Taste) -> Float64Array:
    """Score each item that was had or liked by the taste fitted without it, float64 [own].

    Leaving interaction i out takes ``w_i (1 - s_-i) N^-1 x_i`` from the taste, so
    ``s_-i = 1 - (1 - s_i) / (1 - w_i x_i'N^-1 x_i)``; nudges and dislikes stay.
    """
    own = np.array([source.item for source in taste.sources[: taste.own]], dtype=np.int64)
    rows = space.rows[own].astype(np.float64)
    leverage = taste.weights * np.einsum("nk,nk->n", rows @ taste.covariance, rows)  # below 1
    return np.asarray(1.0 - (1.0 - rows @ taste.vector) / (1.0 - leverage))


def track_record(space: Space, taste: Taste, bar: float) -> Track | None:
    """Count the person's newest items that lists would have found.

    Parameters
    ----------
    space, taste
        The item table, prepared, and the taste fitted in it.
    bar
        Score of the tenth best item that the person does not know, only by the taste.

    Returns
    -------
    Track or None
        None for histories shorter than `LEAST_HISTORY`. That the taste without the item scores its rivals a little
        differently too is left aside.
    """
    if taste.own < LEAST_HISTORY:
        return None
    recent = left_out_scores(space, taste)[-RECENT:]
    return Track(int(np.count_nonzero(recent >= bar)), len(recent))


def confidence(items: IntegerArray, space: Space, taste: Taste, track: Track | None) -> list[Confidence]:
    """Tell how sure the scores of some items are, by the linear part of the model; a head's part is left aside."""
    rows = space.rows[items].astype(np.float64)
    before = np.einsum("nk,nk->n", rows @ space.prior_inverse, rows)
    after = np.einsum("nk,nk->n", rows @ taste.covariance, rows)
    left = np.divide(after, before, out=np.ones_like(before), where=before > 0)  # a row of zeros: nothing is settled
    evidence = np.clip(1.0 - left, 0.0, 1.0)
    return [Confidence(track, float(known)) for known in evidence]
