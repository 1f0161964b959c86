"""A shard answers for its people: with the sum of their updates, from heads that survive the process."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from palate.errors import RunError
from palate.models.table import ItemTable, initial_embeddings
from palate.privacy.mechanisms.terms import ReleaseTerms
from palate.privacy.wire import RoundPlan, WireError
from palate.server.settings import cohort_size
from palate.simulation.host import DeviceNode, ShardHost, join_answers, num_nodes, read_heads
from palate.simulation.prepare import prepare, shard_users
from palate.simulation.seeding import participants

MODELS = pytest.mark.parametrize(
    ("model", "objective"), [("gmf", "whole"), ("linear", "whole"), ("neumf", "whole"), ("mlp", "bce")]
)


def plan_for(config, server_round: int = 1, learned: np.ndarray | None = None) -> RoundPlan:
    prepared = prepare(config)
    items = prepared.interactions.num_items
    start = initial_embeddings(items, config.schedule.dim, scale=0.3, rng=np.random.default_rng(1))
    columns = prepared.content.columns
    return RoundPlan(
        run="r",
        server_round=server_round,
        purpose="train" if server_round else "popularity",
        unit="none",
        participation=config.schedule.participation,
        training=config.training.model_dump_json(),
        fixed=np.concatenate([np.zeros((items, 1), np.float32), columns], axis=1),
        learned=start if learned is None else learned,
    )


def hosts(config, folder) -> list[ShardHost]:
    prepared = prepare(config)
    return [ShardHost(prepared, config, shard, folder) for shard in range(config.shards)]


def total(config, folder, plan: RoundPlan) -> np.ndarray:
    return sum(host.answer(plan).vector.astype(np.float64) for host in hosts(config, folder))


@pytest.mark.parametrize("server_round", [0, 1])
@MODELS
def test_the_sum_over_shards_does_not_depend_on_their_number(tmp_path, settings, model, objective, server_round):
    training = {"model": model, "objective": objective}
    one, many = (settings(training=training, shards=shards) for shards in (1, 7))
    plan = plan_for(one, server_round)
    np.testing.assert_allclose(total(one, tmp_path / "1", plan), total(many, tmp_path / "7", plan), atol=1e-5)


@MODELS
def test_a_shard_answers_with_the_sum_over_its_virtual_devices(tmp_path, settings, model, objective):
    config = settings(training={"model": model, "objective": objective})
    plan, prepared = plan_for(config), prepare(config)
    alone = sum(
        DeviceNode(prepared, config, user, tmp_path).answer(plan).vector.astype(np.float64)
        for user in range(prepared.interactions.num_users)
    )
    np.testing.assert_allclose(total(config, tmp_path, plan), alone, atol=1e-5)


def test_every_person_is_in_exactly_one_shard(settings):
    dealt = np.concatenate([shard_users(36, shard, 5) for shard in range(5)])
    assert sorted(dealt.tolist()) == list(range(36))
    assert num_nodes(settings(shards=4000), 36) == 36
    assert num_nodes(settings(engine="devices"), 36) == 36


@pytest.mark.parametrize(("model", "objective"), [("neumf", "whole"), ("neumf", "bce")])
def test_heads_from_disk_go_on_exactly_as_heads_in_memory(tmp_path, settings, model, objective):
    config = settings(training={"model": model, "objective": objective}, shards=1)
    (kept,) = hosts(config, tmp_path)
    learned = None
    for server_round in (1, 2, 3):
        plan = plan_for(config, server_round, learned)
        (anew,) = hosts(config, tmp_path)
        reborn = anew.answer(plan).vector
        np.testing.assert_array_equal(kept.answer(plan).vector, reborn)
        learned = plan.learned + 0.01 * reborn.reshape(plan.learned.shape[::-1]).T


def test_two_rounds_of_heads_are_kept_so_that_a_round_can_be_repeated(tmp_path, settings):
    config = settings(shards=1)
    (host,) = hosts(config, tmp_path)
    for server_round in range(5):
        host.answer(plan_for(config, server_round))
    names = sorted(path.name for path in (tmp_path / "devices").iterdir())
    assert names == [f"shard-0000.round-{number:05d}.safetensors" for number in (3, 4)]
    repeated = plan_for(config, 4)
    (anew,) = hosts(config, tmp_path)
    before = read_heads(tmp_path / "devices", 0, 4)
    anew.answer(repeated)
    for name, value in read_heads(tmp_path / "devices", 0, 4).items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("damage", ["missing", "short", "garbled"])
def test_heads_that_are_missing_or_damaged_are_not_replaced_by_fresh_ones(tmp_path, settings, damage):
    config = settings(shards=1)
    hosts(config, tmp_path)[0].answer(plan_for(config, 1))
    path = tmp_path / "devices" / "shard-0000.round-00001.safetensors"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-3] if damage == "short" else b"garbled")
    with pytest.raises(RunError, match="missing" if damage == "missing" else "damaged"):
        hosts(config, tmp_path)[0].answer(plan_for(config, 2))


def test_people_who_do_not_take_part_add_nothing_and_keep_their_heads(tmp_path, settings):
    config = settings(shards=1, schedule={"participation": 0.4}, training={"objective": "bce"})
    (host,) = hosts(config, tmp_path)
    before = {name: value.clone() for name, value in host._heads_before(1, _table(plan_for(config))).items()}
    vector = host.answer(plan_for(config)).vector
    after = read_heads(tmp_path / "devices", 0, 1)
    drawn = participants(config.seed, 1, len(host.users), cohort_size(len(host.users), 0.4))
    assert 0 < drawn.sum() < len(drawn)
    moved = np.array([any(not torch.equal(after[n][u], before[n][u]) for n in after) for u in range(len(drawn))])
    np.testing.assert_array_equal(moved, drawn)
    prepared = prepare(config)
    expected = sum(
        DeviceNode(prepared, config, int(user), tmp_path).answer(plan_for(config)).vector.astype(np.float64)
        for user in host.users[drawn]
    )
    np.testing.assert_allclose(vector, expected, atol=1e-5)


def _table(plan: RoundPlan) -> ItemTable:
    return ItemTable(plan.fixed, plan.learned)


@pytest.mark.parametrize("full", [0, 1])
@pytest.mark.parametrize("part", ["validation", "test"])
def test_ranks_joined_from_shards_and_from_devices_agree(tmp_path, settings, part, full):
    config = settings()
    plan, prepared = plan_for(config), prepare(config)
    shards = hosts(config, tmp_path)
    devices = [DeviceNode(prepared, config, user, tmp_path) for user in range(prepared.interactions.num_users)]
    for node in (*shards, *devices):
        node.answer(plan)
    question, table = {"part": part, "round": 1, "full": full}, {"fixed": plan.fixed, "learned": plan.learned}
    many, loss = join_answers([shard.inspect(question, table) for shard in reversed(shards)], full=bool(full))
    single, _ = join_answers([device.inspect(question, table) for device in devices], full=bool(full))
    np.testing.assert_array_equal(many.users, np.arange(prepared.interactions.num_users))
    np.testing.assert_array_equal(many.users, single.users)
    np.testing.assert_array_equal(many.target, getattr(prepared.split, part).item)
    np.testing.assert_array_equal(many.rank_sampled, single.rank_sampled)
    assert loss > 0
    if full:
        np.testing.assert_array_equal(many.rank_full, single.rank_full)
        np.testing.assert_array_equal(many.top_items, single.top_items)
    else:
        assert many.rank_full is None


def test_asking_changes_neither_heads_nor_the_next_answer(tmp_path, settings):
    config = settings(shards=1)
    plan = plan_for(config)
    table = {"fixed": plan.fixed, "learned": plan.learned}
    (asked,), (quiet,) = hosts(config, tmp_path / "a"), hosts(config, tmp_path / "b")
    for host in (asked, quiet):
        host.answer(plan)
    for part in ("validation", "test"):
        asked.inspect({"part": part, "round": 1, "full": 1}, table)
    following = plan_for(config, 2)
    np.testing.assert_array_equal(asked.answer(following).vector, quiet.answer(following).vector)


def test_an_unknown_part_is_refused(tmp_path, settings):
    config = settings(shards=1)
    plan = plan_for(config)
    with pytest.raises(WireError, match="no part 'train'"):
        hosts(config, tmp_path)[0].inspect(
            {"part": "train", "round": 0, "full": 0}, {"fixed": plan.fixed, "learned": plan.learned}
        )


def test_validation_ranks_with_the_training_history_and_test_with_the_validation_item_too(tmp_path, settings):
    config = settings()
    split = prepare(config).split
    node = DeviceNode(prepare(config), config, 5, tmp_path)
    np.testing.assert_array_equal(node._train.items, split.train.of(5))
    np.testing.assert_array_equal(node._full_train.items, [*split.train.of(5), split.validation.item[5]])
    assert split.test.item[5] not in node._full_train.items


def test_hidden_items_are_not_known_when_recommending_and_not_recommended_either(tmp_path, settings):
    config = settings(shards=1)
    plan, split = plan_for(config), prepare(config).split
    table = {"fixed": plan.fixed, "learned": plan.learned}
    asked = {"part": "test", "round": 0, "full": 1}
    shard = hosts(config, tmp_path)[0]
    known, hidden = (shard.inspect(asked | {"hidden": count}, table) for count in (0, 5))
    assert (known["rank_full"] != hidden["rank_full"]).any()
    for user, shown in zip(hidden["user"], hidden["top_items"], strict=True):
        assert not set(shown.tolist()) & set(split.full_train.of(int(user)).tolist())
    shard._full_train, whole = split.full_train.without_latest(5), shard._full_train
    forgotten = shard.inspect(asked, table)  # ranks among items that were had, too
    assert (forgotten["rank_full"] >= hidden["rank_full"]).all()
    np.testing.assert_array_equal(forgotten["rank_sampled"], hidden["rank_sampled"])
    assert [whole.without_latest(5).of(user).tolist() for user in range(3)] == [
        whole.of(user)[: max(len(whole.of(user)) - 5, 0)].tolist() for user in range(3)
    ]


def test_training_never_sees_a_held_out_item(tmp_path, settings):
    """Popularity is the only place where positives show; held-out items add nothing to it."""
    config = settings(shards=1)
    vector = hosts(config, tmp_path)[0].answer(plan_for(config, 0)).vector
    train = prepare(config).split.train
    assert vector.sum() == pytest.approx(np.sqrt(train.lengths).sum(), rel=1e-5)
    seen = np.bincount(train.items, minlength=len(vector)) > 0
    np.testing.assert_array_equal(vector > 0, seen)


def test_a_plan_for_an_unknown_mechanism_is_refused_by_devices_and_shards(tmp_path, settings):
    config = settings()
    terms = ReleaseTerms(clip_norm=0.5, sensitivity=4096, share_variance=10**6, honest_shares=1, roster_size=1)
    plan = replace(plan_for(config), unit="household", terms=terms)
    for node in (DeviceNode(prepare(config), config, 0, tmp_path), *hosts(config, tmp_path)):
        with pytest.raises(WireError, match="no mechanism"):
            node.answer(plan)


def test_nodes_of_an_unprotected_run_refuse_a_protected_plan(tmp_path, settings):
    config = settings(shards=1)
    terms = ReleaseTerms(clip_norm=0.5, sensitivity=4096, share_variance=10**6, honest_shares=1, roster_size=1)
    plan = replace(plan_for(config), unit="user", terms=terms)
    with pytest.raises(WireError, match="needs a ledger"):
        DeviceNode(prepare(config), config, 0, tmp_path).answer(plan)
    with pytest.raises(WireError, match="this run's is 'none'"):
        hosts(config, tmp_path)[0].answer(plan)
