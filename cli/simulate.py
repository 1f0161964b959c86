"""`palate simulate`: from data to a trained federation, its result and its report in one command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from palate.cli.options import ExplainOption, JsonOption, QuietOption, folder_option
from palate.cli.settings import RUN_PANELS, with_settings
from palate.cli.terminal import Answer, Line, answering, somebody_is_there
from palate.simulation.config import SimulationConfig, checked_config

_WORTH_SAYING, _WORTH_ASKING = 20.0, 3600.0
"""Estimated CPU-seconds from which a run says what it costs, and asks."""


@with_settings(SimulationConfig, RUN_PANELS)
@answering
def simulate(
    asked: dict[str, Any],
    *,
    folder: Annotated[
        Path | None, folder_option("Run folder. [default: runs/ and a name made from the settings]")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the run in the run folder, and start anew.")] = False,
    ray_address: Annotated[
        str, typer.Option(help="Ray cluster for --engine flower, e.g. 10.0.0.1:6379; a local one if empty.")
    ] = "",
    report: Annotated[
        bool, typer.Option(help="Write the HTML report at the end, or not. [default: report]", show_default=False)
    ] = True,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Start without asking, however long the run takes.")] = False,
    explain: ExplainOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> Answer:
    """Train a federated recommender on virtual devices and measure what it is worth.

    Every person of the dataset becomes a virtual device. Devices learn from their own history. Only item embeddings
    are summed, with noise that hides each person. The result states the privacy guarantee and its assumptions.

    The same command on the same folder resumes a run that was stopped. palate plan, with the same options, shows what
    would run and why.

    For example:
      palate simulate
      palate simulate --data ml-1m --epsilon 4 --seed 2
      palate simulate --data ml-100k --new-items 0.05
      palate simulate --data sales.csv --user-column customer --item-column sku --min-user 5
      palate simulate --unit none --data ml-100k --set training.recency_half_life=inf --json
    """
    from palate.simulation.federation import finished_result
    from palate.simulation.federation import simulate as run_simulation
    from palate.simulation.progress import watching
    from palate.simulation.results import contract_view
    from palate.simulation.run_folder import located

    config = checked_config(asked)
    place = folder or Path("runs") / config.default_run_name
    quiet = quiet or as_json
    talk = Console(stderr=True, quiet=quiet)
    if not (place / "result.json").exists():
        _announce(located(place, config, here=True), talk, yes=yes)
    old = not fresh and place.exists() and finished_result(place) is not None
    with watching(not quiet, console=talk) as watcher:
        result = run_simulation(config, place, watcher, fresh=fresh, ray_address=ray_address)
    if old:
        talk.print(f"this run was already finished; --fresh runs it again: {place}")
    values, lines = contract_view(result), list(_result_lines(result, explain=explain))
    if config.new_items:
        from palate.simulation.new_items import measured

        with talk.status("ranking new items"):
            values["new_items"] = measured(place)
        lines += _new_item_lines(values["new_items"])
    closing = [f"run folder  {place}"]
    page = _write_report(place, talk, again=not old) if report else None
    if page is not None:
        closing.append(f"report      {page}")
    return Answer(values, lines, closing=() if quiet else closing)


def _announce(config: SimulationConfig, talk: Console, *, yes: bool) -> None:
    """Say what a run will cost if that is more than seconds. Ask before a run of hours, if somebody can answer."""
    from palate.simulation.cost import estimate
    from palate.simulation.prepare import prepare
    from palate.simulation.resolving import resolve

    data = prepare(config, lambda words: talk.print(words, style="dim", highlight=False))
    cost = estimate(resolve(config, data)[0], data)
    if cost.cpu_seconds < _WORTH_SAYING:
        return
    talk.print(f"this takes {cost.words}", highlight=False, soft_wrap=True)
    if cost.cpu_seconds < _WORTH_ASKING or yes:
        return
    if somebody_is_there() and not talk.quiet:
        typer.confirm("Begin?", abort=True, err=True)
    else:
        talk.print("there is no terminal to ask in, so the run starts (--yes skips this question)", highlight=False)


def _write_report(folder: Path, talk: Console, *, again: bool) -> Path | None:
    """Write the report. Skip it if its optional packages are missing, or if it exists and `again` is false."""
    if not again and (folder / "report.html").exists():
        return folder / "report.html"
    from palate.running import Run

    try:
        return Run(folder).report()
    except ImportError as error:
        talk.print(f"no report: {error.name} is not installed (pip install 'palate\\[report]')")
        return None


def _result_lines(result: dict[str, Any], *, explain: bool) -> Iterator[Line]:
    """Lines of a result: accuracy, the references, cost, and the privacy guarantee."""
    from palate.simulation.report.headline import headline
    from palate.simulation.report.records import Result
    from palate.simulation.report.tables import facts_grid, measured, text_grid

    record = Result.model_validate(result)
    columns = [("full", "hr@10"), ("full", "ndcg@10"), ("sampled", "hr@10"), ("sampled", "ndcg@10")]
    models = [
        (label, *(f"{model.accuracy(ranking).values[name]:.4f}" for ranking, name in columns))
        for label, model in measured(record, "test")
    ]
    yield text_grid("", ("test", "HR@10 full", "NDCG@10 full", "HR@10", "NDCG@10"), models, own=0)
    yield from (headline(record, ranking) for ranking in ("full", "sampled"))
    cost = record.cpu_seconds
    yield (
        f"{record.protocol}. {cost.total:.1f} CPU-s of training and ranking, {cost.per_round_median:.2f} a round; "
        f"peak memory {record.peak_memory_mb:,.0f} MB."
    )
    content = result.get("content")
    if content and content["text_columns"]:
        yield (
            f"Titles and texts read by {content['reader']}: {content['text_columns']} of {content['columns']} public "
            "columns."
        )
    style = "bold red" if record.guarantee is None else "bold green"
    claim = "" if record.guarantee is None else f", {record.guarantee}, for all rounds together"
    yield f"unit {record.unit}: {record.protection}{claim}", style
    if explain and record.guarantee is not None:
        yield facts_grid("", "", record.guarantee.facts)


def _new_item_lines(found: dict[str, Any]) -> Iterator[Line]:
    """Lines about new items, compared with a random order."""
    from palate.simulation.report.tables import text_grid

    among = {"new": "other new items", "catalogue": "items of the catalogue"}
    rankings, metrics = found["rankings"].values(), ("HR@10", "NDCG@10")
    columns = [f"{metric}, {name}" for name in found["rankings"] for metric in metrics]
    rows = {model: [ranking["models"][model] for ranking in rankings] for model in next(iter(rankings))["models"]}
    rows["random order"] = [ranking["random"] for ranking in rankings]
    shown = [
        (label, *(f"{values[metric.lower()]:.4f}" for values in each for metric in metrics))
        for label, each in rows.items()
    ]
    yield text_grid("", ("new items", *columns), shown, own=0)
    candidates = [f"{name} is among {each['candidates']} {among[name]}" for name, each in found["rankings"].items()]
    yield f"{'; '.join(candidates)}."
    lists = found["share_of_lists"]
    yield (
        f"{found['items']} items were in nobody's history; {found['people']:,} people took one of them later. New "
        f"items are {lists['of_catalogue']:.1%} of the catalogue, {lists['models']['palate']:.1%} of people's lists."
    )
