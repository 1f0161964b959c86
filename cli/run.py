"""`palate runs`, `report`, `compare` and `recommend`: list runs, and read the results of finished ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import click
import typer

from palate.cli.options import LONGEST_LIST
from palate.cli.terminal import Answer, answering
from palate.running import Run
from palate.running import compare as compare_runs

_ORDERS = ("name", "data", "quality", "gain", "epsilon", "cpu")

RunArgument = Annotated[str, typer.Argument(help="Run folder, or its name under runs/.", metavar="RUN")]


@answering
def runs(
    folder: Annotated[Path, typer.Argument(help="Folder that has run folders.", metavar="FOLDER")] = Path("runs"),
    *,
    data: Annotated[str | None, typer.Option(help="Only runs of this data, e.g. --data demo.")] = None,
    unit: Annotated[str | None, typer.Option(help="Only runs of this unit, e.g. --unit user.")] = None,
    finished: Annotated[bool, typer.Option("--finished", help="Only runs that have finished.")] = False,
    sort: Annotated[
        str,
        typer.Option(
            click_type=click.Choice(_ORDERS), help="What comes first: the best, the smallest epsilon, the cheapest."
        ),
    ] = "name",
) -> Answer:
    """List all runs of a folder: data, privacy, quality, gain over the fair control, and cost.

    Example: palate runs --sort gain
    """
    from palate.simulation.report.listing import ORDERS, list_runs, runs_grid

    every = list_runs(folder)
    found = [
        run
        for run in every
        if data in (None, run.data) and unit in (None, run.unit) and (run.state == "finished" or not finished)
    ]
    found.sort(key=ORDERS[sort])
    counted = f"{len(found)} runs" if len(found) != 1 else "1 run"
    first = f"{counted} in {folder}" + (f", of {len(every)}" if len(found) < len(every) else "")
    hint = () if every else ("palate simulate --folder " + str(folder / "demo") + " makes one",)
    values = {"folder": str(folder), "runs": [run.to_dict() for run in found]}
    return Answer(values, [first, *([runs_grid(found)] if found else [])], closing=hint)


def report(
    run: RunArgument,
    *,
    output: Annotated[
        Path | None, typer.Option(help="Where to write, e.g. --output demo.html.", show_default="report.html in RUN")
    ] = None,
    examples: Annotated[
        bool | None,
        typer.Option(
            "--examples/--no-examples",
            help="Show some people's histories and lists: private, and covered by no noise.",
            show_default="only of a run that protects nobody",
        ),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")] = False,
) -> None:
    """Write a run's report as one self-contained HTML page, and print its path.

    Example: palate report runs/demo --open
    """
    page = Run.open(run).report(output, examples=examples)
    typer.echo(str(page))
    if open_page:
        typer.launch(page.resolve().as_uri())


@answering
def compare(
    runs: Annotated[
        list[str], typer.Argument(help="Two or more runs of the same data, as folders or names.", metavar="RUN...")
    ],
    *,
    html: Annotated[Path | None, typer.Option(help="Also write an HTML page, e.g. --html comparison.html.")] = None,
) -> Answer:
    """Compare runs on the same people, each with the first: differences, paired tests, effect sizes.

    An arrow marks a difference that is significant at 5%, corrected for the number of runs (Holm).
    Example: palate compare plain private another
    """
    from palate.simulation.report.comparing import comparison_grids, write_comparison

    found = compare_runs(*runs)
    if html is not None:
        write_comparison(found, html)
    return Answer(found.to_dict(), [*((verdict, "bold") for verdict in found.verdicts), *comparison_grids(found)])


@answering
def recommend(
    run: RunArgument,
    *,
    user: Annotated[str, typer.Option(help="Id of a person in the data, e.g. --user 42.")],
    n: Annotated[int, typer.Option("--n", min=1, max=LONGEST_LIST, help="Length of the list, e.g. --n 20.")] = 10,
) -> Answer:
    """Show what a run recommends to one person, by title, and what they had recently.

    Example: palate recommend runs/demo --user 42
    """
    from palate.simulation.claims import label_of

    opened = Run.open(run)
    found = opened.recommend(user, n)
    config = opened.finished.config
    unit, protection = config.unit, label_of(config)
    values = {"run": opened.folder.name, "unit": unit, "protection": protection, **found.to_dict()}
    style = "bold red" if protection.startswith("no privacy") else "bold green"
    return Answer(values, [(f"For {found.user_id}, by unit {unit}: {protection}", style), *found.grids])
