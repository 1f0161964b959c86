"""Facets of a catalogue and their masks."""

import numpy as np
import pytest

from palate.client.recommending.facets import column_groups, facets_of, facets_of_item, in_words
from palate.data.content import content_features
from palate.errors import ConfigError


def test_facets_hold_just_the_items_that_say_so(films):
    found = facets_of(films)
    for name, items in found.items.items():
        kind, _, value = name.partition(": ")
        for item in range(films.num_items):
            says = value in films.genres[item] if kind == "genre" else films.years[item] // 10 * 10 == int(value[:-1])
            assert (item in items) == says
    assert found.genres == tuple(sorted({genre for own in films.genres for genre in own}))


def test_masks_join_facets_and_an_unknown_year_is_in_no_span(films):
    found = facets_of(films)
    mask = found.mask(["genre: War", "genre: Western"])
    assert {films.titles[item] for item in np.flatnonzero(mask)} == {
        "Casablanca (1942)",
        "Good, The Bad and The Ugly, The (1966)",
    }
    assert not found.between(None, None)[-1]
    assert films.years[found.between(1972, 1979)].tolist() == [1972, 1974, 1979]


def test_an_unknown_facet_is_refused_with_those_that_there_are(films):
    with pytest.raises(ConfigError) as caught:
        facets_of(films).of("genre: Opera")
    assert "genre: Musical" in caught.value.hint


def test_names_agree_with_the_columns_of_content(films):
    features = content_features(genres=films.genres * 4, years=np.tile(films.years, 4), texts=films.texts * 4)
    groups = column_groups(("popularity", *features.names), 2, intercept=True)
    known = {*facets_of(films).items, "popularity", "description", "learned", "constant"}
    assert {group for group in groups if not group.startswith("year: ")} <= known
    assert groups[-3:] == ("learned", "learned", "constant")


def test_an_items_facets_are_its_genres_and_decade(films):
    assert facets_of_item(0, films) == ("genre: Action", "genre: Crime", "genre: Thriller", "decade: 1990s")
    assert facets_of_item(films.num_items - 1, films) == ()
    assert list(map(in_words, ["genre: War", "decade: 1990s", "year: 1999", "learned"])) == [
        "the genre War", "the 1990s", "the year 1999", "what was learned from everybody",
    ]  # fmt: skip
