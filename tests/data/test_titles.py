"""One matcher of titles: people's spellings find the one film that is meant, and never a remake of another year."""

from __future__ import annotations

import numpy as np
import pytest

from palate.data.title_index import TitleIndex
from palate.data.titles import title_year

FILMS = [
    ("Matrix, The (1999)", 1999),
    ("Heat (1995)", 1995),
    ("Heat (1986)", 1986),
    ("Psycho (1960)", 1960),
    ("Psycho (1998)", 1998),
    ("Seven (Se7en) (1995)", 1995),
    ("Misérables, Les (1998)", 1998),
    ("Star Wars: Episode IV - A New Hope (1977)", 1977),
    ("Rocky II (1979)", 1979),
    ("Rocky III (1982)", 1982),
    ("Toy Story (1995)", 1995),
    ("Toy Story 2 (1999)", 1999),
    ("Blade Runner (1982)", 1982),
    ("Casablanca (1942)", 1942),
    ("Kid, The (1921)", 1921),
    ("Kid (1990)", 1990),
    ("Thelma & Louise (1991)", 1991),
    ("Good, The Bad and The Ugly, The (1966)", 1966),
    ("2001: A Space Odyssey (1968)", 1968),
    ("Godzilla (1998)", 1998),
    ("Godzilla (Gojira) (1954)", 1954),
    ("Portal\u2122", 0),
]


@pytest.fixture(scope="module")
def index():
    return TitleIndex([title for title, _ in FILMS], np.array([year for _, year in FILMS], dtype=np.int32))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("the matrix", "Matrix, The (1999)"),
        ("MATRIX (1999)", "Matrix, The (1999)"),
        ("Heat (1986)", "Heat (1986)"),
        ("Psycho (1998)", "Psycho (1998)"),
        ("Se7en", "Seven (Se7en) (1995)"),
        ("Les Miserables (1998)", "Misérables, Les (1998)"),
        ("Star Wars (1977)", "Star Wars: Episode IV - A New Hope (1977)"),
        ("Star Wars Episode IV: A New Hope", "Star Wars: Episode IV - A New Hope (1977)"),
        ("Rocky 2", "Rocky II (1979)"),
        ("The Kid", "Kid, The (1921)"),
        ("Thelma and Louise (1991)", "Thelma & Louise (1991)"),
        ("The Good, the Bad and the Ugly (1966)", "Good, The Bad and The Ugly, The (1966)"),
        ("2001: A Space Odyssey", "2001: A Space Odyssey (1968)"),
        ("portal", "Portal\u2122"),
    ],
)
def test_a_title_as_people_write_it_is_exact(index, written, meant):
    assert index.identify(written) == (dict_of(FILMS)[meant], "exact")
    assert index.identify(written, likely=False) == (dict_of(FILMS)[meant], "exact")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Heat (1996)", "Heat (1995)"),
        ("Casblanca", "Casablanca (1942)"),
        ("Toy Story: The Film (1995)", "Toy Story (1995)"),
    ],
)
def test_what_is_nearly_a_title_is_likely_and_never_exact(index, written, meant):
    assert index.identify(written) == (dict_of(FILMS)[meant], "likely")
    assert index.identify(written, likely=False) is None


@pytest.mark.parametrize(
    "written",
    [
        "Heat",  # two films
        "Heat (2011)",  # another year
        "Psycho",
        "Godzilla",  # a second title does not make one of them another
        "Les Misérables (2012)",
        "Toy Story 3",  # the number is no slip
        "Rocky IV (1985)",
        "Blade Runner 2049",  # the number is no year
        "Blade Runner 2049 (2017)",
        "Star Wars",  # what stands before a colon, without a year
        "The Matrix (2021)",
        "",
        "(1999)",
    ],
)
def test_another_film_of_the_same_name_is_not_taken(index, written):
    assert index.identify(written) is None


def test_another_title_of_the_same_item_is_likely(index):
    assert index.identify("Der weisse Hai (1999)", ["The Matrix"]) == (0, "likely")
    assert index.identify("Der weisse Hai (1975)", ["The Matrix"]) is None


def test_every_title_is_found_by_itself_and_by_its_usual_form(index):
    for at, (title, year) in enumerate(FILMS):
        assert index.identify(title) == (at, "exact")
        name = title.removesuffix(f" ({year})").removesuffix(", The")
        assert index.identify(f"{name.upper()} ({year})" if year else name) == (at, "exact")


def test_an_index_of_real_films_finds_all_of_them_and_mixes_none_up(shared_data):
    from palate.data.items import read_items

    films, _ = read_items(shared_data / "ml-1m" / "movies.dat.gz")
    found = [films.title_index.identify(title, likely=False) for title in films.titles]
    assert sum(one is not None for one in found) >= 0.99 * len(found)
    assert all(one is None or one[0] == at for at, one in enumerate(found))
    bare = [title_year(title)[0].partition(" (")[0] for title in films.titles]
    found = [films.title_index.identify(title) for title in bare]
    assert sum(one is not None for one in found) >= 0.95 * len(found)
    assert all(one is None or one[0] == at for at, one in enumerate(found)), "a remake was taken for another"
    later = [films.title_index.identify(f"{title} ({year + 7})") for title, year in zip(bare, films.years, strict=True)]
    years = [0 if one is None else films.years[one[0]] - year - 7 for one, year in zip(later, films.years, strict=True)]
    assert {abs(int(difference)) for difference in years} <= {0, 1}


def dict_of(films):
    return {title: at for at, (title, _) in enumerate(films)}
