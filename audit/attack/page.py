"""The attack as one HTML page for a privacy officer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from palate.audit.attack import findings
from palate.audit.attack.verdict import AttackResult
from palate.privacy.accounting.guarantee import round_up
from palate.simulation.report.drawing import COLOURS, Chart, blank, house_style, to_svg
from palate.simulation.report.rendering import Protection, render

_HERE = Path(__file__).parent
_BINS = 36


def attack_page(result: AttackResult) -> str:
    """Fill the page: the same result gives the same bytes."""
    return render(
        "attack.html.j2",
        folder=_HERE,
        source=result.plan.source,
        banner=_banner(result),
        claim=round_up(result.claim.epsilon),
        guarantee=result.claim,
        figures=findings.epsilon_grid(result),
        checks=findings.check_grid(result),
        chart=_chart(result),
        limits=findings.LIMITS,
        setting=findings.setting(result),
    )


def _banner(result: AttackResult) -> Protection:
    if result.violations:
        text = "; ".join(found.words for found in result.violations)
        return Protection(False, "The claim is violated.", f"{text[0].upper()}{text[1:]}.")
    proven = f"The attack proves epsilon {findings.lower_bound(result)} at least; no check of the mechanism failed."
    return Protection(True, "The claim was not refuted.", proven)


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
