"""`palate frontier`: what a recommendation is worth at every budget, in one command and one picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer
from rich.console import Console

from palate.cli.options import JsonOption, QuietOption, folder_option
from palate.cli.settings import with_settings
from palate.cli.terminal import Answer, Line, answering
from palate.errors import ConfigError
from palate.simulation.config import SimulationConfig

if TYPE_CHECKING:
    from palate.simulation.frontier import Frontier, Sweep
    from palate.simulation.progress import Watcher

_Value = TypeVar("_Value")

_ADVICE = {
    "validation": "The chart shows validation: choose on it, and report test once (--metric-part test).",
    "test": "The chart shows test: report it once, and choose nothing by it.",
}


def _swept() -> tuple[str, ...]:
    from palate.simulation.frontier import SWEPT

    return SWEPT


@with_settings(SimulationConfig, {"All runs": ("delta", "training.model")}, decided=_swept)
@answering
def frontier(
    asked: dict[str, Any],
    *,
    data: Annotated[
        list[str] | None, typer.Option(help="Dataset name, file or folder; may be repeated. [default: demo]")
    ] = None,
    epsilons: Annotated[
        str, typer.Option(help="Budgets, separated by commas; inf is the same model without privacy.")
    ] = "0.5,1,2,4,8,inf",
    seeds: Annotated[str, typer.Option(help="Seeds of every point, separated by commas.")] = "1,2,3",
    units: Annotated[
        str, typer.Option(help="Units of protection: user, interaction, both; separated by commas.")
    ] = "user",
    references: Annotated[str, typer.Option(help="References without privacy: all, none, or a list of names.")] = "all",
    metric_part: Annotated[
        Literal["validation", "test"], typer.Option(help="What the chart shows; both are written to frontier.parquet.")
    ] = "validation",
    folder: Annotated[
        Path | None, folder_option("Folder of the frontier. [default: runs/frontier- and the datasets' names]")
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> Answer:
    """Measure what privacy costs: accuracy against epsilon, over seeds, with controls and references.

    Every point is a run of palate simulate in a folder of its own. It is compared with two controls that spend the same
    budget and learn nothing together: noised popularity alone, and with public content. The same command continues
    where it was stopped, and a longer sweep reuses the points of a shorter one.

    For example:
      palate frontier
      palate frontier --data ml-100k --epsilons 1,8,inf --seeds 1
      palate frontier --data ml-1m --units user,both --folder runs/ml-1m-frontier
      palate frontier --data sales.csv --set read.user_column=customer --set read.item_column=sku
    """
    from palate.simulation.frontier import RUNS, Sweep, run_sweep
    from palate.simulation.frontier_controls import dataset_name, reference_names
    from palate.simulation.frontier_records import summary_of, write_frontier
    from palate.simulation.report.frontier_chart import write_page  # before the first run: its extra may be missing

    sweep = Sweep(
        data=tuple(data or ["demo"]),
        units=tuple(_listed("units", units, str)),
        epsilons=tuple(_listed("epsilons", epsilons, float)),
        seeds=tuple(_listed("seeds", seeds, int)),
        delta=asked.get("delta"),
        values=asked,
    )
    names = reference_names() if references == "all" else ()
    if references not in ("all", "none"):
        names = tuple(_listed("references", references, str))
    place = folder or Path("runs") / f"frontier-{'-'.join(dataset_name(each) for each in sweep.data)}"
    (place / RUNS).mkdir(parents=True, exist_ok=True)
    quiet = quiet or as_json
    with _watched(sweep, place, Console(stderr=True, quiet=quiet)) as (watcher, begins):
        found = run_sweep(sweep, place, watcher, references=names, begins=begins)
    cells = found.cells
    summary = summary_of(cells, part=metric_part, swept=sweep.asked, notes=found.notes)
    write_frontier(found.table, summary, place)
    files = write_page(cells, place, part=metric_part, notes=found.notes)
    closing = [_ADVICE[metric_part], *(f"written  {path}" for path in files)]
    return Answer(summary, _lines(found, metric_part), closing=() if quiet else closing)


@contextmanager
def _watched(
    sweep: Sweep, folder: Path, console: Console
) -> Iterator[tuple[Watcher, Callable[[SimulationConfig, int], None]]]:
    """Draw one bar over all runs with the time that is left; runs that have finished before take none."""
    from palate.simulation.frontier import RUNS, run_name
    from palate.simulation.progress import Progress, Watcher, bar_on

    names = [run_name(point) for point in sweep.points()]
    to_run = [name for name in names if not (folder / RUNS / name / "result.json").exists()]
    if len(to_run) < len(names):
        console.print(f"{len(names) - len(to_run)} of {len(names)} runs have finished before", highlight=False)
    bar = bar_on(console, "{task.completed:.1f}/{task.total:.0f} runs")
    task, done = bar.add_task("", total=max(len(to_run), 1)), 0

    def begins(point: SimulationConfig, position: int) -> None:
        nonlocal done
        done = sum(name in to_run for name in names[:position])
        budget = "no privacy" if point.epsilon is None else f"epsilon {point.epsilon:g}"
        words = f"{position + 1}/{len(names)} {point.unit}, {budget}, seed {point.seed}"
        bar.update(task, description=words, completed=done)

    def step(progress: Progress) -> None:
        if progress.rounds:  # popularity and the closing work count as two more
            bar.update(task, completed=done + progress.round / (progress.rounds + 2))

    with bar:
        yield Watcher(step), begins


def _listed(name: str, text: str, kind: Callable[[str], _Value]) -> Sequence[_Value]:
    """Read values that are separated by commas."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    try:
        return [kind(word) for word in words]
    except ValueError as error:
        raise ConfigError(
            f"--{name} {text!r} is not a list of numbers", hint=f"separate numbers by commas, for example --{name} 1,2"
        ) from error


def _lines(found: Frontier, part: str) -> Iterator[Line]:
    """Show HR@10 and NDCG@10 of every model at every budget."""
    from palate.simulation.frontier_controls import dataset_name
    from palate.simulation.frontier_records import cell_grid

    for data in found.sweep.data:
        grid = cell_grid([cell for cell in found.cells if cell.data == data], part, narrow=True)
        yield replace(grid, caption=f"{dataset_name(data)}, {part}")
    count = len(found.sweep.seeds)
    yield f"Means over {count} seed{'s' if count > 1 else ''}; references with the first."
    yield from found.notes
