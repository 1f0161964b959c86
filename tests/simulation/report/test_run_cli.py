"""`palate report`, `compare` and `recommend` as a person or a program calls them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from oracle.device import score_catalogue

from palate.cli.main import main
from palate.models.scores.registry import serving_training
from palate.simulation.report.recommending import recommend_to


@pytest.fixture
def runs(make_run: Callable[..., SimpleNamespace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A working folder with runs/first and runs/second; `.finished` is what opening the first gives."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    finished = make_run("runs/first")
    make_run("runs/second", noise=1.5)
    monkeypatch.setattr("palate.simulation.finished.open_finished", lambda folder: finished)
    return finished


def test_report_prints_the_path_of_the_page_and_nothing_else(runs: SimpleNamespace, capfd: pytest.CaptureFixture[str]):
    assert main(["report", "first", "--no-examples"]) == 0
    out, err = capfd.readouterr()
    assert Path(out.strip()) == Path("runs/first/report.html")
    assert Path(out.strip()).read_text("utf-8").startswith("<!doctype html>")
    assert err == ""


def test_report_writes_where_it_is_told(runs: SimpleNamespace, capfd: pytest.CaptureFixture[str]):
    assert main(["report", "runs/first", "--no-examples", "--output", "page.html"]) == 0
    assert capfd.readouterr().out == "page.html\n"
    assert not Path("runs/first/report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["report", "frist"], 11),
        (["report", "first", "--no-examples", "--output", "no/page.html"], 12),
        (["report", "first", "--no-examples", "--output", "runs"], 12),
        (["compare", "first", "frist"], 11),
        (["compare", "first"], 2),
        (["compare"], 2),
        (["compare", "first", "second", "--html", "no/page.html"], 12),
        (["recommend", "first", "--user", "viewer-04"], 10),
        (["recommend", "first", "--user", "viewer-040", "--n", "0"], 2),
        (["recommend", "first", "--user", "viewer-040", "--n", "9223372036854775807"], 2),
        (["recommend", "first"], 2),
    ],
)
def test_a_wrong_call_is_an_error_a_hint_and_an_exit_code(
    runs: SimpleNamespace, capfd: pytest.CaptureFixture[str], arguments: list[str], code: int
):
    assert main(arguments) == code
    out, err = capfd.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["error", "hint"]


def test_compare_prints_one_json_object(runs: SimpleNamespace, capfd: pytest.CaptureFixture[str]):
    assert main(["compare", "first", "second", "--json"]) == 0
    out, err = capfd.readouterr()
    found = json.loads(out)
    assert err == ""
    assert [run["run"] for run in found["runs"]] == ["first", "second"]
    assert found["config"] == {"training.noise": ["0.5", "1.5"]}
    assert set(found["test"]) == {"sampled", "full"}
    first, second = (run["metrics"]["hr@10"] for run in found["test"]["sampled"])
    assert (first["difference"], first["test"]) == (0, None)
    assert second["difference"] == pytest.approx(second["value"] - first["value"])
    assert set(second["test"]) == {"value", "low", "high", "p_value", "effect", "corrected_p_value"}


def test_compare_shows_tables_and_writes_a_page(runs: SimpleNamespace, capfd: pytest.CaptureFixture[str]):
    assert main(["compare", "first", "second", "--html", "both.html"]) == 0
    out = capfd.readouterr().out
    assert out.startswith("second ")  # the answer comes first
    for word in ("HR@10", "NDCG@10", "95% interval", "Effect", "training.noise", "no privacy"):
        assert word in out
    page = Path("both.html").read_text("utf-8")
    assert page.count("No privacy") == 4  # for each run at the top, and with what it means
    assert "training.noise" in page


def test_recommend_prints_what_the_model_scores_highest_outside_the_history(
    runs: SimpleNamespace, capfd: pytest.CaptureFixture[str]
):
    assert main(["recommend", "first", "--user", "viewer-040", "--n", "5", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    known = runs.split.full_train.of(40).tolist()
    serving = serving_training(runs.config.training)
    scores = score_catalogue(runs.table, runs.split.full_train.of(40), None, serving)
    best = [int(item) for item in (-scores).argsort() if item not in known][:5]
    catalogue = runs.interactions.catalogue
    assert [line["item"] for line in found["recommendations"]] == [catalogue.ids[item] for item in best]
    assert [line["rank"] for line in found["recommendations"]] == [1, 2, 3, 4, 5]
    assert [line["score"] for line in found["recommendations"]] == pytest.approx(scores[best].tolist())
    assert [item["item"] for item in found["recent"]] == [catalogue.ids[item] for item in known[-10:]]
    assert found["user"] == "viewer-040"
    assert (found["unit"], found["protection"]) == ("none", "no privacy")


def test_recommend_shows_titles_and_marks_the_item_really_chosen(
    runs: SimpleNamespace, capfd: pytest.CaptureFixture[str]
):
    lists = (recommend_to(runs, user) for user in runs.interactions.users)
    served = next(found.user_id for found in lists if found.held_out in [line.id for line in found])
    assert main(["recommend", "first", "--user", served]) == 0
    out = capfd.readouterr().out
    assert out.count("really chosen next") == 1
    assert out.splitlines()[0].endswith("unit none: no privacy")
    assert "<b>&" in out
    assert "popular with everybody" in out or "because of" in out


def test_recommend_suggests_a_near_user(runs: SimpleNamespace, capfd: pytest.CaptureFixture[str]):
    assert main(["recommend", "first", "--user", "viewer-o40"]) == 10
    err = capfd.readouterr().err
    assert "did you mean viewer-040?" in err
    assert "viewer-000, viewer-001, viewer-002" in err


def test_recommend_gives_the_rest_when_the_catalogue_runs_out(runs: SimpleNamespace):
    known = len(runs.split.full_train.of(40))
    assert len(recommend_to(runs, "viewer-040", 10_000).recommendations) == 150 - known


BLOCKED = """
import sys
for name in ("matplotlib",):
    sys.modules[name] = None
from palate.cli.main import main
codes = [main(["compare", "first", "second", "--json"]), main(["report", "first", "--no-examples"])]
sys.exit(codes != [0, 12])
"""


def test_without_the_optional_packages_compare_works_and_report_names_the_extra(runs: SimpleNamespace):
    environment = {name: value for name, value in os.environ.items() if name != "PALATE_DEBUG"}
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["users"] == 120
    assert done.stderr.count("error:") == 1
    assert "pip install 'palate[report]'" in done.stderr
