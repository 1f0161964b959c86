"""The closed-form gradient through the encoder is the derivative of the leave-one-out loss, found by moving rows."""

import numpy as np
import pytest

from palate.models.learning.autoencoding import through_encoder
from palate.models.learning.ridge import gram, leave_one_out, residuals, solve_user

NUM_ITEMS, FIXED, DIM = 25, 2, 4
LEARNED = slice(FIXED, FIXED + DIM)


def person(seed: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(NUM_ITEMS, FIXED + DIM)).astype(np.float32)
    return rows, rng.permutation(NUM_ITEMS)[:count], rng.uniform(0.1, 1.0, count).astype(np.float32)


def loss(rows: np.ndarray, items: np.ndarray, weights: np.ndarray, prior: np.ndarray, unobserved: float) -> float:
    """Half the loss, by fitting a code without each own item in turn; no formula for leverages is used."""

    def code(kept: np.ndarray) -> np.ndarray:
        own = rows[items[kept]]
        return np.linalg.solve(prior + (own * weights[kept, None]).T @ own, own.T @ weights[kept])

    everything = np.ones(len(items), dtype=bool)
    scores = np.delete(rows, items, axis=0) @ code(everything)
    total = unobserved * float(scores @ scores)
    for place, item in enumerate(items):
        kept = everything.copy()
        kept[place] = False
        score = float(rows[item] @ code(kept))
        total += float(weights[place]) * (1.0 - score) ** 2 + unobserved * score**2
    return 0.5 * total


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize(("unobserved", "ridge"), [(0.1, 3.0), (0.7, 0.5)])
def test_own_rows_move_down_the_loss_as_far_as_finite_differences_say(count, unobserved, ridge):
    rows, items, weights = person(count, count)
    settings = {"unobserved_weight": unobserved, "regularisation": ridge}
    code = solve_user(rows, items, weights, gram(rows), **settings)
    update = through_encoder(rows, items, weights, gram(rows), code, LEARNED, **settings)
    prior = unobserved * gram(rows) + ridge * np.eye(rows.shape[1])  # public: it stays when rows move
    wide, weights = rows.astype(np.float64), weights.astype(np.float64)
    for place, item in enumerate(items):
        for column in range(DIM):
            ahead, behind = wide.copy(), wide.copy()
            ahead[item, FIXED + column] += 1e-5
            behind[item, FIXED + column] -= 1e-5
            slope = loss(ahead, items, weights, prior, unobserved) - loss(behind, items, weights, prior, unobserved)
            assert update[place, column] == pytest.approx(-slope / 2e-5, abs=2e-6)


def test_other_rows_move_down_the_same_loss_by_residual_times_code():
    rows, items, weights = person(3, 6)
    settings = {"unobserved_weight": 0.2, "regularisation": 1.0}
    code = solve_user(rows, items, weights, gram(rows), **settings)
    update = np.outer(residuals(rows, items, weights, code, unobserved_weight=0.2), code[LEARNED])
    prior = 0.2 * gram(rows) + np.eye(rows.shape[1])
    wide = rows.astype(np.float64)
    for item in np.setdiff1d(np.arange(NUM_ITEMS), items)[:5]:
        for column in range(DIM):
            ahead, behind = wide.copy(), wide.copy()
            ahead[item, FIXED + column] += 1e-5
            behind[item, FIXED + column] -= 1e-5
            slope = loss(ahead, items, weights, prior, 0.2) - loss(behind, items, weights, prior, 0.2)
            assert update[item, column] == pytest.approx(-slope / 2e-5, abs=2e-6)


def test_the_encoders_part_is_what_the_left_out_code_alone_does_not_teach():
    rows, items, weights = person(5, 8)
    settings = {"unobserved_weight": 0.1, "regularisation": 2.0}
    code = solve_user(rows, items, weights, gram(rows), **settings)
    both = through_encoder(rows, items, weights, gram(rows), code, LEARNED, **settings)
    decoded = leave_one_out(rows, items, weights, gram(rows), code, LEARNED, **settings)
    assert np.linalg.norm(both - decoded) > 0.05 * np.linalg.norm(decoded)
