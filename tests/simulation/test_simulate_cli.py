"""`palate simulate` as a person meets it: one result, or one error line with a hint and its documented exit code."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from palate.cli.errors import EXIT_CODES
from palate.cli.main import main
from palate.simulation.prepare import _prepare
from palate.simulation.results import CONTRACT

SMALL = ("--unit", "none", "--rounds", "2", "--dim", "4", "--set", "tune=false", "--baselines", "none", "--no-report")


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        found: dict[str, Any] = json.loads(self.out)
        return found


@pytest.fixture
def palate(capsys, monkeypatch, tmp_path, small_data) -> Callable[..., Said]:
    """Run `palate simulate` in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, data: str | Path = small_data) -> Said:
        capsys.readouterr()
        code = main(["simulate", "--data", str(data), *map(str, arguments)])
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return call


def refused(said: Said, code: int, *words: str) -> None:
    """One error line, one hint line, the exit code, nothing on stdout, and never a traceback."""
    assert "Traceback" not in said.err + said.out
    assert said.code == code, said.err
    assert code in EXIT_CODES
    assert said.out == ""
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    hints = [line for line in said.err.splitlines() if line.startswith("hint: ")]
    assert len(errors) == len(hints) == 1, said.err
    for word in words:
        assert word in errors[0], said.err


