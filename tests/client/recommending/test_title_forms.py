"""Forms of a whole catalogue at once are those of each title, and an index loses none that is similar enough."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz import fuzz

from palate.data.form_index import FormIndex
from palate.data.title_forms import forms_of
from palate.data.title_index import TitleIndex
from palate.data.titles import short_forms, title_forms, title_year

ODD = [
    "Blade Runner 2049",
    "Sabrina 1954 1995",
    "1984",
    "",
    "(1999)",
    "?!",
    "\u2122",
    "a\nb (1999)",
    "\u039c\u0395\u0393\u0391\u03a3 \u03a3\u03a9\u03a4\u0397\u03a3 (1999)",
    "Stra\u00dfe, Die (1999)",
    "\u674e\u8fde\u6770 (2001)",
    "Rocky II (A.K.A. The Boxer) (x) (1999)",
    "Heat 1995",
    "\u0939\u093f\u0928\u094d\u0926\u0940",
    "\u0130stanbul",
    "Avventura, L' (1960)",
    "a.k.a. The X",
    "The",
    "The (1999)",
    ":2000",
    "x" * 500,
]
LETTERS = st.characters(exclude_categories=["Cs", "Co", "Cn"])
SHORT = st.text("ab c\u00e9", min_size=1, max_size=12)
TITLES = st.lists(
    st.text(LETTERS, max_size=20)
    | st.lists(
        st.sampled_from(
            ["The", "Heat", ", The", " (1995)", " 2049", ": ", " - ", "(a.k.a. ", ")", "II", "&", "\u00c9t\u00e9"]
        )
    ).map("".join),
    max_size=20,
)


def forms_by_title(titles):
    found = forms_of(titles)
    by_title = [set() for _ in titles]
    for owner, form, whole in zip(found.owners.tolist(), found.forms.to_list(), found.whole.tolist(), strict=True):
        by_title[owner].add((form, whole))
    return [{(f, w) for f, w in own if w or (f, True) not in own} for own in by_title], found.years.tolist()


def expected(title):
    whole = title_forms(title)
    return {(form, True) for form in whole} | {(form, False) for form in short_forms(title) if form not in whole}


def check(titles):
    forms, years = forms_by_title(titles)
    for title, own, year in zip(titles, forms, years, strict=True):
        assert own == expected(title), title
        assert year == (title_year(title)[1] or 0), title


def test_forms_of_odd_titles_are_those_of_each_title():
    check(ODD)


@given(TITLES)
def test_forms_of_any_titles_are_those_of_each_title(titles):
    check(titles)


def test_any_assigned_letter_is_folded_alike():
    letters = [chr(code) for code in range(0x10000) if unicodedata.category(chr(code)) not in ("Cn", "Cs", "Co", "Cc")]
    titles = [f"a{letter}b{letter}x" for letter in letters]
    pairs = zip(titles, forms_by_title(titles)[0], strict=True)
    assert [title for title, own in pairs if (title_forms(title)[0], True) not in own] == []


def test_forms_of_real_films_are_those_of_each_film(shared_data):
    from palate.data.items import read_items

    check(read_items(shared_data / "ml-1m" / "movies.dat.gz")[0].titles)


@given(
    st.lists(st.text("ab c\u00e9", max_size=12), min_size=1, max_size=12),
    st.text("ab c\u00e9", min_size=1, max_size=12),
)
def test_the_filter_by_pairs_of_letters_loses_no_similar_form(titles, wanted):
    index = FormIndex.of(titles, np.zeros(len(titles), dtype=np.int32))
    for least in (60.0, 75.0, 90.0):
        scores = {at: fuzz.ratio(wanted, index.form(at)) for at in range(len(index))}
        assert dict(index.similar(wanted, least)) == {at: one for at, one in scores.items() if one >= least}


@given(st.lists(st.text(LETTERS, max_size=12), max_size=12))
def test_an_index_is_the_same_after_it_was_kept(titles):
    made = FormIndex.of(titles, np.zeros(len(titles), dtype=np.int32))
    kept = FormIndex.from_bytes(made.to_bytes())
    assert [kept.form(at) for at in range(len(kept))] == [made.form(at) for at in range(len(made))]
    for title in titles:
        for form in title_forms(title):
            owners = {titles[made.owners[at]] for at in made.of_form(form)}
            assert title in owners
            assert owners == {titles[kept.owners[at]] for at in kept.of_form(form)}


@pytest.mark.parametrize("typed", ["heat", "hrat", "rocky 2", "zzz"])
def test_a_kept_index_answers_as_the_one_that_was_made(films, typed):
    made = TitleIndex(films.titles, films.years)
    kept = TitleIndex(films.titles, films.years, forms=FormIndex.from_bytes(made.forms.to_bytes()))
    assert kept.search(typed) == made.search(typed)
    assert kept.identify(typed) == made.identify(typed)
