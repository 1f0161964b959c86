"""A taste in words and weights: which facets a person is drawn to, by how much, and which words their items share.

A facet's weight is how much higher its items score than the mean item, popularity left aside, in standard deviations
of the person's scores: the contrast of the facet (`taste.py`) times the taste. Unlike the weight of one column, it
counts what the description and the learned columns say of the facet too. Words go by their TF-IDF summed over the
history (Rocchio 1971). All of it is computed on the device, for its owner.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from palate.client.recommending.explaining import joined
from palate.client.recommending.facets import Facets
from palate.client.recommending.preferences import Preferences
from palate.client.recommending.taste import COLD_SPREAD, Space, Taste, contrast
from palate.client.wishes.lexicon import is_small_word
from palate.data.catalogue import WORD
from palate.models.arrays import FloatingArray, IntegerArray

LEAST_WEIGHT = 0.2
"""Standard deviations below which a facet is not worth a sentence."""
_SAID = 3
_WORDS = 10
_LEAST_OWN = 3
"""Items that an interest rests on at least, to be named."""
_LEAST_HISTORY = 5
"""Items from which it means something that a kind is missing among them."""
_COMMON_SHARE = 0.1  # words in more of the catalogue than this are nobody's taste
_SHORTEST = 4  # letters; shorter ASCII words are "his" and "own" rather than "spy", which the genres say


@dataclass(frozen=True)
class Interest:
    """A facet and what the person makes of it.

    Attributes
    ----------
    facet
        Its name, "genre: Crime".
    weight
        How much higher its items score than the mean item, in standard deviations of the person's scores.
    own, own_share
        How many of the person's items are of it, and their share in the history.
    catalogue_share
        Its share in the catalogue.
    setting
        Whether the person has pinned or muted it.
    """

    facet: str
    weight: float
    own: int
    own_share: float
    catalogue_share: float
    setting: Literal["pinned", "muted", ""] = ""


@dataclass(frozen=True)
class Portrait:
    """A person's taste, shown only to that person.

    Attributes
    ----------
    interests
        All facets of the catalogue, heaviest first.
    words
        What descriptions of the person's items have in common, with weights, heaviest first.
    history
        How many items it is made from.
    """

    interests: tuple[Interest, ...]
    words: tuple[tuple[str, float], ...]
    history: int

    @property
    def named(self) -> tuple[Interest, ...]:
        """Interests that rest on enough items, or on what the owner has set, heaviest first."""
        return tuple(
            one
            for one in self.interests
            if one.setting or (one.own >= _LEAST_OWN if one.weight >= 0 else self.history >= _LEAST_HISTORY)
        )

    @property
    def sentence(self) -> str:
        """Say the strongest interests: "drawn to Crime, Thriller and the 1990s; less to Musical"."""
        liked = [one for one in self.named if one.weight >= LEAST_WEIGHT and one.own >= _LEAST_OWN]
        least = [one for one in reversed(self.named) if one.weight <= -LEAST_WEIGHT]
        said = []
        if liked:
            said.append(f"drawn to {joined([_short(one.facet) for one in liked[:_SAID]])}")
        if least and self.history:
            said.append(f"less to {joined([_short(one.facet) for one in least[:_SAID]])}")
        for setting in ("pinned", "muted"):
            named = [_short(one.facet) for one in self.interests if one.setting == setting]
            if named:
                said.append(f"{setting}: {joined(named)}")
        return "; ".join(said) or "nothing is known yet"


def _short(facet: str) -> str:
    kind, _, value = facet.partition(": ")
    return f"the {value}" if kind == "decade" else value or facet


def portray(space: Space, taste: Taste, preferences: Preferences, known: Facets, texts: Sequence[str] = ()) -> Portrait:
    """Describe a taste.

    Parameters
    ----------
    space, taste, preferences
        The item table, the taste fitted in it, and what it was fitted to.
    known
        Facets of the catalogue.
    texts
        Descriptions, "" where unknown, [num_items]; none give no words.
    """
    vector = taste.vector
    spread = math.sqrt(max(float(vector @ space.covariance @ vector), 0.0)) or COLD_SPREAD
    own = np.asarray(preferences.items, dtype=np.int64)
    interests = []
    for name, items in known.items.items():
        count = int(np.isin(own, items).sum())
        interests.append(
            Interest(
                facet=name,
                weight=float(contrast(space, items) @ vector) / spread,
                own=count,
                own_share=count / max(len(own), 1),
                catalogue_share=len(items) / max(len(known.years), 1),
                setting="pinned" if name in preferences.pinned else "muted" if name in preferences.muted else "",
            )
        )
    interests.sort(key=lambda one: (-one.weight, one.facet))
    words = shared_words(texts, own, taste.weights, _WORDS) if len(texts) else ()
    return Portrait(tuple(interests), words, len(own))


def shared_words(
    texts: Sequence[str], own: IntegerArray, weights: FloatingArray, count: int
) -> tuple[tuple[str, float], ...]:
    """Find the words that stand out in the texts of some items.

    Parameters
    ----------
    texts
        Of the catalogue, [num_items].
    own, weights
        Rows and weights of the items, [n] each.
    count
        At most so many words.

    Returns
    -------
    tuple
        Words of at least two of the items with their weight ``sum_i w_i idf`` scaled to 1 for the heaviest. Small
        words of English, and those that a request may be made of, are left out.
    """
    each = [set(WORD.findall(texts[item].lower())) for item in own]
    times = Counter(word for found in each for word in found if _may_be_taste(word))
    repeated = {word for word, items in times.items() if items > 1}
    frequency = Counter(word for text in texts for word in repeated.intersection(WORD.findall(text.lower())))
    mass: Counter[str] = Counter()
    for found, weight in zip(each, weights.tolist(), strict=True):
        for word in found & repeated:
            if frequency[word] <= _COMMON_SHARE * len(texts):
                mass[word] += weight * math.log((1 + len(texts)) / (1 + frequency[word]))
    ranked = sorted(mass.items(), key=lambda pair: (-pair[1], pair[0]))[:count]
    return tuple((word, value / ranked[0][1]) for word, value in ranked)


def _may_be_taste(word: str) -> bool:
    return not is_small_word(word) and (len(word) >= _SHORTEST or not word.isascii())
