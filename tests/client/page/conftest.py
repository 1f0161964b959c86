"""A device with a catalogue, a table and some history, and a browser of sorts before its page."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import httpx
import numpy as np
import polars as pl
import pytest

from palate.client.fleet.enrolling import begin
from palate.client.fleet.folder import DeviceFolder
from palate.client.fleet.tables import TRAINING, table_keeper
from palate.client.owner.device import OwnerDevice
from palate.client.page.access import COOKIE, AccessControl, Secrets
from palate.client.page.app import Page
from palate.client.page.session import DeviceSession
from palate.client.vault import Vault
from palate.client.vault.history import History, Interaction
from palate.data.content import content_features
from palate.models.table import ItemTable
from palate.models.training import LocalTraining

PORT = 8123
ORIGIN = f"http://127.0.0.1:{PORT}"
GENRES = ("Comedy", "Crime", "Horror", "War")
NUM_ITEMS, HISTORY = 160, 24


def make_device(home: Path, *, num_items: int = NUM_ITEMS, history: int = HISTORY, dim: int = 6) -> DeviceFolder:
    """Films of four genres, in the files of a device that has had a round."""
    rng = np.random.default_rng(5)
    genres = [sorted({GENRES[item % 4], *rng.choice(GENRES, rng.integers(0, 2))}) for item in range(num_items)]
    years = rng.integers(1970, 2010, num_items).astype(np.int32)
    titles = [f"Picture & <b>number</b> {item} ({year})" for item, year in enumerate(years)]
    texts = [f"a tale of {'trains' if item % 14 == 7 else 'people'}" for item in range(num_items)]
    folder = DeviceFolder(home)
    begin(folder, keyring="file")
    keys = [f"film-{item:05}" for item in range(num_items)]
    pl.DataFrame({"item": keys, "title": titles, "genres": genres, "year": years, "text": texts}).write_parquet(
        folder.catalogue
    )
    content = content_features(genres=genres, years=years, texts=texts, text_dim=0).columns
    popularity = rng.gamma(1.0, size=(num_items, 1))
    learned = content @ rng.normal(size=(content.shape[1], dim)) + 0.3 * rng.normal(size=(num_items, dim))
    table = ItemTable(np.concatenate([popularity, content], axis=1).astype(np.float32), learned.astype(np.float32))
    table_keeper(folder.table)(table)
    with Vault.open(folder.vault) as vault:
        TRAINING.write(vault, LocalTraining(model="gmf", regularisation=2.0).model_dump_json())
        crime = [item for item in range(num_items) if "Crime" in genres[item]]
        own = [*crime[: history // 2], *rng.permutation(num_items)[: history - history // 2].tolist()]
        History(vault).add_many(
            Interaction(item=keys[item], time=1_700_000_000 + place, source="import") for place, item in enumerate(own)
        )
    return folder


class Client:
    """Requests to an application in this process, without a network; a failure in it is an answer with status 500."""

    def __init__(self, app) -> None:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        self._client = httpx.AsyncClient(transport=transport, base_url=ORIGIN)
        self._runner = asyncio.Runner()

    def request(self, method: str, path: str, **options) -> httpx.Response:
        return self._runner.run(self._client.request(method, path, **options))

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()


@dataclass
class Visitor:
    """Somebody with the page's words; `get` and `post` behave as the owner's browser does."""

    session: DeviceSession
    words: Secrets
    client: Client
    ended: list[bool] = field(default_factory=list)

    @property
    def cookie(self) -> dict[str, str]:
        return {"cookie": f"{COOKIE}={self.words.cookie}"}

    def get(self, path: str = "", **headers: str):
        return self.client.request("GET", f"/{self.words.place}/{path}", headers={**self.cookie, **headers})

    def post(self, path: str, headers: dict | None = None, **form: str):
        sent = {**self.cookie, "origin": ORIGIN, **(headers or {})}
        data = {"token": self.words.form, **form}
        return self.client.request("POST", f"/{self.words.place}/{path}", data=data, headers=sent)

    def said(self, path: str, **form: str) -> str:
        """Post a form, follow the redirect as a browser does, and return the page."""
        answer = self.post(path, **form)
        assert answer.status_code == 303, answer.text
        return self.get(answer.headers["location"].removeprefix("./")).text


def visitor(folder: DeviceFolder, vault: Vault) -> Visitor:
    words, ended = Secrets.fresh(), []
    session = DeviceSession(OwnerDevice(folder, vault))
    app = AccessControl(Page(session, words.form, lambda: ended.append(True)).app(), words, PORT)
    return Visitor(session, words, Client(app), ended)


def items_of(page: str) -> list[str]:
    """Keys of the items that a page shows, in order."""
    return re.findall(r'name="item" value="([^"]+)"', page)


@pytest.fixture(scope="session")
def fleets() -> ModuleType:
    """The honest fleet in memory of the deployment's own tests."""
    path = Path(__file__).parents[1] / "fleet" / "conftest.py"
    spec = importlib.util.spec_from_file_location("palate_test_fleets", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> DeviceFolder:
    """A device that no test changes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PALATE_KEYRING", "file")
        return make_device(tmp_path_factory.mktemp("device") / "home")


@pytest.fixture
def folder(made: DeviceFolder, tmp_path: Path) -> DeviceFolder:
    """A copy of it."""
    import shutil

    shutil.copytree(made.home, tmp_path / "home")
    return DeviceFolder(tmp_path / "home")


@pytest.fixture
def owner(folder: DeviceFolder) -> Iterator[Visitor]:
    """The owner before the page."""
    with Vault.open(folder.vault) as vault:
        found = visitor(folder, vault)
        yield found
        found.client.close()
