"""An explanation as two short lists of exact terms that still add up: the largest by name, the rest together."""

from __future__ import annotations

from dataclasses import dataclass

from palate.models.catalogue import Catalogue
from palate.models.explaining import Explanation, Term
from palate.models.facets import in_words

SHOWN = 6

_OF_ITEMS = {"had": "you had {}", "liked": "you like {}", "disliked": "you do not like {}"}
_GROUPS = {
    "popularity": "its popularity",
    "description": "words of its description",
    "learned": "what was learned from everybody",
    "constant": "what all items have in common",
}


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
    sources = [(_source(term, catalogue), term.value) for term in explanation.sources]
    columns = [(_GROUPS.get(name, in_words(name)), value) for name, value in explanation.columns.items()]
    return Parts(explanation.score, _largest(sources, "of what you said"), _largest(columns, "of its properties"))


def _source(term: Term, catalogue: Catalogue) -> str:
    source = term.source
    if source is None:
        return "this device's own trained layer"
    if source.kind in _OF_ITEMS:
        return _OF_ITEMS[source.kind].format(catalogue.titles[source.item])
    return source.label or "popular with everybody"


def _largest(terms: list[tuple[str, float]], of_what: str) -> tuple[Part, ...]:
    ranked = sorted(terms, key=lambda pair: (-abs(pair[1]), pair[0]))
    named, rest = ranked[:SHOWN], ranked[SHOWN:]
    if len(rest) == 1:
        named, rest = ranked, []
    if rest:
        named = [*named, (f"the other {len(rest)} {of_what}", sum(value for _, value in rest))]
    most = max((abs(value) for _, value in named), default=0.0) or 1.0
    return tuple(Part(label, value, abs(value) / most) for label, value in named)
