"""What a rating says: low ones are dislikes, and higher ones weigh more, on every scale that exports have."""

from __future__ import annotations

import pytest

from palate.data.importers import IMPORTERS
from palate.data.ratings import UNRATED, RatingScale, level_of, weight_of
from palate.errors import ConfigError

FIVE, HALVES, TEN = RatingScale(1, 5), RatingScale(0.5, 5), RatingScale(1, 10)


@pytest.mark.parametrize(
    ("scale", "low", "middling", "high"),
    [
        (FIVE, (1, 2), (3,), (4, 5)),
        (HALVES, (0.5, 1, 1.5, 2), (2.5, 3, 3.5), (4, 4.5, 5)),
        (TEN, (1, 2, 3, 4), (5, 6, 7), (8, 9, 10)),
        (RatingScale(0, 1), (0,), (), (1,)),
        (RatingScale(-1, 1), (-1,), (), (1,)),
    ],
)
def test_levels_are_those_that_people_mean(scale, low, middling, high):
    for level, ratings in (("low", low), ("middling", middling), ("high", high)):
        assert {level_of(scale.preference(rating)) for rating in ratings} == ({level} if ratings else set())


def test_weights_grow_with_the_rating_and_are_at_most_that_of_what_has_none():
    weights = [weight_of(HALVES.preference(rating)) for rating in (2.5, 3, 3.5, 4, 4.5, 5)]
    assert weights == sorted(weights)
    assert weights[-1] == weight_of(UNRATED) == 1.0
    assert weight_of(FIVE.preference(3)) == 0.75
    assert weight_of(FIVE.preference(1)) == 0.0
    assert all(HALVES.preference(rating) != UNRATED for rating in (0.5, 2, 2.5, 5))


def test_ratings_beyond_the_scale_are_its_ends():
    assert FIVE.preference(-3) == FIVE.preference(1) == -1.0
    assert FIVE.preference(99) == FIVE.preference(5) == 2.0


@pytest.mark.parametrize(
    ("ratings", "scale"),
    [
        ([3, 4, 5], FIVE),
        ([0.5], HALVES),
        ([4.5, 2], FIVE),
        ([10], TEN),
        ([7, 3], TEN),
        ([0, 1], RatingScale(0, 1)),
        ([0, 3], RatingScale(0, 5)),
        ([-1, 1], RatingScale(-1, 1)),
        ([1, 1], None),
        ([3, 40], None),
        ([], None),
    ],
)
def test_a_scale_is_guessed_from_its_ratings(ratings, scale):
    assert RatingScale.guessed(map(float, ratings)) == scale


def test_a_scale_is_read_and_nonsense_is_refused():
    assert RatingScale.parse("1-10") == TEN
    assert RatingScale.parse("-1-1") == RatingScale(-1, 1)
    assert str(HALVES) == "0.5 to 5"
    for text in ("10-1", "5", "a-b", "", "3-3", "nan-5"):
        with pytest.raises(ConfigError):
            RatingScale.parse(text)


def test_exports_with_ratings_say_their_scale():
    scales = {
        name: IMPORTERS[name].scale for name in ("letterboxd", "imdb", "trakt-ratings", "goodreads", "myanimelist")
    }
    assert scales == {"letterboxd": HALVES, "imdb": TEN, "trakt-ratings": TEN, "goodreads": FIVE, "myanimelist": TEN}
