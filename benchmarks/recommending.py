"""What a device waits for: lists, refits, requests and explanations, in milliseconds; and the first list, from cold.

Tables are random, of real sizes: what is timed does not depend on the values. "ml-1m" is 3,706 items with 49 fixed and
64 learned columns, "million" a million items with 32 columns.
The cold start is `palate client recommend` as a process of its own, on a device with a sealed vault and a history.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
import typer
from outcome import Check, Outcome, command, print_checks
from rich.console import Console

from palate.client.fleet import enrolling
from palate.client.fleet.folder import DeviceFolder
from palate.client.fleet.tables import TRAINING, table_keeper
from palate.client.recommending.preferences import Preferences
from palate.client.recommending.recommender import Recommender
from palate.client.recommending.requests import Request
from palate.client.vault import Vault
from palate.client.vault.history import History, Interaction
from palate.data.catalogue import Catalogue
from palate.models.scores.registry import fitting_of
from palate.models.table import ItemTable
from palate.models.training import LocalTraining

HISTORY = 200
GENRES = tuple(f"Genre {letter}" for letter in "ABCDEFGHIJKLMNOPQR")
SIZES = {"ml-1m": (3706, 49, 64), "million": (1_000_000, 16, 16)}
"""Items, fixed columns and learned columns."""

TARGETS = {
    ("ml-1m", "warm list"): 5.0,
    ("million", "warm list"): 50.0,
    ("million", "scores and list"): 50.0,
    ("ml-1m", "refit, scores and list"): 50.0,
    ("ml-1m", "palate client recommend, cold"): 500.0,
    ("ml-1m", "palate client recommend WISH, cold"): 600.0,
    ("million", "index of titles"): 3000.0,
    ("million", "request in words"): 200.0,
}
"""Milliseconds of wall time."""


def table_of(size: str, rng: np.random.Generator) -> tuple[ItemTable, Catalogue, tuple[str, ...]]:
    """Make a random table of a size, its catalogue and the names of its columns."""
    num_items, fixed_dim, dim = SIZES[size]
    own = rng.integers(0, len(GENRES), num_items).tolist()
    years = rng.integers(1930, 2024, num_items).astype(np.int32)
    words = ["Silent", "Night", "River", "Stone", "Golden", "Winter", "House", "Road", "Dream", "Letter"]
    picked = rng.integers(0, len(words), (num_items, 3)).tolist()
    catalogue = Catalogue(
        ids=tuple(map(str, range(num_items))),
        titles=tuple(f"{' '.join(words[w] for w in row)} {item}" for item, row in enumerate(picked)),
        genres=tuple((GENRES[genre],) for genre in own),
        years=years,
        texts=("",) * num_items,
    )
    fixed = rng.normal(0, 0.3, (num_items, fixed_dim)).astype(np.float32)
    fixed[:, 0] = rng.gamma(1.0, size=num_items)
    table = ItemTable(fixed, rng.normal(0, 0.1, (num_items, dim)).astype(np.float32))
    names = ("popularity", *(f"column {at}" for at in range(1, fixed_dim)))
    return table, catalogue, names


def told_of(
    shelf: Recommender, rng: np.random.Generator, *, liked: tuple[int, ...] = (), pinned: tuple[str, ...] = ()
) -> Preferences:
    """Make a random history with some feedback."""
    items = rng.permutation(shelf.space.num_items)[:HISTORY].astype(np.int32)
    had = [item for item in items[:-10].tolist() if item not in liked]
    return Preferences(
        items=np.array([*had, *liked], dtype=np.int32),
        liked=frozenset(liked),
        disliked=tuple(items[-10:-5].tolist()),
        hidden=frozenset(items[-5:].tolist()),
        pinned=pinned,
    )


def timed(work: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Median milliseconds of wall and CPU time, after one run to warm up."""
    work()
    wall, cpu = [], []
    for _ in range(repeats):
        started, spent = time.perf_counter(), time.process_time()
        work()
        wall.append(1e3 * (time.perf_counter() - started))
        cpu.append(1e3 * (time.process_time() - spent))
    return {"wall_ms": statistics.median(wall), "cpu_ms": statistics.median(cpu), "best_wall_ms": min(wall)}


