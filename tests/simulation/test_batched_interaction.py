from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from palate.client import batched_interaction
from palate.client.batched_interaction import (
    InteractionSum,
    interaction_sum,
    popularity_interaction_sum,
    recent,
    release_interactions,
)
from palate.client.interaction_trainer import popularity_interactions, sample_layout, train_interactions
from palate.errors import ConfigError
from palate.models.histories import Histories
from palate.models.learning.kernel import fresh_state
from palate.models.scores.base import State
from palate.models.scores.registry import SCORE_MODELS
from palate.models.table import ItemTable, initial_embeddings
from palate.models.training import LocalTraining
from palate.privacy.errors import PrivacyError
from palate.privacy.integer.csprng import Purpose, WordStream
from palate.privacy.integer.quantise import Quantiser
from palate.privacy.integer.ring import Ring
from palate.privacy.integer.skellam import SkellamSampler
from palate.privacy.mechanisms.terms import ReleaseTerms

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook")

NUM_ITEMS, FIXED_DIM, DIM, B = 40, 3, 4, 6
LENGTHS = [0, 1, 6, 7, 30, 3, 0]
DEVICES = len(LENGTHS)
MODELS = sorted(name for name, model in SCORE_MODELS.items() if "bce" in model.objectives)
TERMS = ReleaseTerms(clip_norm=0.3, sensitivity=256, share_variance=90_000, honest_shares=1, roster_size=100)


def config(model: str = "neumf", **changes: Any) -> LocalTraining:
    chosen = {"hidden": 3, "negatives": 4, "learning_rate": 0.4, "weight_decay": 0.02} | changes
    return LocalTraining(model=model, objective="bce", **chosen)


def table(num_items: int = NUM_ITEMS) -> ItemTable:
    rng = np.random.default_rng(1)
    fixed = rng.normal(size=(num_items, FIXED_DIM)).astype(np.float32)
    return ItemTable(fixed, initial_embeddings(num_items, DIM, scale=0.5, rng=rng))


def histories(num_items: int = NUM_ITEMS) -> Histories:
    rng = np.random.default_rng(2)
    items = [rng.permutation(num_items)[:count].astype(np.int32) for count in LENGTHS]
    return Histories(
        np.concatenate([[0], np.cumsum([len(own) for own in items])]).astype(np.int64), np.concatenate(items)
    )


def keys(server_round: int) -> np.ndarray:
    return np.arange(DEVICES, dtype=np.uint64) + np.uint64(1000 * server_round)


def secrets(server_round: int) -> list[bytes]:
    return [(1000 * server_round + device).to_bytes(32, "big") for device in range(DEVICES)]


def together(
    state: State, model: str = "neumf", where: ItemTable | None = None, server_round: int = 0
) -> InteractionSum:
    where = where or table()
    return interaction_sum(
        where,
        histories(where.num_items),
        state,
        keys(server_round),
        secrets(server_round),
        config(model),
        TERMS,
        interactions_per_round=B,
    )


def alone(
    where: ItemTable, states: list[State | None], model: str, server_round: int
) -> tuple[np.ndarray, np.ndarray, list[State]]:
    """Sum of the devices' messages, the noise in it, and their heads."""
    head_size = sample_layout(config(model), fixed_dim=FIXED_DIM, dim=DIM).head_size
    total = noise = np.zeros(DIM * where.num_items, dtype=np.int64)
    kept = []
    for device in range(DEVICES):
        secret = secrets(server_round)[device]
        released = train_interactions(
            where,
            histories(where.num_items).of(device),
            states[device],
            config(model),
            TERMS,
            interactions_per_round=B,
            key=keys(server_round)[device],
            secret=secret,
        )
        words = WordStream(secret, Purpose.NOISE)
        SkellamSampler(TERMS.share_variance).draw(head_size, words)
        noise = noise + SkellamSampler(TERMS.share_variance).draw(len(total), words)
        total = total + Ring(bits=TERMS.ring_bits).centre(released.vector)
        kept.append(released.state)
    return total, noise, kept


@pytest.mark.parametrize("num_items", [5, NUM_ITEMS])
@pytest.mark.parametrize("model", MODELS)
def test_devices_and_their_twin_send_the_same_integers_and_keep_the_same_heads(model: str, num_items: int):
    where = table(num_items)
    state: State = fresh_state(where, config(model), DEVICES)
    states: list[State | None] = [None] * DEVICES
    for server_round in range(3):
        twin = together(state, model, where, server_round)
        total, noise, heads = alone(where, states, model, server_round)
        np.testing.assert_array_equal(twin.integers, total - noise)
        assert np.abs(twin.integers).sum() > 50
        for device, head in enumerate(heads):
            for name, value in head.items():
                np.testing.assert_allclose(twin.state[name][device], value, atol=1e-6, err_msg=f"{name} of {device}")
                assert not torch.equal(value, state[name][device])
        states, state = list(heads), twin.state
        where = where.with_learned(where.learned + 1e-4 * total.reshape(DIM, num_items).T)


def test_with_the_devices_own_noise_the_twin_sends_what_they_send():
    twin = together(fresh_state(table(), config(), DEVICES))
    total, noise, _ = alone(table(), [None] * DEVICES, "neumf", 0)
    ring = Ring(bits=TERMS.ring_bits)
    np.testing.assert_array_equal(ring.reduce(twin.integers + noise), ring.reduce(total))


