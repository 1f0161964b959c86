"""The curve of a planned budget: central epsilon after each round, against the target."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from palate.simulation.report.drawing import COLOURS, blank, house_style


def budget_figure(rounds: Sequence[int], epsilons: Sequence[float], *, target: float | None, title: str = "") -> Figure:
    """Draw epsilon by round.

    Parameters
    ----------
    rounds, epsilons
        The curve, [num_points] each.
    target
        Budget, drawn as a dashed line; None for none.
    title
        Says what every epsilon in it means.
    """
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
        axes.set_title(title)
    return figure
