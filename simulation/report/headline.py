"""The result of a run in sentences, for readers who know no metrics, and its guarantee."""

from __future__ import annotations

from palate.simulation.protection import UNPROTECTED
from palate.simulation.report.records import Result
from palate.simulation.report.rendering import Protection
from palate.simulation.report.tables import headliners
from palate.simulation.report.words import noun, number_word, percent


def headline(result: Result, ranking: str = "sampled") -> str:
    """Say how often the item that a person really chose next is in the list, for this run and the references."""
    items, k = noun(result.data), number_word(result.summary.test.sampled.top_k)
    if ranking == "full":
        opening = f"In the whole catalogue of {result.dataset.items:,} {items}, it"
    else:
        opening = f"Of {result.dataset.candidates:,} {items}, the one that a person really chose next"
    popular = result.baselines.get("popularity")
    titles = {popular.label: "the most popular items"} if popular else {}
    own, *rivals = ((label, summary.accuracy(ranking)) for label, summary in headliners(result).items())
    shares = [
        f"{percent(rival.hit_rate.value)} with {titles.get(label, f'the strongest reference, {label}')}"
        for label, rival in rivals
    ]
    rate, people = percent(own[1].hit_rate.value), own[1].num_users
    said = f"{opening} was among the first {k} for {rate} of {people:,} people."
    return f"{said} For comparison: {' and '.join(shares)}." if shares else said


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
