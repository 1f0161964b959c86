"""The frontier as a picture and a page: accuracy against epsilon, with private controls and references."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, PercentFormatter

from palate.simulation.frontier_controls import dataset_name
from palate.simulation.frontier_records import Cell, cell_grid
from palate.simulation.report.drawing import COLOURS, Chart, blank, house_style, to_file, to_svg
from palate.simulation.report.rendering import render, save
from palate.simulation.report.words import metric_name, score

METRICS = ("hr@10", "ndcg@10")
PICTURE, PAGE = "frontier.png", "frontier.html"

_WIDTH, _HEIGHT = 5.4, 4.4
_GAP = 3.0  # factor from the largest epsilon to the position of unit none
_DASHES: tuple[Any, ...] = ((0, (1, 1.6)), (0, (6, 2, 1.2, 2)))
_UNIT_STYLES: Mapping[str, tuple[str, str]] = {
    "user": ("first", "o"),
    "both": ("third", "s"),
    "interaction": ("ink", "D"),
}
_CONTROL_STYLES: Mapping[str, tuple[Any, str]] = {"dp_popularity": ((0, (4, 2)), "v"), "dp_content": ("-", "^")}


@dataclass(frozen=True)
class Panel:
    """One dataset under one protocol and metric.

    Attributes
    ----------
    data
        The dataset.
    cells
        All of its cells.
    metric
        Name as in `palate.simulation.frontier_records.METRICS`.
    """

    data: str
    cells: tuple[Cell, ...]
    metric: str

    @property
    def title(self) -> str:
        """What the panel shows."""
        part, ranking, metric = self.metric.split("/")
        where = "sampled candidates" if ranking == "sampled" else "whole catalogue"
        return f"{dataset_name(self.data)}: {metric_name(metric)}, {part}, {where}"

    def curve(self, *, kind: str, unit: str, model: str | None = None) -> list[Cell]:
        """Cells of a model by increasing epsilon, those that were measured."""
        found = [
            cell
            for cell in self.cells
            if cell.kind == kind
            and cell.unit == unit
            and cell.epsilon is not None
            and (model is None or cell.model == model)
            and cell.metrics[self.metric] is not None
        ]
        return sorted(found, key=lambda cell: cell.epsilon or 0.0)

    @property
    def unprotected(self) -> Cell | None:
        """The same model without privacy."""
        found = [cell for cell in self.cells if cell.kind == "palate" and cell.epsilon is None]
        return found[0] if found and found[0].metrics[self.metric] is not None else None

    @property
    def popularity(self) -> Cell | None:
        """The most-popular list, counted without privacy."""
        return next((cell for cell in self._measured_references() if cell.model == "popularity"), None)

    @property
    def best_reference(self) -> Cell | None:
        """The best reference by this panel's metric, without popularity: more lines could not be distinguished."""
        others = [cell for cell in self._measured_references() if cell.model != "popularity"]
        return max(others, key=lambda cell: mean(cell, self.metric), default=None)

    def _measured_references(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.kind == "reference" and cell.metrics[self.metric] is not None]

    @property
    def units(self) -> list[str]:
        """Units with a curve, in the order of the sweep."""
        return list(dict.fromkeys(cell.unit for cell in self.cells if cell.kind == "palate" and cell.epsilon))

    @property
    def control_unit(self) -> str | None:
        """The unit whose controls are drawn: every unit of whole people has the same budget, so one is enough."""
        found = {cell.unit for cell in self.cells if cell.kind == "control"}
        return next((unit for unit in self.units if unit in found), None)


def mean(cell: Cell, metric: str) -> float:
    """Mean of a metric over seeds; not a number where it was not measured."""
    found = cell.metrics[metric]
    return math.nan if found is None else found[0]


def panels_of(cells: Iterable[Cell], *, part: str, ranking: str = "sampled") -> list[list[Panel]]:
    """Arrange the panels: a row for each dataset that has been measured on this part, a column for each metric."""
    by_data: dict[str, list[Cell]] = {}
    for cell in cells:
        by_data.setdefault(cell.data, []).append(cell)
    rows = []
    for data, own in by_data.items():
        row = [Panel(data, tuple(own), f"{part}/{ranking}/{metric}") for metric in METRICS]
        if any(cell.metrics[row[0].metric] is not None for cell in own):
            rows.append(row)
    return rows


