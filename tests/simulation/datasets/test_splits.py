"""Splits: the newest is held out, no negative was ever seen, and NCF's files come out exactly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from palate.data.catalogue import Catalogue
from palate.data.interactions import CleaningReport, Interactions
from palate.errors import DataError
from palate.models.histories import Histories
from palate.simulation.datasets.presets import load
from palate.simulation.datasets.splits import NCF_PROTOCOL, draw_negatives, leave_one_out, ncf_ml1m, split_for


def interactions(histories, num_items):
    """Interactions from one list of items per user, oldest first."""
    user = np.repeat(np.arange(len(histories)), [len(items) for items in histories])
    return Interactions(
        name="t",
        user=user.astype(np.int32),
        item=np.array([item for items in histories for item in items], dtype=np.int32),
        rating=None,
        users=tuple(f"u{number}" for number in range(len(histories))),
        catalogue=Catalogue.of([f"i{number}" for number in range(num_items)]),
        has_time=True,
        report=CleaningReport(rows_read=len(user)),
    )


def test_newest_is_test_and_second_newest_validation():
    split = leave_one_out(interactions([[3, 1, 4, 0], [2, 5], [6]], 9), num_negatives=2, seed=0)
    assert split.test.item.tolist() == [0, 5, -1]
    assert split.validation.item.tolist() == [4, -1, -1]
    assert [split.train.of(user).tolist() for user in range(3)] == [[3, 1], [2], [6]]
    assert [split.full_train.of(user).tolist() for user in range(3)] == [[3, 1, 4], [2], [6]]
    assert (split.test.item.dtype, split.test.negatives.dtype) == (np.int32, np.int32)


def test_users_without_held_out_item_have_no_negatives():
    split = leave_one_out(interactions([[3, 1, 4], [2, 5], [6]], 9), num_negatives=2, seed=0)
    assert (split.test.negatives[2] == -1).all()
    assert (split.validation.negatives[1:] == -1).all()


histories_of = st.integers(3, 12).flatmap(
    lambda n: st.tuples(
        st.just(n), st.lists(st.lists(st.integers(0, n - 1), unique=True, min_size=1), min_size=1, max_size=6)
    )
)


@given(histories_of, st.integers(1, 9), st.integers(0, 99))
def test_negatives_are_distinct_and_never_seen(case, num_negatives, seed):
    num_items, histories = case
    data = interactions(histories, num_items)
    held = [items for items in histories if 2 <= len(items) < num_items]
    if not held:
        with pytest.raises(DataError, match="no user has 2"):
            leave_one_out(data, num_negatives=num_negatives, seed=seed)
        return
    split = leave_one_out(data, num_negatives=num_negatives, seed=seed)
    assert split.test.negatives.shape[1] == min(num_negatives, *(num_items - len(items) for items in held))
    for part in (split.validation, split.test):
        for user, items in enumerate(histories):
            if part.item[user] >= 0:
                drawn = part.negatives[user].tolist()
                assert len(set(drawn)) == len(drawn)
                assert not set(drawn) & set(items)
                assert all(0 <= item < num_items for item in drawn)
    rebuilt = split.full_train.append(split.test.item)
    assert [rebuilt.of(user).tolist() for user in range(len(histories))] == histories


def test_every_unseen_item_is_equally_likely_to_be_drawn():
    rows = Histories(np.array([0, 3]), np.array([0, 4, 7], dtype=np.int32)).select(np.zeros(20_000, dtype=np.int64))
    drawn = draw_negatives(rows, np.arange(20_000), 10, 3, np.random.default_rng(1))
    counts = np.bincount(drawn.ravel(), minlength=10)
    assert counts[[0, 4, 7]].tolist() == [0, 0, 0]
    assert stats.chisquare(counts[[1, 2, 3, 5, 6, 8, 9]]).pvalue > 1e-4
    sets, times = np.unique(np.sort(drawn, axis=1), axis=0, return_counts=True)
    assert len(sets) == 35  # every subset of 3 out of 7
    assert stats.chisquare(times).pvalue > 1e-4


def test_seed_decides_the_negatives_and_nothing_else():
    data = load("demo")
    one, same, other = (leave_one_out(data, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.test.negatives, same.test.negatives)
    assert not np.array_equal(one.test.negatives, other.test.negatives)
    assert np.array_equal(one.test.item, other.test.item)
    assert not np.array_equal(one.test.negatives, one.validation.negatives)


def test_protocol_is_named_with_the_negatives_that_there_are():
    data = interactions([[0, 1, 2], [1, 2, 3]], 6)
    assert split_for(data, seed=0)[1] == "leave-one-out by time, 3 negatives"


def test_ncf_files_of_another_dataset_are_refused(tmp_path):
    (tmp_path / "ml-1m.test.rating").write_text("0\t1\t5\t9\n")
    (tmp_path / "ml-1m.test.negative").write_text("(0,1)\t" + "\t".join(map(str, range(99))) + "\n")
    with pytest.raises(DataError, match="do not fit"):
        ncf_ml1m(interactions([[0, 1, 2], [1, 2, 3]], 6), tmp_path)
    (tmp_path / "ml-1m.test.rating").write_text("0\tone\n")
    with pytest.raises(DataError, match="damaged"):
        ncf_ml1m(interactions([[0, 1, 2], [1, 2, 3]], 6), tmp_path)
    with pytest.raises(DataError, match="lacks"):
        ncf_ml1m(interactions([[0, 1, 2], [1, 2, 3]], 6), tmp_path / "elsewhere")


@pytest.fixture(scope="module")
def ml1m(request):
    return load(request.getfixturevalue("shared_data") / "ml-1m")


def test_ncf_protocol_is_reproduced_on_movielens_1m(ml1m):
    split, protocol = split_for(ml1m, seed=3)
    assert protocol == NCF_PROTOCOL
    assert len(split.full_train.items) == 994_169
    assert len(split.train.items) == 994_169 - 6_040
    assert split.test.item[0] == 25
    assert split.test.negatives[0, :3].tolist() == [1064, 174, 2791]
    same = split.test.negatives == split.test.item[:, None]
    assert same.sum() == 156
    key = ml1m.user.astype(np.int64) * 3706 + ml1m.item
    negatives = np.arange(6040)[:, None] * 3706 + split.test.negatives
    assert np.array_equal(np.isin(negatives, key), same)  # no published negative was seen, but for the test item
    drawn = np.arange(6040)[:, None] * 3706 + split.validation.negatives
    assert not np.isin(drawn, key).any()


def test_ncf_test_items_are_the_newest_by_order(ml1m):
    by_order = leave_one_out(ml1m, seed=0)
    by_file, _ = split_for(ml1m, seed=0)
    assert np.array_equal(by_order.test.item, by_file.test.item)
    assert np.array_equal(by_order.validation.item, by_file.validation.item)


def test_item_popularity_has_its_published_accuracy_on_ncf_files(ml1m):
    split, _ = split_for(ml1m, seed=0)
    count = np.bincount(split.full_train.items, minlength=split.num_items)
    target, negative = count[split.test.item][:, None], count[split.test.negatives]
    itself = split.test.negatives == split.test.item[:, None]
    for rank, hit_rate, ndcg in (
        ((negative > target).sum(axis=1), 0.4538, 0.2545),  # as published: ties go to the test item
        # As Palate ranks: ties count against the model, and the test item does not compete with itself.
        (((negative >= target) & ~itself).sum(axis=1), 0.4531, 0.2541),
    ):
        found = rank < 10
        assert found.mean() == pytest.approx(hit_rate, abs=5e-5)
        assert (found / np.log2(rank + 2)).mean() == pytest.approx(ndcg, abs=5e-5)
