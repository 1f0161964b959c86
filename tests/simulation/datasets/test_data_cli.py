"""`palate data` by running it: JSON is JSON, tables name what they should, a refusal has its exit code."""

import json

import pytest
from typer.testing import CliRunner

from palate.cli.data import data_app
from palate.errors import ConfigError, DataError
from palate.simulation.baselines import remembering
from palate.simulation.datasets.presets import PRESETS

runner = CliRunner()


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    monkeypatch.delenv("PALATE_DATA", raising=False)
    monkeypatch.setenv("PALATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def ratings(tmp_path):
    path = tmp_path / "ratings.csv"
    path.write_text("who,item,stars\na,x,5\na,y,1\nb,x,4\nb,[z],4\nb,q\n")
    return str(path)


def run(*arguments):
    return runner.invoke(data_app, list(arguments), catch_exceptions=True)


def test_list_names_every_preset_and_whether_it_is_here():
    listed = json.loads(run("list", "--json").stdout)["datasets"]
    assert [row["name"] for row in listed] == list(PRESETS)
    assert {row["name"]: row["here"] for row in listed}["demo"] is True
    assert {row["name"]: row["here"] for row in listed}["ml-1m"] is False
    shown = run("list").stdout
    assert all(name in shown for name in PRESETS)


def test_describe_shows_and_counts_a_file(ratings):
    result = run("describe", ratings, "--user-column", "who")
    assert result.exit_code == 0
    assert "1 malformed (lines 6)" in result.stdout
    assert "[z]" in result.stdout  # brackets are text, not markup


def test_describe_json_is_one_object_with_the_cleaning_report(ratings):
    described = json.loads(run("describe", ratings, "--user-column", "who", "--min-rating", "2", "--json").stdout)
    assert described["interactions"] == 3
    assert described["cleaning"]["below_rating"] == 1
    assert described["cleaning"]["example_lines"] == {"malformed": [6]}
    assert described["protocol"].startswith("leave-one-out at random")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("describe", "nothing-here"), DataError),
        (("describe", "demo", "--min-user", "0"), ConfigError),
        (("describe", "demo", "--min-user", "5000"), DataError),
        (("get", "ml-1m"), ConfigError),  # nobody at the keyboard, no --yes
        (("get", "demo"), DataError),
    ],
)
def test_refusals_are_errors_with_a_hint(arguments, error):
    result = run(*arguments)
    assert isinstance(result.exception, error)
    assert result.exception.hint


def test_strict_refuses_what_is_dropped_otherwise(ratings):
    result = run("describe", ratings, "--user-column", "who", "--strict")
    assert isinstance(result.exception, DataError)
    assert "line 6" in result.exception.message


def test_getting_what_is_here_prints_its_folder(tmp_path):
    folder = tmp_path / "cache" / "ml-100k"
    folder.mkdir(parents=True)
    (folder / "interactions.csv").write_text("user,item\n1,2\n")
    result = run("get", "ml-100k", "--json")
    assert json.loads(result.stdout) == {"name": "ml-100k", "folder": str(folder), "origin": "already here"}


def test_forget_deletes_remembered_results_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(remembering, "folder", lambda: tmp_path / "kept")
    remembering.remember("a", {"of": "somebody's data"})
    (tmp_path / "kept" / "mine.txt").write_text("mine")
    assert json.loads(run("forget", "--json").stdout) == {"forgotten": 1, "folder": str(tmp_path / "kept")}
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["mine.txt"]
    assert json.loads(run("forget", "--json").stdout)["forgotten"] == 0