def test_a_sample_that_rounds_again_is_the_same_on_either_path(monkeypatch: pytest.MonkeyPatch):
    decided: list[bool] = []
    fits = Quantiser.fits

    def refuse_now_and_then(self: Quantiser, integers: np.ndarray) -> np.ndarray:
        verdict = (integers.sum(axis=1) % 3 > 0) & fits(self, integers)
        decided.extend(verdict)
        return verdict

    monkeypatch.setattr(Quantiser, "fits", refuse_now_and_then)
    twin = together(fresh_state(table(), config(), DEVICES))
    total, noise, _ = alone(table(), [None] * DEVICES, "neumf", 0)
    np.testing.assert_array_equal(twin.integers, total - noise)
    assert not all(decided)


@pytest.mark.parametrize("values", [1, 300, 1 << 22])
def test_the_size_of_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch, values: int):
    state = fresh_state(table(), config(), DEVICES)
    expected = together(state)
    monkeypatch.setattr(batched_interaction, "_VALUES_PER_CHUNK", values)
    found = together(state)
    np.testing.assert_array_equal(found.integers, expected.integers)
    assert all(torch.equal(found.state[name], value) for name, value in expected.state.items())


def test_the_state_that_is_given_is_not_changed():
    state = fresh_state(table(), config(), DEVICES)
    before = {name: value.clone() for name, value in state.items()}
    together(state)
    assert all(torch.equal(state[name], value) for name, value in before.items())
    assert not any(value.requires_grad for value in state.values())


def test_only_the_most_recent_interactions_of_everybody_are_kept():
    window = recent(histories(), B)
    for device, count in enumerate(LENGTHS):
        np.testing.assert_array_equal(window.of(device), histories().of(device)[max(0, count - B) :])


def test_nobody_takes_part_and_nothing_is_summed():
    none = Histories(np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int32))
    state = fresh_state(table(), config(), 0)
    result = interaction_sum(table(), none, state, keys(0)[:0], [], config(), TERMS, interactions_per_round=B)
    assert not result.integers.any()
    assert not release_interactions(result.integers, 0, TERMS, WordStream(bytes(32), Purpose.NOISE)).any()


def test_popularity_is_the_sum_of_the_devices_without_their_noise():
    total = np.zeros(NUM_ITEMS, dtype=np.int64)
    for device in range(DEVICES):
        secret = secrets(0)[device]
        own = histories().of(device)
        sent = popularity_interactions(own, NUM_ITEMS, TERMS, interactions_per_round=B, secret=secret)
        noise = SkellamSampler(TERMS.share_variance).draw(NUM_ITEMS, WordStream(secret, Purpose.NOISE))
        total += Ring(bits=TERMS.ring_bits).centre(sent) - noise
    found = popularity_interaction_sum(histories(), NUM_ITEMS, TERMS, interactions_per_round=B)
    np.testing.assert_array_equal(found, total)
    assert found.sum() == TERMS.sensitivity * sum(min(count, B) for count in LENGTHS)


def test_a_repeated_item_counts_once_a_device():
    twice = Histories(np.array([0, 3, 5]), np.array([4, 1, 4, 4, 4], dtype=np.int32))
    found = popularity_interaction_sum(twice, 6, TERMS, interactions_per_round=B)
    assert (found // TERMS.sensitivity).tolist() == [0, 1, 0, 0, 2, 0]


@pytest.mark.parametrize("at_once", [1 << 40, 3 * TERMS.share_variance])
def test_noise_of_all_devices_has_the_sum_of_their_variances(monkeypatch: pytest.MonkeyPatch, at_once: int):
    monkeypatch.setattr(batched_interaction, "MAX_VARIANCE", at_once)
    signal = np.arange(20_000, dtype=np.int64)
    sent = release_interactions(signal, 10, TERMS, WordStream(bytes(32), Purpose.NOISE))
    noise = Ring(bits=TERMS.ring_bits).centre(sent) - signal
    assert noise.var() == pytest.approx(10 * TERMS.share_variance, rel=5 * math.sqrt(2 / 20_000))
    assert abs(noise.mean()) < 5 * math.sqrt(10 * TERMS.share_variance / 20_000)
    assert signal[-1] == 19_999


def test_a_head_that_is_not_finite_releases_nothing():
    state = fresh_state(table(), config("gmf"), DEVICES)
    state["user.weight"][4, 0, 0] = math.nan
    with pytest.raises(PrivacyError, match="not finite"):
        together(state, "gmf")


def test_a_missing_secret_an_unbounded_round_and_the_closed_form_are_refused():
    state = fresh_state(table(), config(), DEVICES)
    arguments = [table(), histories(), state, keys(0)]
    with pytest.raises(PrivacyError, match="6 secrets"):
        interaction_sum(*arguments, secrets(0)[1:], config(), TERMS, interactions_per_round=B)
    with pytest.raises(PrivacyError, match="at least 1"):
        interaction_sum(*arguments, secrets(0), config(), TERMS, interactions_per_round=0)
    whole = LocalTraining(model="neumf", objective="whole")
    with pytest.raises(ConfigError, match="cannot protect single interactions"):
        interaction_sum(*arguments, secrets(0), whole, TERMS, interactions_per_round=B)
