"""Recommendations by title for a few people, so that a reader can judge them.

People are taken at fixed ranks of activity, from light to heavy, whether or not the model served them well. One more
is added whom it did, said to be so, because a hit rate of a few per cent would seldom show a hit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from palate.data.catalogue import Catalogue
from palate.models.histories import Histories
from palate.models.lists import NO_ITEM
from palate.simulation.report.ranked import RankedUsers
from palate.simulation.report.recommending import Item

_QUANTILES = (0.1, 0.37, 0.63, 0.9)
_RECENT = 5


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
    served
        Whether the person was chosen because the list held the target.
    """

    user_id: str
    num_items: int
    recent: tuple[Item, ...]
    recommended: tuple[Item, ...]
    target: Item
    rank: int
    served: bool


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
    chosen = dict.fromkeys((int(by_activity[int(q * (len(by_activity) - 1))]) for q in _QUANTILES), False)
    hits = [int(row) for row in by_activity if evaluation.ranks("full")[row] < evaluation.top_k and row not in chosen]
    if hits:
        chosen[hits[len(hits) // 2]] = True
    return [_example(ranked, catalogue, history, row, served=served) for row, served in chosen.items()]


def _example(ranked: RankedUsers, catalogue: Catalogue, history: Histories, row: int, *, served: bool) -> Example:
    evaluation = ranked.evaluation
    past, target = history.of(int(evaluation.users[row])), int(evaluation.target[row])
    shown = [] if evaluation.top_items is None else evaluation.top_items[row].tolist()
    return Example(
        user_id=ranked.user_ids[row],
        num_items=len(past),
        recent=tuple(Item(**catalogue.about(item)) for item in past[-_RECENT:].tolist()),
        recommended=tuple(Item(**catalogue.about(item)) for item in shown if item != NO_ITEM),
        target=Item(**catalogue.about(target)),
        rank=int(evaluation.ranks("full")[row]) + 1,
        served=served,
    )