def save_picture(rows: Sequence[Sequence[Panel]], path: Path) -> None:
    """Draw all panels into one PNG, a row for each dataset."""
    with house_style():
        width, height = _WIDTH * len(METRICS), _HEIGHT * len(rows)
        figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.12))
        grid = figure.subplots(len(rows), len(METRICS), squeeze=False)
        for row, line in zip(rows, grid, strict=True):
            for panel, axes in zip(row, line, strict=True):
                _draw(axes, panel)
                axes.set_title(panel.title)
        _legend(figure, grid[0][0], columns=2 * len(METRICS))
        to_file(figure, path)


def chart_of(panel: Panel, *, name: str) -> Chart:
    """Draw one panel for a page; `name` is unique there."""
    with house_style():
        figure, (axes,) = blank(_WIDTH, _HEIGHT)
        _draw(axes, panel)
        _legend(figure, axes, columns=2)
        svg = to_svg(figure, name=name, title=panel.title, description=_described(panel))
    caption = "Mean over seeds, bars of one standard deviation; epsilon on a logarithmic axis, stricter to the left."
    return Chart(panel.title, caption, svg)


def _legend(figure: Figure, axes: Axes, *, columns: int) -> None:
    """Name the lines below the figure: first the sweep, then what it is compared with."""
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda place: isinstance(handles[place], Line2D))  # horizontal lines last
    figure.legend(
        [handles[place] for place in order],
        [labels[place] for place in order],
        loc="outside lower left",
        ncols=columns,
        frameon=False,
        fontsize=9.5,
        handlelength=2.6,
        columnspacing=1.6,
    )


def _draw(axes: Axes, panel: Panel) -> None:
    epsilons = sorted({cell.epsilon for cell in panel.cells if cell.epsilon is not None})
    without = epsilons[-1] * _GAP if epsilons else 1.0
    for unit in panel.units:
        colour, marker = _UNIT_STYLES[unit]
        curve = panel.curve(kind="palate", unit=unit)
        if not curve:
            continue
        _line(axes, panel, curve, colour=colour, marker=marker, label=f"{curve[0].label} ({unit})")
        if panel.unprotected:  # an epsilon of infinity is not on the axis: the line only points there
            ends = [(float(curve[-1].epsilon or 0.0), mean(curve[-1], panel.metric))]
            ends.append((without, mean(panel.unprotected, panel.metric)))
            axes.plot(*zip(*ends, strict=True), color=COLOURS[colour], linewidth=1.1, linestyle=(0, (1, 2)))
    if panel.unprotected:
        label = f"{panel.unprotected.label}, no privacy"
        _line(axes, panel, [panel.unprotected], colour="first", marker="o", label=label, dash="", without=without)
    for model, (dash, marker) in _CONTROL_STYLES.items():
        curve = panel.curve(kind="control", unit=panel.control_unit or "", model=model)
        if curve:
            _line(axes, panel, curve, colour="second", marker=marker, label=curve[0].label, dash=dash, width=1.4)
    _references(axes, panel)
    _axes(axes, panel, epsilons, without)


def _references(axes: Axes, panel: Panel) -> None:
    lines = (("Popularity, no privacy", panel.popularity), ("Best reference, no privacy", panel.best_reference))
    for (label, reference), dash in zip(lines, _DASHES, strict=True):
        if reference is not None:
            height = mean(reference, panel.metric)
            axes.axhline(height, color=COLOURS["muted"], linewidth=1.3, linestyle=dash, label=label)
    if panel.best_reference is not None:  # which one it is differs from panel to panel, so the legend cannot say
        axes.annotate(
            panel.best_reference.label,
            (0.0, mean(panel.best_reference, panel.metric)),
            (3, 4),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            color=COLOURS["muted"],
            fontsize=9.5,
        )


def _line(
    axes: Axes,
    panel: Panel,
    curve: Sequence[Cell],
    *,
    colour: str,
    marker: str,
    label: str,
    dash: Any = "-",
    width: float = 2.2,
    without: float = 0.0,
) -> None:
    """Draw models at their epsilons; one without has a hollow marker at `without`."""
    spreads = [(cell.metrics[panel.metric] or (0.0, None))[1] or 0.0 for cell in curve]
    axes.errorbar(
        [float(cell.epsilon or without) for cell in curve],
        [mean(cell, panel.metric) for cell in curve],
        yerr=spreads if any(spreads) else None,
        color=COLOURS[colour],
        marker=marker,
        markersize=7 if without else 5.5,
        markerfacecolor=COLOURS["paper" if without else colour],
        linewidth=width,
        linestyle=dash,
        elinewidth=1.4,
        label=label,
    )


