"""For whom it works: the same accuracy by activity, by popularity of the item, and by demographic group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from palate.simulation.bands import Band
from palate.simulation.evaluation import Summary
from palate.simulation.report.drawing import Chart
from palate.simulation.report.figures import Line, band_chart
from palate.simulation.report.records import Result
from palate.simulation.report.tables import Grid, band_grid, best_reference, own_label

_Pick = Callable[[Summary], Sequence[Band]]


@dataclass(frozen=True)
class Grouping:
    """One way to cut the people into groups, drawn and in numbers."""

    chart: Chart
    grid: Grid


def groupings(result: Result, items: str) -> list[Grouping]:
    """Every grouping of the run that has at least two groups.

    Parameters
    ----------
    result
        The run's results.
    items
        What the items are called, plural.
    """
    picks: list[tuple[str, str, str, _Pick]] = [
        ("activity", "By activity of the person", "History", lambda summary: summary.by_activity),
        ("popularity", f"By popularity of the {items} sought", "Items", lambda summary: summary.by_popularity),
    ]
    picks += [
        (f"group-{number}", f"By {name}", name.capitalize(), partial(_by_group, name))
        for number, name in enumerate(result.summary.test.by_group)
    ]
    return [
        _grouping(result, name, caption, heading, pick)
        for name, caption, heading, pick in picks
        if len(pick(result.summary.test)) > 1
    ]


def _by_group(name: str, summary: Summary) -> Sequence[Band]:
    return summary.by_group.get(name, ())


def _grouping(result: Result, name: str, caption: str, heading: str, pick: _Pick) -> Grouping:
    own = pick(result.summary.test)
    labels = [band.label for band in own]
    others = {}
    for baseline in (result.baselines.get("popularity"), best_reference(result)):
        if baseline is None or baseline.test is None:
            continue
        bands = pick(baseline.test)
        if [band.label for band in bands] == labels:
            others[baseline.label] = bands
    lines = [Line(own_label(result), "first", own)]
    lines += [
        Line(label, role, bands) for (label, bands), role in zip(others.items(), ("second", "third"), strict=False)
    ]
    return Grouping(band_chart(name, caption, lines), band_grid(caption, heading, own, others))
