"""`palate frontier`: every point an ordinary run, nothing computed twice, and a chart that shows what was measured."""

from __future__ import annotations

import json
import math
import re
import shutil
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

from palate.cli.main import COMMANDS, Entry, main
from palate.errors import ConfigError, RunError
from palate.simulation import frontier, frontier_controls
from palate.simulation.claims import SEEDED
from palate.simulation.config import checked_config
from palate.simulation.federation import simulate
from palate.simulation.frontier import Sweep, run_name, run_sweep
from palate.simulation.frontier_controls import control_names, reference_names
from palate.simulation.frontier_records import METRICS, Cell, cells_of, table_of
from palate.simulation.prepare import _prepare
from palate.simulation.progress import Watcher
from palate.simulation.report import frontier_chart
from palate.simulation.report.drawing import blank
from palate.simulation.report.frontier_chart import Panel, panels_of, verdict
from palate.simulation.run_folder import RESOLVED, read_config

SETTINGS = {"shards": 2, "tune": False, "schedule": {"rounds": 1, "dim": 4}, "training": {"hidden": 3}}
FLAGS = ("--set", "shards=2", "--set", "tune=false", "--set", "schedule.rounds=1", "--set", "schedule.dim=4")
NDCG = "validation/sampled/ndcg@10"


@pytest.fixture(scope="module")
def sweep(small_data) -> Sweep:
    return Sweep(data=(str(small_data),), units=("user",), epsilons=(2.0, math.inf), seeds=(1, 2), values=SETTINGS)


@pytest.fixture(scope="module")
def finished(sweep, tmp_path_factory):
    folder = tmp_path_factory.mktemp("frontier")
    return folder, run_sweep(sweep, folder, Watcher(), references=("popularity", "ease"))


