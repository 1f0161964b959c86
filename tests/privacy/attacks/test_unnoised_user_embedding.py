"""The attack on interaction-level training that noises item rows only.

On a device, DP-SGD over interactions must noise everything that it trains. Where the user vector is left out, the other
interactions' item gradients carry it: a server that crafts the row of one item moves the user vector by a whole
clip norm if and only if that item is in the history, and reads the move from the next step, where every other row
shows it. The noise was sized for what one interaction does to its own row.

The attacker knows all other interactions, the table and every public parameter, as differential privacy lets it, and
uses the best test there is: the likelihood ratio of everything that was released.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import expit

from palate.client import opacus_release
from palate.client.opacus_release import interaction_sum
from palate.models.histories import Histories
from palate.models.learning.kernel import fresh_heads
from palate.models.table import ItemTable
from palate.models.training import LocalTraining
from palate.privacy.accounting.events import Composed, GaussianEvent, Unit
from palate.privacy.accounting.guarantee import account_for
from palate.privacy.integer.csprng import WordStream
from palate.privacy.integer.skellam import SkellamSampler
from palate.privacy.mechanisms.terms import ReleaseTerms

NUM_ITEMS, DIM, STEPS, TRIALS, CHUNK = 101, 4, 2, 6000, 500
CLIP_NORM, NOISE_MULTIPLIER, LEARNING_RATE, DELTA = 1.0, 4.0, 10.0, 1e-5
NOISE_STD = NOISE_MULTIPLIER * CLIP_NORM
TARGET = 0

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # Opacus, over embeddings

CLAIM = account_for([Composed(GaussianEvent(noise_multiplier=NOISE_MULTIPLIER, unit=Unit.INTERACTION), STEPS)], DELTA)


def crafted_table() -> np.ndarray:
    """Item rows, [num_items, dim]: the target pulls the user vector one way, all others together the other way."""
    table = np.zeros((NUM_ITEMS, DIM))
    table[:, 0] = -1.0 / (NUM_ITEMS - 1)
    table[TARGET, 0] = 10.0
    return table


TABLE = crafted_table()


def clipped_sums(users: np.ndarray, *, present: bool) -> tuple[np.ndarray, np.ndarray]:
    """Sums of gradients of ``-log sigmoid(u'v_i)`` over a history of all items, with or without the target.

    Every interaction's gradient ``(r u, r v_i)``, of item row and user vector together, is clipped to CLIP_NORM.

    Parameters
    ----------
    users
        User vectors, one a trial, [trials, dim].
    present
        Whether the target is in the history.

    Returns
    -------
    Of the item rows [trials, num_items, dim], and of the user vector [trials, dim].
    """
    factors = expit(users @ TABLE.T) - 1.0  # r, [trials, num_items]
    norms = np.abs(factors) * np.sqrt((users**2).sum(axis=1)[:, None] + (TABLE**2).sum(axis=1))
    factors *= np.minimum(1.0, CLIP_NORM / np.maximum(norms, 1e-12))
    if not present:
        factors[:, TARGET] = 0.0
    return factors[:, :, None] * users[:, None, :], factors @ TABLE


def evidence(seen: np.ndarray, with_target: np.ndarray, without: np.ndarray) -> np.ndarray:
    """Log likelihood ratio of values under Gaussian noise, [trials, ...] to [trials]."""
    axes = tuple(range(1, seen.ndim))
    return ((seen - (with_target + without) / 2) * (with_target - without)).sum(axis=axes) / NOISE_STD**2


def attack(*, noise_user: bool, present: bool, trials: int, rng: np.random.Generator) -> np.ndarray:
    """Train STEPS noisy steps and score what was released, [trials].

    Parameters
    ----------
    noise_user
        Whether the user vector's gradient is noised as well. It then is part of what the claim covers, and is shown to
        the attacker too. Without it the attacker sees item gradients only, but can follow the user vector in either
        world by itself.
    present
        Whether the target is in the history.
    """
    own = np.zeros((trials, DIM))
    believed = {world: np.zeros((trials, DIM)) for world in (True, False)}
    score = np.zeros(trials)
    for _ in range(STEPS):
        items, user = clipped_sums(own, present=present)
        expected = {world: clipped_sums(believed[world], present=world) for world in (True, False)}
        seen = items + rng.normal(0.0, NOISE_STD, items.shape)
        score += evidence(seen, expected[True][0], expected[False][0])
        if noise_user:
            user = user + rng.normal(0.0, NOISE_STD, user.shape)
            score += evidence(user, expected[True][1], expected[False][1])
        own = own - LEARNING_RATE * user
        for world in (True, False):
            believed[world] = own if noise_user else believed[world] - LEARNING_RATE * expected[world][1]
    return score


def both_worlds(*, noise_user: bool) -> tuple[np.ndarray, np.ndarray]:
    """Scores with the target and without it, each [TRIALS]."""
    rng = np.random.default_rng(7)
    present, absent = (
        np.concatenate(
            [attack(noise_user=noise_user, present=world, trials=CHUNK, rng=rng) for _ in range(TRIALS // CHUNK)]
        )
        for world in (True, False)
    )
    return present, absent


def test_a_user_vector_without_noise_breaks_the_claim(epsilon_lower_bound: Callable[..., float]):
    proven = epsilon_lower_bound(*both_worlds(noise_user=False), delta=DELTA)
    assert proven > 3 * CLAIM.epsilon


def test_one_interaction_moves_the_second_step_by_many_clip_norms():
    users = {world: -LEARNING_RATE * clipped_sums(np.zeros((1, DIM)), present=world)[1] for world in (True, False)}
    moved = clipped_sums(users[True], present=True)[0] - clipped_sums(users[False], present=False)[0]
    assert np.linalg.norm(moved) > 15 * CLIP_NORM


def test_with_every_parameter_noised_the_claim_holds(epsilon_lower_bound: Callable[..., float]):
    present, absent = both_worlds(noise_user=True)
    assert epsilon_lower_bound(present, absent, delta=DELTA) <= CLAIM.epsilon
    # A log likelihood ratio of two Gaussians mu apart has means +-mu^2 / 2 and variance mu^2.
    mu = (present.mean() - absent.mean()) / math.sqrt((present.var() + absent.var()) / 2)
    allowed = math.sqrt(STEPS) / NOISE_MULTIPLIER
    assert mu <= allowed + 4 * math.sqrt(2 / TRIALS)
    assert mu > 0.6 * allowed  # the attack is not idle: it is the noise that stops it


class Silent(SkellamSampler):
    """Stands in for the sampler where noise is left out."""

    def draw(self, count: int, stream: object) -> np.ndarray:
        return np.zeros(count, dtype=np.int64)


class SilentOnTheUser(SkellamSampler):
    """Leaves out the noise on the user vector alone, which is drawn first."""

    def draw(self, count: int, stream: WordStream) -> np.ndarray:
        noise = super().draw(count, stream)
        return np.zeros(count, dtype=np.int64) if count == 2 else noise


DEVICE_TERMS = ReleaseTerms(
    clip_norm=CLIP_NORM,
    sensitivity=1 << 12,
    share_variance=int(NOISE_MULTIPLIER * (1 << 12)) ** 2,
    honest_shares=1,
    roster_size=1,
)
HISTORY, DEVICE_TRIALS = 21, 40
SAMPLING_KEY = np.uint64(12)  # none of its negatives is the target


def device_messages(trial: int, *, present: bool) -> np.ndarray:
    """What a device sends in STEPS rounds of interaction-level training on a crafted table, in integer steps."""
    learned = np.zeros((200, 2), dtype=np.float32)
    learned[:HISTORY, 0] = -1.0 / (HISTORY - 1)
    learned[TARGET, 0] = 10.0
    table = ItemTable(np.zeros((200, 0), dtype=np.float32), learned)
    config = LocalTraining(model="gmf", objective="bce", negatives=1, learning_rate=LEARNING_RATE * HISTORY)
    heads, sent = fresh_heads(table, config, 1), []
    for step in range(STEPS):
        answer = interaction_sum(
            table,
            Histories.of_one(np.arange(0 if present else 1, HISTORY, dtype=np.int32)),
            heads,
            np.full(1, SAMPLING_KEY),
            np.array([trial, step, present, 0], dtype="<u8").tobytes(),
            config,
            DEVICE_TERMS,
            interactions_per_round=HISTORY,
        )
        heads = answer.heads
        sent.append(answer.integers)
    return np.stack(sent).astype(np.float64)


def separation_on_the_device(monkeypatch: pytest.MonkeyPatch, *, noise_user: bool) -> tuple[float, float]:
    """How many standard deviations the worlds are apart to an attacker who reads a device's messages, and its error."""
    with monkeypatch.context() as patch:
        patch.setattr(opacus_release, "SkellamSampler", Silent)
        direction = device_messages(0, present=True) - device_messages(0, present=False)
    with monkeypatch.context() as patch:
        if not noise_user:
            patch.setattr(opacus_release, "SkellamSampler", SilentOnTheUser)
        present, absent = (
            np.array([(device_messages(trial, present=world) * direction).sum() for trial in range(DEVICE_TRIALS)])
            for world in (True, False)
        )
    mu = (present.mean() - absent.mean()) / math.sqrt((present.var(ddof=1) + absent.var(ddof=1)) / 2)
    return float(mu), math.sqrt(2 / DEVICE_TRIALS + mu**2 / (4 * DEVICE_TRIALS))


def test_what_a_device_really_sends_keeps_the_claim(monkeypatch: pytest.MonkeyPatch):
    mu, error = separation_on_the_device(monkeypatch, noise_user=True)
    assert mu <= math.sqrt(STEPS) / NOISE_MULTIPLIER + 3 * error


def test_the_same_device_without_noise_on_its_user_vector_breaks_it(monkeypatch: pytest.MonkeyPatch):
    mu, error = separation_on_the_device(monkeypatch, noise_user=False)
    assert mu > math.sqrt(STEPS) / NOISE_MULTIPLIER + 4 * error


@pytest.mark.parametrize(("mu", "least_share"), [(0.25, 0.0), (1.0, 0.15), (3.0, 0.15)])
def test_the_bound_that_judges_attacks_stays_below_the_exact_epsilon(
    mu: float, least_share: float, epsilon_lower_bound: Callable[..., float]
):
    rng = np.random.default_rng(3)
    exact = account_for([GaussianEvent(noise_multiplier=1 / mu)], DELTA).epsilon
    proven = [epsilon_lower_bound(rng.normal(mu, 1, 4000), rng.normal(0, 1, 4000), delta=DELTA) for _ in range(20)]
    assert max(proven) <= exact
    assert min(proven) >= least_share * exact
