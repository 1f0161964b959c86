"""What every dataset promises, `palate.data.interactions.Interactions`."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from palate.data.interactions import Interactions
from palate.testing.base import Conformance


class DatasetConformance(Conformance):
    """Checks of a dataset.

    Attributes
    ----------
    part
        The name that it is installed under, or the path of a file or folder.
    """

    part: ClassVar[str]

    def interactions(self) -> Interactions:
        """Load the dataset; override it for one that is not installed."""
        from palate.simulation.datasets.presets import load

        return load(self.part)

    def test_it_holds_several_users_and_items(self) -> None:
        """There is something to learn from."""
        data = self.interactions()
        self.expect(data.num_users >= 2 and data.num_items >= 2, f"{data.num_users} users, {data.num_items} items")
        self.expect(len(data.user) == len(data.item), f"{len(data.user)} users in {len(data.item)} rows")
        self.expect(data.user.dtype == data.item.dtype == np.int32, "indices are not int32")

    def test_ids_are_texts_and_each_is_there_once(self) -> None:
        """Ids of users and items tell them apart."""
        data = self.interactions()
        for what, ids in (("user", data.users), ("item", data.catalogue.ids)):
            self.expect(all(isinstance(each, str) and each for each in ids), f"a {what} id is no text")
            self.expect(len(set(ids)) == len(ids), f"two {what}s have the same id")

    def test_rows_are_sorted_by_user_and_name_a_pair_once(self) -> None:
        """Inside a user they go from oldest to newest; the splits rely on it."""
        data = self.interactions()
        self.expect((np.diff(data.user) >= 0).all(), "rows are not sorted by user")
        pairs = data.user.astype(np.int64) * data.num_items + data.item
        self.expect(len(np.unique(pairs)) == len(pairs), "a user has an item twice")
        counts = np.bincount(data.user, minlength=data.num_users)
        self.expect(len(counts) == data.num_users and (counts > 0).all(), "a user has no rows")

    def test_the_catalogue_covers_the_items(self) -> None:
        """Each row's item is in it, and every fact is there for every item."""
        data = self.interactions()
        catalogue = data.catalogue
        inside = (data.item >= 0) & (data.item < catalogue.num_items)
        self.expect(inside.all(), f"{int((~inside).sum())} rows are about items that are not in the catalogue")
        for name in ("titles", "genres", "years"):
            count = len(getattr(catalogue, name))
            self.expect(count == catalogue.num_items, f"{count} {name} for {catalogue.num_items} items")

    def test_loading_again_gives_the_same(self) -> None:
        """A run that is resumed finds the data that it began with."""
        first, again = self.interactions(), self.interactions()
        same = np.array_equal(first.user, again.user) and np.array_equal(first.item, again.item)
        self.expect(same and first.users == again.users, "loading it twice gives other rows")
        self.expect(first.catalogue.ids == again.catalogue.ids, "loading it twice gives other items")
