"""The result of a run in sentences, for readers who know no metrics, and its guarantee."""

from __future__ import annotations

from dataclasses import dataclass

from palate.simulation.report import promise
from palate.simulation.report.records import Result
from palate.simulation.report.rendering import Protection
from palate.simulation.report.tables import ROLES, headliners
from palate.simulation.report.words import noun, num_candidates, number_word, percent

UNPROTECTED = "none"


@dataclass(frozen=True)
class Bar:
    """One model's hit rate, drawn as a bar."""

    label: str
    share: float
    text: str
    role: str


@dataclass(frozen=True)
class Headline:
    """The run in short.

    Attributes
    ----------
    sampled, full
        One sentence for each protocol.
    bars
        Test hit rates among sampled candidates: this run, popularity, the best reference.
    """

    sampled: str
    full: str
    bars: tuple[Bar, ...]


def headline(result: Result) -> Headline:
    """Say how often the item that a person really chose next is in the list, for this run and the references."""
    items, k = noun(result.data), number_word(result.summary.test.sampled.top_k)
    candidates = num_candidates(result.protocol)
    (own_name, own), *rivals = headliners(result).items()
    popular = result.baselines.get("popularity")
    titles = {popular.label: "the most popular items"} if popular else {}

    def sentence(opening: str, ranking: str) -> str:
        accuracy = own.accuracy(ranking)
        said = f"{opening} for {percent(accuracy.hit_rate.value)} of {accuracy.num_users:,} people."
        shares = [
            f"{percent(rival.accuracy(ranking).hit_rate.value)} with "
            + titles.get(label, f"the strongest reference, {label}")
            for label, rival in rivals
        ]
        return f"{said} For comparison: {' and '.join(shares)}." if shares else said

    among = f"Of {candidates:,} {items}" if candidates else f"Of a short list of {items}"
    return Headline(
        sampled=sentence(f"{among}, the one that a person really chose next was among the first {k}", "sampled"),
        full=sentence(
            f"In the whole catalogue of {result.dataset.items:,} {items}, it was among the first {k}", "full"
        ),
        bars=tuple(
            Bar(label, summary.sampled.hit_rate.value, percent(summary.sampled.hit_rate.value), role)
            for (label, summary), role in zip([(own_name, own), *rivals], ROLES, strict=False)
        ),
    )


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
    stated = promise.facts(result.guarantee)
    alone = "".join(f" By each device alone: {promise.claim(claim)}." for claim in result.guarantee.further)
    return Protection(
        protected=True,
        title=f"Differential privacy: {promise.claim(result.guarantee)}",
        text=f"Compared: {stated['compared worlds']}. It holds if: {stated['holds if']}.{alone}",
        facts=facts | stated,
    )
