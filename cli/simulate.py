"""`palate simulate`: from data to a trained federation, its result and its report in one command."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from palate.errors import ConfigError
from palate.models.training import LocalTraining
from palate.server.optimisers import OptimiserConfig
from palate.server.resolving import PROTECTED as DEFAULTS
from palate.server.settings import Schedule
from palate.server.values import merge, nested
from palate.simulation.config import SimulationConfig, checked_config, load_config

_DEFAULT = {name: field.default for name, field in SimulationConfig.model_fields.items()}
_SCHEDULE, _TRAINING = Schedule(), LocalTraining()


def simulate(
    *,
    data: Annotated[
        str | None, typer.Option(help=f"Dataset name, file or folder, such as ml-100k. [default: {_DEFAULT['data']}]")
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option(help="What the guarantee covers: user, interaction or both; none is no privacy. [default: user]"),
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option(help=f"Privacy budget of the whole run. [default: {DEFAULTS['epsilon']:g}]")
    ] = None,
    delta: Annotated[
        float | None,
        typer.Option(help=f"Failure probability of the guarantee. [default: {DEFAULTS['delta']:g}]"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Score model: gmf, mlp, neumf, linear, autoencoder or sequential. [default: neumf]"),
    ] = None,
    objective: Annotated[
        str | None, typer.Option(help="Local loss: whole (closed form) or bce (sampled). [default: whole]")
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            help=f"Training rounds. [default: planned from size and budget; {_SCHEDULE.rounds} with unit none]"
        ),
    ] = None,
    dim: Annotated[
        int | None,
        typer.Option(
            help=f"Width of the item embedding. [default: planned from size and budget; {_SCHEDULE.dim} with unit none]"
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help=f"Local epochs of SGD per round. [default: {_TRAINING.epochs}]")
    ] = None,
    participation: Annotated[
        float | None,
        typer.Option(help=f"Share of devices that take part in a round. [default: {_SCHEDULE.participation}]"),
    ] = None,
    optimiser: Annotated[
        str | None,
        typer.Option(
            help=f"Server optimiser: average, momentum, adam or curvature. [default: {OptimiserConfig().name}]"
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help=f"Seed of everything random. [default: {_DEFAULT['seed']}]")] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with any setting; flags win over it, e.g. --config run.toml.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any setting by its dotted name, e.g. --set training.recency_half_life=20."),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help="How nodes run: vectorised (here), flower (on Ray), devices (one by one, slow). "
            f"[default: {_DEFAULT['engine']}]"
        ),
    ] = None,
    shards: Annotated[
        int | None, typer.Option(help=f"Nodes that share the virtual devices. [default: {_DEFAULT['shards']}]")
    ] = None,
    ray_address: Annotated[
        str, typer.Option(help="Ray cluster for --engine flower, e.g. 10.0.0.1:6379; a local one if empty.")
    ] = "",
    baselines: Annotated[
        str | None, typer.Option(help="References to compute: all, none, or names with commas. [default: all]")
    ] = None,
    new_items: Annotated[
        float | None,
        typer.Option(help="Share of the items to leave out of all histories and to test as new, e.g. 0.05."),
    ] = None,
    user_column: Annotated[str | None, typer.Option(help="Column of the users, if it is not guessed.")] = None,
    item_column: Annotated[str | None, typer.Option(help="Column of the items, if it is not guessed.")] = None,
    rating_column: Annotated[str | None, typer.Option(help="Column of the ratings.")] = None,
    time_column: Annotated[str | None, typer.Option(help="Column of times or ranks.")] = None,
    items: Annotated[Path | None, typer.Option(help="File that describes the items.")] = None,
    min_user: Annotated[int | None, typer.Option(help="Fewest interactions of a user that is kept.")] = None,
    min_item: Annotated[int | None, typer.Option(help="Fewest interactions of an item that is kept.")] = None,
    min_rating: Annotated[float | None, typer.Option(help="Lowest rating that counts.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse a file with a bad row.")] = False,
    run_dir: Annotated[
        Path | None, typer.Option(help="Run folder. [default: runs/ and a name made from the settings]")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete the run that is in the run folder, and start anew.")
    ] = False,
    report: Annotated[
        bool, typer.Option(help="Write the HTML report at the end, or not. [default: report]", show_default=False)
    ] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show errors only, and the result.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Train a federated recommender on virtual devices and measure what it is worth.

    Every person of the dataset becomes a virtual device. Devices learn from their own history; only item
    embeddings are summed, and with them the noise that hides each person: the result says how well, and what it
    rests on. The same command on the same folder resumes a run that was stopped.

    \b
    Examples:
      palate simulate
      palate simulate --data ml-1m --epsilon 4 --seed 2
      palate simulate --data ml-100k --new-items 0.05
      palate simulate --data sales.csv --user-column customer --item-column sku --min-user 5
      palate simulate --unit none --data ml-100k --set training.recency_half_life=inf --json
    """  # noqa: D301 - a real backspace: Click keeps the lines that follow as they are
    flags = nested(
        {
            "data": data,
            "unit": unit,
            "epsilon": epsilon,
            "delta": delta,
            "seed": seed,
            "engine": engine,
            "shards": shards,
            "baselines": _baselines(baselines),
            "new_items": new_items,
            "training.model": model,
            "training.objective": objective,
            "training.epochs": epochs,
            "schedule.rounds": rounds,
            "schedule.dim": dim,
            "schedule.participation": participation,
            "optimiser.name": optimiser,
            "read.user_column": user_column,
            "read.item_column": item_column,
            "read.rating_column": rating_column,
            "read.time_column": time_column,
            "read.items": items,
            "read.min_user": min_user,
            "read.min_item": min_item,
            "read.min_rating": min_rating,
            "read.strict": strict or None,
        }
    )
    values = merge(load_config(config) if config else {}, settings_of(setting or []))
    checked = checked_config(merge(values, flags))
    folder = run_dir or Path("runs") / checked.default_run_name
    _run(checked, folder, ray_address, fresh=fresh, report=report, quiet=quiet or as_json, as_json=as_json)


