"""Recommendations by title for a few people, so that a reader can judge with their own eyes.

People are taken at fixed ranks of activity, from light to heavy, whether or not the model served them well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from palate.models.lists import NO_ITEM
from palate.simulation.data.types import Catalogue, Histories
from palate.simulation.report.ranked import RankedUsers

_QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)
_RECENT = 5


@dataclass(frozen=True)
class Title:
    """An item as a person would name it.

    Attributes
    ----------
    text
        Its title.
    detail
        Year and genres, as far as known.
    hit
        Whether it is the held-out item.
    """

    text: str
    detail: str = ""
    hit: bool = False


@dataclass(frozen=True)
class Example:
    """One person.

    Attributes
    ----------
    user_id
        As in the data; `palate recommend --user` takes it.
    num_items
        Length of the history.
    recent
        Newest items of the history, oldest of them first.
    recommended
        The list, best first.
    target
        What the person really chose next.
    rank
        Its place in the whole catalogue, 1 is the top.
    """

    user_id: str
    num_items: int
    recent: tuple[Title, ...]
    recommended: tuple[Title, ...]
    target: Title
    rank: int


def title(catalogue: Catalogue, item: int, *, hit: bool = False) -> Title:
    """Name an item of the catalogue."""
    year = int(catalogue.years[item])
    parts = ([str(year)] if year and f"({year})" not in catalogue.titles[item] else []) + list(catalogue.genres[item])
    return Title(catalogue.titles[item], ", ".join(parts), hit)


def choose_examples(ranked: RankedUsers, catalogue: Catalogue, history: Histories) -> list[Example]:
    """Choose people at fixed quantiles of activity and name what they had and what they got.

    Parameters
    ----------
    ranked
        Test ranks and lists.
    catalogue
        Titles.
    history
        What each user had before the test item, of all users.
    """
    evaluation = ranked.evaluation
    by_activity = np.argsort(history.lengths[evaluation.users], kind="stable")
    rows = dict.fromkeys(int(by_activity[int(q * (len(by_activity) - 1))]) for q in _QUANTILES)
    found = []
    for row in rows:
        past, target = history.of(int(evaluation.users[row])), int(evaluation.target[row])
        shown = [] if evaluation.top_items is None else evaluation.top_items[row].tolist()
        found.append(
            Example(
                user_id=ranked.user_ids[row],
                num_items=len(past),
                recent=tuple(title(catalogue, int(item)) for item in past[-_RECENT:]),
                recommended=tuple(title(catalogue, item, hit=item == target) for item in shown if item != NO_ITEM),
                target=title(catalogue, target),
                rank=int(evaluation.ranks("full")[row]) + 1,
            )
        )
    return found
