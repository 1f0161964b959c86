"""`palate runs`: every run of a folder in a line, whatever state it is in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from palate.cli.main import main
from palate.cli.run import _ORDERS
from palate.simulation.report.listing import ORDERS, list_runs


@pytest.fixture
def folder(make_run: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs "blurred", "sharp" with a gain, "begun" without a result, and "broken"; and files that are no runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    difference = {"value": 0.04, "se": 0.01, "low": 0.02, "high": 0.06}
    gain = {"control": "popularity", "sampled": {"hr@10": difference}, "full": {"hr@10": difference}}
    make_run("runs/blurred", noise=2.0)
    make_run("runs/sharp", noise=0.1, result={"gain": gain, "cpu_seconds": {"total": 9.0, "per_round_median": 1.0}})
    make_run("runs/begun")
    make_run("runs/broken")
    for name in ("blurred", "sharp", "begun", "broken"):
        config = tmp_path / "runs" / name / "config.toml"
        config.write_text('data = "demo"\nunit = "none"\n')
    (tmp_path / "runs" / "begun" / "result.json").unlink()
    (tmp_path / "runs" / "broken" / "result.json").write_text("{")
    (tmp_path / "runs" / "notes").mkdir()
    return tmp_path / "runs"


def test_every_run_is_listed_with_its_state_and_other_folders_are_not(folder: Path):
    found = {run.run: run for run in list_runs(folder)}
    assert {name: run.state for name, run in found.items()} == {
        "begun": "unfinished",
        "blurred": "finished",
        "broken": "damaged",
        "sharp": "finished",
    }
    assert (found["begun"].rounds, found["begun"].hit_rate) == (6, None)
    stated = json.loads((folder / "sharp" / "result.json").read_text())
    assert found["sharp"].ndcg == stated["test"]["full"]["ndcg@10"]
    assert (found["sharp"].gain.value, found["sharp"].control) == (0.04, "popularity")
    assert found["blurred"].gain is None


@pytest.mark.parametrize(
    ("order", "first"), [("quality", "sharp"), ("gain", "sharp"), ("cpu", "blurred"), ("name", "begun")]
)
def test_runs_are_sorted_best_or_cheapest_first_and_unknown_last(
    folder: Path, capfd: pytest.CaptureFixture[str], order: str, first: str
):
    assert main(["runs", "--sort", order, "--json"]) == 0
    names = [run["run"] for run in json.loads(capfd.readouterr().out)["runs"]]
    assert names[0] == first
    if order in ("quality", "cpu"):
        assert set(names[2:]) == {"begun", "broken"}


def test_every_order_can_be_asked_for():
    assert tuple(ORDERS) == _ORDERS


def test_the_first_line_counts_and_filters_are_said(folder: Path, capfd: pytest.CaptureFixture[str]):
    assert main(["runs"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "4 runs in runs"
    assert "unfinished, 6 rounds" in "".join(lines)
    assert "+4.0 \N{PLUS-MINUS SIGN} 2.0" in "".join(lines)
    assert main(["runs", "--finished", "--data", "demo", "--unit", "none"]) == 0
    assert capfd.readouterr().out.splitlines()[0] == "2 runs in runs, of 4"
    assert main(["runs", "runs/sharp"]) == 0
    assert capfd.readouterr().out.splitlines()[0] == "1 run in runs/sharp"


def test_an_epsilon_stands_with_its_delta_and_what_it_is_about(folder: Path, capfd: pytest.CaptureFixture[str]):
    (folder / "begun" / "config.toml").write_text('data = "demo"\nunit = "user"\nepsilon = 4.0\ndelta = 1e-6\n')
    assert main(["runs"]) == 0
    printed = capfd.readouterr().out
    assert "4 at 1e-06" in printed
    assert "of one unit replaced by zeros, for all rounds of a run" in " ".join(printed.split())
    assert main(["runs", "--json"]) == 0
    begun = next(run for run in json.loads(capfd.readouterr().out)["runs"] if run["run"] == "begun")
    assert (begun["unit"], begun["epsilon"], begun["delta"]) == ("user", 4.0, 1e-6)


def test_an_empty_folder_is_no_error_and_a_missing_one_is(folder: Path, capfd: pytest.CaptureFixture[str]):
    assert main(["runs", "runs/notes"]) == 0
    out, err = capfd.readouterr()
    assert out == "0 runs in runs/notes\n"
    assert "palate simulate" in err
    for arguments, code in ((["runs", "nowhere"], 11), (["runs", "--sort", "size"], 2), (["runs", "x" * 5000], 11)):
        assert main(arguments) == code
        out, err = capfd.readouterr()
        assert [line.partition(":")[0] for line in err.splitlines()] == ["error", "hint"]