def _run(
    config: SimulationConfig,
    folder: Path,
    ray_address: str,
    *,
    fresh: bool,
    report: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    from palate.simulation.federation import finished_result
    from palate.simulation.federation import simulate as run_simulation
    from palate.simulation.progress import watching
    from palate.simulation.results import contract_view

    talk = Console(stderr=True, quiet=quiet)
    old = not fresh and folder.exists() and finished_result(folder) is not None
    with watching(not quiet, console=talk) as watcher:
        result = run_simulation(config, folder, watcher, fresh=fresh, ray_address=ray_address)
    if old:
        talk.print(f"this run has finished before; --fresh runs it again: {folder}")
    arrived = _new_items(folder, talk) if config.new_items else None
    page = _write_report(folder, talk, again=not old) if report else None
    if as_json:
        view = contract_view(result)
        typer.echo(json.dumps(view if arrived is None else {**view, "new_items": arrived}))
        return
    _print_result(result, Console())
    if arrived is not None:
        _print_new_items(arrived, Console())
    talk.print(f"run folder  {folder}", highlight=False, soft_wrap=True)
    if page is not None:
        talk.print(f"report      {page}", highlight=False, soft_wrap=True)


def _write_report(folder: Path, talk: Console, *, again: bool) -> Path | None:
    """Write the report, unless its optional packages are missing, or it is there and need not be written again."""
    if not again and (folder / "report.html").exists():
        return folder / "report.html"
    from palate.running import Run

    try:
        return Run(folder).report()
    except ImportError as error:
        talk.print(f"no report: {error.name} is not installed (pip install 'palate\\[report]')")
        return None


def _print_result(result: dict[str, Any], console: Console) -> None:
    """Print what a newcomer wants to know: how good, against what, and whether anything was protected."""
    from rich.table import Table

    table = Table(
        "test", "HR@10", "NDCG@10", "HR@10 full", "NDCG@10 full", box=None, pad_edge=False, title_justify="left"
    )
    for column in table.columns[1:]:
        column.justify = "right"
    rows = [(f"palate {result['model']}", result["test"])]
    for found in result["baselines"].values():
        if found.get("test"):
            rows.append((found["label"], found["test"]))
    for label, metrics in rows:
        cells = [_number(metrics, ranking, name) for ranking in ("sampled", "full") for name in ("hr@10", "ndcg@10")]
        table.add_row(label, *cells, style="bold" if label.startswith("palate ") else "")
    console.print(table)
    hits = result["test"]["sampled"]["hr@10"] if result["test"] else None
    if hits is not None:
        console.print(
            f"Of {result['dataset']['candidates']} items, the one that a person really took next was among Palate's "
            f"first ten for {hits:.0%} of people.",
            highlight=False,
            soft_wrap=True,
        )
    cost = result["cpu_seconds"]
    console.print(
        f"{result['protocol']}. {cost['total']:.1f} CPU-s of training and ranking, "
        f"{cost['per_round_median']:.2f} a round; peak memory {result['peak_memory_mb']:,.0f} MB.",
        highlight=False,
        soft_wrap=True,
    )
    content = result.get("content")
    if content and content["text_columns"]:
        console.print(
            f"Titles and texts read by {content['reader']}: {content['text_columns']} of {content['columns']} public "
            "columns.",
            highlight=False,
            soft_wrap=True,
        )
    _print_guarantee(result, console)


def _new_items(folder: Path, talk: Console) -> dict[str, Any] | None:
    from palate.simulation.new_items import measured

    with talk.status("ranking new items"):
        return measured(folder)


def _print_new_items(found: dict[str, Any], console: Console) -> None:
    """Print how well new items were found, beside a random order."""
    from rich.table import Table

    among = {"new": "other new items", "catalogue": "the catalogue"}
    table = Table("new items", box=None, pad_edge=False)
    for name, ranking in found["rankings"].items():
        for metric in ("HR@10", "NDCG@10"):
            table.add_column(f"{metric} of {ranking['candidates']} among {among[name]}", justify="right")
    rankings = found["rankings"].values()
    rows = {"random order": [ranking["random"] for ranking in rankings]}
    for model in next(iter(rankings))["models"]:
        rows[model] = [ranking["models"][model] for ranking in rankings]
    for label, metrics in rows.items():
        cells = [f"{values[metric]:.4f}" for values in metrics for metric in ("hr@10", "ndcg@10")]
        table.add_row(label, *cells, style="bold" if label == "palate" else "")
    console.print(table)
    lists = found["share_of_lists"]
    console.print(
        f"{found['items']} items were in nobody's history; {found['people']:,} people took one of them later. New "
        f"items are {lists['of_catalogue']:.1%} of the catalogue, {lists['models']['palate']:.1%} of people's lists.",
        highlight=False,
        soft_wrap=True,
    )


def _print_guarantee(result: dict[str, Any], console: Console) -> None:
    """Print what was promised and everything that it takes to read it; a run without protection says so in red."""
    from rich.table import Table

    from palate.simulation.report.promise import facts
    from palate.simulation.report.records import GuaranteeRecord

    protected = result["guarantee"] is not None
    style = "bold green" if protected else "bold red"
    console.print(Text(f"unit {result['unit']}: {result['protection']}", style=style))
    if protected:
        table = Table(box=None, pad_edge=False, show_header=False)
        for name, words in facts(GuaranteeRecord.model_validate(result["guarantee"])).items():
            table.add_row(name, words)
        console.print(table, highlight=False)


def _number(metrics: dict[str, Any] | None, ranking: str, name: str) -> str:
    value = ((metrics or {}).get(ranking) or {}).get(name)
    value = value["value"] if isinstance(value, dict) else value
    return "-" if value is None else f"{value:.4f}"


def settings_of(texts: list[str]) -> dict[str, Any]:
    """Values of `--set name=value`, read as TOML values or else as text."""
    merged: dict[str, Any] = {}
    for text in texts:
        name, equals, raw = text.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"--set {text!r} is not name=value", hint="for example --set schedule.dim=32")
        try:
            value = tomllib.loads(f"value = {raw.strip()}")["value"]
        except tomllib.TOMLDecodeError:
            value = raw.strip()
        merged = merge(merged, nested({name.strip(): value}))
    return merged


def _baselines(text: str | None) -> tuple[str, ...] | None:
    """Names of baselines; None leaves what the file says, or the default."""
    from palate.simulation.baselines.registry import BASELINES

    if text is None:
        return None
    if text == "all":
        return tuple(BASELINES)
    if text == "none":
        return ()
    return tuple(name.strip() for name in text.split(",") if name.strip())
