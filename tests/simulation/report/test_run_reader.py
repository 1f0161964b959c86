"""Reading a run folder: what was written comes back, and nothing damaged gets through or ends in a traceback."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file, save_file

from palate.errors import RunError
from palate.simulation.run_reader import locate_run, read_item_table, read_run

FILES = (
    "config.toml",
    "environment.json",
    "rounds.jsonl",
    "items.parquet",
    "item_table.safetensors",
    "evaluation.parquet",
    "result.json",
)


@pytest.fixture
def folder(finished_run: SimpleNamespace, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(finished_run.folder, tmp_path / "copy"))


def rewrite_result(folder: Path, **values: object) -> None:
    path = folder / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_run_comes_back_as_it_was_written(finished_run: SimpleNamespace):
    run = read_run(finished_run.folder)
    finished = finished_run.finished
    assert run.catalogue.ids == finished.interactions.catalogue.ids
    assert run.catalogue.genres == finished.interactions.catalogue.genres
    assert run.saved.table.content_hash == finished.table.content_hash
    assert run.saved.columns == ("popularity",)
    assert [record.round for record in run.rounds] == list(range(7))
    assert run.config["training"] == {"model": "linear", "noise": 0.5}
    test = run.ranked["test"]
    assert test.evaluation.target.tolist() == finished.split.test.item.tolist()
    assert test.user_ids == finished.interactions.users
    assert run.result.summary.test.sampled.hit_rate.value == pytest.approx(np.mean(test.evaluation.rank_sampled < 10))


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder: Path, name: str):
    (folder / name).unlink()
    with pytest.raises(RunError) as caught:
        read_run(folder)
    assert name in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_short_anywhere_is_refused_by_name(folder: Path, name: str):
    whole = (folder / name).read_bytes()
    shortest = 1 if name == "config.toml" else 0  # an empty file is an empty configuration, as good as any
    for length in {shortest, len(whole) // 3, len(whole) // 2, len(whole) - 2}:
        (folder / name).write_bytes(whole[:length])
        with pytest.raises(RunError, match=name.replace(".", r"\.")):
            read_run(folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("garbage", [b"\x00\xff" * 500, b"PAR1" * 300, b"{}", b"[1, 2]\n", b"null"])
def test_garbage_in_place_of_a_file_is_refused(folder: Path, name: str, garbage: bytes):
    if name == "config.toml" and garbage == b"[1, 2]\n":
        garbage = b"[1, 2]]\n"
    (folder / name).write_bytes(garbage)
    with pytest.raises(RunError):
        read_run(folder)


@pytest.mark.parametrize("name", FILES)
def test_flipped_bytes_never_end_in_anything_but_a_run_error(folder: Path, name: str):
    whole = (folder / name).read_bytes()
    rng = np.random.default_rng(5)
    refused = 0
    for _ in range(40):
        bent = bytearray(whole)
        for at in rng.integers(0, len(bent), 6):
            bent[at] = rng.integers(0, 256)
        (folder / name).write_bytes(bytes(bent))
        try:
            read_run(folder)
        except RunError:
            refused += 1
    assert refused > 0


@pytest.mark.parametrize("name", ["evaluation.parquet", "items.parquet", "rounds.jsonl"])
def test_a_file_with_another_hash_than_result_json_states_is_refused(folder: Path, name: str):
    right = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    rewrite_result(folder, files={name: right, "../elsewhere": "0"})
    read_run(folder)
    rewrite_result(folder, files={name: "0" * 64})
    with pytest.raises(RunError, match=f"{name} is damaged: its SHA-256"):
        read_run(folder)


def test_a_file_that_is_a_folder_is_refused(folder: Path):
    (folder / "rounds.jsonl").unlink()
    (folder / "rounds.jsonl").mkdir()
    with pytest.raises(RunError, match=r"rounds\.jsonl"):
        read_run(folder)


def test_an_unfinished_run_says_how_far_it_came_and_how_to_go_on(folder: Path):
    (folder / "result.json").unlink()
    with pytest.raises(RunError, match="not finished: 7 rounds") as caught:
        read_run(folder)
    assert f"palate simulate --config {folder / 'config.toml'} --folder {folder}" in caught.value.hint


def test_accuracy_that_the_ranks_do_not_give_is_refused(folder: Path):
    path = folder / "evaluation.parquet"
    better = pl.read_parquet(path).with_columns(
        rank_sampled=pl.when(pl.col("part") == "test").then(0).otherwise("rank_sampled").cast(pl.Int32)
    )
    better.write_parquet(path)
    with pytest.raises(RunError, match="its ranks do not give the test metrics"):
        read_run(folder)


@pytest.mark.parametrize(
    ("column", "value"), [("target", 150), ("target", -1), ("rank_full", 150), ("user", 3), ("rank_sampled", -1)]
)
def test_indices_outside_the_catalogue_are_refused(folder: Path, column: str, value: int):
    path = folder / "evaluation.parquet"
    frame = pl.read_parquet(path)
    frame.with_columns(pl.lit(value, dtype=pl.Int32).alias(column)).write_parquet(path)
    with pytest.raises(RunError, match=r"out of range|twice"):
        read_run(folder)


def test_a_missing_item_inside_a_list_is_refused(folder: Path):
    path = folder / "evaluation.parquet"
    frame = pl.read_parquet(path)
    gaps = pl.Series("top_items", [[None] + [1] * 9] * frame.height, dtype=pl.List(pl.Int32))
    frame.with_columns(gaps).write_parquet(path)
    with pytest.raises(RunError, match="top_items"):
        read_run(folder)


def test_a_table_of_another_catalogue_is_refused(folder: Path):
    path = folder / "items.parquet"
    pl.read_parquet(path).with_columns(item=pl.col("item") + "x").write_parquet(path)
    with pytest.raises(RunError, match="another catalogue"):
        read_run(folder)


def test_a_table_that_does_not_have_its_hash_is_refused(folder: Path):
    path = folder / "item_table.safetensors"
    metadata = {"format": "palate-item-table/1", "hash": "0" * 64, "columns": '["popularity"]', "catalogue": ""}
    save_file(load_file(path), path, metadata=metadata)
    with pytest.raises(RunError, match="hash"):
        read_item_table(folder)


def test_a_table_of_an_unknown_format_is_refused_by_name(folder: Path):
    path = folder / "item_table.safetensors"
    save_file(load_file(path), path, metadata={"format": "palate-item-table/9"})
    with pytest.raises(RunError, match="palate-item-table/9"):
        read_item_table(folder)


def test_rounds_with_a_gap_are_refused(folder: Path):
    path = folder / "rounds.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2] + lines[3:]))
    with pytest.raises(RunError, match="6 rounds"):
        read_run(folder)


def test_keys_of_a_later_version_are_passed_over(folder: Path):
    rewrite_result(folder, invented_later={"anything": [1]})
    assert read_run(folder).result.run == "demo-run"


@pytest.mark.parametrize("bad", [{"best_round": "last"}, {"summary": {}}, {"peak_memory_mb": None}, {"dataset": []}])
def test_a_wrong_value_in_result_json_is_named(folder: Path, bad: dict[str, object]):
    rewrite_result(folder, **bad)
    with pytest.raises(RunError, match=next(iter(bad))):
        read_run(folder)


def test_a_run_is_found_by_path_before_name(make_run: Callable[..., object], tmp_path: Path):
    make_run("runs/demo")
    assert locate_run("demo", runs=tmp_path / "runs") == tmp_path / "runs" / "demo"
    assert locate_run(tmp_path / "runs" / "demo") == tmp_path / "runs" / "demo"


def test_an_unknown_run_is_refused_with_a_near_name(make_run: Callable[..., object], tmp_path: Path):
    make_run("runs/demo-linear")
    for name in ("demo-liner", "", "x" * 5000, "nul\0byte"):
        with pytest.raises(RunError, match="no run folder called") as caught:
            locate_run(name, runs=tmp_path / "runs")
        assert "demo-linear" in caught.value.hint


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(RunError, match="is not a run folder") as caught:
        locate_run(tmp_path, runs=tmp_path / "runs")
    assert "palate simulate" in caught.value.hint
