from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from palate.client import interaction_release
from palate.client.interaction_release import (
    InteractionSum,
    interaction_sum,
    popularity_interaction_sum,
)
from palate.client.opacus_release import interaction_sum as device_sum
from palate.client.release import release_sum
from palate.errors import ConfigError
from palate.models.histories import Histories
from palate.models.learning.interactions import sample_layout
from palate.models.learning.kernel import fresh_heads
from palate.models.scores.base import State
from palate.models.scores.registry import SCORE_MODELS
from palate.models.table import ItemTable, initial_embeddings
from palate.models.training import LocalTraining
from palate.privacy.accounting.events import Unit
from palate.privacy.budget import events_of
from palate.privacy.errors import PrivacyError
from palate.privacy.integer import skellam
from palate.privacy.integer.csprng import Purpose, WordStream
from palate.privacy.integer.quantise import Quantiser
from palate.privacy.integer.ring import Ring
from palate.privacy.integer.skellam import SkellamSampler
from palate.privacy.mechanisms.terms import ReleaseTerms
from palate.privacy.wire import RoundPlan

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
        fresh = fresh_heads(where, config(model), 1)
        state = states[device]
        released = device_sum(
            where,
            Histories.of_one(histories(where.num_items).of(device)),
            fresh if state is None else state,
            keys(server_round)[device : device + 1],
            secret,
            config(model),
            TERMS,
            interactions_per_round=B,
        )
        words = WordStream(secret, Purpose.NOISE)
        SkellamSampler(TERMS.share_variance).draw(head_size, words)
        noise = noise + SkellamSampler(TERMS.share_variance).draw(len(total), words)
        total = total + released.integers
        kept.append(released.heads)
    return total, noise, kept


@pytest.mark.parametrize("num_items", [5, NUM_ITEMS])
@pytest.mark.parametrize("model", MODELS)
def test_devices_by_themselves_and_together_send_the_same_integers_and_keep_the_same_heads(model: str, num_items: int):
    where = table(num_items)
    state: State = fresh_heads(where, config(model), DEVICES)
    states: list[State | None] = [None] * DEVICES
    for server_round in range(3):
        shard = together(state, model, where, server_round)
        total, noise, heads = alone(where, states, model, server_round)
        np.testing.assert_array_equal(shard.integers, total - noise)
        assert np.abs(shard.integers).sum() > 50
        for device, head in enumerate(heads):
            for name, value in head.items():
                np.testing.assert_array_equal(shard.heads[name][device], value[0], err_msg=f"{name} of {device}")
                assert not torch.equal(value[0], state[name][device])
        states, state = list(heads), shard.heads
        where = where.with_learned(where.learned + 1e-4 * total.reshape(DIM, num_items).T)


def test_with_the_devices_own_noise_a_shard_sends_what_they_send():
    shard = together(fresh_heads(table(), config(), DEVICES))
    total, noise, _ = alone(table(), [None] * DEVICES, "neumf", 0)
    ring = Ring(bits=TERMS.ring_bits)
    np.testing.assert_array_equal(ring.reduce(shard.integers + noise), ring.reduce(total))


def test_a_sample_that_rounds_again_is_the_same_on_either_path(monkeypatch: pytest.MonkeyPatch):
    decided: list[bool] = []
    fits = Quantiser.fits

    def refuse_now_and_then(self: Quantiser, integers: np.ndarray) -> np.ndarray:
        verdict = (integers.sum(axis=1) % 3 > 0) & fits(self, integers)
        decided.extend(verdict)
        return verdict

    monkeypatch.setattr(Quantiser, "fits", refuse_now_and_then)
    shard = together(fresh_heads(table(), config(), DEVICES))
    total, noise, _ = alone(table(), [None] * DEVICES, "neumf", 0)
    np.testing.assert_array_equal(shard.integers, total - noise)
    assert not all(decided)


@pytest.mark.parametrize("values", [1, 300, 1 << 22])
def test_the_size_of_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch, values: int):
    state = fresh_heads(table(), config(), DEVICES)
    expected = together(state)
    monkeypatch.setattr(interaction_release, "_VALUES_PER_CHUNK", values)
    found = together(state)
    np.testing.assert_array_equal(found.integers, expected.integers)
    assert all(torch.equal(found.heads[name], value) for name, value in expected.heads.items())


def test_the_state_that_is_given_is_not_changed():
    state = fresh_heads(table(), config(), DEVICES)
    before = {name: value.clone() for name, value in state.items()}
    together(state)
    assert all(torch.equal(state[name], value) for name, value in before.items())
    assert not any(value.requires_grad for value in state.values())


def test_only_the_most_recent_interactions_of_everybody_are_kept():
    window = histories().latest(B)
    for device, count in enumerate(LENGTHS):
        np.testing.assert_array_equal(window.of(device), histories().of(device)[max(0, count - B) :])