@pytest.fixture
def palate(capsys, monkeypatch, tmp_path) -> Callable[..., tuple[int, str, str]]:
    """Run `palate frontier` in this process, in a folder of its own: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(COMMANDS, "frontier", Entry("palate.cli.frontier:frontier", "Measure."))

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["frontier", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def entries_of(found) -> list[SimpleNamespace]:
    rows = found.table.iter_rows(named=True)
    return [SimpleNamespace(**row, metrics={name: row[name] for name in METRICS}) for row in rows]


def test_a_sweep_runs_whole_curves_and_the_unprotected_point_once_for_all_units():
    sweep = Sweep(data=("demo",), units=("user", "both"), epsilons=(1.0, 4.0, math.inf), seeds=(5, 6))
    asked = [(point.seed, point.epsilon, point.unit) for point in sweep.points()]
    curve = [(1.0, "user"), (1.0, "both"), (4.0, "user"), (4.0, "both"), (None, "none")]
    assert asked == [(seed, *where) for seed in (5, 6) for where in curve]
    assert len({run_name(point) for point in sweep.points()}) == len(asked)


def test_a_longer_sweep_names_the_points_of_a_shorter_one_alike():
    short = Sweep(data=("demo",), units=("user",), epsilons=(1.0, 4.0), seeds=(1,))
    long = Sweep(data=("demo",), units=("user", "both"), epsilons=(0.5, 1.0, 4.0, math.inf), seeds=(1, 2))
    assert {run_name(point) for point in short.points()} < {run_name(point) for point in long.points()}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": ()}, "at least 1 of seeds"),
        ({"epsilons": (4.0, 1.0)}, "4,1 are not above 0 and in increasing order"),
        ({"epsilons": (0.0, 1.0)}, "not above 0"),
        ({"epsilons": (math.nan,)}, "not above 0"),
        ({"seeds": (1, 1)}, "1,1 names one twice"),
        ({"units": ("none",)}, "no epsilon to sweep"),
        ({"units": ("nobody",)}, "no mechanism"),
        ({"seeds": (-1,)}, "seed"),
        ({"delta": 1.5}, "delta"),
        ({"values": {"schedule": {"dims": 3}}}, "schedule.dims"),
    ],
)
def test_a_sweep_that_cannot_be_run_is_refused_before_its_first_run(changes, words):
    fine = {"data": ("demo",), "units": ("user",), "epsilons": (1.0, 4.0), "seeds": (1,)}
    with pytest.raises(ConfigError, match=re.escape(words)):
        Sweep(**(fine | changes))


def test_every_point_is_a_run_that_palate_simulate_takes_for_finished(sweep, finished):
    folder, found = finished
    for point in sweep.points():
        run = folder / "runs" / run_name(point)
        result = simulate(point, run, Watcher())
        entry = next(entry for entry in entries_of(found) if entry.kind == "palate" and entry.run == run_name(point))
        assert (entry.unit, entry.epsilon, entry.seed) == (result["unit"], result["epsilon"], result["seed"])
        for name in METRICS:
            part, ranking, metric = name.split("/")
            assert entry.metrics[name] == result[part][ranking][metric]
        if point.epsilon is None:
            assert entry.guarantee_epsilon is None
        else:
            assert entry.guarantee_epsilon == result["guarantee"]["epsilon"] <= point.epsilon


def test_controls_stand_beside_every_protected_point_and_references_once_beside_the_data(finished):
    _, found = finished
    controls = [(e.model, e.epsilon, e.seed) for e in entries_of(found) if e.kind == "control"]
    assert sorted(controls) == sorted((name, 2.0, seed) for name in control_names() for seed in (1, 2))
    references = [(e.model, e.epsilon, e.unit, e.run) for e in entries_of(found) if e.kind == "reference"]
    assert references == [("popularity", None, "none", None), ("ease", None, "none", None)]


def test_a_control_is_fitted_with_the_runs_own_budget_and_resolved_training(sweep, tmp_path, finished, monkeypatch):
    folder, _ = finished
    point, seen = sweep.points()[0], {}

    def fitted(names, split, **given):
        seen.update(given)
        return dict.fromkeys(names, SimpleNamespace(to_dict=dict))

    monkeypatch.setattr(frontier_controls, "run_baselines", fitted)
    run = tmp_path / "runs" / run_name(point)
    shutil.copytree(folder / "runs" / run_name(point), run)
    text = (run / RESOLVED).read_text()
    (run / RESOLVED).write_text(text.replace("recency_half_life = 40.0", "recency_half_life = inf"))
    assert read_config(run, RESOLVED).training != point.training
    frontier_controls.controls_of(point, run, tmp_path, lambda words: None)
    assert seen["training"] == read_config(run, RESOLVED).training
    assert (str(seen["promise"].unit), seen["promise"].epsilon, seen["promise"].delta) == ("user", 2.0, 1e-5)
    assert (seen["seed"], seen["noise_seed"]) == (1, None)


def test_a_protected_run_of_single_interactions_has_no_control_for_whole_people(tmp_path):
    config = checked_config({"data": "demo", "unit": "interaction"})
    assert frontier_controls.controls_of(config, tmp_path, tmp_path, lambda words: None) == []


def test_a_sweep_that_has_finished_is_read_and_nothing_is_computed_again(sweep, finished, monkeypatch):
    folder, before = finished
    monkeypatch.setattr(frontier_controls, "prepare", lambda config: pytest.fail("a control is fitted again"))
    monkeypatch.setattr(
        "palate.simulation.federation.run_on_engine", lambda *_, **__: pytest.fail("a run is made again")
    )
    again = run_sweep(sweep, folder, Watcher(), references=("popularity", "ease"))
    assert again.table.equals(before.table)


def test_a_sweep_that_was_stopped_goes_on_after_its_last_finished_run(sweep, tmp_path, monkeypatch):
    calls = []

    def stopping(config, run, watcher):
        calls.append(run.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return simulate(config, run, watcher)

    monkeypatch.setattr(frontier, "simulate", stopping)
    short = replace(sweep, seeds=(1,))
    with pytest.raises(KeyboardInterrupt):
        run_sweep(short, tmp_path, Watcher(), references=())
    first = tmp_path / "runs" / calls[0] / "result.json"
    written = first.stat().st_mtime_ns
    found = run_sweep(short, tmp_path, Watcher(), references=())
    assert first.stat().st_mtime_ns == written
    assert [entry.run for entry in entries_of(found) if entry.kind == "palate"] == calls[2:]


def test_a_control_is_fitted_again_when_its_run_is_another(sweep, finished, tmp_path):
    folder, _ = finished
    point = sweep.points()[0]
    shutil.copytree(folder / "runs" / run_name(point), tmp_path / "runs" / run_name(point))
    run, kept = tmp_path / "runs" / run_name(point), tmp_path / "controls" / f"{run_name(point)}.json"

    def fitted() -> str:
        frontier_controls.controls_of(point, run, tmp_path, lambda words: None)
        return kept.read_text()

    first = fitted()
    assert fitted() == first
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(result | {"peak_memory_mb": 1.0}))
    assert fitted() != first
    kept.write_text("half a fi")
    assert json.loads(fitted())["results"]


def test_data_that_changes_during_a_sweep_is_refused(sweep, small_data, tmp_path):
    data = tmp_path / "moving"
    shutil.copytree(small_data, data)
    moving = replace(sweep, data=(str(data),), epsilons=(math.inf,), seeds=(1,))
    run_sweep(moving, tmp_path / "out", Watcher(), references=())
    lines = (data / "interactions.csv").read_text().splitlines()
    (data / "interactions.csv").write_text("\n".join(lines[:-3]) + "\n")
    _prepare.cache_clear()
    with pytest.raises(RunError, match="the data has changed since"):
        run_sweep(replace(moving, seeds=(1, 2)), tmp_path / "out", Watcher(), references=())


def test_noise_from_the_seed_is_said_beside_the_numbers():
    seeded = Sweep(
        data=("demo",), units=("user",), epsilons=(1.0,), seeds=(1,), values={"privacy": {"noise": "seeded"}}
    )
    assert frontier.Frontier(seeded, table_of([]), ("skipped",)).notes == (SEEDED, "skipped")


def test_an_epsilon_is_shown_with_what_it_takes_to_read_it():
    plain = Sweep(data=("demo",), units=("user",), epsilons=(1.0,), seeds=(1,))
    (meaning,) = frontier.Frontier(plain, table_of([]), ()).notes
    for words in ("per its unit", "delta 1e-05", "replaced by zeros", "secure aggregation holds", "list of items"):
        assert words in meaning


def test_cells_are_means_and_standard_deviations_over_seeds(finished):
    _, found = finished
    for cell in found.cells:
        entries = [
            e for e in entries_of(found) if (e.kind, e.model, e.epsilon) == (cell.kind, cell.model, cell.epsilon)
        ]
        assert cell.seeds == tuple(entry.seed for entry in entries)
        values = [entry.metrics[NDCG] for entry in entries]
        mean, sd = cell.metrics[NDCG]
        assert mean == pytest.approx(sum(values) / len(values))
        assert sd == (pytest.approx(statistics.stdev(values)) if len(values) > 1 else None)


def test_metrics_that_nobody_could_be_asked_for_stay_unknown(finished):
    entry = entries_of(finished[1])[0]
    row = finished[1].table.row(0, named=True)
    unknown = row | {"seed": 2} | dict.fromkeys(METRICS)
    (alone,) = cells_of(table_of([unknown]))
    (both,) = cells_of(table_of([row, unknown]))
    assert alone.metrics[NDCG] is None
    assert both.metrics[NDCG] == (entry.metrics[NDCG], None)


def test_the_command_writes_what_the_format_says_and_prints_the_same_json(palate, small_data, tmp_path):
    arguments = ("--data", small_data, "--epsilons", "2,inf", "--seeds", "1", "--references", "popularity", *FLAGS)
    code, out, err = palate(*arguments, "--folder", tmp_path / "found", "--json")
    assert (code, err) == (0, "")
    summary = json.loads(out)
    assert summary == json.loads((tmp_path / "found" / "frontier.json").read_text())
    assert (summary["format"], summary["version"], summary["metric_part"]) == ("palate.frontier", 1, "validation")
    assert summary["sweep"]["epsilons"] == [2.0, None]
    assert summary["sweep"]["settings"]["schedule"] == {"rounds": 1, "dim": 4}
    table = pl.read_parquet(tmp_path / "found" / "frontier.parquet")
    assert table.columns == [
        "data", "unit", "epsilon", "delta", "seed", "kind", "model", "label", "run", "guarantee_epsilon",
        "cpu_seconds", *METRICS,
    ]  # fmt: skip
    models = [(row["kind"], row["model"], row["epsilon"]) for row in table.iter_rows(named=True)]
    assert models == [
        ("palate", "neumf", 2.0), ("control", "dp_popularity", 2.0), ("control", "dp_content", 2.0),
        ("palate", "neumf", None), ("reference", "popularity", None),
    ]  # fmt: skip
    assert [(cell["kind"], cell["model"], cell["epsilon"]) for cell in summary["cells"]] == models
    assert (tmp_path / "found" / "frontier.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "found" / "frontier.html").read_text()
    assert page.count("<svg") == 4
    assert not re.search(r"<script|src=|url\((?!#)|href=\"http", page)

    code, out, err = palate(*arguments, "--folder", tmp_path / "found", "--metric-part", "test")
    assert code == 0
    assert "2 of 2 runs have finished before" in err
    assert "report it once" in err
    assert "Palate neumf" in out
    assert json.loads((tmp_path / "found" / "frontier.json").read_text())["metric_part"] == "test"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--epsilons", "1,much"), "--epsilons '1,much' is not a list of numbers"),
        (("--seeds", "1.5"), "--seeds '1.5' is not a list of numbers"),
        (("--seeds", ","), "at least 1 of seeds"),
        (("--set", "epsilon=3"), "--set epsilon=3: this command decides it itself"),
        (("--references", "magic"), "no reference is called 'magic'"),
        (("--references", "dp_popularity"), "no reference is called 'dp_popularity'"),
        (("--units", "user,none"), "unit 'none' has no epsilon"),
    ],
)
def test_a_wrong_option_is_one_error_with_a_hint_before_any_run(palate, arguments, words):
    code, out, err = palate("--data", "demo", "--folder", "found", *arguments)
    assert code == 2
    assert out == ""
    assert words in err
    assert sum(line.startswith("hint: ") for line in err.splitlines()) == 1
    assert not any(Path("found").glob("runs/*"))


def cell(kind="palate", epsilon=1.0, value=0.5, *, unit="user", model="neumf", sd=0.01) -> Cell:
    return Cell(
        data="demo",
        unit="none" if epsilon is None else unit,
        epsilon=epsilon,
        delta=None if epsilon is None else 1e-5,
        kind=kind,
        model=model,
        label={"neumf": "Palate neumf", "ease": "EASE", "ials": "iALS"}.get(model, model),
        seeds=(1, 2),
        guarantee_epsilon=epsilon,
        cpu_seconds=1.0,
        metrics=dict.fromkeys(METRICS, (value, sd)),
    )


def curve(values, **given):
    return [
        cell(epsilon=epsilon, value=value, **given) for epsilon, value in zip((1.0, 4.0, 16.0), values, strict=True)
    ]


def test_the_chart_has_the_means_at_their_epsilons_and_the_unprotected_point_to_their_right():
    cells = [
        *curve((0.3, 0.4, 0.5)),
        cell(epsilon=None, value=0.6),
        *curve((0.2, 0.2, 0.2), kind="control", model="dp_content"),
    ]
    cells += [cell("reference", None, value, model=name) for name, value in (("ease", 0.7), ("ials", 0.65))]
    ((panel, _),) = panels_of(cells, part="test")
    _, (axes,) = blank(4, 4)
    frontier_chart._draw(axes, panel)
    drawn = {tuple(map(tuple, zip(*line.get_data(), strict=True))) for line in axes.lines}
    assert ((1.0, 0.3), (4.0, 0.4), (16.0, 0.5)) in drawn
    assert ((1.0, 0.2), (4.0, 0.2), (16.0, 0.2)) in drawn
    without = axes.get_xticks()[-1]
    assert ((without, 0.6),) in drawn
    assert without > 16.0
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "4", "16", "no privacy"]
    heights = {tuple(line.get_ydata()) for line in axes.lines}
    assert (0.7, 0.7) in heights
    assert (0.65, 0.65) not in heights
    assert [text.get_text() for text in axes.texts] == ["EASE"]


def test_a_part_that_nobody_was_measured_on_has_no_panel_and_the_page_says_so(tmp_path):
    cells = [replace(cell(), metrics={name: None if name.startswith("val") else (0.5, None) for name in METRICS})]
    assert panels_of(cells, part="validation") == []
    assert len(panels_of(cells, part="test")) == 1
    assert frontier_chart.write_page(cells, tmp_path, part="validation", notes=()) == [tmp_path / "frontier.html"]
    assert "Nobody has a validation item" in (tmp_path / "frontier.html").read_text()


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ((0.5, 0.6, 0.7), "at every epsilon"),
        ((0.1, 0.5, 0.6), "from epsilon 4 on"),
        ((0.5, 0.1, 0.6), "from epsilon 16 on"),
        ((0.1, 0.1, 0.6), "from epsilon 16 on"),
        ((0.5, 0.6, 0.1), "not above the better private control at epsilon 16"),
    ],
)
def test_the_verdict_compares_with_the_better_control_of_the_same_budget(own, words):
    controls = [
        *curve((0.2, 0.3, 0.3), kind="control", model="dp_content"),
        *curve((0.3, 0.1, 0.1), kind="control", model="dp_popularity"),
    ]
    panel = Panel("demo", (*curve(own), *controls), NDCG)
    assert words in verdict(panel, "user")
    assert "no private control" in verdict(panel, "both")


def test_references_are_what_is_not_a_control():
    assert set(control_names()) == {"dp_popularity", "dp_content"}
    assert not set(control_names()) & set(reference_names())
    assert {"popularity", "ease"} <= set(reference_names())
