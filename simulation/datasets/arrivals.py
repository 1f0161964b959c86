"""New items: a share of the catalogue that is taken out of every history, to be tested as if it had just arrived.

The item cold-start protocol of Schein et al. (2002): what is held out are items, not single interactions, so that
nothing but public content is known of them. A person is tested with the newest of the new items that they had, from
what they had before it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from palate.data.interactions import Interactions
from palate.errors import DataError
from palate.models.arrays import BoolArray, Int32Array, Int64Array
from palate.models.histories import Histories


@dataclass(frozen=True)
class Arrivals:
    """New items and the people who would take them.

    Attributes
    ----------
    items
        Rows of the new items, ascending, int64 [num_new].
    target
        The newest new item of each person that has something before it, int32 [num_users]; -1 where there is none.
    before
        What else each person had before the target, oldest first; all of it where no order is known, nothing where
        there is no target.
    everything
        All that each person has had, new items included: what they are never ranked against.
    """

    items: Int64Array
    target: Int32Array
    before: Histories
    everything: Histories

    def renumbered(self, place: Int32Array) -> Arrivals:
        """Return the same with item i called ``place[i]``; -1 stays -1."""
        return Arrivals(
            np.sort(place[self.items]).astype(np.int64),
            np.where(self.target >= 0, place[self.target], -1).astype(np.int32),
            Histories(self.before.indptr, place[self.before.items]),
            Histories(self.everything.indptr, place[self.everything.items]),
        )


def hold_out_items(interactions: Interactions, share: float, *, seed: int) -> tuple[Interactions, Arrivals]:
    """Draw new items, and take them out of everybody's history.

    The catalogue keeps them, with all that is publicly known of them; nobody has had them.

    Parameters
    ----------
    interactions
        Sorted by user, oldest first.
    share
        Share of the items, in (0, 1).
    seed
        Of the draw.

    Returns
    -------
    tuple
        The interactions that are left, and what was taken out.

    Raises
    ------
    DataError
        If fewer than two items would be new, or nobody could be tested with one.
    """
    num_items = interactions.num_items
    count = round(share * num_items)
    if not 2 <= count < num_items:
        raise DataError(
            f"{interactions.name}: {count} of {num_items} items would be new, at least 2 and not all are needed",
            hint="choose another share with --new-items",
        )
    # Drawn by id: the order in which a file names its items must not matter.
    ids = interactions.catalogue.ids
    by_id = np.array(sorted(range(num_items), key=ids.__getitem__), dtype=np.int64)
    drawn = np.sort(by_id[np.random.default_rng(seed).choice(num_items, count, replace=False)])
    is_new = np.zeros(num_items, dtype=np.bool_)
    is_new[drawn] = True
    arriving = is_new[interactions.item]
    everything = Histories.grouped(interactions.user, interactions.item, interactions.num_users)
    target, before = _targets(everything, arriving, ordered=interactions.has_time)
    if not (target >= 0).any():
        raise DataError(
            f"{interactions.name}: nobody had one of the {count} new items after something else",
            hint="choose a larger share with --new-items",
        )
    kept = ~arriving
    left = replace(
        interactions,
        user=interactions.user[kept],
        item=interactions.item[kept],
        rating=None if interactions.rating is None else interactions.rating[kept],
        moment=None if interactions.moment is None else interactions.moment[kept],
    )
    return left, Arrivals(drawn, target, before, everything)


def _targets(rows: Histories, arriving: BoolArray, *, ordered: bool) -> tuple[Int32Array, Histories]:
    """Choose everybody's target, [num_users], and the old items before it."""
    target = np.full(rows.num_users, -1, dtype=np.int32)
    chosen = np.zeros(len(rows.items), dtype=np.bool_)
    for user in range(rows.num_users):
        span = slice(rows.indptr[user], rows.indptr[user + 1])
        new = np.flatnonzero(arriving[span])
        if len(new) == 0:
            continue
        old = ~arriving[span]
        if ordered:
            old[new[-1] :] = False
        if old.any():
            target[user] = rows.items[span][new[-1]]
            chosen[span] = old
    return target, Histories.grouped(rows.owners[chosen], rows.items[chosen], rows.num_users)
