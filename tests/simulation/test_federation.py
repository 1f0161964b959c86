"""What crosses the grid in a whole run, what data without order changes, and who takes part."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message, MessageType

from palate.errors import DataError, RunError
from palate.models.learning.kernel import popularity_sum
from palate.privacy.wire import RoundPlan
from palate.server.store import TABLE_FORMAT, read_tensors
from palate.simulation.federation import finished_result, simulate
from palate.simulation.grid import InProcessGrid
from palate.simulation.prepare import prepare
from palate.simulation.progress import Watcher
from palate.simulation.run_folder import RESOLVED, read_config
from palate.simulation.seeding import participants

Exchange = tuple[Message, Message]


def table_of(folder: Path) -> dict[str, np.ndarray]:
    return read_tensors(folder / "item_table.safetensors", TABLE_FORMAT)[0]


@pytest.fixture
def captured(monkeypatch) -> Iterator[list[Exchange]]:
    """Every message that crosses an in-process grid, with its reply."""
    exchanges: list[Exchange] = []
    send = InProcessGrid.send_and_receive

    def recording(self, messages, *, timeout=None):
        sent = list(messages)
        replies = list(send(self, sent, timeout=timeout))
        exchanges.extend(zip(sent, replies, strict=True))
        return replies

    monkeypatch.setattr(InProcessGrid, "send_and_receive", recording)
    return exchanges


@pytest.mark.parametrize("engine", ["vectorised", "devices"])
@pytest.mark.parametrize(("model", "objective"), [("neumf", "whole"), ("mlp", "bce")], ids=["neumf", "mlp"])
def test_a_captured_run_sends_plans_down_and_one_float32_vector_up(
    tmp_path, settings, run, captured, engine, model, objective
):
    config = settings(engine=engine, training={"model": model, "objective": objective}, schedule={"rounds": 2})
    run(config, tmp_path)
    nodes = 3 if engine == "vectorised" else prepare(config).interactions.num_users
    training = [pair for pair in captured if pair[0].metadata.message_type == MessageType.TRAIN]
    assert len(training) == nodes * 3
    for message, reply in training:
        assert set(message.content) == {"table", "plan"}
        plan = RoundPlan.from_parts(
            {name: array.numpy() for name, array in message.content.array_records["table"].items()},
            dict(message.content.config_records["plan"]),
        )
        assert set(reply.content) == {"update"}
        assert not reply.content.metric_records
        assert not reply.content.config_records
        record = reply.content.array_records["update"]
        assert set(record) == {"update"}
        update = record["update"].numpy()
        assert update.dtype == np.float32
        assert update.shape == (plan.update_size,)


def test_only_questions_of_the_simulation_are_answered_with_ranks(tmp_path, settings, run, captured):
    run(settings(schedule={"rounds": 2}), tmp_path)
    kinds = {message.metadata.message_type for message, _ in captured}
    assert kinds == {MessageType.TRAIN, MessageType.QUERY}
    for message, reply in captured:
        asked = message.metadata.message_type == MessageType.QUERY
        assert ("answer" in reply.content) == asked
        if asked:
            assert "rank_sampled" in reply.content.array_records["answer"]


def test_plans_of_a_round_are_the_same_for_all_nodes_and_name_no_person(tmp_path, settings, run, captured):
    config = settings(schedule={"rounds": 1})
    run(config, tmp_path)
    for number in ("0", "1"):
        plans = [
            (dict(message.content["plan"]), message.content["table"]["learned"].numpy().tobytes())
            for message, _ in captured
            if message.metadata.message_type == MessageType.TRAIN and message.metadata.group_id == number
        ]
        assert len(plans) == 3
        assert all(plan == plans[0] for plan in plans)
        assert not any(user in str(plans[0][0]) for user in prepare(config).interactions.users)


def without_times(small_data: Path, folder: Path) -> Path:
    lines = (small_data / "interactions.csv").read_text().splitlines()
    path = folder / "unordered.csv"
    path.write_text("\n".join(line.rsplit(",", 1)[0] for line in lines) + "\n")
    return path


def test_without_a_known_order_nothing_is_recent(tmp_path, settings, run, small_data):
    data = str(without_times(small_data, tmp_path))
    plain, explicit = tmp_path / "plain" / "run", tmp_path / "explicit" / "run"
    result = run(settings(data=data), plain)
    assert "no time known" in result["protocol"]
    assert read_config(plain, RESOLVED).training.recency_half_life == float("inf")
    assert read_config(plain).training.recency_half_life == settings().training.recency_half_life
    run(settings(data=data, training={"recency_half_life": float("inf")}), explicit)
    np.testing.assert_array_equal(table_of(plain)["learned"], table_of(explicit)["learned"])


def test_with_a_known_order_recent_interactions_count_more(tmp_path, settings, run):
    recent, alike = tmp_path / "recent", tmp_path / "alike"
    run(settings(), recent)
    run(settings(training={"recency_half_life": float("inf")}), alike)
    assert not np.allclose(table_of(recent)["learned"], table_of(alike)["learned"], atol=1e-3)


def test_partial_participation_repeats_exactly_and_differs_from_full(tmp_path, settings, run):
    tables = {}
    for name, share in (("first", 0.5), ("second", 0.5), ("full", 1.0)):
        run(settings(schedule={"participation": share}, training={"objective": "bce"}), tmp_path / name)
        tables[name] = table_of(tmp_path / name)["learned"]
    np.testing.assert_array_equal(tables["first"], tables["second"])
    assert not np.allclose(tables["first"], tables["full"], atol=1e-3)


def test_the_sum_of_those_who_take_part_estimates_the_whole_sum_without_bias(settings):
    prepared, cohort = prepare(settings()), 11
    history, users = prepared.split.train, np.arange(prepared.interactions.num_users)
    whole = popularity_sum(history, prepared.interactions.num_items)
    estimates = np.array(
        [
            popularity_sum(history.select(np.flatnonzero(participants(5, number, len(users), cohort))), len(whole))
            / (cohort / len(users))
            for number in range(800)
        ]
    )
    error = (estimates.mean(axis=0) - whole) / (estimates.std(axis=0) / np.sqrt(800) + 1e-9)
    assert np.abs(error).max() < 4.5
    assert np.abs(error).mean() < 1.5


def test_seeds_differ_and_a_seed_repeats(tmp_path, settings, run):
    tables = {}
    for name, seed in (("first", 3), ("second", 3), ("other", 4)):
        run(settings(seed=seed), tmp_path / name)
        tables[name] = table_of(tmp_path / name)["learned"].tobytes()
    assert tables["first"] == tables["second"] != tables["other"]


def test_the_result_states_what_was_run_and_the_accuracy_of_both_protocols(tmp_path, settings, run):
    config = settings(baselines=("popularity", "content_only"))
    result = run(config, tmp_path / "named")
    assert result == json.loads((tmp_path / "named" / "result.json").read_text())
    assert (result["run"], result["model"], result["unit"], result["rounds"]) == ("named", "neumf", "none", 3)
    assert result["protection"] == "no privacy"
    assert result["guarantee"] is result["epsilon"] is result["delta"] is None
    for part in ("validation", "test"):
        for ranking in ("sampled", "full"):
            metrics = result[part][ranking]
            assert 0 <= metrics["ndcg@10"] <= metrics["hr@10"] <= 1
    assert list(result["baselines"]) == ["popularity", "content_only"]
    control = result["baselines"]["content_only"]["test"]
    for ranking in ("sampled", "full"):
        for metric, gain in result["gain"][ranking].items():
            assert gain["value"] == pytest.approx(result["test"][ranking][metric] - control[ranking][metric])
            assert gain["low"] <= gain["value"] <= gain["high"]
    assert result["gain"]["control"] == "content_only"
    assert result["hidden"]["newest"] == 5
    assert result["hidden"]["test"] != result["summary"]["test"]
    assert result["cpu_seconds"]["total"] > 0
    assert result["peak_memory_mb"] > 50


def test_people_with_two_interactions_have_a_test_item_only(tmp_path, settings, run):
    path = tmp_path / "short.csv"
    path.write_text("user,item,timestamp\n" + "".join(f"u{u},i{(u + k) % 9},{k}\n" for u in range(9) for k in (0, 1)))
    result = run(settings(data=str(path), baselines=("popularity",)), tmp_path / "run")
    assert result["validation"] is None
    assert result["test"]["sampled"]["hr@10"] >= 0
    assert result["best_round"] is None


def test_data_that_cannot_be_read_is_refused_before_anything_is_trained(tmp_path, settings, run):
    with pytest.raises(DataError):
        run(settings(data=str(tmp_path / "absent.csv")), tmp_path / "run")
    assert not (tmp_path / "run" / "rounds.jsonl").exists()


def test_data_that_cannot_be_read_leaves_the_folder_free_but_never_touches_a_run_that_has_begun(
    tmp_path, settings, run, monkeypatch
):
    def vanished(*_):
        raise DataError("the data is gone")

    with pytest.raises(DataError):
        run(settings(data=str(tmp_path / "none.csv")), tmp_path / "run")
    assert not (tmp_path / "run" / "config.toml").exists()
    config = settings(schedule={"rounds": 1})
    run(config, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    monkeypatch.setattr("palate.simulation.federation.prepare", vanished)
    with pytest.raises(DataError):
        run(config, tmp_path / "run")
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_the_log_goes_to_the_run_folder_and_the_loggers_are_left_as_they_were(tmp_path, settings, run):
    before = [(logging.getLogger(name).handlers[:], logging.getLogger(name).level) for name in ("palate", "flwr")]
    run(settings(), tmp_path)
    assert (tmp_path / "log.txt").exists()
    assert before == [
        (logging.getLogger(name).handlers[:], logging.getLogger(name).level) for name in ("palate", "flwr")
    ]


def test_a_finished_run_is_returned_while_its_data_is_the_same_and_refused_once_it_has_changed(tmp_path, settings, run):
    source = tmp_path / "data.csv"
    rows = [f"{user},{item},{10 * user + item}" for user in range(12) for item in range(6) if (user + item) % 4]
    source.write_text("\n".join(["user,item,timestamp", *rows]))
    config = settings(data=str(source))
    first = run(config, tmp_path / "run")
    assert simulate(config, tmp_path / "run", Watcher()) == first
    source.write_text("\n".join(["user,item,timestamp", *rows[1:]]))
    with pytest.raises(RunError, match="the data has changed"):
        simulate(config, tmp_path / "run", Watcher())


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"run": "r"}', b"\xff\xff", b"null"])
def test_a_damaged_result_is_not_taken_for_a_finished_run(tmp_path, content):
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(RunError, match=r"result\.json is damaged"):
        finished_result(tmp_path)


def test_a_run_without_result_has_not_finished(tmp_path):
    assert finished_result(tmp_path) is None
