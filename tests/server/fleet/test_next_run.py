"""The next run's folder: put in place as a whole or not at all, and no budget is given back by starting again."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from palate.errors import ConfigError
from palate.models.table import ItemTable, fitted_embeddings
from palate.privacy import files
from palate.privacy.accounting.events import Unit
from palate.privacy.charging import intents
from palate.server.coordinator import Coordinator, Snapshot, WarmStart
from palate.server.fleet import next_run
from palate.server.fleet.config import load_config
from palate.server.fleet.folder import FleetFolder, read_key
from palate.server.fleet.next_run import begin_next_run, finish, promised_in_all, read_start
from palate.server.fleet.setup import make_fleet
from palate.server.fleet.state import FleetState
from palate.server.ledger import ServerLedger
from palate.server.store import RunStore

ITEMS = 12


@pytest.fixture
def folder(tmp_path):
    """A fleet with a table."""
    (tmp_path / "items.csv").write_text("item,genres\n" + "".join(f"i{n:02},Drama\n" for n in range(ITEMS)))
    given = {
        "name": "books",
        "run": "books-1",
        "listen": {"address": "localhost:1"},
        "cohort": {"devices": 5},
        "schedule": {"rounds": 1, "dim": 3},
    }
    made = FleetFolder(tmp_path / "fleet")
    make_fleet(made, tmp_path / "items.csv", given)
    made.run.mkdir()
    rng = np.random.default_rng(1)
    table = ItemTable(*(rng.normal(size=(ITEMS, width)).astype(np.float32) for width in (1, 3)))
    RunStore(made.run).save(Snapshot(1, 2, table, table.fixed[:, 0], {}), {"run": "books-1"})
    files.replace(made.run / "settings.json", b"{}")
    return made


def whole(folder: FleetFolder) -> dict[str, bytes]:
    """What counts in a fleet's folder, by path; of the starting table its arrays, for labels have no order."""
    kept = [folder.config, folder.catalogue, *sorted(folder.run.rglob("*")), *sorted(folder.runs.rglob("*"))]
    found = {str(path.relative_to(folder.root)): path.read_bytes() for path in kept if path.is_file()}
    if (start := read_start(folder.start)) is not None:
        found["run/start.safetensors"] = start.learned.tobytes() + start.popularity.tobytes()
    return found


class Killed(BaseException):
    """The end of the process."""


def test_a_server_killed_between_any_two_writes_has_the_old_run_or_the_new_one(folder, tmp_path, monkeypatch):
    (tmp_path / "more.csv").write_text("item\n" + "".join(f"i{n:02}\n" for n in range(1, ITEMS + 1)))
    before, pristine = whole(folder), tmp_path / "pristine"
    shutil.copytree(folder.root, pristine)
    left, runs = [0], set()

    def counted(method):
        def call(*args, **kwargs):
            if not left[0]:
                raise Killed
            left[0] -= 1
            return method(*args, **kwargs)

        return call

    monkeypatch.setattr(next_run.files, "replace", counted(files.replace))
    monkeypatch.setattr(Path, "replace", counted(Path.replace))
    monkeypatch.setattr(next_run.shutil, "rmtree", counted(shutil.rmtree))
    monkeypatch.setattr(next_run.secrets, "token_hex", lambda size: "ab" * size)
    for writes in range(60):
        left[0] = writes
        try:
            begin_next_run(folder, {}, catalogue=tmp_path / "more.csv", unfinished=True)
        except Killed:
            left[0] = 1000
            finish(folder)
            runs.add(load_config(folder.config).run)
            found = whole(folder)
            if load_config(folder.config).run == "books-1":
                assert found == before
            else:
                complete = found
                assert set(found) == {
                    "fleet.toml", "catalogue.parquet", "run/start.safetensors", "runs/books-1/fleet.toml",
                    "runs/books-1/catalogue.parquet", "runs/books-1/settings.json",
                    "runs/books-1/checkpoint.safetensors", "runs/books-1/item_table.safetensors",
                }  # fmt: skip
            left[0] = 1000
            shutil.rmtree(folder.root)
            shutil.copytree(pristine, folder.root)
            continue
        break
    else:
        pytest.fail("it never came to its end")
    assert runs == {"books-1", "books-abababab"}
    assert whole(folder) == complete


def test_the_next_run_starts_from_the_last_table_by_item(folder, tmp_path):
    old = RunStore(folder.run).load({})
    (tmp_path / "more.csv").write_text("item\n" + "".join(f"i{n:02}\n" for n in range(3, ITEMS + 2)))
    made = begin_next_run(folder, {}, catalogue=tmp_path / "more.csv", unfinished=True)
    assert (made.items, made.new, made.gone, made.learned) == (ITEMS - 1, 2, 3, ITEMS - 3)
    start = read_start(folder.start)
    assert np.array_equal(start.learned[:-2], old.table.learned[3:])
    assert np.array_equal(start.popularity[:-2], old.table.fixed[3:, 0])
    assert not start.known[-2:].any()
    assert not start.popularity[-2:].any()
    # a run that ends before its first round hands on what it had
    again = begin_next_run(folder, {}, unfinished=True)
    assert (again.learned, again.before) == (ITEMS - 3, made.run)
    assert np.array_equal(read_start(folder.start).learned, start.learned)


