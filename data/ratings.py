"""What a rating says, for devices and simulations alike: a low one is a dislike, a high one more than a middling one.

On validation items of MovieLens 100K, 1M and MovieTweetings (tables without privacy), interactions weighed so are found
as well as before, and those that people rate highly are found better: docs/experiments.md, "What a rating says".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from palate.errors import ConfigError

LOW_SHARE = 1 / 3
"""Up to this share of its scale a rating is a dislike: 2 of 1 to 5, 2 of 0.5 to 5, 4 of 1 to 10."""
_HIGH_SHARE = 2 / 3
UNRATED = 1.0
"""What an interaction says that has no rating."""
_TOPS = (5.0, 10.0)
"""Best ratings that are guessed; larger values are counts, unless somebody says that they are ratings."""


@dataclass(frozen=True)
class RatingScale:
    """From the worst rating to the best.

    Raises
    ------
    ConfigError
        If the best is not above the worst.
    """

    worst: float
    best: float

    def __post_init__(self) -> None:
        if not self.worst < self.best:
            raise ConfigError(
                f"a scale from {self.worst:g} to {self.best:g}", hint="write the worst rating first: 1-10"
            )

    def __str__(self) -> str:
        return f"{self.worst:g} to {self.best:g}"

    def preference(self, rating: float) -> float:
        """Return what a rating says about an item; one beyond the scale counts as its end.

        Returns
        -------
        float
            ``share - 1``, below 0, for a dislike, and ``1 + share`` otherwise, where the rating reaches `share` of the
            scale. `UNRATED` lies in between.
        """
        share = min(1.0, max(0.0, (rating - self.worst) / (self.best - self.worst)))
        return share - 1.0 if share <= LOW_SHARE else 1.0 + share

    @staticmethod
    def parse(text: str) -> RatingScale:
        """Read `1-10`; ConfigError if it is none."""
        worst, _, best = text.strip().rpartition("-")
        try:
            return RatingScale(float(worst), float(best))
        except ValueError:
            raise ConfigError(f"{text!r} is no scale of ratings", hint="write it as 1-10 or 0.5-5") from None

    @staticmethod
    def guessed(ratings: Iterable[float]) -> RatingScale | None:
        """Guess the scale of ratings; None where all are equal to 1, or are larger than ratings usually are."""
        values = set(ratings)
        if not values or values == {1.0} or max(values) > _TOPS[-1]:
            return None
        worst, best = min(values), max(values)
        if worst < 0.0:  # thumbs down
            return RatingScale(-max(-worst, best), max(-worst, best))
        if values == {0.0, 1.0}:
            return RatingScale(0.0, 1.0)
        top = next(top for top in _TOPS if best <= top)
        return RatingScale(min(1.0, worst), top)


def weight_of(preference: float) -> float:
    """Return the weight of an interaction by its preference: ``(1 + share) / 2`` where it is rated, 1 where it is not.

    A dislike has none: it pulls the other way, and `palate.client.recommending.taste` says how much.
    """
    if preference == UNRATED:
        return 1.0
    return min(1.0, max(0.0, 0.5 * preference))


def level_of(preference: float) -> Literal["low", "middling", "high"]:
    """Return in a word what a rating says."""
    return "low" if preference < 0 else "middling" if preference <= 1.0 + _HIGH_SHARE else "high"
