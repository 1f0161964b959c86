"""The curve of a planned budget: central epsilon after each round, against the target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from palate.simulation.report.drawing import COLOURS, blank, house_style, to_png


def save_budget_curve(
    rounds: Sequence[int], epsilons: Sequence[float], path: Path, *, title: str, target: float | None
) -> None:
    """Draw epsilon by round and save it.

    Parameters
    ----------
    rounds, epsilons
        The curve, [num_points] each.
    path
        Where to; PNG or SVG by its suffix.
    title
        Says what every epsilon in it means.
    target
        Budget, drawn as a dashed line; None for none.
    """
    with house_style():
        figure = budget_figure(rounds, epsilons, target=target)
        figure.axes[0].set_title(title)
        if path.suffix.lower() == ".png":
            to_png(figure, path)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with mpl.rc_context({"svg.hashsalt": "budget"}):  # the same bytes every time
            figure.savefig(path, format="svg", facecolor=COLOURS["paper"], metadata={"Date": None, "Creator": None})


def budget_figure(rounds: Sequence[int], epsilons: Sequence[float], *, target: float | None) -> Figure:
    """Draw epsilon by round, without a title; parameters as `save_budget_curve`."""
    with house_style():
        figure, (axes,) = blank(6.4, 3.8)
        alone = len(rounds) == 1
        axes.plot(rounds, epsilons, color=COLOURS["first"], marker="o" if alone else "", clip_on=False)
        if target is not None:
            axes.axhline(target, color=COLOURS["second"], linewidth=1.2, linestyle=(0, (4, 3)))
            axes.annotate(
                f"budget {target:g}",
                (0, target),
                (4, -14),
                textcoords="offset points",
                color=COLOURS["second"],
                fontsize=10.5,
            )
        axes.set_xlim(0, rounds[-1])
        axes.set_ylim(0, 1.08 * max(*epsilons, target or 0.0))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("round")
    return figure