def test_json_is_one_object_on_stdout_with_the_contract_and_nothing_else(tmp_path, small_data):
    command = [sys.executable, "-m", "palate.cli.main", "simulate", "--data", str(small_data), *SMALL, "--json"]
    done = subprocess.run([*command, "--folder", "out"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1
    result = json.loads(done.stdout)
    assert list(result) == list(CONTRACT)
    assert set(CONTRACT) == {
        "run", "data", "model", "unit", "protection", "guarantee", "epsilon", "delta", "rounds", "seed",
        "validation", "test", "cpu_seconds", "peak_memory_mb",
    }  # fmt: skip
    for part in ("validation", "test"):
        for ranking in ("sampled", "full"):
            assert {"hr@10", "ndcg@10"} <= set(result[part][ranking])
    assert {"total", "per_round_median"} <= set(result["cpu_seconds"])
    assert (result["run"], result["model"], result["unit"], result["rounds"]) == ("out", "neumf", "none", 2)
    assert done.stderr == ""


def test_a_person_gets_a_table_on_stdout_and_talk_on_stderr(palate):
    said = palate(*SMALL)
    assert said.code == 0
    assert "Palate (neumf)" in said.out
    assert "no privacy" in said.out
    assert "36 virtual devices, 40 items" in said.err
    assert "round    2" in said.err
    assert "run folder" in said.err


def test_quiet_says_nothing_but_the_result(palate):
    said = palate(*SMALL, "--quiet")
    assert said.code == 0
    assert said.err == ""
    assert "Palate (neumf)" in said.out


def test_baselines_are_shown_beside_the_model(palate):
    said = palate(*SMALL[:-3], "--baselines", "popularity,ease", "--no-report")
    assert said.code == 0
    assert "Popularity" in said.out
    assert "EASE" in said.out


def test_the_same_command_finds_the_same_folder_and_a_finished_run_at_once(palate, monkeypatch):
    first = palate(*SMALL, "--json")
    (folder,) = Path("runs").iterdir()
    assert folder.name.startswith("small-neumf-none-seed1-")
    monkeypatch.setattr("palate.simulation.federation.run_on_engine", lambda *_, **__: pytest.fail("all is done"))
    again = palate(*SMALL, "--json")
    assert again.result == first.result
    assert "already finished" in palate(*SMALL).err


def test_a_long_run_says_what_it_will_cost_and_asks_where_somebody_can_answer(palate, monkeypatch):
    monkeypatch.setattr("palate.cli.simulate._WORTH_SAYING", 0.0)
    assert "this takes about" in palate(*SMALL, "--folder", "short").err
    monkeypatch.setattr("palate.cli.simulate._WORTH_ASKING", 0.0)
    said = palate(*SMALL, "--folder", "unattended")
    assert (said.code, "no terminal to ask in" in said.err) == (0, True)
    monkeypatch.setattr("palate.cli.simulate.somebody_is_there", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda words, **more: (_ for _ in ()).throw(typer.Abort()))
    assert palate(*SMALL, "--folder", "declined").code == 130
    assert not Path("declined").exists()
    assert palate(*SMALL, "--folder", "agreed", "--yes").code == 0


def test_fresh_deletes_the_run_and_starts_anew(palate):
    palate(*SMALL, "--folder", "out")
    made = Path("out/result.json").stat().st_mtime_ns
    assert palate(*SMALL, "--folder", "out", "--fresh").code == 0
    assert Path("out/result.json").stat().st_mtime_ns > made
    assert palate(*SMALL, "--folder", "out", "--seed", "2", "--fresh", "--json").result["seed"] == 2


def test_fresh_never_deletes_what_is_not_a_run(palate):
    Path("mine/plots").mkdir(parents=True)
    Path("mine/plots/figure.png").write_text("precious")
    refused(palate(*SMALL, "--folder", "mine", "--fresh"), 11, "plots", "nothing was deleted")
    assert Path("mine/plots/figure.png").read_text() == "precious"


def test_flags_win_over_settings_and_settings_over_the_file(palate):
    Path("run.toml").write_text('unit = "none"\nseed = 7\n[schedule]\nrounds = 9\ndim = 9\n[training]\nhidden = 9\n')
    said = palate(
        "--config", "run.toml", "--set", "schedule.dim=5", "--set", "schedule.rounds=8", "--rounds", "1",
        "--baselines", "none", "--no-report", "--json", "--folder", "out",
    )  # fmt: skip
    assert (said.result["seed"], said.result["rounds"]) == (7, 1)
    from palate.simulation.run_folder import read_config

    config = read_config(Path("out"))
    assert (config.schedule.dim, config.training.hidden) == (5, 9)


def test_all_baselines_on_the_command_line_win_over_none_in_the_file(palate):
    Path("run.toml").write_text('unit = "none"\nbaselines = []\n')
    from palate.simulation.baselines.registry import BASELINES

    said = palate("--config", "run.toml", "--baselines", "all", *SMALL[2:8], "--no-report", "--folder", "out")
    assert said.code == 0
    assert set(json.loads(Path("out/result.json").read_text())["baselines"]) == set(BASELINES)


def test_the_run_folder_may_be_the_current_one(palate, tmp_path):
    (tmp_path / "here").mkdir()
    import os

    os.chdir("here")
    assert palate(*SMALL, "--folder", ".", "--json").result["run"] == "here"


def test_a_run_is_protected_unless_it_says_otherwise(palate):
    said = palate(*SMALL[2:], "--json", "--folder", "out")
    assert (said.code, said.result["unit"]) == (0, "user")
    assert (said.result["epsilon"] <= 8.0, said.result["delta"]) == (True, 1e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--unit", "household"), "unit 'household'"),
        (("--unit", "user", "--epsilon", "0"), "epsilon = 0"),
        (("--unit", "user", "--delta", "1"), "delta = 1"),
        (("--unit", "user", "--set", "privacy.clip_norm=0"), "privacy.clip_norm = 0"),
        (("--unit", "none", "--epsilon", "1"), "epsilon"),
        (("--unit", "none", "--delta", "1e-5"), "delta"),
        (("--unit", "none", "--epsilon", "-1"), "epsilon = -1"),
        (("--unit", "none", "--model", "svd"), "unknown model 'svd'"),
        (("--unit", "none", "--model", "mlp"), "'mlp' cannot be trained with objective 'whole'"),
        (("--unit", "none", "--objective", "hinge"), "objective = 'hinge'"),
        (("--unit", "none", "--optimiser", "sgd"), "unknown server optimiser 'sgd'"),
        (("--unit", "none", "--baselines", "svd"), "unknown baseline 'svd'"),
        (("--unit", "none", "--engine", "cloud"), "engine = 'cloud'"),
        (("--unit", "none", "--rounds", "0"), "schedule.rounds = 0"),
        (("--unit", "none", "--rounds", "many"), "'many' is not a valid integer"),
        (("--unit", "none", "--participation", "0"), "schedule.participation = 0"),
        (("--unit", "none", "--participation", "nan"), "schedule.participation = nan"),
        (("--unit", "none", "--seed", "-1"), "seed = -1"),
        (("--unit", "none", "--set", "rounds"), "--set 'rounds' is not name=value"),
        (("--unit", "none", "--set", "=3"), "is not name=value"),
        (("--unit", "none", "--set", "schedule.colour=red"), "schedule.colour = 'red'"),
        (("--unit", "none", "--set", "training.learning_rate=inf"), "training.learning_rate = inf"),
        (("--unit", "none", "--set", "schedule=3"), "schedule = 3"),
        (("--unit", "none", "--set", "training.own_items_only=true"), "unit 'none' does not allow it"),
        (("--set", "optimiser.groups=9"), "optimiser.groups is 9, and people push the rows of all items back"),
        (("--unit", "none", "--config", "absent.toml"), "absent.toml does not exist"),
        (("--unit", "none", "--nonsense"), "nonsense"),
        (("--unit", "none", "--min-user", "0"), "read.min_user = 0"),
    ],
)
def test_a_wrong_option_is_refused_by_name_with_exit_code_2(palate, arguments, words):
    refused(palate(*arguments, "--folder", "out"), 2, words)
    assert not Path("out").exists()


@pytest.mark.parametrize("content", ["unit =", "[[", "unit = 'none'\nunit = 'none'"])
def test_a_configuration_file_that_is_not_toml_is_refused(palate, content):
    Path("bad.toml").write_text(content)
    refused(palate("--config", "bad.toml"), 2, "bad.toml is not a TOML file")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("user,item,timestamp\n", "no rows"),
        ("user,item,timestamp\n" + "".join(f"anna,i{k},{k}\n" for k in range(9)), "1 users"),
        ("user,item,rating\n" + "".join(f"u{k % 3},i{k},nan\n" for k in range(9)), "not finite"),
        ("colour,shape\nred,round\n", "no column looks like the user"),
    ],
    ids=["empty", "header only", "one person", "NaN ratings", "wrong columns"],
)
def test_data_with_nothing_to_learn_from_is_refused_with_exit_code_10(palate, content, words):
    Path("bad.csv").write_text(content)
    refused(palate(*SMALL, "--json", data="bad.csv"), 10, words)


