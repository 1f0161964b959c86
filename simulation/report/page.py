"""The report of a finished run: one HTML page that a newcomer can read and a researcher can check."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from palate.errors import PalateError
from palate.models.histories import Histories
from palate.simulation.bands import Band
from palate.simulation.evaluation import Summary
from palate.simulation.prepare import prepare
from palate.simulation.report.drawing import Chart
from palate.simulation.report.examples import Example, choose_examples
from palate.simulation.report.figures import band_chart, round_charts, save_curves
from palate.simulation.report.headline import headline, protection
from palate.simulation.report.records import Result
from palate.simulation.report.rendering import render, save
from palate.simulation.report.tables import (
    ROLES,
    Grid,
    accuracy_grid,
    band_grid,
    baseline_cost_grid,
    beyond_grid,
    cost_grid,
    facts_grid,
    headliners,
)
from palate.simulation.report.words import definitions, flattened, noun, percent, recency_note
from palate.simulation.run_folder import located, read_config
from palate.simulation.run_reader import Run, read_run

REPORT_NAME = "report.html"
CURVES_NAME = Path("plots") / "curves.png"


NO_EXAMPLES = "Left out: people's items and lists are private. palate report --examples shows a few."


def write_report(
    folder: Path, *, output: Path | None = None, history: Histories | None = None, examples: bool | None = None
) -> Path:
    """Write the report of a run.

    Parameters
    ----------
    folder
        The run folder.
    output
        Where to write; report.html in the run folder by default, together with plots/curves.png.
    history
        What each user had before the test item, for the examples; read again from the dataset by default.
    examples
        Whether to show a few people's histories and lists, which no noise covers; by default only of a run that
        protects nobody.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    RunError
        If the run has not finished or its folder is damaged.
    EnvironmentProblem
        If the page cannot be written there.
    ModuleNotFoundError
        If the extra `report` is not installed.
    """
    run = read_run(folder)
    if run.result.guarantee is None if examples is None else examples:
        shown, why_not = _examples(run, history)
    else:
        shown, why_not = [], NO_EXAMPLES
    path = output or folder / REPORT_NAME
    save(report_page(run, shown, why_not), path)
    if output is None:
        save_curves(run.rounds, run.result, folder / CURVES_NAME)
    return path


def report_page(run: Run, examples: list[Example], why_no_examples: str) -> str:
    """Fill the page: the same run gives the same bytes."""
    result, items = run.result, noun(run.result.data)
    parts = [part for part in ("test", "validation") if result.summary.of(part) is not None]
    return render(
        "report.html.j2",
        result=result,
        items=items,
        headlines=[headline(result, ranking) for ranking in ("full", "sampled")],
        bars=[
            (label, summary.full.hit_rate.value, percent(summary.full.hit_rate.value), role)
            for (label, summary), role in zip(headliners(result).items(), ROLES, strict=False)
        ],
        protection=protection(result),
        accuracy={part: [accuracy_grid(result, part, ranking) for ranking in ("full", "sampled")] for part in parts},
        beyond=beyond_grid(result),
        definitions=definitions(run.top_k, items),
        charts=round_charts(run.rounds, result),
        groupings=_groupings(result, items),
        examples=examples,
        why_no_examples=why_no_examples,
        cost=cost_grid(result, run.rounds),
        references=baseline_cost_grid(result) if result.baselines else None,
        recency=recency_note(run.config, has_time=result.dataset.has_time),
        config=facts_grid("Configuration", "Option", flattened(run.config)),
        environment=facts_grid("Environment", "What", _environment(run)),
        table=run.saved,
    )


def _bands_of(summary: Summary, items: str) -> dict[tuple[str, str], Sequence[Band]]:
    """Accuracy by group under every grouping of the people, by its caption and its column's heading."""
    return {
        ("By activity of the person", "History"): summary.by_activity,
        (f"By popularity of the {items} sought", "Items"): summary.by_popularity,
        **{(f"By {name}", name.capitalize()): bands for name, bands in summary.by_group.items()},
    }


def _groupings(result: Result, items: str) -> list[tuple[Chart, Grid]]:
    """Draw and tabulate every grouping that has at least two groups."""
    every = {label: _bands_of(summary, items) for label, summary in headliners(result).items()}
    found = []
    for place, (cut, own) in enumerate(_bands_of(result.summary.test, items).items()):
        labels = [band.label for band in own]
        same = {label: bands.get(cut, ()) for label, bands in every.items()}
        models = {label: bands for label, bands in same.items() if [band.label for band in bands] == labels}
        if len(own) > 1:
            found.append((band_chart(f"groups-{place}", cut[0], models), band_grid(*cut, models)))
    return found


def _examples(run: Run, history: Histories | None) -> tuple[list[Example], str]:
    """Examples, or the reason why there are none: histories are not in the run folder, and the data may be missing."""
    if history is None:
        try:
            prepared = prepare(located(run.folder, read_config(run.folder)))
        except PalateError as error:
            return [], f"The data is needed for this and could not be read again: {error.message}."
        if prepared.catalogue_hash != run.saved.catalogue or not _same_people(run, prepared.interactions.users):
            return [], "The data is needed for this, and it has changed since the run."
        history = prepared.split.full_train
    return choose_examples(run.ranked["test"], run.catalogue, history), ""


def _same_people(run: Run, users: tuple[str, ...]) -> bool:
    """Tell whether the user indices of the run still refer to the same people."""
    ranked = run.ranked["test"]
    return all(
        user < len(users) and users[user] == user_id
        for user, user_id in zip(ranked.evaluation.users.tolist(), ranked.user_ids, strict=True)
    )


def _environment(run: Run) -> dict[str, str]:
    environment = run.environment
    return {
        "palate": environment.palate,
        "Python": environment.python,
        "platform": environment.platform,
        "processor cores": str(environment.cpu_count or "unknown"),
        "started": environment.started_at,
        **dict(sorted(environment.packages.items())),
    }
