"""Runs at unit user: every path learns the same table, noise is what was announced, and the ledgers tell it all."""

from __future__ import annotations

import importlib.util
import json
import math
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle.device import score_catalogue

from palate.client.release import draw_candidates
from palate.models.learning.kernel import popularity_sum
from palate.models.scores.registry import SCORE_MODELS, serving_training
from palate.models.table import ItemTable, initial_embeddings
from palate.privacy.integer.quantise import IntegerMechanism
from palate.privacy.integer.ring import Ring
from palate.privacy.ledger.body import Intent, Outcome
from palate.privacy.ledger.verify import verify_book, verify_ledger
from palate.privacy.wire import NUM_METRICS, RoundPlan, WireError
from palate.server.coordinator import Coordinator
from palate.server.decoding import steps_per_unit
from palate.server.store import RunStore
from palate.simulation.host import DeviceNode, ShardHost
from palate.simulation.ledgers import make_keys
from palate.simulation.noise_keys import make_noise_key
from palate.simulation.prepare import prepare
from palate.simulation.seeding import device_keys, participants, survivors, table_rng

CASES = [(name, objective) for name, model in sorted(SCORE_MODELS.items()) for objective in sorted(model.objectives)]
SEEDED = {"noise": "seeded"}
LOUD = {
    "epsilon": 1e3,
    "privacy": {"noise": "seeded", "clip_norm": 0.05, "evaluation_share": 0.5},
    "optimiser": {"name": "average", "step_size": 1.0},
}
"""So little noise that what devices learn shows, made from the seed, and a server that does not amplify differences."""


@pytest.fixture
def unaccounted(monkeypatch) -> None:
    """Leave the independent accountants out: they take seconds, and one run below asks them."""
    monkeypatch.setattr("palate.simulation.session.guarantee_of", lambda *_: None)


@pytest.fixture
def silent(monkeypatch) -> None:
    """Noise of zeros, on devices and in shards alike."""
    monkeypatch.setattr(
        IntegerMechanism, "noise", lambda self, stream, shares=1: np.zeros(self.quantiser.size, np.int64)
    )


def protected(settings, **changes: Any):
    return settings(unit="user", **changes)


def plan_for(config, server_round: int = 1) -> RoundPlan:
    """A plan of a run, on a table that is not quite the starting one."""
    prepared = prepare(config)
    users, items = prepared.interactions.num_users, prepared.interactions.num_items
    start = initial_embeddings(items, config.schedule.dim, scale=0.3, rng=np.random.default_rng(1))
    settings = config.server_settings(run="r", population=users)
    plan = Coordinator(settings, prepared.content.columns, start).example_plans()[server_round > 0]
    return replace(plan, server_round=server_round)


def opened(folder: Path, config) -> Path:
    """A run folder that is ready for protected rounds."""
    folder.mkdir(parents=True, exist_ok=True)
    make_noise_key(folder, seed=config.seed)
    make_keys(folder)
    return folder


def summed(config, folder: Path, plan: RoundPlan) -> np.ndarray:
    """Sum of what the shards of a new run send, read as signed integers."""
    prepared = prepare(config)
    opened(folder, config)
    hosts = [ShardHost(prepared, config, shard, folder) for shard in range(config.shards)]
    total = sum(host.answer(plan).vector.astype(np.uint64) for host in hosts)
    return Ring(bits=plan.terms.ring_bits).centre(total)


# Every path learns the same.


