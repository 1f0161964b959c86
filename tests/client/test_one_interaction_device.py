from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from oracle.device import LocalModel, score_catalogue
from oracle.interactions import descents
from oracle.modules import build
from torch.nn import functional

from palate.client.interaction_release import InteractionSum, popularity_interaction_sum
from palate.client.opacus_release import SkellamOptimizer, interaction_sum
from palate.client.release import release_sum
from palate.errors import ConfigError
from palate.models.histories import Histories
from palate.models.learning.interactions import SampleLayout, first_slots, interaction_samples, sample_layout
from palate.models.learning.kernel import fresh_heads
from palate.models.scores.base import Shape, State
from palate.models.scores.registry import SCORE_MODELS, serving_training
from palate.models.table import ItemTable, initial_embeddings
from palate.models.training import LocalTraining
from palate.privacy.errors import PrivacyError
from palate.privacy.integer.csprng import Purpose, WordStream
from palate.privacy.integer.quantise import Quantiser, quantise_samples
from palate.privacy.integer.ring import Ring
from palate.privacy.integer.skellam import SkellamSampler
from palate.privacy.mechanisms.terms import ReleaseTerms

NUM_ITEMS, FIXED_DIM, DIM, B = 50, 3, 4, 12
MODELS = sorted(name for name, model in SCORE_MODELS.items() if "bce" in model.objectives)
KEY = np.uint64(77)
TERMS = ReleaseTerms(clip_norm=0.3, sensitivity=256, share_variance=90_000, honest_shares=1, roster_size=100)
SECRET = bytes(range(32))


def config(model: str = "neumf", **changes: Any) -> LocalTraining:
    fields = {"objective": "bce", "hidden": 3, "negatives": 5, "learning_rate": 0.4}
    return LocalTraining(model=model, **(fields | changes))


def table(num_items: int = NUM_ITEMS) -> ItemTable:
    rng = np.random.default_rng(3)
    fixed = rng.normal(size=(num_items, FIXED_DIM)).astype(np.float32)
    return ItemTable(fixed, initial_embeddings(num_items, DIM, scale=0.5, rng=rng))


def history(count: int, num_items: int = NUM_ITEMS) -> np.ndarray:
    return np.random.default_rng(6).permutation(num_items)[:count].astype(np.int32)


def head(model: str, seed: int = 0) -> State:
    """A head as a noisy round may have left it."""
    rng = np.random.default_rng(seed)
    start = build(model, "bce", Shape(fixed_dim=FIXED_DIM, dim=DIM, hidden=3)).state_dict()
    return {name: torch.from_numpy(rng.normal(0, 0.7, value.shape).astype(np.float32)) for name, value in start.items()}


def run(items: np.ndarray, state: State | None = None, model: str = "neumf", **changes: Any) -> InteractionSum:
    arguments = {"interactions_per_round": B, "key": KEY, "secret": SECRET, "terms": TERMS} | changes
    where, training = arguments.pop("table", table()), arguments.pop("training", config(model))
    heads = fresh_heads(where, training, 1) if state is None else {name: value[None] for name, value in state.items()}
    keys = np.full(1, arguments.pop("key"), dtype=np.uint64)
    secret, terms = arguments.pop("secret"), arguments.pop("terms")
    return interaction_sum(where, Histories.of_one(items), heads, keys, secret, training, terms, **arguments)


def layout_of(training: LocalTraining) -> SampleLayout:
    return sample_layout(training, fixed_dim=FIXED_DIM, dim=DIM)


def quantiser_of(training: LocalTraining, terms: ReleaseTerms = TERMS) -> Quantiser:
    return terms.mechanism(layout_of(training).size).quantiser


