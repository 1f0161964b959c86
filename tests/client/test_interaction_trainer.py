from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from palate.client import interaction_trainer
from palate.client.interaction_optimizer import InteractionOptimizer
from palate.client.interaction_trainer import (
    InteractionRelease,
    interaction_samples,
    popularity_interactions,
    sample_layout,
    serve_scores,
    train_interactions,
)
from palate.client.trainer import LocalModel, score_catalogue
from palate.errors import ConfigError
from palate.models.scores.base import Shape, State
from palate.models.scores.modules import build
from palate.models.scores.registry import SCORE_MODELS
from palate.models.table import ItemTable, initial_embeddings
from palate.models.training import LocalTraining
from palate.privacy.errors import PrivacyError
from palate.privacy.integer.csprng import Purpose, WordStream
from palate.privacy.integer.ring import Ring
from palate.privacy.integer.skellam import SkellamSampler
from palate.privacy.mechanisms.interaction import quantise_samples, sum_items
from palate.privacy.mechanisms.terms import ReleaseTerms

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook")

NUM_ITEMS, FIXED_DIM, DIM, B = 50, 3, 4, 12
MODELS = sorted(name for name, model in SCORE_MODELS.items() if "bce" in model.objectives)
KEY = np.uint64(77)
TERMS = ReleaseTerms(clip_norm=0.3, sensitivity=256, share_variance=90_000, honest_shares=1, roster_size=100)
SECRET = bytes(range(32))


def config(model: str = "neumf", **changes: Any) -> LocalTraining:
    return LocalTraining(model=model, objective="bce", **{"hidden": 3, "negatives": 5, "learning_rate": 0.4} | changes)


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


def run(items: np.ndarray, state: State | None = None, model: str = "neumf", **changes: Any) -> InteractionRelease:
    arguments = {"interactions_per_round": B, "key": KEY, "secret": SECRET, "terms": TERMS} | changes
    terms = arguments.pop("terms")
    training = arguments.pop("training", config(model))
    return train_interactions(arguments.pop("table", table()), items, state, training, terms, **arguments)


@dataclass
class Seen:
    """What went into the last step: clipped descent directions, and their integers, [N, size] each."""

    clipped: np.ndarray
    integers: np.ndarray


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    record = Seen(np.zeros(0), np.zeros(0))
    add_noise = InteractionOptimizer.add_noise

    def watch(self: InteractionOptimizer) -> None:
        record.clipped = self._clipped.copy()
        add_noise(self)
        record.integers = self.integers

    monkeypatch.setattr(InteractionOptimizer, "add_noise", watch)
    return record


def reference(items: np.ndarray, state: State, model: str, where: ItemTable, training: LocalTraining) -> np.ndarray:
    """Clipped descent direction of each interaction, by one backward pass each, float64 [N, size]."""
    samples = interaction_samples(np.array([KEY]), items, negatives=training.negatives, num_items=where.num_items).items
    rows = []
    for sample in samples:
        scorer = build(model, "bce", Shape(fixed_dim=FIXED_DIM, dim=DIM, hidden=3))
        scorer.load_state_dict(state)
        whole = LocalModel(where, scorer).double()
        distinct = list(dict.fromkeys(sample.tolist()))  # the positive, then each other item once
        scores = whole(torch.tensor(distinct))
        loss = functional.softplus(-scores[0]) + functional.softplus(scores[1:]).sum()
        loss.backward()
        gradient = [value.grad.reshape(-1).numpy() for value in scorer.parameters()]
        slots = np.zeros((len(sample), DIM))
        for item in distinct:
            slots[sample.tolist().index(item)] = whole.item.weight.grad[item].numpy()
        joint = -np.concatenate([*gradient, slots.reshape(-1)])
        rows.append(joint * min(1.0, TERMS.clip_norm / (np.linalg.norm(joint) + 1e-6)))
    return np.array(rows)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("num_items", [4, NUM_ITEMS])
