"""The closed-form gradient through the encoder is the derivative of the leave-one-out loss, found by moving rows."""

import numpy as np
import pytest

from palate.models.histories import Histories, history_weights
from palate.models.learning.ridge import closed_form, gram, solve_users
from palate.models.training import LocalTraining

NUM_ITEMS, FIXED, DIM = 25, 2, 4
LEARNED = slice(FIXED, FIXED + DIM)


def person(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(NUM_ITEMS, FIXED + DIM)).astype(np.float32)
    return rows, rng.permutation(NUM_ITEMS)[:count].astype(np.int32)


def training(unobserved: float, ridge: float) -> LocalTraining:
    return LocalTraining(unobserved_weight=unobserved, regularisation=ridge, recency_half_life=3.0, leave_one_out=True)


def update_of(rows: np.ndarray, items: np.ndarray, config: LocalTraining, *, through_encoder: bool = True):
    """Update of every row by the kernel's closed form, for a batch of one whose update counts fully."""
    history = Histories.of_one(items)
    users = solve_users(rows, history, config)
    scale = np.ones(1, np.float32)
    form = closed_form(rows, history, users, LEARNED, scale, config, through_encoder=through_encoder)
    update = np.outer(form.errors(np.arange(1))[0], form.vectors[0])
    update[items] += form.corrections
    np.testing.assert_allclose(form.total(), update, atol=1e-5)
    return update, history_weights(history, config).astype(np.float64)


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
    rows, items = person(count, count)
    update, weights = update_of(rows, items, training(unobserved, ridge))
    prior = unobserved * gram(rows) + ridge * np.eye(rows.shape[1])  # public: it stays when rows move
    wide = rows.astype(np.float64)
    for item in items:
        for column in range(DIM):
            ahead, behind = wide.copy(), wide.copy()
            ahead[item, FIXED + column] += 1e-5
            behind[item, FIXED + column] -= 1e-5
            slope = loss(ahead, items, weights, prior, unobserved) - loss(behind, items, weights, prior, unobserved)
            assert update[item, column] == pytest.approx(-slope / 2e-5, abs=2e-6)


def test_other_rows_move_down_the_same_loss_by_residual_times_code():
    rows, items = person(3, 6)
    update, weights = update_of(rows, items, training(0.2, 1.0))
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
    rows, items = person(5, 8)
    both, decoded = (
        update_of(rows, items, training(0.1, 2.0), through_encoder=through)[0][items] for through in (True, False)
    )
    assert np.linalg.norm(both - decoded) > 0.05 * np.linalg.norm(decoded)
