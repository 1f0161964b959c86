"""A finished run scores again from its folder exactly as it did when it was evaluated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from palate.errors import RunError
from palate.models.lists import NO_ITEM
from palate.simulation.evaluation import evaluate
from palate.simulation.finished import open_finished
from palate.simulation.prepare import prepare
from palate.simulation.report.recommending import recommend_to

CASES = pytest.mark.parametrize(
    ("model", "objective"), [("gmf", "whole"), ("linear", "whole"), ("neumf", "whole"), ("mlp", "bce")]
)


@pytest.fixture(scope="module")
def finished_folder(tmp_path_factory, settings, run) -> Path:
    """A finished run with heads; tests that damage it restore it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    run(settings(), folder)
    return folder


@CASES
def test_test_ranks_and_lists_are_reproduced_exactly(tmp_path, settings, run, model, objective):
    run(settings(training={"model": model, "objective": objective}), tmp_path)
    found = open_finished(tmp_path)
    again = evaluate(found.scorer, found.split.test, found.split.full_train)
    saved = pl.read_parquet(tmp_path / "evaluation.parquet").filter(pl.col("part") == "test")
    np.testing.assert_array_equal(saved["rank_sampled"].to_numpy(), again.rank_sampled)
    np.testing.assert_array_equal(saved["rank_full"].to_numpy(), again.rank_full)
    np.testing.assert_array_equal(np.array(saved["top_items"].to_list()), again.top_items)
    assert saved["user_id"].to_list() == [found.interactions.users[user] for user in again.users]


@pytest.mark.parametrize("model", ["gmf", "linear", "neumf"])
def test_what_a_run_recommends_is_the_list_of_a_device_and_the_list_that_was_measured(tmp_path, settings, run, model):
    run(settings(training={"model": model, "objective": "whole"}), tmp_path)
    found = open_finished(tmp_path)
    measured = evaluate(found.scorer, found.split.test, found.split.full_train)
    for row, user in enumerate(measured.users[:5].tolist()):
        listed = recommend_to(found, found.interactions.users[user], 10)
        keys = [found.interactions.catalogue.ids[item] for item in measured.top_items[row].tolist() if item != NO_ITEM]
        assert [line.id for line in listed][: len(keys)] == keys[:10]


def test_a_run_that_has_not_finished_is_refused(tmp_path, settings, run):
    run(settings(), tmp_path)
    (tmp_path / "result.json").unlink()
    with pytest.raises(RunError, match="has not finished"):
        open_finished(tmp_path)


def test_a_folder_that_is_not_a_run_is_refused(tmp_path):
    with pytest.raises(RunError):
        open_finished(tmp_path)


def test_data_with_another_catalogue_is_refused(tmp_path, settings, run, small_data):
    data = tmp_path / "mine.csv"
    text = (small_data / "interactions.csv").read_text()
    data.write_text(text)
    run(settings(data=str(data)), tmp_path / "run")
    data.write_text(text.replace("thing7,", "other7,"))
    from palate.simulation.prepare import _prepare

    _prepare.cache_clear()
    with pytest.raises(RunError, match="another catalogue"):
        open_finished(tmp_path / "run")


def test_devices_one_by_one_leave_no_heads_to_open(tmp_path, settings, run):
    run(settings(engine="devices", training={"objective": "bce"}, schedule={"rounds": 1}), tmp_path)
    with pytest.raises(RunError, match="keeps no heads"):
        open_finished(tmp_path)


@pytest.mark.parametrize(
    "name", ["item_table.safetensors", "devices/shard-0001.round-00003.safetensors", "resolved.toml"]
)
@pytest.mark.parametrize("damage", ["missing", "garbled"])
def test_a_missing_or_garbled_file_is_named(finished_folder, name, damage):
    path = finished_folder / name
    whole = path.read_bytes()
    try:
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes(b"\xffgarbage")
        with pytest.raises(RunError, match=Path(name).name.replace(".", r"\.")):
            open_finished(finished_folder)
    finally:
        path.write_bytes(whole)


def test_heads_of_another_run_do_not_fit(tmp_path, finished_folder, settings, run):
    run(settings(training={"hidden": 9}), tmp_path)
    name = "devices/shard-0000.round-00003.safetensors"
    whole = (finished_folder / name).read_bytes()
    try:
        (finished_folder / name).write_bytes((tmp_path / name).read_bytes())
        with pytest.raises(RunError, match="heads of shard 0 do not fit"):
            open_finished(finished_folder)
    finally:
        (finished_folder / name).write_bytes(whole)


def test_recommendations_come_from_all_but_the_test_item(finished_folder, settings):
    found = open_finished(finished_folder)
    assert found.interactions.users == prepare(settings()).interactions.users
    assert found.table.num_items == found.interactions.num_items
    scores = found.scorer.scores(np.arange(3, dtype=np.int32))
    assert scores.shape == (3, found.table.num_items)
    assert np.isfinite(scores).all()
