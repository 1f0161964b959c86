"""Why an item scores as it does: two exact sums, over the sources of the taste and over the columns of the item.

The score is linear in the targets of the ridge, so what an item of the history adds, ``w_i y_i x_j'N^-1 x_i``, is no
estimate (the smoother's row, Hastie, Tibshirani & Friedman 2009, eq. 5.14; Hu, Koren & Volinsky 2008 explain
implicit feedback the same way, eq. 7). It is linear in the item's columns too. A non-linear head is a term of its own
among the sources, and is split over the columns by `ScoreModel.contributions`. Both sums add up to the score.

What is *said* is a choice among exact terms. A recent blockbuster in the history adds to the score of every other
blockbuster; a reason should be about this item rather than about any. So the words go by what a source adds
beyond what it adds to the mean item, popularity left aside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from palate.client.recommending import facets
from palate.client.recommending.taste import Source, Space, Taste
from palate.data.catalogue import Catalogue
from palate.models.arrays import Float64Array, IntegerArray
from palate.models.scores.base import ResidualHead

SHOWN = 6
"""Terms of each sum that are named."""
_SAID = 3
"""Reasons that are said of an item; more persuade nobody."""
_SAID_ITEMS = 2
_SAID_FACETS = 2
_POPULAR = 0.5
"""Share of the score from which popularity decides, and is said first."""
_LEAST_SHARE = 0.25
"""A reason is left unsaid below this share of the strongest one of its sort."""
_LEAST_OF_SCORE, _LEAST_WISH = 0.05, 0.1
"""And below these shares of the score, an item or a facet and a wish: it did not bring the item here."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """A score and its two sums.

    Attributes
    ----------
    item
        Row of the item.
    score
        The sum of either.
    sources
        What the person said or asked, in the order of the taste, and the head; one tuple for a whole list, [m].
    own
        How many of the sources, counted from the first, are items that were had or liked.
    values
        What each source adds to the score, float64 [m].
    specific
        The part of it that is about this item rather than about any, popularity left aside, float64 [m].
    columns
        Sum over groups of columns: popularity, facets, "description", "learned", "constant".
    """

    item: int
    score: float
    sources: tuple[Source, ...]
    own: int
    values: Float64Array
    specific: Float64Array
    columns: dict[str, float]

    def by_source(self, titles: Sequence[str], decimals: int) -> list[tuple[str, float]]:
        """Return what each source adds, as `_shortened`, with the titles of the catalogue."""
        places = np.argsort(-np.abs(self.values), kind="stable")
        ranked = [(self.sources[place].in_words(titles), float(self.values[place])) for place in places]
        return _shortened(ranked, self.score, "of what you said", decimals)

    def by_column(self, decimals: int) -> list[tuple[str, float]]:
        """Return what each group of columns adds, as `_shortened`."""
        ranked = sorted(self.columns.items(), key=lambda term: (-abs(term[1]), term[0]))
        named = [(facets.in_words(name), value) for name, value in ranked]
        return _shortened(named, self.score, "of its properties", decimals)


def _shortened(
    ranked: Sequence[tuple[str, float]], score: float, of_what: str, decimals: int
) -> list[tuple[str, float]]:
    """Name the largest terms, and put the others into one line; as rounded, all lines add up to the rounded score."""
    named = ranked[: SHOWN + (len(ranked) == SHOWN + 1)]  # a lone last one by name
    lines = [(words, round(value, decimals)) for words, value in named]
    rest = round(round(score, decimals) - sum(value for _, value in lines), decimals)
    hidden = len(ranked) - len(named)
    if hidden:
        return [*lines, (f"the other {hidden} {of_what}", rest)]
    return [*lines, ("rounding", rest)] if rest else lines


def explain(
    items: IntegerArray,
    space: Space,
    taste: Taste,
    groups: Sequence[str],
    head: ResidualHead | None = None,
) -> list[Explanation]:
    """Explain the scores of some items.

    Parameters
    ----------
    items
        Their rows, int [n].
    space, taste
        The item table, prepared, and the taste fitted in it.
    groups
        Group of each column, `facets.column_groups`, [k].
    head
        The trained non-linear part, where there is one.

    Returns
    -------
    list of Explanation
        float64 sums: they differ from the float32 scores of a list by rounding only.
    """
    rows = space.rows[items].astype(np.float64)  # [n, k]
    centred = rows - space.mean
    if space.popularity is not None:
        centred[:, space.popularity] = 0.0
    values, specific = rows @ taste.vectors.T, centred @ taste.vectors.T  # [n, m]
    columns = rows * taste.vector  # [n, k]
    sources, empty = taste.sources, 0.0
    if head is not None:
        parts, empty = head.contributions(space.rows[items]), head.empty_score
        columns += parts
        sources = (*sources, Source("head"))
        values = np.column_stack([values, parts.sum(axis=1) + empty])
        specific = np.column_stack([specific, np.zeros(len(rows))])
    names = list(dict.fromkeys(groups))
    places = np.array([names.index(group) for group in groups], dtype=np.int64)
    found = []
    for row, item in enumerate(items):
        by_group = dict(zip(names, np.bincount(places, columns[row], len(names)).tolist(), strict=True))
        if head is not None:
            by_group[facets.CONSTANT] = by_group.get(facets.CONSTANT, 0.0) + empty
        score = float(values[row].sum())
        found.append(Explanation(int(item), score, sources, taste.own, values[row], specific[row], by_group))
    return found


def reason(explanation: Explanation, own_facets: Sequence[str], catalogue: Catalogue) -> str:
    """Say why an item is here, in at most three reasons: "because of Heat (1995), Casino (1995) and the genre Crime".

    Popularity is said where it decides. An item of the history is a reason only if it shares a genre with this one,
    where the genres of both are known: a person would not follow any other.

    Parameters
    ----------
    explanation
        Of its score.
    own_facets
        Facets of the item itself.
    catalogue
        Has the titles.
    """
    sources, own, score = explanation.sources, explanation.own, abs(explanation.score)
    least = _LEAST_OF_SCORE * score
    akin = np.array([_is_akin(source.item, explanation.item, catalogue) for source in sources[:own]], dtype=np.float64)
    items = [sources[place].item for place in _worth_saying(explanation.specific[:own] * akin, _SAID_ITEMS, least)]
    wishes = [place for place in range(own, len(sources)) if sources[place].kind in ("asked", "pinned")]
    spoken = _worth_saying(explanation.specific[wishes], _SAID_FACETS, _LEAST_WISH * score)
    drawn = sorted(own_facets)
    pulls = np.array([explanation.columns.get(name, 0.0) for name in drawn])
    because = [catalogue.titles[item] for item in items]
    because += [facets.in_words(drawn[place]) for place in _worth_saying(pulls, _SAID_FACETS, least)]
    said = [f"you asked for {joined([sources[wishes[place]].label for place in spoken])}"] if spoken else []
    popular = explanation.columns.get(facets.POPULARITY, 0.0)
    if popular > 0 and popular >= _POPULAR * score:
        said.append("popular with everybody")
    because = because[: _SAID - len(spoken) - len(said) + bool(spoken)]
    if because:
        said.append(f"because of {joined(because)}")
    return "; ".join(said) or ("popular with everybody" if popular > 0 else "close to the middle of your taste")


def _is_akin(one: int, other: int, catalogue: Catalogue) -> bool:
    """Whether two items share a genre, or nobody knows the genres of one of them."""
    if max(one, other) >= catalogue.num_items:
        return True
    genres, others = catalogue.genres[one], catalogue.genres[other]
    return not genres or not others or bool(set(genres) & set(others))


def _worth_saying(values: Float64Array, count: int, least: float) -> list[int]:
    """Places of the largest positive values, largest first; none below `least`, or small compared with the first."""
    order = np.argsort(-values, kind="stable")[:count]
    return [
        int(place)
        for place in order
        if values[place] > 0 and values[place] >= max(_LEAST_SHARE * values[order[0]], least)
    ]


def joined(words: Sequence[str], last: str = "and") -> str:
    """Join words as a sentence does: "a, b and c"."""
    return f" {last} ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)
