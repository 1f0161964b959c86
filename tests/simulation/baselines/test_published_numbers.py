"""Reference numbers on MovieLens 1M with NCF's own held-out items and negatives (He et al. 2017)."""

import numpy as np
import pytest

from palate.simulation.baselines.base import FitData
from palate.simulation.baselines.registry import BASELINES
from palate.simulation.datasets import presets
from palate.simulation.datasets.splits import ncf_ml1m
from palate.simulation.evaluation import evaluate


@pytest.fixture(scope="module")
def split(shared_data):
    folder = shared_data / "ml-1m"
    if not (folder / "ncf-ml-1m.test.negative.gz").is_file():
        pytest.skip("ml-1m with NCF's files is not in PALATE_DATA")
    return ncf_ml1m(presets.load("ml-1m"), folder)


def test_popularity_reaches_its_published_numbers_once_ties_count_for_it(split):
    counts = np.bincount(split.full_train.items, minlength=split.num_items)
    ranks = np.sum(counts[split.test.negatives] > counts[split.test.item][:, None], axis=1)
    assert round(np.mean(ranks < 10), 4) == 0.4538
    assert round(np.mean((ranks < 10) / np.log2(ranks + 2.0)), 4) == 0.2545


def test_popularity_loses_its_ties_and_nothing_else(split):
    scorer = BASELINES["popularity"].fit(FitData(split.full_train, split.num_items))
    found = evaluate(scorer, split.test, split.full_train).metrics()
    assert (round(found.hit_rate.value, 4), round(found.ndcg.value, 4)) == (0.4531, 0.2541)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "chosen", "hit_rate", "ndcg"),
    [("ease", {}, 0.718, 0.449), ("ials", {"regularisation": 0.005}, 0.723, 0.443)],
)
def test_centralised_references_reach_their_numbers(split, name, chosen, hit_rate, ndcg):
    scorer = BASELINES[name].fit(FitData(split.full_train, split.num_items), **chosen)
    found = evaluate(scorer, split.test, split.full_train).metrics()
    assert found.hit_rate.value == pytest.approx(hit_rate, abs=0.012)
    assert found.ndcg.value == pytest.approx(ndcg, abs=0.012)
