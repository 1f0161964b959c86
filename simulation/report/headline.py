"""The result of a run in sentences, for readers who know no metrics, and its guarantee."""

from __future__ import annotations

from palate.simulation.protection import UNPROTECTED
from palate.simulation.report.records import Result
from palate.simulation.report.rendering import Protection
from palate.simulation.report.tables import headliners
from palate.simulation.report.words import noun, number_word, percent


def headline(result: Result, ranking: str = "full") -> str:
    """Say how often the item that a person really chose next is in the list, for this run and the references."""
    items, k = noun(result.data), number_word(result.summary.test.sampled.top_k)
    if ranking == "full":
        opening = f"In the whole catalogue of {result.dataset.items:,} {items}"
    else:
        opening = f"Of {result.dataset.candidates:,} {items}"
    popular = result.baselines.get("popularity")
    titles = {popular.label: "the most popular items"} if popular else {}
    own, *rivals = ((label, summary.accuracy(ranking)) for label, summary in headliners(result, ranking).items())
    shares = [
        f"{percent(rival.hit_rate.value)} with {titles.get(label, f'the strongest reference, {label}')}"
        for label, rival in rivals
    ]
    rate, people = percent(own[1].hit_rate.value), own[1].num_users
    said = (
        f"{opening}, the one that a person really chose next was among the first {k} for {rate} of {people:,} people"
        f"{_gain(result, ranking)}."
    )
    return f"{said} For comparison: {' and '.join(shares)}." if shares else said


def _gain(result: Result, ranking: str) -> str:
    """Say what learning together added, as the end of a sentence; nothing where the control was not computed."""
    if result.gain is None:
        return ""
    control = result.baselines[result.gain.control].label
    hits = result.gain.of(ranking)[f"hr@{result.summary.test.sampled.top_k}"]
    amount = f"{100 * abs(hits.value):.1f} points {'more' if hits.value >= 0 else 'fewer'} (± {196 * hits.se:.1f})"
    said = f", {amount} than with {control}, which learns nothing together"
    return said if hits.low > 0 or hits.high < 0 else f"{said}: no difference is shown"


def protection(result: Result) -> Protection:
    """Say the guarantee; a run without one gets a warning."""
    facts = {"unit": result.unit, "protection": result.protection}
    if result.guarantee is None:
        why = (
            "Updates left the devices unprotected."
            if result.unit == UNPROTECTED
            else f"{result.protection[0].upper()}{result.protection[1:]}."
        )
        return Protection(
            protected=False,
            title="No privacy",
            text=f"{why} This is a simulation for comparison: nothing here may be called private.",
            facts=facts,
        )
    stated = result.guarantee.facts
    alone = "".join(f" By each device alone: {claim}." for claim in result.guarantee.further)
    return Protection(
        protected=True,
        title=f"Differential privacy: {result.guarantee}",
        text=f"Compared: {stated['compared worlds']}. It holds if: {stated['holds if']}.{alone}",
        facts=facts | stated,
    )
