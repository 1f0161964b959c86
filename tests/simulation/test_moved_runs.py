"""A run folder that is moved, renamed or read from elsewhere: nothing depends on the current folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from palate.cli.main import main

ASKED = ("--unit", "none", "--rounds", "2", "--dim", "4", "--set", "tune=false", "--baselines", "none", "--no-report")


@pytest.fixture
def place(tmp_path: Path, small_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with d.csv, d-items.csv and the run "out", made with relative paths; the test is in another folder."""
    work, elsewhere = tmp_path / "work", tmp_path / "elsewhere"
    work.mkdir()
    elsewhere.mkdir()
    shutil.copy(small_data / "interactions.csv", work / "d.csv")
    shutil.copy(small_data / "items.csv", work / "d-items.csv")
    monkeypatch.chdir(work)
    assert main(["simulate", "--data", "d.csv", "--items", "d-items.csv", *ASKED, "--quiet", "--folder", "out"]) == 0
    monkeypatch.chdir(elsewhere)
    return work


def recommended(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    assert main(["recommend", str(folder), "--user", "person3", "--json"]) == 0
    return [line["item"] for line in json.loads(capsys.readouterr().out)["recommendations"]]


def test_a_run_is_read_from_any_folder_and_finds_moved_data_beside_it(place: Path, capsys):
    before = recommended(place / "out", capsys)
    (place / "out").rename(place / "renamed")
    assert recommended(place / "renamed", capsys) == before
    place.rename(place.parent / "sent")  # run and data together, to where nothing of the old place exists
    assert recommended(place.parent / "sent" / "renamed", capsys) == before
    assert main(["report", str(place.parent / "sent" / "renamed")]) == 0
    page = (place.parent / "sent" / "renamed" / "report.html").read_text("utf-8")
    assert "could not be read again" not in page


def test_a_file_of_the_same_name_in_the_current_folder_is_not_the_data_of_a_run(place: Path, capsys):
    before = recommended(place / "out", capsys)
    Path("d.csv").write_text("user,item,timestamp\nperson3,thing1,5\n")
    assert recommended(place / "out", capsys) == before


def test_data_that_is_gone_or_has_changed_is_said_with_what_to_do(place: Path, capsys):
    data = place / "d.csv"
    lines = data.read_text().splitlines(keepends=True)
    data.write_text("".join([*lines[:-1], lines[-1].replace(lines[-1].split(",")[1], "thing39")]))
    assert main(["recommend", str(place / "out"), "--user", "person3"]) == 11
    assert "the data has changed" in capsys.readouterr().err
    data.unlink()
    assert main(["recommend", str(place / "out"), "--user", "person3"]) == 10
    err = capsys.readouterr().err
    assert "d.csv, is not where it was" in err
    assert "hint: put it beside the run folder" in err


def test_an_unfinished_run_goes_on_from_elsewhere_under_another_name_to_the_same_result(place: Path, capsys):
    before = json.loads((place / "out" / "result.json").read_text())
    moved = place / "renamed"
    (place / "out").rename(moved)
    (moved / "result.json").unlink()
    assert main(["simulate", "--config", str(moved / "config.toml"), "--folder", str(moved), "--no-report", "-q"]) == 0
    after = json.loads((moved / "result.json").read_text())
    assert (after["run"], after["test"]) == (before["run"], before["test"])


def test_the_same_command_over_another_file_of_that_name_says_that_the_data_has_changed(place: Path, capsys):
    other = (place / "d.csv").read_text().splitlines(keepends=True)
    Path("d.csv").write_text("".join(other[: len(other) // 2]))
    shutil.copy(place / "d-items.csv", "d-items.csv")
    command = ["simulate", "--data", "d.csv", "--items", "d-items.csv", *ASKED, "--quiet", "--folder"]
    assert main([*command, str(place / "out")]) == 11
    assert "the data has changed" in capsys.readouterr().err