@dataclass
class Seen:
    """What went into the last step: clipped descent directions, and their integers, [N, size] each."""

    clipped: np.ndarray
    integers: np.ndarray


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    record = Seen(np.zeros(0), np.zeros(0))

    def watch(samples: np.ndarray, quantiser: Quantiser, key: bytes) -> np.ndarray:
        record.clipped, record.integers = samples.copy(), quantise_samples(samples, quantiser, key)
        return record.integers

    monkeypatch.setattr("palate.client.opacus_release.quantise_samples", watch)
    return record


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("num_items", [4, NUM_ITEMS])
def test_opacus_clips_each_interaction_as_the_formula_says(seen: Seen, model: str, num_items: int):
    items, state, where = history(4, num_items), head(model), table(num_items)
    run(items, state, model, table=where)
    drawn = interaction_samples(np.array([KEY]), items, negatives=5, num_items=num_items)
    expected = descents(where, drawn, state, config(model), clip_norm=TERMS.clip_norm)
    np.testing.assert_allclose(seen.clipped, expected, atol=1e-7)
    norms = np.linalg.norm(expected, axis=1)
    assert norms.max() == pytest.approx(TERMS.clip_norm, rel=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_what_leaves_is_the_sum_of_integers_and_noise_from_the_secret(seen: Seen, model: str):
    items = history(7)
    released = run(items, head(model), model)
    layout = layout_of(config(model))
    np.testing.assert_array_equal(seen.integers, quantise_samples(seen.clipped, quantiser_of(config(model)), SECRET))
    samples = interaction_samples(np.array([KEY]), items, negatives=5, num_items=NUM_ITEMS)
    noise = WordStream(SECRET, Purpose.NOISE)
    SkellamSampler(TERMS.share_variance).draw(layout.head_size, noise)  # the head's come first
    expected = layout.item_sum(seen.integers, samples, NUM_ITEMS)
    expected += SkellamSampler(TERMS.share_variance).draw(DIM * NUM_ITEMS, noise)
    np.testing.assert_array_equal(released.integers, expected)


@pytest.mark.parametrize("model", MODELS)
def test_the_head_descends_by_its_noisy_integers_over_a_public_divisor(seen: Seen, model: str):
    state = head(model)
    training = config(model, weight_decay=0.1)
    released = run(history(5), state, model, training=training)
    layout = layout_of(training)
    noise = SkellamSampler(TERMS.share_variance).draw(layout.head_size, WordStream(SECRET, Purpose.NOISE))
    step = quantiser_of(training).decode(layout.head_part(seen.integers) + noise) / B
    before = torch.cat([value.reshape(-1) for value in state.values()]).numpy()
    after = torch.cat([value.reshape(-1) for value in released.heads.values()]).numpy()
    np.testing.assert_allclose(after, before + 0.4 * (step - 0.1 * before), atol=1e-6)
    assert list(released.heads) == list(state)


@pytest.mark.parametrize("model", MODELS)
def test_one_interaction_moves_the_integers_by_at_most_the_sensitivity_in_every_round(seen: Seen, model: str):
    items, where = history(9), table()
    for server_round in range(3):  # the transcript is the same in both worlds: tables and noised heads
        state = head(model, seed=server_round)
        worlds = []
        for world in (items, items[:-1]):  # any interaction may be the last; the others then round alike
            run(world, state, model, table=where, key=np.uint64(server_round))
            layout = layout_of(config(model))
            samples = interaction_samples(np.array([server_round], np.uint64), world, negatives=5, num_items=NUM_ITEMS)
            in_table = layout.item_sum(seen.integers, samples, NUM_ITEMS)
            worlds.append(np.concatenate([layout.head_part(seen.integers), in_table]))
        distance = math.sqrt(((worlds[0] - worlds[1]) ** 2).sum())
        assert 0.9 * TERMS.sensitivity < distance <= TERMS.sensitivity
        where = where.with_learned(where.learned * np.float32(1.1))


@pytest.mark.parametrize("model", MODELS)
def test_the_contribution_of_an_interaction_does_not_depend_on_the_others(seen: Seen, model: str):
    items, state = history(9), head(model)
    run(items, state, model)
    together = seen.clipped
    run(items[::-1].copy(), state, model)
    np.testing.assert_allclose(seen.clipped[::-1], together, atol=1e-7)
    for place in range(9):
        run(items[place : place + 1], state, model)
        np.testing.assert_allclose(seen.clipped[0], together[place], atol=1e-7)


def test_only_the_most_recent_interactions_take_part(seen: Seen):
    items = history(30)
    whole, recent = run(items), run(items[-B:])
    assert len(seen.integers) == B
    np.testing.assert_array_equal(whole.integers, recent.integers)
    assert (run(items[:-1]).integers != whole.integers).any()


@pytest.mark.parametrize("model", MODELS)
def test_a_persons_integers_never_exceed_b_times_the_sensitivity(seen: Seen, model: str):
    steep = replace(table(), learned=np.full((NUM_ITEMS, DIM), 40.0, np.float32))  # all gradients alike, far beyond C
    run(history(40), head(model), model, table=steep)
    assert (np.square(seen.integers).sum(axis=1) <= TERMS.sensitivity**2).all()
    assert math.sqrt((seen.integers.sum(axis=0) ** 2).sum()) <= B * TERMS.sensitivity


@pytest.mark.parametrize("model", MODELS)
def test_a_device_without_interactions_releases_noise_like_any_other(model: str):
    state = head(model)
    released = run(history(0), state, model)
    layout = layout_of(config(model))
    noise = SkellamSampler(TERMS.share_variance).draw(layout.head_size, WordStream(SECRET, Purpose.NOISE))
    moved = torch.cat([(released.heads[name][0] - state[name]).reshape(-1) for name in state]).numpy()
    np.testing.assert_allclose(moved, 0.4 * quantiser_of(config(model)).decode(noise) / B, atol=1e-5)
    values = released.integers
    assert values.std() == pytest.approx(math.sqrt(TERMS.share_variance), rel=5 / math.sqrt(2 * len(values)))


def test_noise_has_its_full_variance_in_the_head_and_on_every_item(seen: Seen):
    items, training = history(5), config("linear")
    layout = layout_of(training)
    samples = interaction_samples(np.array([KEY]), items, negatives=5, num_items=NUM_ITEMS)
    heads, vectors = [], []
    state = head("linear")
    before = torch.cat([value.reshape(-1) for value in state.values()]).numpy()
    for trial in range(60):
        released = run(items, state, "linear", training=training, secret=trial.to_bytes(32, "big"))
        after = torch.cat([value.reshape(-1) for value in released.heads.values()]).numpy()
        steps = (after - before) * B / 0.4 * quantiser_of(training).scale
        heads.append(steps - layout.head_part(seen.integers))
        in_table = layout.item_sum(seen.integers, samples, NUM_ITEMS)
        vectors.append(released.integers - in_table)
    for noise in (np.array(heads), np.array(vectors)):
        assert noise.var() == pytest.approx(TERMS.share_variance, rel=5 * math.sqrt(2 / noise.size))
        assert abs(noise.mean()) < 5 * math.sqrt(TERMS.share_variance / noise.size)
    touched = np.zeros((DIM, NUM_ITEMS), dtype=bool)
    touched[:, samples] = True
    for part in (np.array(vectors)[:, touched.reshape(-1)], np.array(vectors)[:, ~touched.reshape(-1)]):
        assert part.var() == pytest.approx(TERMS.share_variance, rel=5 * math.sqrt(2 / part.size))


@pytest.mark.parametrize("model", MODELS)
def test_head_and_items_move_downhill(model: str):
    quiet = ReleaseTerms(clip_norm=0.3, sensitivity=1 << 14, share_variance=1, honest_shares=1, roster_size=1)
    items, where, state = history(10), table(), head(model)
    samples = interaction_samples(np.array([KEY]), items, negatives=5, num_items=NUM_ITEMS)

    def loss(which: ItemTable, with_head: State) -> float:
        scorer = build(model, "bce", Shape(fixed_dim=FIXED_DIM, dim=DIM, hidden=3))
        scorer.load_state_dict(with_head)
        scores = LocalModel(which, scorer)(torch.from_numpy(samples.astype(np.int64)))
        each = functional.softplus(scores) * torch.from_numpy(first_slots(samples))
        each[:, 0] = functional.softplus(-scores[:, 0])
        return float(each.sum().detach())

    released = run(items, state, model, terms=quiet)
    scale = quantiser_of(config(model), quiet).scale
    direction = released.integers.reshape(DIM, NUM_ITEMS).T / scale
    assert loss(where, {name: value[0] for name, value in released.heads.items()}) < loss(where, state)
    assert loss(where.with_learned(where.learned + 0.1 * direction), state) < loss(where, state)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_head_that_is_not_finite_releases_nothing(bad: float):
    state = head("gmf")
    state["user.weight"][0, 0] = bad
    with pytest.raises(PrivacyError, match="not finite"):
        run(history(5), state, "gmf")


def test_the_largest_finite_heads_and_tables_do_not_overflow():
    state = {name: torch.full_like(value, 1e38) for name, value in head("neumf").items()}
    released = run(history(5), state, "neumf", table=table().with_learned(np.full((NUM_ITEMS, DIM), -1e38)))
    assert released.integers.any()


def test_the_closed_form_cannot_protect_interactions():
    with pytest.raises(ConfigError, match="cannot protect single interactions"):
        run(history(5), training=LocalTraining(model="gmf", objective="whole"))


def test_a_bound_on_interactions_is_needed():
    with pytest.raises(PrivacyError, match="at least 1"):
        run(history(5), interactions_per_round=0)


def test_a_device_adds_its_noise_to_its_popularity_part():
    counts = popularity_interaction_sum(Histories.of_one(history(30)), NUM_ITEMS, TERMS, interactions_per_round=B)
    sent = release_sum(counts, 1, TERMS.mechanism(len(counts)), WordStream(SECRET, Purpose.NOISE))
    noise = SkellamSampler(TERMS.share_variance).draw(NUM_ITEMS, WordStream(SECRET, Purpose.NOISE))
    expected = np.zeros(NUM_ITEMS, dtype=np.int64)
    expected[history(30)[-B:]] = TERMS.sensitivity
    np.testing.assert_array_equal(Ring(bits=32).centre(sent) - noise, expected)


@pytest.mark.parametrize("model", MODELS)
def test_recommendations_come_from_a_personal_copy_in_closed_form(model: str):
    serving = serving_training(config(model), noised_head=True)
    changes = {"objective": "whole"} | dict(SCORE_MODELS[model].serving)
    expected = config("gmf" if model == "mlp" else model, **changes)
    assert serving == expected
    served = score_catalogue(table(), history(9), None, serving)
    assert served[history(9)].mean() > served.mean() + 0.01


def test_nothing_private_is_printed():
    assert repr(run(history(5))) == "InteractionSum()"


def test_opacus_knows_clip_norm_and_noise_of_a_sample(monkeypatch: pytest.MonkeyPatch):
    made: list[SkellamOptimizer] = []
    pre_step = SkellamOptimizer.pre_step
    monkeypatch.setattr(SkellamOptimizer, "pre_step", lambda self: (made.append(self), pre_step(self))[1])
    run(history(5))
    assert [(each.max_grad_norm, each.noise_multiplier) for each in made] == [(0.3, 300 / 256)]
