"""`import palate`: its names, what loading it costs, and that it means what the command line means."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import polars as pl
import pytest

import palate
from palate.cli.main import main
from palate.data.options import ReadOptions
from palate.errors import ConfigError, DataError, RunError
from palate.models.scores.ncf import GMF
from palate.simulation.baselines.registry import BASELINES

ROOT = Path(__file__).parents[2]
HEAVY = {"numpy", "torch", "polars", "flwr", "scipy", "pydantic", "rich", "typer", "jinja2"}
QUICK = {"training.hidden": 3, "training.batch_size": 4, "tune": False, "shards": 3}
SHORT = {"rounds": 2, "dim": 4, "baselines": ["popularity"]}


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def data(small_data: Path) -> palate.Data:
    return palate.load(small_data)


@pytest.fixture(scope="module")
def protected(data: palate.Data, tmp_path_factory: pytest.TempPathFactory) -> palate.Run:
    """A run at unit user."""
    folder = tmp_path_factory.mktemp("protected") / "run"
    plan = palate.plan(data, epsilon=8, **SHORT, settings=QUICK)
    return palate.simulate(data, plan, folder=folder, progress=False)


@pytest.fixture(scope="module")
def plain(data: palate.Data, tmp_path_factory: pytest.TempPathFactory) -> palate.Run:
    """A run without privacy."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    plan = palate.plan(data, unit="none", **SHORT, settings=QUICK)
    return palate.simulate(data, plan, folder=folder, progress=False)


def test_no_name_of_the_facade_is_a_package_or_module():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]
    modules = {name.split(".")[1] for name in packages if "." in name} | {path.stem for path in ROOT.glob("api/*.py")}
    assert {"data", "audit", "errors"} < modules
    assert not modules & set(palate.__all__)
    for name in palate.__all__:
        palate.__dict__.pop(name, None)
        assert not isinstance(getattr(palate, name), type(palate)), name


