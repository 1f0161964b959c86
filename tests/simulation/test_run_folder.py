"""The run folder is claimed by one configuration and one process, and only ever loses its own files."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import polars as pl
import pytest

from palate.errors import EnvironmentProblem, RunError
from palate.simulation.prepare import prepare
from palate.simulation.run_folder import claim, clear, environment, locked, read_config, write_items


def test_a_new_folder_is_made_and_remembers_its_configuration(tmp_path, settings):
    folder = tmp_path / "deep" / "run"
    with locked(folder):
        claim(folder, settings())
    assert read_config(folder) == settings()
    assert (folder / "environment.json").exists()
    claim(folder, settings())


def test_a_folder_of_another_configuration_is_refused(tmp_path, settings):
    claim(tmp_path, settings())
    with pytest.raises(RunError, match="another configuration") as refused:
        claim(tmp_path, settings(seed=2))
    assert "--fresh" in refused.value.hint


def test_a_folder_that_holds_something_else_is_refused_and_left_alone(tmp_path, settings):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(RunError, match=r"holds thesis\.tex"):
        claim(tmp_path, settings())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_a_process_leaves_that_is_killed_while_it_claims_is_no_obstacle(tmp_path, settings):
    for name in (".lock", "environment.json", ".config.toml.4711.tmp"):
        (tmp_path / name).write_text("{}")
    claim(tmp_path, settings())
    assert read_config(tmp_path) == settings()


@pytest.mark.parametrize(
    "content", [b"", b"unit = ", b"\xff", b"seed = 2", b'unit = "household"', b'unit = "none"\ncolour = 1\n']
)
def test_a_damaged_configuration_is_said_to_be_damaged(tmp_path, settings, content):
    claim(tmp_path, settings())
    (tmp_path / "config.toml").write_bytes(content)
    with pytest.raises(RunError, match="is damaged"):
        claim(tmp_path, settings())


def test_a_folder_without_configuration_is_not_a_run(tmp_path):
    with pytest.raises(RunError, match="is not a run"):
        read_config(tmp_path)


def hold(folder: Path, ready, done) -> None:
    with locked(folder):
        ready.set()
        done.wait(30)


def test_two_processes_cannot_work_in_one_folder(tmp_path):
    spawned = multiprocessing.get_context("fork")
    ready, done = spawned.Event(), spawned.Event()
    other = spawned.Process(target=hold, args=(tmp_path, ready, done))
    other.start()
    try:
        assert ready.wait(30)
        with pytest.raises(RunError, match="another process"), locked(tmp_path):
            pytest.fail("the lock must not be given twice")
    finally:
        done.set()
        other.join()
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("name", ["file/run", "file", "x\0y", "n" * 300])
def test_a_folder_that_cannot_be_made_is_the_machines_refusal(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="cannot write to run folder"), locked(tmp_path / name):
        pytest.fail("there is no such folder")


def test_clearing_deletes_a_run_and_what_a_killed_process_left(tmp_path, settings):
    claim(tmp_path, settings())
    for name in (".lock", "rounds.jsonl", "checkpoint.safetensors", ".checkpoint.safetensors.4711.tmp"):
        (tmp_path / name).write_text("")
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "shard-0000.round-00001.safetensors").write_text("")
    clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    claim(tmp_path, settings(seed=2))


@pytest.mark.parametrize("names", [["config.toml", "notes.txt"], ["plots", "log.txt"], ["report.html"]])
def test_clearing_refuses_whole_where_the_folder_is_not_a_runs_alone(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("precious")
    with pytest.raises(RunError, match="nothing was deleted"):
        clear(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_items_are_written_in_the_order_of_the_tables_rows(tmp_path, settings):
    catalogue = prepare(settings()).interactions.catalogue
    write_items(tmp_path, catalogue)
    frame = pl.read_parquet(tmp_path / "items.parquet")
    assert frame["item"].to_list() == list(catalogue.ids)
    first = frame.row(0, named=True)
    number = int(first["item"].removeprefix("thing"))
    assert (first["title"], first["year"]) == (f"Thing {number}", 1960 + number)
    assert first["genres"] == sorted(("Comedy", "Drama", "Space|Drama")[number % 3].split("|"))


def test_the_environment_names_the_versions_that_a_repetition_needs():
    found = environment()
    assert {"palate", "torch", "flwr", "numpy"} <= set(found["packages"])
    assert found["palate"] == found["packages"]["palate"]
