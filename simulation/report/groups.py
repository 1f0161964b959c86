"""Accuracy by group: by activity, by popularity of the item, and by demographic group."""

from __future__ import annotations

from collections.abc import Sequence

from palate.simulation.bands import Band
from palate.simulation.evaluation import Summary
from palate.simulation.report.drawing import Chart
from palate.simulation.report.figures import band_chart
from palate.simulation.report.records import Result
from palate.simulation.report.tables import Grid, band_grid, headliners


def groupings(result: Result, items: str) -> list[tuple[Chart, Grid]]:
    """Draw and tabulate every grouping of the people of the run that has at least two groups.

    Parameters
    ----------
    result
        The run's results.
    items
        What the items are called, plural.
    """
    cuts = [
        ("activity", "By activity of the person", "History", ""),
        ("popularity", f"By popularity of the {items} sought", "Items", ""),
        *(
            (f"group-{number}", f"By {name}", name.capitalize(), name)
            for number, name in enumerate(result.summary.test.by_group)
        ),
    ]
    found = []
    for name, caption, heading, group in cuts:
        own = _bands(result.summary.test, name, group)
        every = {label: _bands(summary, name, group) for label, summary in headliners(result).items()}
        models = {label: bands for label, bands in every.items() if [b.label for b in bands] == [b.label for b in own]}
        if len(own) > 1:
            found.append((band_chart(name, caption, models), band_grid(caption, heading, models)))
    return found


def _bands(summary: Summary, name: str, group: str) -> Sequence[Band]:
    by_name = {"activity": summary.by_activity, "popularity": summary.by_popularity}
    return by_name[name] if name in by_name else summary.by_group.get(group, ())