def test_nobody_takes_part_and_nothing_is_summed():
    none = Histories(np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int32))
    state = fresh_heads(table(), config(), 0)
    result = interaction_sum(table(), none, state, keys(0)[:0], [], config(), TERMS, interactions_per_round=B)
    assert not result.integers.any()
    assert not release_sum(
        result.integers, 0, TERMS.mechanism(len(result.integers)), WordStream(bytes(32), Purpose.NOISE)
    ).any()


def counted(items: object, num_items: int, terms: ReleaseTerms) -> np.ndarray:
    """One device's part of the popularity sum."""
    own = Histories.of_one(np.asarray(items, dtype=np.int32))
    return popularity_interaction_sum(own, num_items, terms, interactions_per_round=1000)


def test_popularity_is_the_sum_of_the_devices_most_recent_interactions():
    expected = np.zeros(NUM_ITEMS, dtype=np.int64)
    for device in range(DEVICES):
        expected[histories().of(device)[-B:]] += TERMS.sensitivity
    found = popularity_interaction_sum(histories(), NUM_ITEMS, TERMS, interactions_per_round=B)
    np.testing.assert_array_equal(found, expected)
    assert found.sum() == TERMS.sensitivity * sum(min(count, B) for count in LENGTHS)


def test_an_item_of_a_device_counts_once_and_exactly():
    terms = replace(TERMS, clip_norm=1.0, sensitivity=100)
    integers = counted([2, 0, 2], 4, terms)
    assert (integers * terms.clip_norm / terms.sensitivity).tolist() == [1.0, 0.0, 1.0, 0.0]
    one_less = counted([2], 4, terms)
    assert math.sqrt(((integers - one_less) ** 2).sum()) == terms.sensitivity


@pytest.mark.parametrize("count", [1, 2, 10, 36])
def test_popular_items_of_a_person_stay_within_the_root_of_b_times_the_sensitivity(count: int):
    integers = counted(np.random.default_rng(count).permutation(40)[:count], 40, TERMS)
    learned = np.zeros((40, DIM), dtype=np.float32)
    asked = RoundPlan(
        run="run", server_round=1, purpose="train", unit="both", participation=1.0, training="{}",
        fixed=learned[:, :0], learned=learned, terms=TERMS, interactions_per_round=count,
    )  # fmt: skip
    bound = events_of(replace(asked, purpose="popularity"))[Unit.USER].sensitivity
    assert bound - 1 < math.sqrt((integers**2).sum()) <= bound
    assert bound <= events_of(asked)[Unit.USER].sensitivity == count * TERMS.sensitivity


def test_a_repeated_item_counts_once_a_device():
    twice = Histories(np.array([0, 3, 5]), np.array([4, 1, 4, 4, 4], dtype=np.int32))
    found = popularity_interaction_sum(twice, 6, TERMS, interactions_per_round=B)
    assert (found // TERMS.sensitivity).tolist() == [0, 1, 0, 0, 2, 0]


@pytest.mark.parametrize("at_once", [1 << 40, 3 * TERMS.share_variance])
def test_noise_of_all_devices_has_the_sum_of_their_variances(monkeypatch: pytest.MonkeyPatch, at_once: int):
    monkeypatch.setattr(skellam, "MAX_VARIANCE", at_once)
    signal = np.arange(20_000, dtype=np.int64)
    sent = release_sum(signal, 10, TERMS.mechanism(len(signal)), WordStream(bytes(32), Purpose.NOISE))
    noise = Ring(bits=TERMS.ring_bits).centre(sent) - signal
    assert noise.var() == pytest.approx(10 * TERMS.share_variance, rel=5 * math.sqrt(2 / 20_000))
    assert abs(noise.mean()) < 5 * math.sqrt(10 * TERMS.share_variance / 20_000)
    assert signal[-1] == 19_999


def test_a_head_that_is_not_finite_releases_nothing():
    state = fresh_heads(table(), config("gmf"), DEVICES)
    state["user.weight"][4, 0, 0] = math.nan
    with pytest.raises(PrivacyError, match="not finite"):
        together(state, "gmf")


def test_a_missing_secret_an_unbounded_round_and_the_closed_form_are_refused():
    state = fresh_heads(table(), config(), DEVICES)
    arguments = [table(), histories(), state, keys(0)]
    with pytest.raises(PrivacyError, match="6 secrets"):
        interaction_sum(*arguments, secrets(0)[1:], config(), TERMS, interactions_per_round=B)
    with pytest.raises(PrivacyError, match="at least 1"):
        interaction_sum(*arguments, secrets(0), config(), TERMS, interactions_per_round=0)
    whole = LocalTraining(model="neumf", objective="whole")
    with pytest.raises(ConfigError, match="cannot protect single interactions"):
        interaction_sum(*arguments, secrets(0), whole, TERMS, interactions_per_round=B)
