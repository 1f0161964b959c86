"""A catalogue of sorts of film, and a table in which their likeness is written."""

from __future__ import annotations

import numpy as np
import pytest

from palate.client.recommending.recommender import Recommender
from palate.data.catalogue import Catalogue
from palate.models.table import ItemTable
from palate.models.training import LocalTraining

GENRES = ("Comedy", "Crime", "Horror", "War")
NUM_ITEMS = 240
NAMES = ("popularity", *(f"genre: {genre}" for genre in GENRES), "decade: 1990s")


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
def training() -> LocalTraining:
    """A closed form with a light ridge, for there are few items."""
    return LocalTraining(model="gmf", regularisation=2.0, hidden=4)


@pytest.fixture(scope="session")
def shelf(table: ItemTable, catalogue: Catalogue, training: LocalTraining) -> Recommender:
    """The table, ready to recommend from."""
    return Recommender(table, catalogue, NAMES, training)