def test_a_name_that_is_used_a_second_time_is_refused_by_the_ledger_of_rounds(folder):
    """Rounds of one run are told apart by number, and numbers go on: a name that comes again repeats none."""
    state = FleetState(folder.state)
    assert state.first_round("books-1") == 0
    state.close()
    with pytest.raises(ConfigError):
        begin_next_run(folder, {"cohort": {"devices": 1}}, unfinished=True)
    assert load_config(folder.config).run == "books-1"


def test_the_servers_budget_of_a_run_does_not_grow_however_often_it_starts(folder):
    config = load_config(folder.config)
    policy = config.promise.policy(smallest_cohort=1)
    key = read_key(folder.server_key)
    settings = config.server_settings()
    coordinator = Coordinator(settings, np.zeros((ITEMS, 1), np.float32), np.zeros((ITEMS, 3), np.float32))

    def opened(run: str) -> ServerLedger:
        return ServerLedger(folder.ledger, key, {Unit.USER: policy}, run=run)

    for run, others in (("books-1", 0), ("books-2", 1), ("books-1", 1)):
        coordinator.settings = settings.model_copy(update={"run": run})
        ledger = opened(run)
        before = ledger.left_nano(Unit.USER)
        if run == "books-2" or not others:
            plan = coordinator.plan()
            ledger.begin(plan)
            ledger.write_off(run, plan.server_round)
        spent = before - ledger.left_nano(Unit.USER)
        ledger.close()
        for _ in range(3):
            ledger = opened(run)
            assert ledger.left_nano(Unit.USER) == before - spent
            ledger.close()
        assert before <= policy.budget_nano
    assert spent == 0, "books-1 spent in its own time what it did"
    price = intents(coordinator.plan())[Unit.USER].charge_nano
    assert before == policy.budget_nano - price
    assert promised_in_all(folder, config) > config.epsilon


def test_new_items_start_where_items_like_them_are():
    rng = np.random.default_rng(3)
    genre = rng.integers(0, 2, size=40)
    content = np.stack([genre == 0, genre == 1], axis=1).astype(np.float32) - 0.5
    fixed = np.concatenate([np.full((40, 1), 2.0, np.float32), content], axis=1)
    learned = np.where(genre[:, None] == 0, [1.0, 0.2], [-1.0, 0.4]).astype(np.float32)
    known = np.arange(40) < 30
    found = fitted_embeddings(fixed, np.where(known[:, None], learned, 0.0).astype(np.float32), known)
    assert np.array_equal(found[known], learned[known])
    assert found.dtype == np.float32
    new = found[~known]
    assert np.all(np.sign(new[:, 0]) == np.sign(learned[~known, 0]))
    assert np.corrcoef(new[:, 0], learned[~known, 0])[0, 1] > 0.99


def test_new_items_without_content_start_at_zero():
    known = np.array([True, False])
    found = fitted_embeddings(np.ones((2, 1), np.float32), np.ones((2, 3), np.float32), known)
    assert found.tolist() == [[1, 1, 1], [0, 0, 0]]


def test_a_popularity_round_leaves_known_rows_as_they_were(folder):
    config = load_config(folder.config)
    rng = np.random.default_rng(5)
    learned = rng.normal(size=(ITEMS, 3)).astype(np.float32)
    learned[-2:] = 0.0
    start = WarmStart(rng.normal(size=ITEMS).astype(np.float32), learned)
    content = rng.normal(size=(ITEMS, 2)).astype(np.float32)
    coordinator = Coordinator(config.server_settings(), content, np.zeros((ITEMS, 3), np.float32), start=start)
    assert np.array_equal(coordinator.table.fixed[:, 0], start.popularity)
    coordinator.apply(np.abs(rng.normal(size=ITEMS)) * 100.0)
    assert np.array_equal(coordinator.table.learned[:-2], learned[:-2])
    assert np.all(np.any(coordinator.table.learned[-2:] != 0.0, axis=1))
    assert not np.array_equal(coordinator.table.fixed[:, 0], start.popularity), "popularity is measured anew"


def test_a_damaged_start_is_said_so(folder):
    folder.start.write_bytes(save({"learned": np.zeros((1, 1), np.float32)}, {"format": "another"}))
    with pytest.raises(Exception, match="another"):
        read_start(folder.start)
