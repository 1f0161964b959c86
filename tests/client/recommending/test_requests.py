"""Requests in plain words: what is understood, what is said back, and what is admitted not to be understood."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from palate.client.recommending.facets import facets_of
from palate.client.recommending.requests import Request
from palate.client.wishes.reader import MAX_LENGTH, RequestReader
from palate.data.title_index import TitleIndex
from palate.errors import ConfigError


@pytest.fixture(scope="module")
def reader(films):
    return RequestReader(facets_of(films), TitleIndex(films.titles, films.years))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("", "anything"),
        ("heat", "like Heat (1995)"),
        ("horror", "Horror"),
        ("like The Matrix (1999)", "like Matrix, The (1999)"),
        ("I loved The Good, the Bad and the Ugly", "like Good, The Bad and The Ugly, The (1966)"),
        ("like Heat and Casino", "like Heat (1995); like Casino (1995)"),
        ("similar to Terminator 2", "like Terminator 2: Judgment Day (1991)"),
        ('something like "12 Angry Men" from the 50s', "like 12 Angry Men (1957); from 1950 to 1959"),
        ("nothing like Titanic please", "unlike Titanic (1997)"),
        ("unlike Alien, hidden gems, varied", "unlike Alien (1979); less known; varied"),
        ("I'd like something like Pride and Prejudice", "like Pride & Prejudice (2005)"),
        ("a romantic comedy", "Romance; Comedy"),
        ("rom-coms or westerns", "Romance, Comedy or Western"),
        ("no horror or war", "not Horror; not War"),
        ("no war, comedy", "Comedy; not War"),
        ("anything but horror", "not Horror"),
        ("all but horror or war", "not Horror; not War"),
        ("nothing but comedy", "Comedy"),
        ("anything, but funny", "funny"),
        ("everything but the 80s", "not from 1980 to 1989"),
        ("I hate comedies and love drama", "Drama; not Comedy"),
        ("I hate comedies and really love drama", "Drama; not Comedy"),
        ("no horror and more comedy", "more Comedy; not Horror"),
        ("I hate it and love Heat", "like Heat (1995)"),
        ("no films like Titanic", "unlike Titanic (1997)"),
        ("I don't like the 80s", "not from 1980 to 1989"),
        ("I don't really like horror", "not Horror"),
        ("zero horror", "not Horror"),
        ("well-known films", "well known"),
        ("not well known", "less known"),
        ("not so well-known films", "less known"),
        ("less well known", "less known"),
        ("little-known films", "less known"),
        ("not unknown", "well known"),
        ("I don't like horror", "not Horror"),
        ("drama but not war", "Drama; not War"),
        ("less horror, more romance", "more Romance; less Horror"),
        ("sci fi for kids", "Sci-Fi; Children's"),
        ("from the 90s", "from 1990 to 1999"),
        ("the late eighties", "from 1986 to 1989"),
        ("early 1990s", "from 1990 to 1993"),
        ("between 1950 and the 70s", "from 1950 to 1979"),
        ("from 1960 to 1975", "from 1960 to 1975"),
        ("since 2000", "from 2000 on"),
        ("after the 80s", "from 1990 on"),
        ("before 1980", "up to 1979"),
        ("in 1995", "in 1995"),
        ("not in 1995", "not in 1995"),
        ("not since 2000", "not from 2000 on"),
        ("from 1995 to 1990", "from 1990 to 1995"),
        ("from the 90s to 1985", "from 1985 to 1999"),
        ("from 1995 to the 90s", "from 1995 to 1999"),
        ("not from the 90s", "not from 1990 to 1999"),
        ("the 70s or 90s", "from 1970 to 1999"),
        ("something new", "new only"),
        ("5 westerns", "Western; 5 of them"),
        ("three films", "3 of them"),
        ("less known sci-fi", "Sci-Fi; less known"),
        ("surprise me", "varied"),
        ("funny", "funny"),
        ("not funny", "not funny"),
        ("feel-good", "light"),
        (
            "something lighter from the 90s like Heat, but not horror",
            "like Heat (1995); light; from 1990 to 1999; not Horror",
        ),
    ],
)
def test_a_request_is_said_back_as_it_was_meant(reader, films, asked, said):
    assert reader.read(asked).sentence(films) == said


def test_what_is_not_understood_is_admitted_and_nearly_titles_are_suggested(reader, films):
    request = reader.read("wibbly stories, documentaries like Casablankaa Nights")
    assert request.genres == ("genre: Documentary",)
    assert request.not_understood == ("wibbly", "Casablankaa", "Nights")
    nearly = reader.read("like Casablanksy")
    assert [(phrase, films.titles[item]) for phrase, item in nearly.suggestions] == [
        ("Casablanksy", "Casablanca (1942)")
    ]
    assert not nearly.asks


def test_small_words_are_not_reported(reader):
    assert reader.read("I would like to see a nice film with some drama in it tonight").not_understood == ()


@pytest.mark.parametrize("asked", ["zero horror", "not well-known films", "everything but war", "I hate comedies"])
def test_words_that_turn_something_down_are_not_reported(reader, asked):
    assert reader.read(asked).not_understood == ()


def test_old_and_recent_go_by_the_catalogue(reader, films):
    dated = films.years[films.years > 0]
    assert reader.read("an old film").last_year == int(np.percentile(dated, 25))
    assert reader.read("a recent film").first_year == int(np.percentile(dated, 75))
    assert reader.read("not old").first_year == int(np.percentile(dated, 25)) + 1


def test_an_encoder_maps_unknown_words_to_the_nearest_genre_and_is_not_asked_otherwise(films):
    asked = []

    def encoder(texts):
        asked.append(list(texts))
        close = {"gunslingers": "Western", "Western": "Western"}
        names = ["Western", "Drama", "blorb"]
        return np.array([[float(close.get(text, text) == name) for name in names] for text in texts], dtype=np.float32)

    reader = RequestReader(facets_of(films), TitleIndex(films.titles, films.years), encoder)
    assert reader.read("a drama from the 90s").genres == ("genre: Drama",)
    assert asked == []
    found = reader.read("gunslingers and blorb")
    assert found.more == ("genre: Western",)
    assert found.not_understood == ("blorb",)
    assert reader.read("no gunslingers").less == ("genre: Western",)


def test_moods_that_the_catalogue_has_no_genres_for_are_not_understood():
    bare = RequestReader(facets_of_nothing(), TitleIndex(["Blue teapot", "Red mug"], np.zeros(2, dtype=np.int32)))
    request = bare.read("something funny like blue teapot from the 90s")
    assert request.titles == (0,)
    assert request.not_understood == ("funny",)


def facets_of_nothing():
    from palate.data.catalogue import Catalogue

    return facets_of(Catalogue(("a", "b"), ("Blue teapot", "Red mug"), ((), ()), np.zeros(2, dtype=np.int32), ("", "")))


SAID = (
    'like not no without heat casino the matrix ( ) 1995 90s early from to between and , . " - horror funny less more '
    "new old 5 films but toy story since before 's"
)
WORDS = st.sampled_from(SAID.split())


@example("not 1995 not 1995")
@given(st.lists(WORDS, max_size=14).map(" ".join) | st.text(max_size=80))
def test_any_text_is_read_without_an_error_and_nothing_is_wanted_and_refused_at_once(films, asked):
    reader = RequestReader(facets_of(films), TitleIndex(films.titles, films.years))
    request = reader.read(asked)
    assert not set(request.more) & set(request.less)
    assert isinstance(request.sentence(films), str)
    assert request.also(Request()) == request


def test_a_request_of_great_length_is_refused(reader):
    with pytest.raises(ConfigError, match=f"at most {MAX_LENGTH}"):
        reader.read("x" * (MAX_LENGTH + 1))


def test_requests_are_joined_and_years_narrowed():
    both = Request(genres=("genre: War",), first_year=1980, last_year=1999, count=5).also(
        Request(genres=("genre: Drama", "genre: War"), first_year=1990, diversity=0.5)
    )
    assert both.genres == ("genre: War", "genre: Drama")
    assert (both.first_year, both.last_year, both.count, both.diversity) == (1990, 1999, 5, 0.5)
