"""A portrait: weights against scores by hand, words that stand out, sentences that fit."""

import numpy as np
import pytest

from palate.client.recommending.facets import facets_of
from palate.client.recommending.portrait import portray, shared_words
from palate.client.recommending.taste import fit, space_of
from palate.models.scores.registry import fitting_of
from palate.models.training import LocalTraining

from .conftest import preferences_of

CONFIG = fitting_of(LocalTraining(model="gmf", regularisation=0.5))


@pytest.fixture(scope="module")
def shelf(films):
    """Rows of popularity, genre indicators and noise."""
    found = facets_of(films)
    rng = np.random.default_rng(0)
    genres = np.array([[genre in own for genre in found.genres] for own in films.genres], dtype=np.float32)
    popularity = rng.uniform(0, 2, (films.num_items, 1))
    rows = np.concatenate(
        [popularity, genres - genres.mean(axis=0), 0.1 * rng.normal(size=(films.num_items, 2))], axis=1
    )
    return found, space_of(rows.astype(np.float32), CONFIG, popularity=0)


def drawn(films, shelf, *events: tuple[str, int | str]):
    found, space = shelf
    crime = [films.titles.index(title) for title in ("Heat (1995)", "Godfather, The (1972)", "Seven (Se7en) (1995)")]
    preferences = preferences_of([*(("had", item) for item in crime), *events])
    return portray(space, fit(space, preferences, CONFIG), preferences, found), fit(space, preferences, CONFIG)


def test_a_weight_is_how_much_higher_a_facets_items_score_popularity_aside(films, shelf):
    portrait, taste = drawn(films, shelf)
    found, space = shelf
    scores = space.rows.astype(float) @ taste.vector
    without = scores - space.rows[:, 0] * taste.vector[0]
    for interest in portrait.interests:
        higher = without[found.items[interest.facet]].mean() - without.mean()
        assert interest.weight == pytest.approx(higher / scores.std(), abs=1e-5)
    assert [one.weight for one in portrait.interests] == sorted(
        (one.weight for one in portrait.interests), reverse=True
    )


def test_it_names_what_the_history_is_made_of(films, shelf):
    portrait, _ = drawn(films, shelf)
    assert portrait.interests[0].facet == "genre: Crime"
    assert portrait.interests[0].own == 3
    assert portrait.interests[0].own_share == 1.0
    assert portrait.sentence.startswith("drawn to Crime")


def test_it_shows_what_was_pinned_and_muted(films, shelf):
    portrait, _ = drawn(films, shelf, ("pin", "genre: War"), ("mute", "genre: Horror"))
    assert portrait.sentence.endswith("pinned: War; muted: Horror")


def test_of_somebody_unknown_it_says_that(films, shelf):
    found, space = shelf
    preferences = preferences_of([])
    assert portray(space, fit(space, preferences, CONFIG), preferences, found).sentence == "nothing is known yet"


def test_words_are_those_that_own_texts_share_and_others_lack():
    texts = [f"the story of number {'abcdefghij'[place % 10] * 3}" for place in range(40)]
    for item in (3, 17, 22):
        texts[item] += " submarine"
    texts[3] += " lonely"
    found = shared_words(texts, np.array([3, 17]), np.array([1.0, 0.5]), 5)
    assert found == (("submarine", 1.0),)


def test_words_that_any_text_may_have_are_no_taste():
    texts = [f"number {'abcdefghij'[place % 10] * 5}" for place in range(200)]
    for item in (3, 17):
        texts[item] += " that detective doubts his own past, 罪犯"
    found = shared_words(texts, np.array([3, 17]), np.array([1.0, 0.5]), 10)
    assert {word for word, _ in found} == {"detective", "doubts", "past", "罪犯"}
