"""`palate report`, `palate compare` and `palate recommend`: what a finished run has to say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from palate.running import Run
from palate.running import compare as compare_runs
from palate.simulation.report.recommending import Item, Recommended
from palate.simulation.report.tables import Grid

RunArgument = Annotated[str, typer.Argument(help="Run folder, or its name under runs/.", metavar="RUN")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]


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


def compare(
    first: Annotated[str, typer.Argument(help="Run folder, or its name under runs/.", metavar="RUN")],
    second: Annotated[str, typer.Argument(help="Another run of the same data.", metavar="RUN")],
    *,
    html: Annotated[Path | None, typer.Option(help="Write a page as well, e.g. --html comparison.html.")] = None,
    as_json: JsonOption = False,
) -> None:
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
    if as_json:
        typer.echo(json.dumps(found.to_dict(), ensure_ascii=False, indent=2))
        return
    console = Console()
    for grid in grids:
        console.print(f"[bold]{escape(grid.caption)}[/bold]")
        if grid.rows:
            console.print(_table(grid))
        for note in grid.notes:
            console.print(f"[dim]{escape(note)}[/dim]", highlight=False)
        console.print()


def recommend(
    run: RunArgument,
    *,
    user: Annotated[str, typer.Option(help="Id of a person in the data, e.g. --user 42.")],
    n: Annotated[int, typer.Option("--n", min=1, help="Length of the list, e.g. --n 20.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Show what a run recommends to one person, by title, beside what they had lately.

    Example: palate recommend runs/demo --user 42
    """
    from palate.simulation.guarantee import label_of

    opened = Run.open(run)
    found = opened.recommend(user, n)
    config = opened.finished.config
    unit, protection = config.unit, label_of(config)
    if as_json:
        values = {"run": opened.folder.name, "unit": unit, "protection": protection, **found.to_dict()}
        typer.echo(json.dumps(values, ensure_ascii=False, indent=2))
    else:
        console = Console()
        _print_recommended(found, console)
        style = "bold red" if protection.startswith("no privacy") else "bold green"
        console.print(f"\nunit {escape(unit)}: {escape(protection)}", style=style, highlight=False)


def _print_recommended(found: Recommended, console: Console) -> None:
    lately = Table(box=None, pad_edge=False, show_header=False)
    for item in found.recent:
        lately.add_row(*_described(item))
    shown = Table("", "title", "genres", "score", "", box=None, pad_edge=False)
    for rank, line in enumerate(found.recommendations, start=1):
        mark = "really chosen next" if line.held_out else ""
        shown.add_row(str(rank), *_described(line.item), f"{line.score:.3f}", mark, style="bold" if mark else "")
    console.print(f"[bold]Latest of the {found.num_items} that {escape(found.user_id)} had[/bold]", highlight=False)
    console.print(lately)
    console.print("\n[bold]Recommended, best first[/bold]")
    console.print(shown)


def _described(item: Item) -> tuple[str, str]:
    return escape(item.described), escape(", ".join(item.genres))


def _table(grid: Grid) -> Table:
    table = Table(*map(escape, grid.columns), box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in grid.rows:
        table.add_row(escape(row.label), *(escape(cell.text) for cell in row.cells))
    return table