def test_type_checkers_see_the_names_that_run():
    tree = ast.parse(Path(palate.__file__).read_text("utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name)]
    static = {
        alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert static == palate._HOMES
    assert {*static, "__version__"} == set(palate.__all__) <= set(dir(palate))


def test_importing_palate_loads_no_heavy_library():
    code = "import json, sys, palate, palate.errors; palate.__version__; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert not loaded & HEAVY


def test_a_misspelt_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        palate.lod  # noqa: B018 - the look-up is what is tested


@pytest.mark.parametrize("unit", ["user", "none"])
def test_the_same_request_has_the_same_settings_by_api_and_by_command(unit: str, small_data: Path):
    options = ["--rounds", "2", "--baselines", "popularity", "--min-user", "2", "--set", "training.hidden=3"]
    assert main(["simulate", "--data", str(small_data), "--unit", unit, *options, "--no-report", "--quiet"]) == 0
    [by_command] = Path("runs").iterdir()
    data = palate.load(small_data, min_user=2)
    plan = palate.plan(data, unit=unit, rounds=2, baselines=["popularity"], settings={"training.hidden": 3})
    assert plan.asked.default_run_name == by_command.name
    by_api = palate.simulate(data, plan, folder="api", progress=False).folder
    for name in ("config.toml", "resolved.toml"):
        assert (by_api / name).read_text() == (by_command / name).read_text()
    if unit == "user":  # without privacy the ridge is chosen when the run starts
        assert palate.Run(by_api).settings == plan.settings


def test_a_plan_has_a_reason_for_every_setting(data: palate.Data):
    plan = palate.plan(data, epsilon=2, rounds=2, settings={"training": {"recency_half_life": 7.0}})
    frame = plan.to_frame()
    reasons = dict(frame.select("setting", "reason").iter_rows())
    assert frame["reason"].null_count() == 0
    assert reasons["epsilon"] == reasons["schedule.rounds"] == reasons["training.recency_half_life"] == "asked for"
    assert "36 devices at epsilon 2" in reasons["schedule.dim"]
    assert reasons["schedule.popularity"] == "default of unit user; without protection it is log"
    assert reasons["engine"] == "default"
    assert plan.settings.training.recency_half_life == 7.0


def test_a_plan_states_the_traffic_that_the_run_then_has(data: palate.Data, protected: palate.Run):
    plan = palate.plan(data, epsilon=8, **SHORT, settings=QUICK)
    measured = protected.record.result.bytes_per_device
    assert (plan.bytes_down, plan.bytes_up) == (measured.down, measured.up)


def test_without_times_nothing_is_recent_and_the_plan_says_why(tmp_path: Path):
    rows = [f"u{user},i{item}" for user in range(9) for item in range(user, user + 5)]
    Path("plain.csv").write_text("\n".join(["user,item", *rows]))
    plan = palate.plan(palate.load("plain.csv"), rounds=1)
    assert plan.reasons["training.recency_half_life"] == "the data has no times, so that nothing is recent"


def test_an_epsilon_never_prints_without_unit_delta_and_adjacency(data: palate.Data, protected: palate.Run):
    plan = palate.plan(data, epsilon=8)
    shown = [
        str(plan.protection), repr(plan), plan._repr_html_(), str(protected.guarantee), repr(protected.guarantee),
        protected.guarantee._repr_html_(), protected._repr_html_(), protected.audit()._repr_html_(),
        palate.compare(protected, protected)._repr_html_(),
    ]  # fmt: skip
    for text in shown:
        assert "psilon" in text
        assert "per user" in text or "unit user" in text
        assert "delta 1e-05" in text
        assert "zero-out" in text


@pytest.mark.parametrize("settings", [{"unit": "none"}, {"settings": {"privacy": {"noise": "seeded"}}}])
def test_what_is_not_private_says_so(data: palate.Data, settings: dict[str, object]):
    plan = palate.plan(data, **settings)
    assert not plan.protection.protected
    assert "no privacy" in str(plan.protection)
    assert "No privacy" in plan._repr_html_()
    assert "epsilon" not in str(plan.protection)


def test_a_run_without_privacy_promises_nothing_and_has_nothing_to_audit(plain: palate.Run):
    assert (plain.guarantee.protected, plain.guarantee.epsilon, plain.guarantee.unit) == (False, None, "none")
    assert "No privacy" in str(plain.guarantee)
    assert "No privacy" in plain._repr_html_()
    audit = plain.audit()
    assert not audit.ok
    assert "keeps no ledgers" in audit.faults[0].message


def test_a_run_answers(protected: palate.Run, data: palate.Data):
    assert 0 < protected.guarantee.epsilon <= 8
    assert protected.guarantee.adjacency.startswith("zero-out")
    assert protected.audit().ok
    assert protected.settings.schedule.rounds == 2
    found = protected.recommend(user=data.users[0], n=3)
    assert len(found) == 3
    assert all(line.title.startswith("Thing") and line.why for line in found)
    assert palate.Run.open(protected.folder).metrics.to_frame().equals(protected.metrics.to_frame())


def test_metrics_go_into_any_library_that_takes_arrow(protected: palate.Run):
    frame = pl.DataFrame(protected.metrics)
    assert frame.select("part", "ranking").n_unique() == 4
    own = frame.row(0, named=True)
    assert own["hr@10"] == protected.metrics.test.sampled.hit_rate.value
    assert "hr@10" in repr(protected.metrics)


def test_an_audit_reports_a_tampered_record_and_raises_nothing(protected: palate.Run, tmp_path: Path):
    import shutil

    copy = palate.Run(Path(shutil.copytree(protected.folder, tmp_path / "copy")))
    [book] = (copy.folder / "ledgers").glob("server.sqlite")
    book.write_bytes(book.read_bytes().replace(b"server", b"srever"))
    audit = copy.audit()
    assert not audit.ok
    assert audit.budget is None
    assert copy.audit(key="nonsense").faults[0].exit_code == ConfigError.exit_code


def test_a_comparison_is_second_minus_first(plain: palate.Run, protected: palate.Run):
    compared = palate.compare(plain, protected.folder)
    first, second = compared.values("sampled")["hr@10"]
    assert compared.tests("sampled")["hr@10"][0].difference.value == pytest.approx(second - first)
    assert first == plain.metrics.test.sampled.hit_rate.value
    assert second == protected.metrics.test.sampled.hit_rate.value


def test_a_table_has_rows_by_title(protected: palate.Run):
    table = protected.table
    assert len(table) == 40
    assert table.embeddings.shape == (40, 4)
    assert table.fixed.shape == (40, len(table.columns))
    assert table.to_frame().columns[:3] == ["item", "title", "popularity"]
    near = table.neighbours(table.titles[3].upper(), n=4)
    assert near.height == 4
    assert near["cosine"].is_sorted(descending=True)
    assert -1 <= near["cosine"].min() <= near["cosine"].max() <= 1 + 1e-6
    with pytest.raises(DataError) as caught:
        table.neighbours("Thing 33x")
    assert "Thing 33" in caught.value.hint


def test_a_function_hears_of_every_round(data: palate.Data):
    heard: list[palate.Progress] = []
    plan = palate.plan(data, unit="none", **SHORT, settings=QUICK)
    palate.simulate(data, plan, folder="heard", progress=heard.append)
    assert [step.round for step in heard if "validation" in step.words and step.words.startswith("round")] == [1, 2]
    assert heard[-1].rounds == 2
    assert next(step for step in heard if step.seconds_left is not None).seconds_left > 0
    assert any("no privacy" in step.words for step in heard)


def test_numpy_runs_on_one_thread_while_a_run_lasts_also_where_it_was_loaded_before(small_data: Path):
    code = """if True:
        import numpy, palate, sys
        from threadpoolctl import threadpool_info

        def threads(*_):
            seen.update(each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas")

        seen = set()
        threads()
        before = set(seen)
        data = palate.load(sys.argv[1])
        seen.clear()
        plan = palate.plan(data, unit="none", rounds=1, baselines=[], settings={"tune": False})
        palate.simulate(data, plan, folder="one", progress=lambda step: threads() if step.rounds else None)
        during = set(seen)
        seen.clear()
        threads()
        print(before, during, seen)
    """
    unset = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    environment = unset | {"OPENBLAS_NUM_THREADS": "2"}
    command = [sys.executable, "-c", code, str(small_data)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == ["{2}", "{1}", "{2}"]


def test_a_finished_run_is_returned_at_once_and_fresh_runs_it_again(data: palate.Data):
    plan = palate.plan(data, unit="none", **SHORT, settings=QUICK)
    heard: list[palate.Progress] = []
    made = palate.simulate(data, plan, folder="again", progress=False).folder / "result.json"
    before = made.stat().st_mtime_ns
    palate.simulate(data, plan, folder="again", progress=heard.append)
    assert (made.stat().st_mtime_ns, heard) == (before, [])
    palate.simulate(data, plan, folder="again", progress=False, fresh=True)
    assert made.stat().st_mtime_ns != before


def test_a_run_uses_the_data_that_it_is_given_and_not_the_file_of_now(small_data: Path):
    lines = (small_data / "interactions.csv").read_text().splitlines()
    file = Path("own.csv")
    file.write_text("\n".join(lines))
    first = palate.load(file)
    palate.plan(first, unit="none", settings=QUICK)
    file.write_text("\n".join(line for line in lines if not line.startswith("person0,")))
    second = palate.load(file)
    run = palate.simulate(second, palate.plan(second, unit="none", **SHORT, settings=QUICK), folder="r", progress=False)
    assert run.record.result.dataset.users == second.num_users == first.num_users - 1
    old = palate.simulate(first, palate.plan(first, unit="none", **SHORT, settings=QUICK), folder="o", progress=False)
    assert old.record.result.dataset.users == first.num_users
    assert old.recommend("person0").user_id == "person0"


def test_a_frame_gives_the_run_that_its_file_gives(small_data: Path, data: palate.Data):
    rows, items = (pl.read_csv(small_data / name) for name in ("interactions.csv", "items.csv"))
    framed = palate.load(rows, items=items)
    assert framed.source == palate.load(rows.clone(), items=items).source != palate.load(rows).source
    assert framed.interactions.equals(data.interactions)
    assert framed.items.equals(data.items)
    plan = palate.plan(framed, unit="none", **SHORT, settings=QUICK)
    run = palate.simulate(framed, plan, folder="framed", progress=False)
    same = palate.simulate(data, palate.plan(data, unit="none", **SHORT, settings=QUICK), folder="f", progress=False)
    assert run.metrics.to_frame().equals(same.metrics.to_frame())
    assert len(run.recommend(user=data.users[0])) == 10
    source = framed.source
    with pytest.raises(DataError, match="was a frame in memory") as caught:
        palate.load(source)
    assert "load the same frame" in caught.value.hint
    with pytest.raises(ConfigError, match="runs in other processes"):
        palate.simulate(framed, palate.plan(framed, settings={"engine": "flower"}), folder="never")


def test_a_frame_may_describe_the_items_of_a_file(small_data: Path):
    items = pl.read_csv(small_data / "items.csv")
    found = palate.load(small_data / "interactions.csv", items=items)
    assert found.items["title"][0].startswith("Thing")
    with pytest.raises(ConfigError, match="no file"):
        palate.load("demo", items=items)


def test_a_plan_for_other_data_is_refused(data: palate.Data, small_data: Path):
    other = palate.load(small_data, min_user=5)
    with pytest.raises(ConfigError, match="the plan is for"):
        palate.simulate(other, palate.plan(data), folder="never")
    assert not Path("never").exists()


def test_every_way_to_read_is_an_argument_of_load():
    given = inspect.signature(palate.load).parameters
    fields = ReadOptions.model_fields
    assert set(given) - {"source"} == set(fields)
    assert all(given[name].default == field.default for name, field in fields.items())


def test_own_models_and_baselines_pass_as_objects(data: palate.Data):
    class Mine(GMF):
        name = "mine"

    baseline = dataclasses.replace(BASELINES["popularity"], name="crowd", label="The crowd")
    short = SHORT | {"baselines": [baseline, "ease"], "model": Mine}
    plan = palate.plan(data, unit="none", **short, settings=QUICK)
    assert (plan.settings.training.model, plan.settings.baselines) == ("mine", ("crowd", "ease"))
    run = palate.simulate(data, plan, folder="own", progress=False)
    frame = run.metrics.to_frame()
    assert frame["model"].unique(maintain_order=True).to_list() == [
        "Palate (mine)",
        "The same, newest 5 hidden",
        "The crowd",
        "EASE, by recency",
    ]
    usual = palate.plan(data, unit="none", **SHORT | {"model": "gmf"}, settings=QUICK)
    same = palate.simulate(data, usual, folder="gmf", progress=False).metrics.test.sampled.values
    assert run.metrics.test.sampled.values == same
    with pytest.raises(ConfigError, match="model"):
        palate.plan(data, model=dict)


def test_wrong_use_has_a_hint(data: palate.Data):
    for call in (
        lambda: palate.load("no-such-data"),
        lambda: palate.load("demo", min_user=0),
        lambda: palate.plan(data, unit="usr"),
        lambda: palate.plan(data, settings={"training.wrong": 1}),
        lambda: palate.Run.open("no-such-run"),
        lambda: palate.Table.open("no-such-run"),
    ):
        with pytest.raises((ConfigError, DataError, RunError)) as caught:
            call()
        assert caught.value.hint


def test_everything_shown_in_a_notebook_is_escaped(small_data: Path, tmp_path: Path):
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "interactions.csv").write_text((small_data / "interactions.csv").read_text())
    described = (small_data / "items.csv").read_text().replace("Thing ", "<script>alert(1)</script> ")
    (folder / "items.csv").write_text(described.replace("Comedy", "<b>Comedy</b>"))
    data = palate.load(folder)
    plan = palate.plan(data, unit="none", **SHORT, settings=QUICK)
    run = palate.simulate(data, plan, folder="bad<i>", progress=False)
    shown = [data, plan, run, run.metrics, run.guarantee, run.audit(), run.recommend(data.users[0]), run.table]
    pages = [each._repr_html_() for each in [*shown, palate.compare(run, run)]]
    assert all("<script" not in page and "<b>" not in page and "<i>" not in page for page in pages)
    assert sum("&lt;script" in page for page in pages) >= 2