def test_opacus_clips_each_interaction_as_the_formula_says(seen: Seen, model: str, num_items: int):
    items, state, where = history(4, num_items), head(model), table(num_items)
    run(items, state, model, table=where)
    expected = reference(items, state, model, where, config(model))
    np.testing.assert_allclose(seen.clipped, expected, atol=1e-7)
    norms = np.linalg.norm(expected, axis=1)
    assert norms.max() == pytest.approx(TERMS.clip_norm, rel=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_what_leaves_is_the_sum_of_integers_and_noise_from_the_secret(seen: Seen, model: str):
    items = history(7)
    released = run(items, head(model), model)
    layout = sample_layout(config(model), fixed_dim=FIXED_DIM, dim=DIM)
    np.testing.assert_array_equal(seen.integers, quantise_samples(seen.clipped, layout.quantiser(TERMS), SECRET))
    samples = interaction_samples(np.array([KEY]), items, negatives=5, num_items=NUM_ITEMS)
    noise = WordStream(SECRET, Purpose.NOISE)
    SkellamSampler(TERMS.share_variance).draw(layout.head_size, noise)  # the head's come first
    expected = sum_items(layout.item_part(seen.integers), samples.items, NUM_ITEMS)
    expected += SkellamSampler(TERMS.share_variance).draw(DIM * NUM_ITEMS, noise)
    np.testing.assert_array_equal(released.vector, Ring(bits=32).reduce(expected))


@pytest.mark.parametrize("model", MODELS)
def test_the_head_descends_by_its_noisy_integers_over_a_public_divisor(seen: Seen, model: str):
    state = head(model)
    training = config(model, weight_decay=0.1)
    released = run(history(5), state, model, training=training)
    layout = sample_layout(training, fixed_dim=FIXED_DIM, dim=DIM)
    noise = SkellamSampler(TERMS.share_variance).draw(layout.head_size, WordStream(SECRET, Purpose.NOISE))
    step = layout.quantiser(TERMS).decode(layout.head_part(seen.integers) + noise) / B
    before = torch.cat([value.reshape(-1) for value in state.values()]).numpy()
    after = torch.cat([value.reshape(-1) for value in released.state.values()]).numpy()
    np.testing.assert_allclose(after, before + 0.4 * (step - 0.1 * before), atol=1e-6)
    assert list(released.state) == list(state)


@pytest.mark.parametrize("model", MODELS)
def test_one_interaction_moves_the_integers_by_at_most_the_sensitivity_in_every_round(seen: Seen, model: str):
    items, where = history(9), table()
    for server_round in range(3):  # the transcript is the same in both worlds: tables and noised heads
        state = head(model, seed=server_round)
        worlds = []
        for world in (items, items[:-1]):  # any interaction may be the last; the others then round alike
            run(world, state, model, table=where, key=np.uint64(server_round))
            layout = sample_layout(config(model), fixed_dim=FIXED_DIM, dim=DIM)
            samples = interaction_samples(np.array([server_round], np.uint64), world, negatives=5, num_items=NUM_ITEMS)
            in_table = sum_items(layout.item_part(seen.integers), samples.items, NUM_ITEMS)
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
    np.testing.assert_array_equal(whole.vector, recent.vector)
    assert (run(items[:-1]).vector != whole.vector).any()


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
    layout = sample_layout(config(model), fixed_dim=FIXED_DIM, dim=DIM)
    noise = SkellamSampler(TERMS.share_variance).draw(layout.head_size, WordStream(SECRET, Purpose.NOISE))
    moved = torch.cat([(released.state[name] - state[name]).reshape(-1) for name in state]).numpy()
    np.testing.assert_allclose(moved, 0.4 * layout.quantiser(TERMS).decode(noise) / B, atol=1e-5)
    values = Ring(bits=32).centre(released.vector)
    assert values.std() == pytest.approx(math.sqrt(TERMS.share_variance), rel=5 / math.sqrt(2 * len(values)))


def test_noise_has_its_full_variance_in_the_head_and_on_every_item(seen: Seen):
    items, training = history(5), config("linear")
    layout = sample_layout(training, fixed_dim=FIXED_DIM, dim=DIM)
    samples = interaction_samples(np.array([KEY]), items, negatives=5, num_items=NUM_ITEMS)
    heads, vectors = [], []
    state = head("linear")
    before = torch.cat([value.reshape(-1) for value in state.values()]).numpy()
    for trial in range(60):
        released = run(items, state, "linear", training=training, secret=trial.to_bytes(32, "big"))
        after = torch.cat([value.reshape(-1) for value in released.state.values()]).numpy()
        steps = (after - before) * B / 0.4 * layout.quantiser(TERMS).scale
        heads.append(steps - layout.head_part(seen.integers))
        in_table = sum_items(layout.item_part(seen.integers), samples.items, NUM_ITEMS)
        vectors.append(Ring(bits=32).centre(released.vector) - in_table)
    for noise in (np.array(heads), np.array(vectors)):
        assert noise.var() == pytest.approx(TERMS.share_variance, rel=5 * math.sqrt(2 / noise.size))
        assert abs(noise.mean()) < 5 * math.sqrt(TERMS.share_variance / noise.size)
    touched = np.zeros((DIM, NUM_ITEMS), dtype=bool)
    touched[:, samples.items] = True
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
        scores = LocalModel(which, scorer)(torch.from_numpy(samples.items.astype(np.int64)))
        each = functional.softplus(scores) * torch.from_numpy(samples.real)
        each[:, 0] = functional.softplus(-scores[:, 0])
        return float(each.sum().detach())

    released = run(items, state, model, terms=quiet)
    scale = sample_layout(config(model), fixed_dim=FIXED_DIM, dim=DIM).quantiser(quiet).scale
    direction = Ring(bits=32).centre(released.vector).reshape(DIM, NUM_ITEMS).T / scale
    assert loss(where, released.state) < loss(where, state)
    assert loss(where.with_learned(where.learned + 0.1 * direction), state) < loss(where, state)


def test_negatives_come_from_the_whole_catalogue_and_repeats_do_not_count():
    items = np.arange(3, dtype=np.int32)
    drawn = [interaction_samples(np.array([key], np.uint64), items, negatives=4, num_items=3) for key in range(100)]
    seen_items = np.concatenate([each.items[:, 1:].reshape(-1) for each in drawn])
    assert np.bincount(seen_items, minlength=3).min() > 300  # positives among them
    for each in drawn:
        for sample, real in zip(each.items.tolist(), each.real.tolist(), strict=True):
            assert real == [item not in sample[:place] for place, item in enumerate(sample)]


def test_negatives_of_an_interaction_stay_when_another_goes():
    items = history(10)
    whole = interaction_samples(np.array([KEY]), items, negatives=4, num_items=NUM_ITEMS).items
    fewer = interaction_samples(np.array([KEY]), np.delete(items, 3), negatives=4, num_items=NUM_ITEMS).items
    np.testing.assert_array_equal(fewer, np.delete(whole, 3, axis=0))
    other = interaction_samples(np.array([KEY + np.uint64(1)]), items, negatives=4, num_items=NUM_ITEMS).items
    assert (other[:, 1:] != whole[:, 1:]).mean() > 0.9


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_head_that_is_not_finite_releases_nothing(bad: float):
    state = head("gmf")
    state["user.weight"][0, 0] = bad
    with pytest.raises(PrivacyError, match="not finite"):
        run(history(5), state, "gmf")


def test_the_largest_finite_heads_and_tables_do_not_overflow():
    state = {name: torch.full_like(value, 1e38) for name, value in head("neumf").items()}
    released = run(history(5), state, "neumf", table=table().with_learned(np.full((NUM_ITEMS, DIM), -1e38)))
    assert released.vector.any()


def test_the_closed_form_cannot_protect_interactions():
    with pytest.raises(ConfigError, match="cannot protect single interactions"):
        run(history(5), training=LocalTraining(model="gmf", objective="whole"))


def test_a_bound_on_interactions_is_needed():
    with pytest.raises(PrivacyError, match="at least 1"):
        run(history(5), interactions_per_round=0)


def test_popularity_counts_the_most_recent_interactions_and_adds_noise():
    items = history(30)
    sent = popularity_interactions(items, NUM_ITEMS, TERMS, interactions_per_round=B, secret=SECRET)
    noise = SkellamSampler(TERMS.share_variance).draw(NUM_ITEMS, WordStream(SECRET, Purpose.NOISE))
    expected = np.zeros(NUM_ITEMS, dtype=np.int64)
    expected[items[-B:]] = TERMS.sensitivity
    np.testing.assert_array_equal(Ring(bits=32).centre(sent) - noise, expected)


@pytest.mark.parametrize("model", MODELS)
def test_recommendations_come_from_a_personal_copy_in_closed_form(model: str):
    served = serve_scores(table(), history(9), config(model))
    closed = LocalTraining(model="gmf" if model == "mlp" else model, objective="whole", hidden=3)
    np.testing.assert_array_equal(served, score_catalogue(table(), history(9), None, closed))
    assert served[history(9)].mean() > served.mean() + 0.01


def test_nothing_private_is_printed():
    assert repr(run(history(5))) == "InteractionRelease()"


def test_gradients_are_used_once():
    weight, rows = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(3, 2))
    weight.grad_sample, rows.grad_sample = torch.ones(4, 2), torch.ones(4, 3, 2)
    optimiser = InteractionOptimizer(
        torch.optim.SGD([weight, rows], lr=1.0),
        slots=np.tile(np.arange(3), (4, 1)),
        real=np.ones((4, 3), dtype=bool),
        layout=interaction_trainer.SampleLayout(head_size=2, slots=3, dim=2),
        terms=TERMS,
        interactions_per_round=B,
        secret=SECRET,
        noise=WordStream(SECRET, Purpose.NOISE),
    )
    with pytest.raises(PrivacyError, match="no step"):
        _ = optimiser.integers
    with pytest.raises(PrivacyError, match="no clipped gradients"):
        optimiser.add_noise()
    optimiser.step()
    with pytest.raises(ValueError, match="zero_grad"):
        optimiser.step()
    with pytest.raises(PrivacyError, match="no clipped gradients"):
        optimiser.add_noise()
    assert not rows.detach().any()