def _axes(axes: Axes, panel: Panel, epsilons: Sequence[float], without: float) -> None:
    axes.set_xscale("log", base=2)
    places, names = list(epsilons), [f"{epsilon:g}" for epsilon in epsilons]
    if panel.unprotected:
        places.append(without)
        names.append("no privacy")
    axes.xaxis.set_major_locator(FixedLocator(places))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(places, names)
    axes.set_xlim(places[0] / 1.25, places[-1] * 1.6)
    axes.set_xlabel("epsilon")
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    if panel.metric.endswith("hr@10"):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.margins(y=0.08)


def _described(panel: Panel) -> str:
    """Describe the picture as alternative text."""
    sentences = []
    for unit in panel.units:
        curve = panel.curve(kind="palate", unit=unit)
        values = ", ".join(f"{score(mean(cell, panel.metric))} at epsilon {cell.epsilon:g}" for cell in curve)
        sentences.append(f"{curve[0].label}, unit {unit}: {values}" if curve else f"unit {unit} was not measured")
    for cell in (panel.unprotected, panel.popularity, panel.best_reference):
        if cell is not None:
            sentences.append(f"{cell.label} without privacy: {score(mean(cell, panel.metric))}")
    return "; ".join(sentences) + "."


def verdict(panel: Panel, unit: str) -> str:
    """Say from which budget on learning together beats the best private control, in one sentence."""
    own = panel.curve(kind="palate", unit=unit)
    rivals: dict[float | None, float] = {}
    for cell in panel.cells:
        if cell.kind == "control" and cell.unit == unit and cell.metrics[panel.metric] is not None:
            rivals[cell.epsilon] = max(mean(cell, panel.metric), rivals.get(cell.epsilon, 0.0))
    compared = [
        (cell.epsilon, mean(cell, panel.metric) > rivals[cell.epsilon]) for cell in own if cell.epsilon in rivals
    ]
    where = f"On {dataset_name(panel.data)} at unit {unit},"
    name = metric_name(panel.metric.rpartition("/")[2])
    if not compared:
        return f"{where} there is no private control to compare with."
    lost = [epsilon for epsilon, better in compared if not better]
    if not lost:
        return f"{where} Palate's mean {name} is above the better private control at every epsilon of the sweep."
    after = [epsilon for epsilon, _ in compared if (epsilon or 0.0) > max(each or 0.0 for each in lost)]
    if not after:
        return f"{where} Palate's mean {name} is not above the better private control at epsilon {compared[-1][0]:g}."
    return f"{where} Palate's mean {name} is above the better private control from epsilon {after[0]:g} on, not below."


def write_page(cells: Sequence[Cell], folder: Path, *, part: str, notes: Sequence[str]) -> list[Path]:
    """Write the picture and the page.

    Parameters
    ----------
    cells
        All models of the frontier.
    folder
        Where to.
    part
        "validation" or "test".
    notes
        Notes that must be shown with the numbers.

    Returns
    -------
    list
        The files that were written; only the page where nobody could be evaluated.

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    rows = panels_of(cells, part=part)
    full = {row[0].data: row for row in panels_of(cells, part=part, ranking="full")}
    sections = [
        {
            "name": dataset_name(row[0].data),
            "verdicts": [verdict(row[1], unit) for unit in row[1].units],
            "charts": [chart_of(panel, name=f"d{place}-{panel.metric.replace('/', '-')}") for panel in row],
            "full": [chart_of(panel, name=f"d{place}-{panel.metric.replace('/', '-')}") for panel in full[row[0].data]],
            "grid": cell_grid(row[0].cells, part),
        }
        for place, row in enumerate(rows)
    ]
    page = render("frontier.html.j2", sections=sections, part=part, notes=list(notes))
    save(page, folder / PAGE)
    if not rows:
        return [folder / PAGE]
    save_picture(rows, folder / PICTURE)
    return [folder / PICTURE, folder / PAGE]
