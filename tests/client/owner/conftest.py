"""A device with a small catalogue of films, a table in which their likeness is written, and a history."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from palate.client.fleet import enrolling
from palate.client.fleet.folder import DeviceFolder
from palate.client.fleet.tables import COLUMNS, table_keeper
from palate.client.fleet.tables import TRAINING as KEPT_TRAINING
from palate.client.vault import Vault
from palate.client.vault.history import History, Interaction
from palate.data.catalogue import Catalogue
from palate.data.content import Content, content_features
from palate.models.table import ItemTable
from palate.models.training import LocalTraining

GENRES = ("Comedy", "Crime", "Horror", "War")
NUM_ITEMS, DIM = 240, 6
TITLES = ("Heat (1995)", "Heat (1986)", "Casino (1995)", "Matrix, The (1999)", "Ran (1985)", "\x1b[31mRed (1994)")
HISTORY = tuple(range(9, 90, 4))  # every one of them a crime film
TRAINING = LocalTraining(model="gmf", regularisation=2.0)


def film_frame() -> pl.DataFrame:
    rng = np.random.default_rng(5)
    years = rng.integers(1970, 2010, NUM_ITEMS)
    titles = [f"Picture number {item} ({year})" for item, year in enumerate(years)]
    for item, title in enumerate(TITLES):
        titles[item], years[item] = title, int(title[-5:-1])
    genres = [sorted({GENRES[item % 4], *rng.choice(GENRES, rng.integers(0, 2))}) for item in range(NUM_ITEMS)]
    texts = [f"a tale of {'trains' if item % 14 == 7 else 'men'}" for item in range(NUM_ITEMS)]
    keys = [f"film-{item:03}" for item in range(NUM_ITEMS)]
    return pl.DataFrame({"item": keys, "title": titles, "genres": genres, "year": years, "text": texts})


def content_of(catalogue: Catalogue) -> Content:
    return content_features(genres=catalogue.genres, years=catalogue.years, texts=catalogue.texts, text_dim=0)


def film_table(catalogue_bytes: bytes) -> ItemTable:
    catalogue, rng = Catalogue.from_parquet(catalogue_bytes, hint=""), np.random.default_rng(6)
    genres = np.array([[genre in own for genre in GENRES] for own in catalogue.genres], dtype=float)
    popularity = rng.gamma(1.0, size=(NUM_ITEMS, 1)).astype(np.float32)
    learned = genres @ rng.normal(size=(4, DIM)) + 0.3 * rng.normal(size=(NUM_ITEMS, DIM))
    fixed = np.concatenate([popularity, content_of(catalogue).columns], axis=1)
    return ItemTable(fixed, learned.astype(np.float32))


@pytest.fixture(scope="session")
def template(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("owner") / "device"
    folder = DeviceFolder(home)
    enrolling.begin(folder, keyring="file")
    film_frame().write_parquet(folder.catalogue)
    table_keeper(folder.table)(film_table(folder.catalogue.read_bytes()))
    with Vault.open(folder.vault) as vault:
        KEPT_TRAINING.write(vault, TRAINING.model_dump_json())
        films = Catalogue.from_parquet(folder.catalogue.read_bytes(), hint="")
        COLUMNS.write(vault, ("popularity", *content_of(films).names))
        history = History(vault)
        history.add_many([Interaction(item=f"film-{item:03}", time=1000 + item, source="import") for item in HISTORY])
        history.forget_steps()
    return home


@pytest.fixture
def owner(template, tmp_path, terminal_at):
    """The device, for one test to change."""
    shutil.copytree(template, tmp_path / "device")
    return terminal_at(tmp_path / "device")
