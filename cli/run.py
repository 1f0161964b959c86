"""`palate report`, `palate compare` and `palate recommend`: read the results of finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palate.cli.terminal import Answer, answering
from palate.running import Run
from palate.running import compare as compare_runs

RunArgument = Annotated[str, typer.Argument(help="Run folder, or its name under runs/.", metavar="RUN")]


def report(
    run: RunArgument,
    *,
    output: Annotated[
        Path | None, typer.Option(help="Where to write, e.g. --output demo.html.", show_default="report.html in RUN")
    ] = None,
    examples: Annotated[bool, typer.Option(help="Show some people's histories and lists.")] = True,
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
    first: Annotated[str, typer.Argument(help="Run folder, or its name under runs/.", metavar="RUN")],
    second: Annotated[str, typer.Argument(help="Another run of the same data.", metavar="RUN")],
    *,
    html: Annotated[Path | None, typer.Option(help="Also write an HTML page, e.g. --html comparison.html.")] = None,
) -> Answer:
    """Compare two runs on the same people: differences, 95% intervals and paired tests.

    Differences are second minus first. Example: palate compare runs/plain runs/private
    """
    from palate.simulation.report.comparing import comparison_grids

    found = compare_runs(first, second)
    grids = comparison_grids(found)
    if html is not None:
        from palate.simulation.report.headline import protection
        from palate.simulation.report.rendering import render, save

        banners = list(zip(found.names, map(protection, (found.first, found.second)), strict=True))
        save(render("compare.html.j2", comparison=found, grids=grids, banners=banners), html)
    return Answer(found.to_dict(), [(found.verdict, "bold"), *grids])


@answering
def recommend(
    run: RunArgument,
    *,
    user: Annotated[str, typer.Option(help="Id of a person in the data, e.g. --user 42.")],
    n: Annotated[int, typer.Option("--n", min=1, help="Length of the list, e.g. --n 20.")] = 10,
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
