"""Titles are found as people type them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.data.title_index import TitleIndex
from palate.data.titles import plain, short_forms, title_forms, title_year


@pytest.fixture(scope="module")
def index(films):
    return TitleIndex(films.titles, films.years)


@pytest.mark.parametrize(
    ("typed", "title"),
    [
        ("heat", "Heat (1995)"),
        ("the matrix", "Matrix, The (1999)"),
        ("Matrix", "Matrix, The (1999)"),
        ("Matrix, The (1999)", "Matrix, The (1999)"),
        ("matrx", "Matrix, The (1999)"),
        ("teh matrix", "Matrix, The (1999)"),
        ("se7en", "Seven (Se7en) (1995)"),
        ("seven", "Seven (Se7en) (1995)"),
        ("godfather", "Godfather, The (1972)"),
        ("godfather part ii", "Godfather: Part II, The (1974)"),
        ("terminator 2", "Terminator 2: Judgment Day (1991)"),
        ("The Good, the Bad and the Ugly", "Good, The Bad and The Ugly, The (1966)"),
        ("twelve angry men", "12 Angry Men (1957)"),
        ("god bad ugly", "Good, The Bad and The Ugly, The (1966)"),
        ("les miserables", "Misérables, Les (1998)"),
        ("shanghai triad", "Shanghai Triad (Yao a yao yao dao waipo qiao) (1995)"),
        ("city of the dead", "Horror Hotel (a.k.a. The City of the Dead) (1960)"),
        ("pride and prejudice", "Pride & Prejudice (2005)"),
        ("up", "Up (2009)"),
        ("sabrina 1954", "Sabrina (1954)"),
        ("Sabrina (1995)", "Sabrina (1995)"),
        ("casabl", "Casablanca (1942)"),
    ],
)
def test_the_first_title_found_is_the_one_that_was_meant(index, films, typed, title):
    assert films.titles[index.search(typed)[0].item] == title


def test_every_title_finds_itself(index, films):
    for item, title in enumerate(films.titles):
        assert index.exact(title)[0] == item
        assert index.search(title)[0].item == item


def test_the_better_known_of_two_equal_titles_comes_first(films):
    known = np.zeros(films.num_items)
    older = films.titles.index("Sabrina (1954)")
    known[older] = 1.0
    assert TitleIndex(films.titles, films.years, known).search("sabrina")[0].item == older
    assert TitleIndex(films.titles, films.years, 1 - known).search("sabrina")[0].item != older


def test_short_titles_match_letter_by_letter_or_not_at_all(index):
    assert index.closest("ip", least=0.4) is None
    assert index.closest("hept", least=0.7) is None
    assert index.closest("casinoo", least=0.9) is not None


def test_what_is_like_nothing_finds_nothing(index):
    assert index.closest("zzqx wvvk", least=0.6) is None
    assert index.search("zzqx wvvk") == ()
    assert index.search("?!") == ()


@given(st.text(max_size=60))
def test_any_text_can_be_searched(films, typed):
    index = TitleIndex(films.titles, films.years)
    found = index.search(typed, 5)
    assert len(found) <= 5
    assert all(0 <= match.similarity <= 1 for match in found)
    assert [match.similarity for match in found] == sorted((match.similarity for match in found), reverse=True)
    index.closest(typed, least=0.9)


@given(st.text(max_size=60))
def test_any_title_has_a_form_and_plain_text_stays_plain(title):
    assert all(title_forms(title)) or not title
    assert plain(plain(title)) == plain(title)
    short_forms(title)


def test_a_year_at_the_end_is_parted_from_the_title_but_a_title_that_is_a_year_stays():
    assert title_year("Heat (1995)") == ("Heat", 1995)
    assert title_year("1984") == ("1984", None)
    assert title_year("2001: A Space Odyssey (1968)") == ("2001: A Space Odyssey", 1968)


@pytest.mark.parametrize("typed", ["blorptastic", "xyzzy plugh", "interstellar", "zzzz", "qwerty uiop"])
def test_what_no_title_is_like_has_no_match(index, typed):
    assert index.search(typed) == ()