@pytest.mark.parametrize(("model", "objective"), CASES)
def test_devices_one_by_one_and_shards_learn_the_same_table_but_for_noise(
    tmp_path, settings, run, silent, model, objective, tables, lines
):
    training = {"model": model, "objective": objective}
    changes = {**LOUD, "training": training, "schedule": {"rounds": 2}}
    one, many = tmp_path / "devices" / "run", tmp_path / "shards" / "run"
    run(protected(settings, engine="devices", **changes), one)
    run(protected(settings, engine="vectorised", **changes), many)
    start = initial_embeddings(40, 4, scale=0.1, rng=table_rng(1))
    assert np.abs(tables(many)["learned"] - start).max() > 1e-3
    np.testing.assert_allclose(tables(one)["learned"], tables(many)["learned"], atol=1e-5)
    # Opacus clips by its own formula in float32: now and then a device rounds one step away.
    np.testing.assert_allclose(tables(one)["fixed"], tables(many)["fixed"], atol=3e-4)
    for alone, together in zip(lines(one), lines(many), strict=True):
        if together["round"]:
            assert together["private_validation"]["hr@10"] > 0
            assert alone["private_validation"] == pytest.approx(together["private_validation"], abs=1e-3)


@pytest.mark.parametrize("model", ["gmf", "neumf", "autoencoder"])
def test_devices_and_shards_agree_where_popular_items_alone_are_learned(
    tmp_path, settings, run, silent, model, tables, lines
):
    changes = {**LOUD, "training": {"model": model}, "schedule": {"rounds": 2, "head": 20.0}}
    one, many = tmp_path / "devices" / "run", tmp_path / "shards" / "run"
    run(protected(settings, engine="devices", **changes), one)
    run(protected(settings, engine="vectorised", **changes), many)
    learned = tables(many)["learned"]
    rows = (learned != 0).any(axis=1).sum()
    assert 8 < rows < 40
    assert [line["bytes_up"] for line in lines(many)] == [160] + 2 * [4 * (4 * rows + NUM_METRICS)]
    np.testing.assert_array_equal(learned.any(axis=1), tables(one)["learned"].any(axis=1))
    np.testing.assert_allclose(tables(one)["learned"], learned, atol=1e-5)
    for alone, together in zip(lines(one), lines(many), strict=True):
        assert alone["private_validation"] == (
            together["private_validation"] and pytest.approx(together["private_validation"], abs=1e-3)
        )


@pytest.mark.parametrize("model", ["gmf", "neumf"])
def test_what_devices_send_for_some_rows_is_what_their_shards_send(tmp_path, settings, silent, model):
    config = protected(settings, **LOUD, training={"model": model})
    prepared = prepare(config)
    plan = replace(plan_for(config), active=np.arange(len(prepared.content.columns)) % 3 == 0)
    together = summed(config, tmp_path / "shards", plan)
    opened(tmp_path / "devices", config)
    sent = [DeviceNode(prepared, config, user, tmp_path / "devices").answer(plan).vector for user in range(36)]
    alone = Ring(bits=32).centre(sum(vector.astype(np.uint64) for vector in sent))
    assert len(alone) == 4 * 14 + NUM_METRICS
    assert np.abs(alone).max() > 100
    assert np.abs(alone - together).max() <= 3  # a rounding may fall to the other side: Opacus clips by its own formula


@pytest.mark.parametrize(("model", "objective"), [("neumf", "whole"), ("mlp", "bce")])
def test_what_a_round_says_about_a_table_is_the_mean_over_the_devices(tmp_path, settings, silent, model, objective):
    """Counted one by one: candidates drawn with the device's key, known items passed over, ties not in its favour."""
    config = protected(settings, **LOUD, training={"model": model, "objective": objective})
    plan, prepared = plan_for(config), prepare(config)
    table, train, held_out = ItemTable(plan.fixed, plan.learned), prepared.split.train, prepared.split.validation.item
    unit = LOUD["privacy"]["clip_norm"] * LOUD["privacy"]["evaluation_share"] / math.sqrt(NUM_METRICS)
    hits, gains, count = (summed(config, tmp_path, plan) / steps_per_unit(plan))[-NUM_METRICS:] / unit
    expected = np.zeros(NUM_METRICS)
    for user in range(36):
        scores = score_catalogue(table, train.of(user), None, serving_training(config.training))
        keys = device_keys(config.seed, 1, np.array([user]))
        _, *negatives = draw_candidates(keys, held_out[user : user + 1], 40)[0]
        rivals = [item for item in negatives if item not in {*train.of(user), held_out[user]}]
        above = sum(bool(scores[item] >= scores[held_out[user]]) for item in rivals)
        expected += [above < 10, (above < 10) / math.log2(above + 2), 1.0]
    assert 0 < expected[0] < 36
    np.testing.assert_allclose([hits, gains, count], expected, atol=0.2)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'palate[ray]'")
