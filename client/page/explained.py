"""An explanation as two short lists of exact terms that still add up: the largest by name, the rest together."""

from __future__ import annotations

from dataclasses import dataclass

from palate.client.recommending.explaining import Explanation
from palate.client.recommending.facets import in_words
from palate.data.catalogue import Catalogue

SHOWN = 6


@dataclass(frozen=True)
class Part:
    """One term.

    Attributes
    ----------
    label
        What it comes from.
    value
        What it adds to the score.
    share
        Its size beside the largest, in [0, 1].
    """

    label: str
    value: float
    share: float


@dataclass(frozen=True)
class Parts:
    """Two sums over one score.

    Attributes
    ----------
    score
        What either adds up to.
    sources
        Over what the owner said.
    columns
        Over what is known of the item.
    """

    score: float
    sources: tuple[Part, ...]
    columns: tuple[Part, ...]


def parts_of(explanation: Explanation, catalogue: Catalogue) -> Parts:
    """Name the terms of an explanation, largest first; what is left out of each list is its last line."""
    sources = [(source.in_words(catalogue.titles), value) for source, value in explanation.largest(SHOWN + 1)]
    ranked = sorted(explanation.columns.items(), key=lambda pair: (-abs(pair[1]), pair[0]))
    columns = [(in_words(name), value) for name, value in ranked]
    score = explanation.score
    return Parts(
        score,
        _parts(sources, len(explanation.sources), score, "of what you said"),
        _parts(columns, len(columns), score, "of its properties"),
    )


def _parts(ranked: list[tuple[str, float]], count: int, score: float, of_what: str) -> tuple[Part, ...]:
    """Show the first of `count` terms, largest first, and what is left of the score in one; a lone last one by name."""
    named = ranked[: SHOWN + (count == SHOWN + 1)]
    if count > len(named):
        rest = score - sum(value for _, value in named)
        named = [*named, (f"the other {count - len(named)} {of_what}", rest)]
    most = max((abs(value) for _, value in named), default=0.0) or 1.0
    return tuple(Part(label, value, abs(value) / most) for label, value in named)