def measure(size: str, repeats: int) -> dict[str, dict[str, float]]:
    """Time everything that a person waits for."""
    rng = np.random.default_rng(0)
    made = table_of(size, rng)
    started, spent = time.perf_counter(), time.process_time()
    shelf = Recommender(*made, fitting_of(LocalTraining(model="gmf")))
    prepared = {"wall_ms": 1e3 * (time.perf_counter() - started), "cpu_ms": 1e3 * (time.process_time() - spent)}
    told = told_of(shelf, rng)
    person = shelf.person(told)
    liked = told_of(shelf, rng, liked=(5,))
    facet = f"genre: {GENRES[0]}"
    pinned = told_of(shelf, rng, liked=(5,), pinned=(facet,))
    found = {"prepare the table": prepared}

    def fresh_list() -> None:
        person.__dict__.pop("scores", None)
        person.recommend()

    wishes = {
        "list with filters": Request(genres=(facet,), first_year=1980, last_year=2000),
        "list with diversity": Request(diversity=0.5),
        "list with nudges": Request(titles=(17,), more=(facet,)),
    }
    found["warm list"] = timed(person.recommend, repeats)
    found["scores and list"] = timed(fresh_list, repeats)
    found["refit, scores and list"] = timed(lambda: shelf.person(liked).recommend(), repeats)
    found["the same with a pin"] = timed(lambda: shelf.person(pinned).recommend(), repeats)
    for name, wish in wishes.items():
        found[name] = timed(lambda wish=wish: person.recommend(wish), repeats)
    started, spent = time.perf_counter(), time.process_time()
    _ = shelf.reader
    indexed = {"wall_ms": 1e3 * (time.perf_counter() - started), "cpu_ms": 1e3 * (time.process_time() - spent)}
    found["index of titles"] = indexed
    found["search, misspelt"] = timed(lambda: shelf.titles.search("silnt nigth river 77"), max(3, repeats // 10))
    found["request in words"] = timed(
        lambda: shelf.reader.read("something from the 90s like silent night river 77, but no genre b"), repeats
    )
    return found


def device_of(size: str, home: Path) -> None:
    """Make a device with a random table of a size and a random history."""
    folder, rng = DeviceFolder(home), np.random.default_rng(0)
    table, catalogue, _ = table_of(size, rng)
    enrolling.begin(folder, keyring="file")
    columns = {"item": catalogue.ids, "title": catalogue.titles, "genres": catalogue.genres, "year": catalogue.years}
    pl.DataFrame({**columns, "text": catalogue.texts}).write_parquet(folder.catalogue)
    table_keeper(folder.table)(table)
    items = rng.permutation(catalogue.num_items)[:HISTORY].tolist()
    with Vault.open(folder.vault) as vault:
        TRAINING.write(vault, LocalTraining(model="gmf").model_dump_json())
        History(vault).add_many([Interaction(item=str(item), time=at) for at, item in enumerate(items)])


WISH = "a genre b from the 90s like silent night river 77"


def cold_start(size: str, wish: str = "") -> dict[str, float]:
    """Time `palate client recommend` as a process, the best of seven after one that prepares the table."""
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch) / "device"
        device_of(size, home)
        arguments = ["-m", "palate.cli.main", "client", "recommend", wish, "--folder", str(home)]
        return best_of([arguments] * 8)


def cold_import() -> dict[str, float]:
    """Time a fresh interpreter that imports the recommender, the best of five."""
    return best_of([["-c", "import palate.client.recommending.recommender"]] * 6)


def best_of(calls: list[list[str]]) -> dict[str, float]:
    """Time fresh interpreters; the first one warms the disk's cache, compiles what is not yet, and is left out."""
    wall, cpu = [], []
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for call in calls:
        started, before = time.perf_counter(), os.times()
        subprocess.run(
            [sys.executable, *call], check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wall.append(1e3 * (time.perf_counter() - started))
        after = os.times()
        cpu.append(1e3 * (after.children_user + after.children_system - before.children_user - before.children_system))
    return {"wall_ms": min(wall[1:]), "cpu_ms": min(cpu[1:]), "median_wall_ms": statistics.median(wall[1:])}


def main(
    size: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(SIZES)}; may be repeated.")] = None,
    repeats: Annotated[int, typer.Option(min=3, help="Runs to time, after one to warm up.")] = 30,
) -> None:
    """Time the device's recommender and write results/recommending.json."""
    rows = {name: measure(name, repeats) for name in size or list(SIZES)}
    if "ml-1m" in rows:
        rows["ml-1m"]["palate client recommend, cold"] = cold_start("ml-1m")
        rows["ml-1m"]["palate client recommend WISH, cold"] = cold_start("ml-1m", WISH)
    rows["any"] = {"cold import": cold_import()}
    checks = []
    for name, found in rows.items():
        for what, spent in found.items():
            checks.append(Check(name=f"{name} {what}, CPU", measured=spent["cpu_ms"], unit="ms"))
            target = TARGETS.get((name, what))
            checks.append(Check(name=f"{name} {what}", measured=spent["wall_ms"], unit="ms", target=target))
    outcome = Outcome("recommending", tuple(checks), (), {"rows": rows})
    outcome.write()
    print_checks([outcome], Console())


if __name__ == "__main__":
    command(main)
