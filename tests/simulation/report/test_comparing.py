"""Runs compared: the right sign, the same people, and refusals where a comparison would mean nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from palate.errors import ConfigError, RunError
from palate.simulation.report.comparing import BETTER, WORSE, compare_runs, comparison_grids
from palate.simulation.run_reader import read_run


def test_differences_are_to_the_first_run_and_match_the_ranks(make_run: Callable[..., object], tmp_path: Path):
    make_run("blurred", noise=2.0)
    make_run("sharp", noise=0.1)
    blurred, sharp = read_run(tmp_path / "blurred"), read_run(tmp_path / "sharp")
    found = compare_runs(blurred, sharp)
    for ranking in ("sampled", "full"):
        hits = [run.ranked["test"].evaluation.ranks(ranking) < 10 for run in (blurred, sharp)]
        [tested] = found.tests(ranking)["hr@10"]
        first, second = found.values(ranking)["hr@10"]
        assert tested.difference.value == pytest.approx(hits[1].mean() - hits[0].mean())
        assert tested.difference.value == pytest.approx(second - first)
        assert tested.difference.low < tested.difference.value < tested.difference.high
        assert tested.corrected == tested.difference.p_value  # one run, one test
        [pair] = found.by_ranking[ranking]
        assert pair.only_second == np.sum(hits[1] & ~hits[0])
        assert pair.only_first == np.sum(hits[0] & ~hits[1])
    [tested] = found.tests("sampled")["hr@10"]
    assert tested.difference.value > 0.1
    assert tested.corrected < 0.01


def test_several_runs_are_compared_with_the_first_and_marked_by_corrected_p_values(
    make_run: Callable[..., object], tmp_path: Path
):
    for name, noise in (("middle", 1.0), ("blurred", 4.0), ("sharp", 0.1), ("again", 1.0)):
        make_run(name, noise=noise)
    found = compare_runs(*(read_run(tmp_path / name) for name in ("middle", "blurred", "sharp", "again")))
    assert found.names == ("middle", "blurred", "sharp", "again")
    for ranking in ("sampled", "full"):
        for tests in found.tests(ranking).values():
            worse, better, same = tests
            assert (worse.arrow, better.arrow, same.arrow) == (WORSE, BETTER, "")
            assert worse.difference.effect < 0 < better.difference.effect
            assert all(test.corrected >= test.difference.p_value for test in tests)
            assert max(worse.corrected, better.corrected) >= 2 * min(
                worse.difference.p_value, better.difference.p_value
            )
    said = [sentence.split(":")[0] for sentence in found.verdicts]
    assert said == [
        "blurred is worse than middle",
        "sharp is better than middle",
        "again shows no difference from middle",
    ]
    assert all(len(row.cells) == len(grid.columns) - 1 for grid in comparison_grids(found) for row in grid.rows)


def test_a_renamed_folder_is_called_by_its_new_name(make_run: Callable[..., object], tmp_path: Path):
    make_run("old")
    make_run("other", noise=1.0)
    (tmp_path / "old").rename(tmp_path / "new")
    assert compare_runs(read_run(tmp_path / "new"), read_run(tmp_path / "other")).names == ("new", "other")


def test_one_run_cannot_be_compared(finished_run):
    with pytest.raises(ConfigError, match="at least 2"):
        compare_runs(read_run(finished_run.folder))


def test_options_that_differ_are_listed_and_no_others(make_run: Callable[..., object], tmp_path: Path):
    make_run("first", noise=0.5)
    make_run("second", noise=1.0)
    found = compare_runs(read_run(tmp_path / "first"), read_run(tmp_path / "second"))
    assert found.config == (("training.noise", ("0.5", "1.0")),)


def test_a_run_compared_with_itself_differs_in_nothing(finished_run):
    run = read_run(finished_run.folder)
    found = compare_runs(run, run)
    assert found.config == ()
    for [pair] in found.by_ranking.values():
        for test in (pair.hit_rate, pair.ndcg):
            assert (test.value, test.low, test.high, test.p_value) == (0, 0, 0, 1)
    assert comparison_grids(found)[-1].notes == ("The configurations are equal.",)
    assert len(set(found.names)) == 2


def test_the_same_two_runs_give_the_same_numbers(make_run: Callable[..., object], tmp_path: Path):
    make_run("first", noise=0.5)
    make_run("second", noise=1.0)
    runs = read_run(tmp_path / "first"), read_run(tmp_path / "second")
    assert json.dumps(compare_runs(*runs).to_dict()) == json.dumps(compare_runs(*runs).to_dict())


def test_runs_of_different_catalogues_are_refused(make_run: Callable[..., object], tmp_path: Path):
    make_run("films", prefix="f")
    make_run("books", prefix="b")
    with pytest.raises(RunError, match="different catalogues") as caught:
        compare_runs(read_run(tmp_path / "films"), read_run(tmp_path / "books"))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("column", "complaint"), [("target", "different items are held out for 120 users"), ("user_id", "different people")]
)
def test_runs_with_other_held_out_items_or_people_are_refused(
    make_run: Callable[..., object], tmp_path: Path, column: str, complaint: str
):
    make_run("first")
    make_run("second")
    path = tmp_path / "second" / "evaluation.parquet"
    frame = pl.read_parquet(path)
    other = (pl.col("target") + 1) % 150 if column == "target" else pl.col("user_id") + "x"
    frame.with_columns(other.alias(column)).write_parquet(path)
    with pytest.raises(RunError, match=complaint):
        compare_runs(read_run(tmp_path / "first"), read_run(tmp_path / "second"))
