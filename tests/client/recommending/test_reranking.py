"""MMR against a slow twin, and a dial that never makes a list less diverse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.client.recommending.reranking import NOTCHES, pool_size, rerank
from palate.errors import ConfigError
from palate.models import lists


def candidates(seed: int, num: int, kind: str):
    """Relevance, best first, and features of several makes."""
    rng = np.random.default_rng(seed)
    relevance = np.sort(rng.gamma(1.0, size=num))[::-1].astype(np.float32)
    features = {
        "normal": rng.normal(size=(num, 6)),
        "genres": (rng.random((num, 8)) < 0.25) - 0.25,
        "blank": np.where(rng.random((num, 1)) < 0.4, 0.0, rng.normal(size=(num, 3))),
        "clusters": np.eye(4)[rng.integers(0, 4, num)],
        "nothing": np.zeros((num, 2)),
    }[kind]
    return relevance, features.astype(np.float32)


@settings(max_examples=60)
@given(
    st.integers(0, 2**31), st.integers(1, 60), st.integers(1, 12),
    st.sampled_from(["normal", "genres", "blank", "clusters", "nothing"]),
)  # fmt: skip
def test_diversity_never_falls_as_the_dial_is_turned_up(seed, num, count, kind):
    relevance, features = candidates(seed, num, kind)
    previous = -1.0
    for notch in range(NOTCHES + 1):
        chosen = rerank(relevance, features, count, notch / NOTCHES)
        assert len(set(chosen.tolist())) == len(chosen) == min(count, num)
        found = lists.intra_list_diversity(chosen[None], features) or 0.0
        assert found >= previous - 1e-8
        previous = found


@pytest.mark.parametrize("seed", range(5))
def test_some_notch_has_the_list_of_greedy_mmr(seed):
    relevance, features = candidates(seed, 40, "normal")
    unit = lists.unit_rows(features)
    scaled = (relevance - relevance.min()) / (relevance.max() - relevance.min())

    def greedy(dial: float) -> list[int]:
        picked = [0]
        while len(picked) < 8:
            rest = [item for item in range(40) if item not in picked]
            gain = {i: (1 - dial) * scaled[i] - dial * max(unit[i] @ unit[j] for j in picked) for i in rest}
            picked.append(max(rest, key=gain.__getitem__))
        return picked

    every = [greedy(notch / NOTCHES) for notch in range(NOTCHES + 1)]
    for notch in range(1, NOTCHES + 1):
        spread = [lists.intra_list_diversity(np.array([one]), features) for one in every[: notch + 1]]
        assert rerank(relevance, features, 8, notch / NOTCHES).tolist() == every[int(np.argmax(spread))]


def test_the_dial_at_nought_leaves_the_list_alone_and_at_one_it_changes_it():
    relevance, features = candidates(0, 60, "genres")
    assert rerank(relevance, features, 10, 0.0).tolist() == list(range(10))
    full = rerank(relevance, features, 10, 1.0)
    assert full[0] == 0
    assert lists.intra_list_diversity(full[None], features) > lists.intra_list_diversity(np.arange(10)[None], features)


@pytest.mark.parametrize("dial", [-0.1, 1.01, float("nan")])
def test_a_dial_outside_its_range_is_refused(dial):
    with pytest.raises(ConfigError, match="from 0 to 1"):
        rerank(np.zeros(3), np.zeros((3, 1)), 2, dial)


def test_pools_hold_enough_to_choose_from():
    assert (pool_size(5), pool_size(50)) == (100, 500)
