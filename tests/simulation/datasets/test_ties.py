"""Ties of time: counted, broken by a draw and not by the file, and left alone in runs from before."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from palate.data.interactions import CleaningReport, RawInteractions, clean
from palate.simulation.config import SimulationConfig
from palate.simulation.datasets import arrivals, describe
from palate.simulation.datasets.splits import leave_one_out
from palate.simulation.datasets.ties import break_ties, ties_of
from palate.simulation.prepare import prepare
from palate.simulation.run_folder import read_config

BASKETS, SIZE = 3, 4


def shop(num_users=200, *, timed=True, sorted_rows=True, seed=0):
    """Everybody buys three baskets of four; inside a basket the file is sorted by item."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(num_users):
        bought = rng.choice(60, BASKETS * SIZE, replace=False).reshape(BASKETS, SIZE)
        for day, basket in enumerate(np.sort(bought, axis=1) if sorted_rows else bought):
            rows += [(f"u{user:03d}", f"i{item:02d}", float(day)) for item in basket]
    frame = pl.DataFrame(rows, schema=["user", "item", "moment"], orient="row")
    frame = frame.with_columns(pl.int_range(1, len(rows) + 1, dtype=pl.Int64).alias("line"))
    frame = frame if timed else frame.drop("moment")
    return clean(RawInteractions(frame, timed, False, CleaningReport(len(rows))), name="shop")


def baskets(data):
    """Items of each person's basket, as sets."""
    items = np.array(data.catalogue.ids)[data.item].reshape(-1, BASKETS, SIZE)
    return [[set(basket.tolist()) for basket in person] for person in items]


def test_newest_items_that_share_their_time_are_counted():
    data = shop(20)
    assert ties_of(data).newest == ties_of(data).people == 20
    single = replace(data, moment=np.arange(len(data.item), dtype=np.int32))
    assert ties_of(single).newest == 0
    assert ties_of(shop(20, timed=False)).newest == 0


def test_a_tie_never_crosses_people_or_moments():
    data = shop()
    drawn = break_ties(data, seed=5)
    assert baskets(drawn) == baskets(data)
    assert (drawn.item != data.item).any()


def test_every_item_of_a_tied_basket_is_held_out_as_often_whatever_the_files_order():
    for sorted_rows in (True, False):
        data = shop(1_500, sorted_rows=sorted_rows)
        held = leave_one_out(break_ties(data, seed=3), num_negatives=1, seed=0).test.item
        newest = data.item.reshape(-1, BASKETS, SIZE)[:, -1]  # [people, SIZE], in the order of the file
        place = (newest == held[:, None]).argmax(axis=1)
        share = np.bincount(place, minlength=SIZE) / len(place)
        assert np.abs(share - 1 / SIZE).max() < 4 * np.sqrt(1 / SIZE / len(place))


def test_the_draw_repeats_under_its_seed_and_only_there():
    first, again, other = (break_ties(shop(), seed=seed).item for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_data_without_ties_or_without_times_is_left_as_it_is():
    data = shop(timed=False)
    assert break_ties(data, seed=1) is data
    single = replace(shop(), moment=np.arange(len(data.item), dtype=np.int32))
    assert break_ties(single, seed=1) is single


def test_ratings_stay_with_their_items():
    data = shop()
    drawn = break_ties(replace(data, rating=data.item.astype(np.float32)), seed=1)
    np.testing.assert_array_equal(drawn.rating, drawn.item)


def test_new_items_take_their_moments_with_them():
    left, _ = arrivals.hold_out_items(shop(), 0.2, seed=1)
    assert len(left.moment) == len(left.item)
    assert ties_of(left).newest > 0


def test_a_description_warns_where_a_draw_decides():
    assert "200 of 200 newest items (100%) share their time with another" in describe.describe(shop()).ties
    assert describe.describe(shop(timed=False)).ties == ""


@pytest.fixture
def basket_file(tmp_path):
    data = shop(40)
    names = [data.users[user] for user in data.user]
    lines = [
        f"{name},{data.catalogue.ids[item]},{1_600_000_000 + day}"
        for name, item, day in zip(names, data.item, np.tile(np.repeat(np.arange(BASKETS), SIZE), 40), strict=True)
    ]
    path = tmp_path / "baskets.csv"
    path.write_text("\n".join(["user,item,timestamp", *lines]) + "\n")
    return path


def test_a_run_says_its_ties_and_a_saved_run_keeps_the_split_that_it_had(basket_file, tmp_path):
    now = SimulationConfig(data=str(basket_file), unit="none")
    assert "40 of 40 newest items (100%) share their time with another, drawn by a seed" in prepare(now).protocol
    (tmp_path / "config.toml").write_text(now.to_toml().replace("split_version = 2\n", ""))  # as earlier versions wrote
    before = read_config(tmp_path)
    assert before.split_version == 1
    assert "kept in the order of the file" in prepare(before).protocol
    held = {config.split_version: prepare(config).split.test.item for config in (now, before)}
    ids = prepare(before).interactions.catalogue.ids
    data = shop(40)
    last = [max(basket[-1]) for basket in baskets(data)]  # baskets are sorted by item
    assert [ids[item] for item in held[1]] == last
    assert (held[1] != held[2]).any()
    (tmp_path / "config.toml").write_text(now.to_toml())
    assert read_config(tmp_path) == now