def test_a_missing_file_is_refused_with_exit_code_10(palate):
    refused(palate(*SMALL, "--json", data="absent.csv"), 10, "absent.csv")


def test_a_named_column_that_is_not_there_is_refused(palate):
    refused(palate(*SMALL, "--json", "--user-column", "persona"), 10, "persona")


def test_a_place_that_cannot_be_written_is_refused_with_exit_code_12(palate):
    Path("file").write_text("")
    refused(palate(*SMALL, "--json", "--folder", "file/run"), 12, "cannot write to run folder")
    refused(palate(*SMALL, "--json", "--folder", "file"), 12, "cannot write to run folder")


def test_a_folder_of_another_run_or_of_no_run_is_refused_with_exit_code_11(palate):
    assert palate(*SMALL, "--folder", "out").code == 0
    refused(palate(*SMALL, "--json", "--folder", "out", "--seed", "5"), 11, "another configuration")
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("precious")
    refused(palate(*SMALL, "--json", "--folder", "mine"), 11, "thesis.tex")


DECIDES = ("config.toml", "resolved.toml", "checkpoint.safetensors", "rounds.jsonl")
WRITTEN_AGAIN = ("environment.json", "items.parquet", "item_table.safetensors", "evaluation.parquet", "log.txt")
KEPT = ("config.toml", "result.json")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_data) -> Path:
    """A finished run; tests work on copies."""
    folder = tmp_path_factory.mktemp("finished") / "out"
    code = main(["simulate", "--data", str(small_data), *SMALL, "--quiet", "--folder", str(folder)])
    assert code == 0
    return folder


def copy_of(finished: Path, *, interrupted: bool) -> Path:
    shutil.copytree(finished, "out")
    if interrupted:
        Path("out/result.json").unlink()
    return Path("out")


GARBAGE = pytest.mark.parametrize("garbage", [b"", b"\xff\xfegarbage\n{", b"\0" * 300], ids=["empty", "text", "zeros"])


@GARBAGE
@pytest.mark.parametrize("name", KEPT)
def test_a_damaged_file_of_a_finished_run_is_refused_with_exit_code_11(palate, finished, name, garbage):
    (copy_of(finished, interrupted=False) / name).write_bytes(garbage)
    refused(palate(*SMALL, "--json", "--folder", "out"), 11, name)


@GARBAGE
@pytest.mark.parametrize("name", DECIDES)
def test_a_damaged_file_of_an_interrupted_run_is_refused_with_exit_code_11(palate, finished, name, garbage):
    (copy_of(finished, interrupted=True) / name).write_bytes(garbage)
    refused(palate(*SMALL, "--json", "--folder", "out"), 11, name)


@pytest.mark.parametrize("name", WRITTEN_AGAIN)
def test_a_damaged_file_that_nothing_depends_on_is_written_again(palate, finished, name):
    folder = copy_of(finished, interrupted=True)
    (folder / name).write_bytes(b"\xff\xfegarbage")
    said = palate(*SMALL, "--json", "--folder", "out")
    assert said.code == 0
    assert said.result["test"] == json.loads((finished / "result.json").read_text())["test"]


def test_damaged_heads_of_an_interrupted_run_stop_it_with_exit_code_13_and_the_way_to_the_log(palate, finished):
    folder = copy_of(finished, interrupted=True)
    for path in (folder / "devices").glob("*.safetensors"):
        path.write_bytes(b"garbage")
    said = palate(*SMALL, "--json", "--folder", "out")
    refused(said, 13, "RunError")
    assert "log.txt" in said.err
    assert "is damaged" in (folder / "log.txt").read_text()


def test_a_run_whose_data_has_changed_its_catalogue_is_refused(palate, small_data):
    text = (small_data / "interactions.csv").read_text()
    Path("mine.csv").write_text(text)
    assert palate(*SMALL, "--folder", "out", data="mine.csv").code == 0
    Path("out/result.json").unlink()
    Path("mine.csv").write_text(text.replace("thing7,", "other7,"))
    _prepare.cache_clear()
    refused(palate(*SMALL, "--json", "--folder", "out", data="mine.csv"), 11, "catalogue")


def test_training_that_diverges_ends_in_an_error_and_not_in_a_number(palate):
    said = palate(*SMALL, "--json", "--set", "training.head_learning_rate=1e30")
    refused(said, 13, "not finite")
    assert "learning rates" in said.err
