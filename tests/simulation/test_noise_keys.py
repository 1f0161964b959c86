"""Noise is fresh in every round, on every device and in every shard, and never a function of the round's answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from palate.models.table import initial_embeddings
from palate.privacy.mechanisms.terms import ReleaseTerms
from palate.privacy.wire import RoundPlan
from palate.simulation.host import DeviceNode, ShardHost
from palate.simulation.ledgers import make_keys
from palate.simulation.noise_keys import NoiseKeys, make_noise_key
from palate.simulation.prepare import prepare

KEYS = NoiseKeys(bytes(range(32)))
RULES = ["00" * 32, "01" + "00" * 31, "00" * 31 + "01"]


@pytest.mark.parametrize("of", [KEYS.device, KEYS.shard], ids=["device", "shard"])
def test_a_key_is_of_its_rules_and_its_number(of):
    made = {of(rules, number) for rules in RULES for number in (0, 1, 256)}
    assert len(made) == 9
    assert {len(key) for key in made} == {32}


def test_devices_shards_and_runs_have_keys_of_their_own():
    other = NoiseKeys(bytes(32))
    assert len({keys(RULES[0], 3) for keys in (KEYS.device, KEYS.shard, other.device, other.shard)}) == 4


def test_another_round_has_other_rules():
    learned = np.zeros((4, 2), np.float32)
    plan = RoundPlan(
        run="r", server_round=1, purpose="train", unit="none", participation=1.0, training="{}",
        fixed=learned[:, :0], learned=learned,
    )  # fmt: skip
    assert plan.rules_hash != replace(plan, server_round=2).rules_hash


@pytest.mark.parametrize("unit", ["user", "interaction"])
@pytest.mark.parametrize("node", ["shard", "device"])
def test_one_question_in_two_rounds_is_answered_under_two_noises(tmp_path, settings, unit, node):
    """The closed form answers one table alike in every round: equal integers would have equal noise in them."""
    training = {"model": "gmf", "objective": "whole" if unit == "user" else "bce"}
    config = settings(unit=unit, epsilon=1e6, delta=1e-5, training=training, shards=1)
    prepared, items = prepare(config), prepare(config).interactions.num_items
    make_noise_key(tmp_path, seed=1)
    make_keys(tmp_path)
    host = ShardHost(prepared, config, 0, tmp_path) if node == "shard" else DeviceNode(prepared, config, 0, tmp_path)
    plan = RoundPlan(
        run="r",
        server_round=1,
        purpose="popularity",
        unit=unit,
        participation=1.0,
        training=config.training.model_dump_json(),
        fixed=np.concatenate([np.zeros((items, 1), np.float32), prepared.content.columns], axis=1),
        learned=initial_embeddings(items, 4, scale=0.3, rng=np.random.default_rng(1)),
        terms=ReleaseTerms(
            clip_norm=1.0, sensitivity=4096, share_variance=10**8, honest_shares=1, roster_size=36, ring_bits=40
        ),
        interactions_per_round=5,
    )
    first, second = (host.answer(replace(plan, server_round=number)).vector for number in (1, 2))
    assert (first == second).mean() < 0.1
