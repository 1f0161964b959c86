"""Runs at units interaction and both: every path learns the same, heads stay noised, two budgets for one release."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle.device import score_catalogue

from palate.errors import ConfigError
from palate.models.scores.registry import serving_training
from palate.models.table import ItemTable, initial_embeddings
from palate.privacy.integer.skellam import SkellamSampler
from palate.simulation.finished import open_finished
from palate.simulation.host import read_heads
from palate.simulation.seeding import table_rng

LOUD: dict[str, Any] = {
    "epsilon": 900.0,
    "shards": 2,
    "training": {"objective": "bce", "learning_rate": 0.5},
    "privacy": {"noise": "seeded", "clip_norm": 0.5, "interactions_per_round": 6, "popularity_interactions": 8},
    "optimiser": {"name": "average", "step_size": 1.0},
    "schedule": {"rounds": 2},
}
"""Hardly any noise, made from the seed, histories longer than the bounds, and a server that amplifies nothing."""


@pytest.fixture
def silent(monkeypatch) -> None:
    """Noise of zeros, on heads and items, on devices and in shards alike."""
    monkeypatch.setattr(SkellamSampler, "draw", lambda self, count, words: np.zeros(count, dtype=np.int64))


@pytest.fixture
def unaccounted(monkeypatch) -> None:
    """Leave the independent accountants out: they take seconds, and one run below asks them."""
    monkeypatch.setattr("palate.simulation.session.guarantee_of", lambda *_: None)


def with_model(settings, model: str, **changes: Any):
    return settings(**{**LOUD, "training": {**LOUD["training"], "model": model}, **changes})


@pytest.mark.parametrize("unit", ["interaction", "both"])
@pytest.mark.parametrize("model", ["gmf", "linear", "mlp", "neumf", "sequential"])
def test_devices_one_by_one_and_shards_learn_the_same_table_but_for_noise(
    tmp_path, settings, run, silent, unaccounted, tables, model, unit
):
    one, many = tmp_path / "devices" / "run", tmp_path / "shards" / "run"
    run(with_model(settings, model, unit=unit, engine="devices"), one)
    run(with_model(settings, model, unit=unit), many)
    start = initial_embeddings(40, 4, scale=0.1, rng=table_rng(1))
    assert np.abs(tables(many)["learned"] - start).max() > 1e-3
    for block in ("learned", "fixed", "popularity"):
        np.testing.assert_allclose(tables(one)[block], tables(many)[block], atol=2e-6)


@pytest.mark.parametrize("unit", ["interaction", "both"])
def test_a_code_from_a_whole_history_is_refused_where_single_interactions_are_protected(settings, unit):
    with pytest.raises(ConfigError, match="'autoencoder' cannot be trained with objective 'bce'"):
        with_model(settings, "autoencoder", unit=unit)


def test_a_popularity_round_counts_each_of_the_most_recent_interactions_once(
    tmp_path, settings, run, silent, unaccounted, tables
):
    config = with_model(settings, "gmf", unit="interaction")
    run(config, tmp_path)
    train = open_finished(tmp_path).split.train
    recent = np.concatenate([train.of(user)[-8:] for user in range(train.num_users)])
    assert train.lengths.max() > 8
    np.testing.assert_allclose(tables(tmp_path)["popularity"], np.bincount(recent, minlength=40), atol=1e-4)


def test_both_charges_a_person_and_an_interaction_for_one_release(tmp_path, settings, run, unaccounted, rounds_charged):
    run(with_model(settings, "gmf", unit="both"), tmp_path)
    charged = rounds_charged(tmp_path)
    owners = ["server", *(f"device-{user:06d}" for user in range(36))]
    assert set(charged) == {*owners, *(f"{owner}.interaction" for owner in owners)}
    assert set(map(tuple, charged.values())) == {(0, 1, 2)}


def test_interaction_keeps_one_ledger_a_device_whose_own_noise_is_all_that_counts(
    tmp_path, settings, run, unaccounted, books
):
    run(with_model(settings, "gmf", unit="interaction"), tmp_path)
    states = books(tmp_path)
    assert set(states) == {"server.interaction", *(f"device-{user:06d}.interaction" for user in range(36))}
    assert {state.policy.unit for state in states.values()} == {"interaction"}


def test_a_guarantee_of_both_keeps_both_targets_and_only_the_persons_rests_on_others(tmp_path, settings, run):
    privacy = {**LOUD["privacy"], "noise": "secret", "interaction_epsilon": 6.0}
    found = run(with_model(settings, "gmf", unit="both", epsilon=3.0, privacy=privacy), tmp_path)["guarantee"]
    (alone,) = found["further"]
    assert (found["unit"], alone["unit"]) == ("user", "interaction")
    assert 0 < found["epsilon"] <= 3.0
    assert 0 < alone["epsilon"] <= 6.0
    assert max(found["epsilon"] / 3.0, alone["epsilon"] / 6.0) > 0.5  # one of the two decided the noise
    assert any("secure aggregation" in assumption for assumption in found["assumptions"])
    assert not any("secure aggregation" in assumption for assumption in alone["assumptions"])
    assert (found["local"] is None, alone["local"] is None) == (False, True)


def test_heads_on_disk_are_noised_and_what_recommends_is_a_copy_that_owes_them_nothing(
    tmp_path, settings, run, unaccounted, monkeypatch
):
    noised, silent = tmp_path / "noised" / "run", tmp_path / "silent" / "run"
    config = with_model(settings, "gmf", unit="interaction", epsilon=2.0)
    run(config, noised)
    finished = open_finished(noised)
    table, full = finished.table, finished.split.full_train
    for user in (0, 17, 35):
        serving = serving_training(config.training, noised_head=True)
        expected = score_catalogue(ItemTable(table.fixed, table.learned), full.of(user), None, serving)
        np.testing.assert_allclose(finished.scorer.scores(np.array([user], np.int32))[0], expected, atol=1e-4)
    monkeypatch.setattr(SkellamSampler, "draw", lambda self, count, words: np.zeros(count, dtype=np.int64))
    run(config, silent)
    with_noise, without = (read_heads(folder / "devices", 0, 2) for folder in (noised, silent))
    for name, value in with_noise.items():
        assert torch.isclose(value, without[name], atol=1e-4).float().mean() < 0.05, name


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"training": {"objective": "whole"}}, "objective 'whole'"),
        ({"privacy": {"evaluation_share": 0.1}}, "metrics"),
        ({"privacy": {"interactions_per_round": 0}}, "interactions_per_round"),
    ],
)
def test_what_single_interactions_cannot_be_protected_with_is_refused(settings, changes, words):
    with pytest.raises(ConfigError, match=words):
        settings(unit="both", **{**{"training": {"objective": "bce"}}, **changes})


def test_a_finished_folder_holds_no_key_of_the_noise(tmp_path: Path, settings, run, unaccounted):
    run(with_model(settings, "linear", unit="interaction"), tmp_path)
    assert not (tmp_path / "noise.key").exists()
