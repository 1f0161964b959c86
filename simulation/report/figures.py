"""Figures of the pages: accuracy and loss by round, accuracy by group, and a budget by round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from palate.simulation.bands import Band
from palate.simulation.report.drawing import COLOURS, Chart, blank, house_style, to_file, to_svg
from palate.simulation.report.records import Result, RoundRecord
from palate.simulation.report.tables import ROLES

_WIDTH, _HEIGHT = 4.8, 3.0
_LABEL_ROOM = 1.28  # the horizontal axis continues past the last round, where the lines are labelled


def round_charts(rounds: Sequence[RoundRecord], result: Result) -> list[Chart]:
    """Draw validation accuracy and training loss by round; what was never measured is left out."""
    charts = []
    hits, losses = _series(rounds, f"hr@{result.summary.test.sampled.top_k}"), _losses(rounds)
    with house_style():
        if hits:
            figure, (axes,) = blank(_WIDTH, _HEIGHT)
            _draw_accuracy(axes, rounds, result)
            described = (
                f"Hit rate goes from {hits[0][1]:.1%} in round {hits[0][0]} to {hits[-1][1]:.1%} in round "
                f"{hits[-1][0]}; the best is round {result.best_round}."
            )
            title = "Validation accuracy by round"
            svg = to_svg(figure, name="accuracy", title=title, description=described)
            charts.append(Chart(title, "Among sampled candidates; the ring marks the best round.", svg))
        if losses:
            figure, (axes,) = blank(_WIDTH, _HEIGHT)
            _draw_loss(axes, losses)
            (first, before), (last, after) = losses[0], losses[-1]
            described = f"The loss goes from {before:.4g} in round {first} to {after:.4g} in round {last}."
            title = "Training loss by round"
            svg = to_svg(figure, name="loss", title=title, description=described)
            charts.append(Chart(title, "Mean over all devices, lower is better; only a simulation can see it.", svg))
    return charts


def save_curves(rounds: Sequence[RoundRecord], result: Result, path: Path) -> None:
    """Save accuracy and loss side by side as PNG, such as for a README."""
    with house_style():
        figure, (left, right) = blank(2 * _WIDTH, _HEIGHT + 0.2, panels=2)
        _draw_accuracy(left, rounds, result)
        left.set_title("Validation accuracy")
        _draw_loss(right, _losses(rounds))
        right.set_title("Training loss")
        to_file(figure, path)


def band_chart(name: str, title: str, models: Mapping[str, Sequence[Band]]) -> Chart:
    """Draw hit rates by group as dots with 95% intervals, one row a group, the first model on top.

    Parameters
    ----------
    name
        Unique in the page.
    title
        What the groups are.
    models
        Accuracy by group of at most three models, by label; all with the same groups.
    """
    bands = next(iter(models.values()))
    with house_style():
        figure, (axes,) = blank(_WIDTH, 0.9 + 0.52 * len(bands))
        for offset, ((label, own), role) in enumerate(zip(models.items(), ROLES, strict=False)):
            rates = [band.sampled.hit_rate for band in own]
            heights = [row + 0.2 * (offset - (len(models) - 1) / 2) for row in range(len(bands))]
            colour = COLOURS[role]
            axes.hlines(
                heights, [r.low for r in rates], [r.high for r in rates], color=colour, linewidth=1.6, clip_on=False
            )
            axes.plot([r.value for r in rates], heights, "o", color=colour, markersize=6, label=label, clip_on=False)
        axes.set_yticks(range(len(bands)), [band.label for band in bands])
        axes.set_ylim(len(bands) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", labelcolor=COLOURS["ink"], pad=8)
        figure.legend(
            loc="outside upper left",
            ncols=len(models),
            frameon=False,
            fontsize=10.5,
            handletextpad=0.1,
            columnspacing=1,
        )
        described = "; ".join(
            f"{band.label}: "
            + ", ".join(f"{label} {own[row].sampled.hit_rate.value:.0%}" for label, own in models.items())
            for row, band in enumerate(bands)
        )
        cut = f"HR@{bands[0].sampled.top_k}"
        svg = to_svg(figure, name=name, title=f"{title}, {cut}", description=described)
        return Chart(title, f"{cut} among sampled candidates, with 95% intervals.", svg)


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


def _draw_accuracy(axes: Axes, rounds: Sequence[RoundRecord], result: Result) -> None:
    k = result.summary.test.sampled.top_k
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    for metric, role in ((f"hr@{k}", "first"), (f"ndcg@{k}", "third")):
        points = _series(rounds, metric)
        if not points:
            continue
        axes.plot(*zip(*points, strict=True), color=COLOURS[role], marker="o" if len(points) == 1 else "")
        axes.annotate(metric.upper(), points[-1], (10, 0), textcoords="offset points", va="center", color=COLOURS[role])
        best = [point for point in points if point[0] == result.best_round]
        if best:
            axes.plot(*best[0], "o", color="none", markeredgecolor=COLOURS[role], markersize=9, clip_on=False)
    _draw_reference(axes, rounds, result)
    axes.set_ylim(bottom=0)
    _round_axis(axes, rounds[-1].round)


def _draw_reference(axes: Axes, rounds: Sequence[RoundRecord], result: Result) -> None:
    """Mark the hit rate of the most-popular list, if it was measured: below it nothing personal was learned."""
    popularity = result.baselines.get("popularity")
    if popularity is None or popularity.validation is None:
        return
    rate = popularity.validation.sampled.hit_rate.value
    axes.axhline(rate, color=COLOURS["second"], linewidth=1.2, linestyle=(0, (4, 3)))
    axes.annotate(
        f"{popularity.label}, HR@{popularity.validation.sampled.top_k}",
        (rounds[0].round, rate),
        (2, 4),
        textcoords="offset points",
        color=COLOURS["second"],
        fontsize=10.5,
    )


def _draw_loss(axes: Axes, losses: Sequence[tuple[int, float]]) -> None:
    if losses:
        axes.plot(*zip(*losses, strict=True), color=COLOURS["first"], marker="o" if len(losses) == 1 else "")
        axes.set_xlim(0, max(losses[-1][0], 1))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("round")


def _round_axis(axes: Axes, last: int) -> None:
    axes.set_xlim(0, max(last, 1) * _LABEL_ROOM)
    axes.set_xticks([tick for tick in MaxNLocator(6, integer=True).tick_values(0, max(last, 1)) if 0 <= tick <= last])
    axes.set_xlabel("round")


def _losses(rounds: Sequence[RoundRecord]) -> list[tuple[int, float]]:
    return [(record.round, record.loss) for record in rounds if record.loss is not None]


def _series(rounds: Sequence[RoundRecord], metric: str) -> list[tuple[int, float]]:
    return [(r.round, r.validation[metric]) for r in rounds if r.validation is not None and metric in r.validation]
