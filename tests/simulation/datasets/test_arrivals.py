"""New items are in nobody's history, and people are tested with what they had before."""

import numpy as np
import pytest

from palate.data.catalogue import Catalogue
from palate.data.interactions import CleaningReport, Interactions
from palate.errors import DataError
from palate.simulation.datasets.arrivals import hold_out_items

NUM_USERS, NUM_ITEMS = 50, 40


def data(*, has_time=True, num_items=NUM_ITEMS, seed=1):
    rng = np.random.default_rng(seed)
    sequences = [rng.permutation(num_items)[: rng.integers(1, 15)] for _ in range(NUM_USERS)]
    lengths = [len(each) for each in sequences]
    return Interactions(
        name="made up",
        user=np.repeat(np.arange(NUM_USERS), lengths).astype(np.int32),
        item=np.concatenate(sequences).astype(np.int32),
        rating=rng.random(sum(lengths), dtype=np.float32),
        users=tuple(f"u{user}" for user in range(NUM_USERS)),
        catalogue=Catalogue(
            ids=tuple(f"i{item:03d}" for item in range(num_items)),
            titles=("",) * num_items,
            genres=((),) * num_items,
            years=np.zeros(num_items, dtype=np.int32),
            texts=("",) * num_items,
        ),
        has_time=has_time,
        report=CleaningReport(rows_read=sum(lengths)),
    )


def test_new_items_are_in_nobodys_history_and_the_rest_is_untouched():
    given = data()
    left, arrivals = hold_out_items(given, 0.2, seed=3)
    assert len(arrivals.items) == 8
    assert not np.isin(left.item, arrivals.items).any()
    kept = ~np.isin(given.item, arrivals.items)
    np.testing.assert_array_equal(left.item, given.item[kept])
    np.testing.assert_array_equal(left.user, given.user[kept])
    np.testing.assert_array_equal(left.rating, given.rating[kept])
    assert left.num_items == NUM_ITEMS, "the catalogue knows them"


def test_a_person_is_tested_with_their_newest_new_item_from_what_was_before_it():
    given = data()
    _, arrivals = hold_out_items(given, 0.2, seed=3)
    tested = 0
    for user in range(NUM_USERS):
        own = given.item[given.user == user].tolist()
        np.testing.assert_array_equal(arrivals.everything.of(user), own)
        new = [place for place, item in enumerate(own) if item in arrivals.items]
        before = [item for item in own[: new[-1]] if item not in arrivals.items] if new else []
        expected = own[new[-1]] if before else -1
        assert arrivals.target[user] == expected
        np.testing.assert_array_equal(arrivals.before.of(user), before)
        tested += expected >= 0
    assert 20 < tested < NUM_USERS


def test_without_an_order_everything_else_is_before():
    given = data(has_time=False)
    _, arrivals = hold_out_items(given, 0.2, seed=3)
    for user in np.flatnonzero(arrivals.target >= 0):
        own = given.item[given.user == user]
        np.testing.assert_array_equal(arrivals.before.of(user), own[~np.isin(own, arrivals.items)])


def test_the_draw_is_the_seeds_and_not_the_orders_in_which_items_were_named():
    first, again = (hold_out_items(data(), 0.2, seed=3)[1].items for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, hold_out_items(data(), 0.2, seed=4)[1].items)
    given = data()
    turned = Interactions(
        **{
            **vars(given),
            "item": NUM_ITEMS - 1 - given.item,
            "catalogue": Catalogue(given.catalogue.ids[::-1], *(getattr(given.catalogue, name) for name in (
                "titles", "genres", "years", "texts"))),
        }
    )  # fmt: skip
    other = hold_out_items(turned, 0.2, seed=3)[1].items
    np.testing.assert_array_equal(np.sort(NUM_ITEMS - 1 - other), first)


def test_other_numbers_for_the_items_keep_everything_together():
    _, arrivals = hold_out_items(data(), 0.2, seed=3)
    place = np.append(np.random.default_rng(5).permutation(NUM_ITEMS), -1).astype(np.int32)
    found = arrivals.renumbered(place)
    assert set(found.items) == set(place[arrivals.items])
    np.testing.assert_array_equal(found.target == -1, arrivals.target == -1)
    for user in range(NUM_USERS):
        np.testing.assert_array_equal(found.before.of(user), place[arrivals.before.of(user)])
        assert arrivals.target[user] < 0 or found.target[user] == place[arrivals.target[user]]


@pytest.mark.parametrize("share", [0.0, 0.02, 0.99, 1.0])
def test_a_share_that_leaves_nothing_to_test_or_to_learn_from_is_refused(share):
    with pytest.raises(DataError, match="new"):
        hold_out_items(data(), share, seed=3)