def test_flowers_engine_on_ray_agrees_exactly_with_the_vectorised_federation(
    tmp_path, settings, run, tables, rounds_charged
):
    here, ray = tmp_path / "here" / "run", tmp_path / "ray" / "run"
    run(protected(settings, shards=2, privacy=SEEDED), here)
    run(protected(settings, shards=2, privacy=SEEDED, engine="flower"), ray)
    for block in ("learned", "fixed"):
        np.testing.assert_array_equal(tables(ray)[block], tables(here)[block])
    assert rounds_charged(ray) == rounds_charged(here)


# Noise.


def test_secret_noise_differs_between_two_runs_of_one_seed_and_seeded_noise_does_not(
    tmp_path, settings, run, unaccounted, tables
):
    for name, privacy in (("a", {}), ("b", {}), ("c", SEEDED), ("d", SEEDED)):
        run(protected(settings, privacy=privacy), tmp_path / name)
    learned = {name: tables(tmp_path / name)["learned"] for name in "abcd"}
    assert (learned["a"] == learned["b"]).mean() < 0.05
    np.testing.assert_array_equal(learned["c"], learned["d"])


def test_the_secret_is_private_while_the_run_goes_on_and_gone_afterwards(
    tmp_path, settings, run, monkeypatch, unaccounted
):
    modes, save = [], RunStore.save

    def looking(self, snapshot, metadata):
        for name in ("noise.key", "ledgers/signing.key"):
            modes.append(stat.S_IMODE((tmp_path / name).stat().st_mode))
        save(self, snapshot, metadata)

    monkeypatch.setattr(RunStore, "save", looking)
    run(protected(settings), tmp_path)
    assert modes == [0o600] * 8
    assert not (tmp_path / "noise.key").exists()


@pytest.mark.parametrize("server_round", [0, 1])
@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_the_noise_in_a_released_sum_has_the_announced_standard_deviation(
    tmp_path, settings, monkeypatch, server_round, dropout
):
    """The same round with the same roundings, with and without noise: the difference is the noise itself."""
    config = protected(settings, schedule={"dim": 64}, privacy={**SEEDED, "dropout": dropout}, read={"min_item": 1})
    plan = plan_for(config, server_round)
    noisy = summed(config, tmp_path / "noisy", plan)
    with monkeypatch.context() as patched:
        patched.setattr(
            IntegerMechanism, "noise", lambda self, stream, shares=1: np.zeros(self.quantiser.size, np.int64)
        )
        exact = summed(config, tmp_path / "exact", plan)
    noise, terms = (noisy - exact).astype(np.float64), plan.terms
    surviving = 36 - math.floor(dropout * 36)
    assert terms.honest_shares == surviving
    expected = math.sqrt(surviving * terms.share_variance)
    assert expected == math.sqrt(terms.sum_variance)
    allowed = 4.5 / math.sqrt(2 * len(noise))
    assert noise.std() == pytest.approx(expected, rel=allowed)
    assert abs(noise.mean()) < 4.5 * expected / math.sqrt(len(noise))
    assert np.abs(exact).max() > 0


# Dropouts and caps.


def test_a_device_that_drops_out_is_charged_but_is_not_in_the_sum(tmp_path, settings, silent, books, rounds_charged):
    config = protected(settings, privacy={**SEEDED, "dropout": 0.25})
    plan, prepared = plan_for(config, 0), prepare(config)
    steps = summed(config, tmp_path, plan) / steps_per_unit(plan)
    train = prepared.split.train
    drawn = participants(config.seed, 0, 36, 36)
    staying = survivors(config.seed, 0, drawn, 9)
    assert staying.sum() == 27
    expected = popularity_sum(train.select(np.flatnonzero(staying)), len(plan.learned))
    everyone = popularity_sum(train, len(plan.learned))
    np.testing.assert_allclose(steps, expected, atol=6 * math.sqrt(27 / 4) / 4096)
    assert np.abs(steps - everyone).max() > 0.2
    assert len(books(tmp_path)) == 36
    assert all(charged == [0] for charged in rounds_charged(tmp_path).values())


