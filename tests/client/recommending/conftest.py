"""A catalogue of sorts of film, and a table in which their likeness is written."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from palate.client.recommending.preferences import Preferences, read_preferences
from palate.client.recommending.recommender import Recommender
from palate.client.vault.history import Interaction
from palate.data.catalogue import Catalogue
from palate.models.fitting import Fitting
from palate.models.scores.registry import fitting_of
from palate.models.table import ItemTable
from palate.models.training import LocalTraining

FILMS = """
Heat (1995)|Action,Crime,Thriller
Casino (1995)|Drama,Thriller
Matrix, The (1999)|Action,Sci-Fi,Thriller
Seven (Se7en) (1995)|Crime,Thriller
Godfather, The (1972)|Action,Crime,Drama
Godfather: Part II, The (1974)|Action,Crime,Drama
Terminator 2: Judgment Day (1991)|Action,Sci-Fi,Thriller
Terminator, The (1984)|Action,Sci-Fi,Thriller
Toy Story (1995)|Animation,Children's,Comedy
Good, The Bad and The Ugly, The (1966)|Action,Western
12 Angry Men (1957)|Drama
Alien (1979)|Action,Horror,Sci-Fi,Thriller
Sabrina (1995)|Comedy,Romance
Sabrina (1954)|Comedy,Romance
Up (2009)|Animation
Misérables, Les (1998)|Drama,Musical
Titanic (1997)|Drama,Romance
Casablanca (1942)|Drama,Romance,War
Hidden, The (1987)|Action,Horror,Sci-Fi
Shanghai Triad (Yao a yao yao dao waipo qiao) (1995)|Drama
Thin Blue Line, The (1988)|Documentary
Horror Hotel (a.k.a. The City of the Dead) (1960)|Horror
Pride & Prejudice (2005)|Drama,Romance
Untitled|
"""

GENRES = ("Comedy", "Crime", "Horror", "War")
NUM_ITEMS = 240
NAMES = ("popularity", *(f"genre: {genre}" for genre in GENRES), "decade: 1990s")


def preferences_of(said: Iterable[tuple[str, int | str]] = ()) -> Preferences:
    """What counts of things said about rows, such as ("had", 3), or about facets, such as ("pin", "genre: War")."""
    said = list(said)
    taken = [
        Interaction(item=str(about), source="feedback" if action == "like" else "hand")
        for action, about in said
        if action in ("had", "like")
    ]
    marks = {str(about): action for action, about in said if action in ("dislike", "hide")}
    settings = {about: action for action, about in said if action in ("pin", "mute")}
    return read_preferences(taken, marks, settings, {str(row): row for row in range(10_000)})[0]


def make_catalogue() -> Catalogue:
    rng = np.random.default_rng(5)
    own = [tuple(sorted({GENRES[item % 4], *rng.choice(GENRES, rng.integers(0, 2))})) for item in range(NUM_ITEMS)]
    years = rng.integers(1970, 2010, NUM_ITEMS).astype(np.int32)
    return Catalogue(
        ids=tuple(f"film-{item:03}" for item in range(NUM_ITEMS)),
        titles=tuple(f"Picture number {item} ({year})" for item, year in enumerate(years)),
        genres=tuple(own),
        years=years,
        texts=tuple(f"a tale {'trains' if item % 14 == 7 else ''}" for item in range(NUM_ITEMS)),
    )


def make_table(catalogue: Catalogue, dim: int = 6) -> ItemTable:
    rng = np.random.default_rng(6)
    genres = np.array([[genre in own for genre in GENRES] for own in catalogue.genres], dtype=float)
    nineties = (catalogue.years // 10 == 199)[:, None]
    content = np.concatenate([genres, nineties], axis=1)
    popularity = rng.gamma(1.0, size=(NUM_ITEMS, 1))
    learned = genres @ rng.normal(size=(4, dim)) + 0.3 * rng.normal(size=(NUM_ITEMS, dim))
    fixed = np.concatenate([popularity, content - content.mean(axis=0)], axis=1)
    return ItemTable(fixed.astype(np.float32), learned.astype(np.float32))


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    """Two hundred and forty films of four genres."""
    return make_catalogue()


@pytest.fixture(scope="session")
def table(catalogue: Catalogue) -> ItemTable:
    """Popularity, five content columns, six learned columns."""
    return make_table(catalogue)


@pytest.fixture(scope="session")
def training() -> Fitting:
    """A closed form with a light ridge, for there are few items."""
    return fitting_of(LocalTraining(model="gmf", regularisation=2.0, hidden=4))


@pytest.fixture(scope="session")
def shelf(table: ItemTable, catalogue: Catalogue, training: LocalTraining) -> Recommender:
    """The table, ready to recommend from."""
    return Recommender(table, catalogue, NAMES, training)


@pytest.fixture(scope="session")
def films() -> Catalogue:
    """Twenty-four films; the last has neither genre nor year."""
    lines = [line.partition("|") for line in FILMS.strip().splitlines()]
    titles = tuple(title for title, _, _ in lines)
    return Catalogue(
        ids=tuple(f"film-{place}" for place in range(len(lines))),
        titles=titles,
        genres=tuple(tuple(filter(None, genres.split(","))) for _, _, genres in lines),
        years=np.array([int(title[-5:-1]) if title.endswith(")") else 0 for title in titles], dtype=np.int32),
        texts=("",) * len(lines),
    )
