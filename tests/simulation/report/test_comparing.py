"""Two runs compared: the right sign, the same people, and refusals where a comparison would mean nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from palate.errors import RunError
from palate.simulation.report.comparing import compare_runs, comparison_grids
from palate.simulation.run_reader import read_run


def test_differences_are_second_minus_first_and_match_the_ranks(make_run: Callable[..., object], tmp_path: Path):
    make_run("blurred", noise=2.0)
    make_run("sharp", noise=0.1)
    blurred, sharp = read_run(tmp_path / "blurred"), read_run(tmp_path / "sharp")
    found = compare_runs(blurred, sharp)
    for ranking in ("sampled", "full"):
        hits = [run.ranked["test"].evaluation.ranks(ranking) < 10 for run in (blurred, sharp)]
        metric, first, second, test = found.contrasts(ranking)[0]
        assert metric == "hr@10"
        assert test.value == pytest.approx(hits[1].mean() - hits[0].mean())
        assert test.value == pytest.approx(second - first)
        assert test.low < test.value < test.high
        assert found.by_ranking[ranking].only_second == np.sum(hits[1] & ~hits[0])
        assert found.by_ranking[ranking].only_first == np.sum(hits[0] & ~hits[1])
    assert found.by_ranking["sampled"].hit_rate.value > 0.1
    assert found.by_ranking["sampled"].hit_rate.p_value < 0.01


def test_options_that_differ_are_listed_and_no_others(make_run: Callable[..., object], tmp_path: Path):
    make_run("first", noise=0.5)
    make_run("second", noise=1.0)
    found = compare_runs(read_run(tmp_path / "first"), read_run(tmp_path / "second"))
    assert found.config == (("training.noise", "0.5", "1.0"),)


def test_a_run_compared_with_itself_differs_in_nothing(finished_run):
    run = read_run(finished_run.folder)
    found = compare_runs(run, run)
    assert found.config == ()
    for tested in found.by_ranking.values():
        for test in (tested.hit_rate, tested.ndcg):
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
