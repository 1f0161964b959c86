"""The attack as one HTML page for a privacy officer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from palate.audit.attack.verdict import AttackResult
from palate.audit.attack.words import LIMITS, figures, setting, verdict
from palate.privacy.accounting.guarantee import round_up
from palate.simulation.report.drawing import COLOURS, Chart, blank, house_style, to_svg
from palate.simulation.report.rendering import render, save
from palate.simulation.report.tables import Cell, Grid, Row

_HERE = Path(__file__).parent
_BINS = 36


@dataclass(frozen=True)
class Banner:
    """What the page says first."""

    protected: bool
    title: str
    text: str


def write_page(result: AttackResult, path: Path) -> None:
    """Write the page.

    Raises
    ------
    EnvironmentProblem
        If its folder does not exist.
    ModuleNotFoundError
        If the extra `report` is not installed.
    """
    save(attack_page(result), path)


def attack_page(result: AttackResult) -> str:
    """Fill the page: the same result gives the same bytes."""
    shown = tuple(Row(figure.name, (Cell(figure.epsilon), Cell(figure.words))) for figure in figures(result))
    checked = tuple(Row(found.name, (Cell(verdict(found)), Cell(found.words))) for found in result.findings)
    return render(
        "attack.html.j2",
        folder=_HERE,
        source=result.plan.source,
        banner=_banner(result),
        claim=round_up(result.claim.epsilon),
        guarantee=result.claim,
        figures=Grid("Epsilon at the same delta", ("", "Epsilon", ""), shown),
        checks=Grid("What was checked", ("Check", "Verdict", ""), checked),
        chart=_chart(result),
        limits=LIMITS,
        setting=setting(result),
    )


def _banner(result: AttackResult) -> Banner:
    if result.violations:
        text = "; ".join(found.words for found in result.violations)
        return Banner(protected=False, title="The claim is violated.", text=f"{text[0].upper()}{text[1:]}.")
    bound = next(figure.epsilon for figure in figures(result) if figure.name == "lower bound")
    text = f"The attack proves epsilon {bound} at least; no check of the mechanism failed."
    return Banner(protected=True, title="The claim was not refuted.", text=text)


def _chart(result: AttackResult) -> Chart:
    title = "What the attacker saw"
    caption = (
        "Scores of made-up people who took part and of those who did not, in units of the clip norm: "
        "the more the two hills overlap, the less anybody can tell."
    )
    svg = to_svg(_hills(result), name="scores", title=title, description=caption)
    return Chart(title=title, caption=caption, svg=svg)


def _hills(result: AttackResult) -> Figure:
    edges = np.histogram_bin_edges(result.scores, bins=_BINS)
    with house_style():
        figure, (axes,) = blank(6.4, 3.4)
        for label, mask, role in (
            ("took part", result.included, "second"),
            ("did not take part", ~result.included, "first"),
        ):
            colour = COLOURS[role]
            axes.hist(result.scores[mask], bins=edges.tolist(), color=colour, alpha=0.35, edgecolor="none")
            axes.hist(result.scores[mask], bins=edges.tolist(), histtype="step", color=colour, label=label)
        axes.set_xlabel("score")
        axes.set_ylabel("canaries")
        axes.margins(y=0.25)  # room for the legend above the hills
        axes.legend(frameon=False, ncols=2, loc="upper center")
    return figure
