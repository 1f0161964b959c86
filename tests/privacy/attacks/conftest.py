"""How attacks are judged: the area under the curve of their scores, and the epsilon that their hits prove."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import beta, rankdata

Scores = np.ndarray


def area(present: Scores, absent: Scores) -> float:
    """Probability that a score of the world with the target is above one of the world without; ties count half."""
    ranks = rankdata(np.concatenate([present, absent]))[: len(present)]
    return float((ranks.sum() - len(present) * (len(present) + 1) / 2) / (len(present) * len(absent)))


def lower_bound(present: Scores, absent: Scores, *, delta: float, error: float = 1e-4) -> float:
    """Epsilon that no (epsilon, delta)-private release stays below, given how well scores tell two worlds apart.

    Privacy bounds the rates of every test: ``hits <= e^eps false_alarms + delta`` (Kairouz, Oh & Viswanath 2015). The
    first half of the scores chooses the test, the second half estimates its rates, each within a Clopper-Pearson
    interval; so the bound is wrong with probability at most `error`.
    """
    (choose_in, choose_out), (judge_in, judge_out) = [(present[half::2], absent[half::2]) for half in (0, 1)]
    best = 0.0, 0.0
    # "Present where the score is high" or "absent where it is low": privacy bounds both.
    for sign, inside, outside in ((1, choose_in, choose_out), (-1, choose_out, choose_in)):
        thresholds = np.quantile(sign * np.concatenate([inside, outside]), np.linspace(0.01, 0.99, 99))
        chosen = thresholds[np.argmax(_proven(sign * inside, sign * outside, thresholds, delta, error))]
        seen = float(_proven(sign * inside, sign * outside, chosen, delta, error))
        judged = (judge_in, judge_out) if sign == 1 else (judge_out, judge_in)
        best = max(best, (seen, float(_proven(sign * judged[0], sign * judged[1], chosen, delta, error))))
    return best[1]


def _proven(inside: Scores, outside: Scores, thresholds: np.ndarray, delta: float, error: float) -> np.ndarray:
    """Epsilons that tests at the thresholds prove, at least 0, like `thresholds`; by Clopper & Pearson 1934."""
    hits = (inside > np.asarray(thresholds)[..., None]).sum(axis=-1)
    false_alarms = (outside > np.asarray(thresholds)[..., None]).sum(axis=-1)
    fewest = np.nan_to_num(beta.ppf(error / 2, hits, len(inside) - hits + 1), nan=0.0)  # no hit: 0
    most = np.nan_to_num(beta.ppf(1 - error / 2, false_alarms + 1, len(outside) - false_alarms), nan=1.0)
    return np.log(np.maximum((fewest - delta) / most, 1.0))


@pytest.fixture(scope="session")
def area_under_curve() -> Callable[[Scores, Scores], float]:
    return area


@pytest.fixture(scope="session")
def epsilon_lower_bound() -> Callable[..., float]:
    return lower_bound