@pytest.mark.parametrize("server_round", [0, 1])
def test_devices_and_shards_lose_the_same_dropouts(tmp_path, settings, silent, server_round):
    config = protected(settings, **(LOUD | {"privacy": {**LOUD["privacy"], "dropout": 0.25}}))
    plan, prepared = plan_for(config, server_round), prepare(config)
    together = summed(config, tmp_path / "shards", plan)
    opened(tmp_path / "devices", config)
    sent = [DeviceNode(prepared, config, user, tmp_path / "devices").answer(plan).vector for user in range(36)]
    assert sum(not vector.any() for vector in sent) >= 9
    alone = Ring(bits=32).centre(sum(vector.astype(np.uint64) for vector in sent))
    assert np.abs(alone - together).max() <= 3  # a rounding may fall to the other side: Opacus clips by its own formula


def test_no_device_is_in_more_training_rounds_than_the_cap_and_the_noise_is_sized_for_it(
    tmp_path, settings, run, unaccounted, rounds_charged
):
    changes = {"schedule": {"rounds": 4, "participation": 0.25}, "privacy": {"cap": 2}}
    config = protected(settings, **changes)
    run(config, tmp_path)
    charged = rounds_charged(tmp_path)
    assert charged.pop("server") == [0, 1, 2, 3, 4]
    training = [len([number for number in rounds if number]) for rounds in charged.values()]
    assert max(training) == 2
    assert sum(training) == 4 * 9
    uncapped = protected(settings, **(changes | {"privacy": {}}))
    capped_noise, noise = (one.terms(population=36).train.noise_multiplier for one in (config, uncapped))
    assert capped_noise == pytest.approx(noise / math.sqrt(2), rel=0.01)


# What a run says and leaves behind.


@pytest.fixture(scope="module")
def finished(tmp_path_factory, settings, run) -> Path:
    """A run with the defaults, guarantee and all."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    run(settings(unit="user", epsilon=2.0), folder)
    return folder


def test_the_guarantee_keeps_the_target_and_says_what_it_rests_on(finished):
    result = json.loads((finished / "result.json").read_text())
    guarantee = result["guarantee"]
    assert 0.98 * 2.0 < guarantee["epsilon"] <= 2.0 == guarantee["target_epsilon"]
    assert (guarantee["unit"], guarantee["delta"]) == ("user", 1e-5)
    assert guarantee["adjacency"].startswith("zero-out")
    assert guarantee["amplification"] == "none claimed"
    assert len(guarantee["cross_checks"]) >= 2
    assert (guarantee["honest_shares"], guarantee["roster_size"], guarantee["device_rounds"]) == (36, 36, 3)
    assert guarantee["local"]["epsilon"] > guarantee["epsilon"]
    assert guarantee["assumptions"]
    terms = settings_terms(finished)
    assert guarantee["noise_multipliers"]["train"] == terms.train.noise_multiplier
    assert (result["unit"], result["protection"]) == ("user", "user-level differential privacy")


def settings_terms(folder: Path):
    from palate.simulation.run_folder import RESOLVED, read_config

    return read_config(folder, RESOLVED).terms(population=36)


def test_the_servers_and_every_devices_ledger_hold_the_popularity_and_the_training_rounds_once(
    finished, books, rounds_charged
):
    charged = rounds_charged(finished)
    assert set(charged) == {"server", *(f"device-{user:06d}" for user in range(36))}
    assert all(rounds == [0, 1, 2, 3] for rounds in charged.values())
    for state in books(finished).values():
        assert not state.open
        assert 0 <= state.left_nano < 0.01 * state.policy.budget_nano


def test_the_servers_ledger_names_the_tables_that_went_down_and_came_out(finished, lines, public_key):
    events = verify_ledger(finished / "ledgers" / "server.sqlite", "server", public_key(finished)).events
    models = [event.model for event in events if isinstance(event, Intent)]
    made = [event.payload for event in events if isinstance(event, Outcome)]
    assert made == [f"sha256:{line['table']}" for line in lines(finished)]
    assert models[1:] == made[:-1]


def test_devices_and_server_have_charged_the_very_same_rounds(finished, public_key):
    """Laid side by side: plan, table and noise of each round agree."""

    def intents(path: Path, name: str) -> list[Intent]:
        return [event for event in verify_ledger(path, name, public_key(finished)).events if isinstance(event, Intent)]

    server = intents(finished / "ledgers" / "server.sqlite", "server")
    for shard in range(3):
        path = finished / "ledgers" / f"shard-{shard:04d}.sqlite"
        for name in verify_book(path, public_key(finished)):
            assert intents(path, name) == server


def test_a_run_with_seeded_noise_claims_nothing(tmp_path, settings, run):
    result = run(protected(settings, privacy=SEEDED), tmp_path)
    assert result["guarantee"] is None
    assert result["protection"].startswith("no privacy")


# Refusals.


def test_nodes_of_a_protected_run_never_send_an_exact_update(tmp_path, settings):
    config = protected(settings)
    opened(tmp_path, config)
    plan, prepared = replace(plan_for(config), unit="none", terms=None), prepare(config)
    for node in (ShardHost(prepared, config, 0, tmp_path), DeviceNode(prepared, config, 0, tmp_path)):
        with pytest.raises(WireError, match=r"protects nothing|this run's is 'user'"):
            node.answer(plan)


# Popularity in place of training rounds.


@pytest.mark.parametrize("model", ["gmf", "neumf"])
def test_rounds_that_went_to_popularity_are_charged_as_training_rounds_and_the_claim_holds(
    tmp_path, settings, run, lines, rounds_charged, books, monkeypatch, model
):
    """Where every estimate is above the tolerance, all rounds ask for popularity."""
    monkeypatch.setattr("palate.server.coordinator.possible_loss", lambda *_, **__: 1.0)
    schedule = {"rounds": 3, "popularity_tolerance": 0.01}
    config = protected(settings, epsilon=2.0, training={"model": model}, schedule=schedule)
    result = run(config, tmp_path / "run")
    assert [line["purpose"] for line in lines(tmp_path / "run")] == ["popularity"] * 4
    assert {line["bytes_up"] for line in lines(tmp_path / "run")} == {4 * 40}
    assert 0.98 * 2.0 < result["guarantee"]["epsilon"] <= 2.0
    assert all(rounds == [0, 1, 2, 3] for rounds in rounds_charged(tmp_path / "run").values())
    for state in books(tmp_path / "run").values():
        assert 0 <= state.left_nano < 0.01 * state.policy.budget_nano


@pytest.mark.parametrize("model", ["gmf", "neumf"])
def test_devices_and_shards_learn_the_same_after_popularity_was_asked_again(
    tmp_path, settings, run, silent, unaccounted, monkeypatch, tables, lines, model
):
    monkeypatch.setattr("palate.server.coordinator.possible_loss", lambda *_, share, **__: 0.7 - share)
    schedule = {"rounds": 4, "popularity_tolerance": 0.2}
    changes = {**LOUD, "training": {"model": model}, "schedule": schedule}
    one, many = tmp_path / "devices" / "run", tmp_path / "shards" / "run"
    run(protected(settings, engine="devices", **changes), one)
    run(protected(settings, engine="vectorised", **changes), many)
    assert [line["purpose"] for line in lines(many)] == ["popularity"] * 3 + ["train"] * 2
    np.testing.assert_allclose(tables(one)["learned"], tables(many)["learned"], atol=1e-5)
    np.testing.assert_allclose(tables(one)["fixed"], tables(many)["fixed"], atol=3e-4)
