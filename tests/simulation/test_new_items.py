"""What a run does with items that nobody has had: measured against a random order, and better than that by content."""

import json

import numpy as np
import pytest

from palate.cli.main import main
from palate.errors import ConfigError, DataError, RunError
from palate.simulation import prepare as preparing
from palate.simulation.new_items import (
    AS_TRAINED,
    CONTENT_ONLY,
    PALATE,
    RESULT,
    measure,
    measured,
    random_order,
    ranked_among,
)
from palate.simulation.prepare import prepare, way_to_read
from palate.simulation.run_folder import RESOLVED, read_config


@pytest.fixture(scope="module")
def finished(tmp_path_factory, settings, run):
    """A run on the demo, whose films' content tells their viewers: plain, two rounds."""
    config = settings(data="demo", new_items=0.05, content={"text": "tfidf"}, training={"model": "gmf"},
                      schedule={"rounds": 2, "dim": 8})  # fmt: skip
    folder = tmp_path_factory.mktemp("runs") / "new"
    run(config, folder)
    return config, folder, measured(folder)


def test_new_items_are_found_far_better_than_by_chance(finished):
    _, _, found = finished
    for ranking in found["rankings"].values():
        chance, models = ranking["random"], ranking["models"]
        for name in (PALATE, CONTENT_ONLY):
            assert models[name]["hr@10"] > chance["hr@10"] + 5 * models[name]["intervals"]["hr@10"]["se"]
            assert models[name]["ndcg@10"] > 1.3 * chance["ndcg@10"]


def test_the_rows_that_training_left_would_hide_new_items(finished):
    """Popularity of nothing is popularity zero: below what everybody knows, whatever the content says."""
    _, _, found = finished
    models = found["rankings"]["catalogue"]["models"]
    assert models[AS_TRAINED]["hr@10"] < 0.5 * models[PALATE]["hr@10"]
    shown = found["share_of_lists"]
    assert shown["models"][AS_TRAINED] < 0.5 * shown["models"][PALATE]
    assert shown["of_catalogue"] == pytest.approx(35 / 700)


def test_the_model_has_not_seen_them_and_says_what_it_measured(finished):
    config, _, found = finished
    prepared = prepare(config)
    assert found["items"] == len(prepared.new_items) == 35
    for part in (prepared.split.train.items, prepared.split.validation.item, prepared.split.test.item):
        assert not np.isin(part, prepared.new_items).any()
    assert found["people"] == found["rankings"]["new"]["models"][PALATE]["users"]
    assert "35 new items" in prepared.protocol
    assert found["reader"] == "tfidf"


def test_what_is_measured_is_kept_and_a_damaged_file_is_refused(finished, monkeypatch):
    _, folder, found = finished
    monkeypatch.setattr("palate.simulation.new_items.prepare", lambda config: pytest.fail("nothing is left to do"))
    assert measured(folder) == found
    kept = (folder / RESULT).read_text()
    (folder / RESULT).write_text(kept[:100])
    with pytest.raises(RunError, match="damaged"):
        measured(folder)
    (folder / RESULT).write_text(kept)


def test_nobody_is_ranked_against_an_item_that_they_had(finished):
    config, _, _ = finished
    arrivals = prepare(config).arrivals
    for among, held_out in ranked_among(arrivals, 700, seed=1).items():
        for user in np.flatnonzero(arrivals.target >= 0)[:200]:
            own = arrivals.everything.of(user)
            drawn = held_out.negatives[user]
            assert len(set(drawn)) == len(drawn) > 0
            assert not np.isin(drawn, own).any()
            assert among == "catalogue" or np.isin(drawn, arrivals.items).all()


@pytest.mark.parametrize("candidates", [4, 20, 100])
def test_a_random_order_is_what_many_random_orders_are_on_average(candidates):
    ranks = np.random.default_rng(7).integers(0, candidates, 200_000)
    found = random_order(candidates)
    assert found["hr@10"] == pytest.approx(np.mean(ranks < 10), abs=0.005)
    gains = np.where(ranks < 10, 1 / np.log2(ranks + 2.0), 0.0)
    assert found["ndcg@10"] == pytest.approx(gains.mean(), abs=0.005)


def test_a_run_without_new_items_has_nothing_to_measure(tmp_path, settings, run):
    run(settings(), tmp_path / "plain")
    assert measured(tmp_path / "plain") is None
    assert not (tmp_path / "plain" / RESULT).exists()
    with pytest.raises(ConfigError, match="0 items"):
        measure(tmp_path, settings(), prepare(settings()), None)


def test_a_share_that_is_too_small_for_the_catalogue_is_refused(settings):
    with pytest.raises(DataError, match="1 of 40 items would be new"):
        prepare(settings(new_items=0.02))


def test_an_engine_that_keeps_no_heads_is_refused_before_anything_runs(settings):
    with pytest.raises(ConfigError, match="keeps no heads"):
        settings(engine="devices", new_items=0.2, training={"model": "neumf"})
    assert settings(engine="devices", new_items=0.2, training={"model": "gmf"}).new_items == 0.2


def test_the_command_prints_them_keeps_them_and_can_start_anew(tmp_path, small_data, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["simulate", "--data", str(small_data), "--new-items", "0.2", "--rounds", "1", "--dim", "4",
               "--baselines", "none", "--no-report", "--model", "gmf", "--folder", "out"]  # fmt: skip
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["new_items"]
    assert found == json.loads((tmp_path / "out" / RESULT).read_text())
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "random order" in said
    assert f"{found['items']} items were in nobody's history" in said
    assert main([*command, "--fresh", "--quiet"]) == 0


@pytest.mark.parametrize("installed", [True, False])
def test_what_reads_the_texts_is_decided_once_and_kept(tmp_path, settings, run, monkeypatch, installed):
    monkeypatch.setattr(preparing.text, "is_installed", lambda: installed)
    monkeypatch.setattr(preparing, "embeddings_of", lambda texts, **_: np.eye(len(texts), 12, dtype=np.float32))
    config = settings(data="demo", schedule={"rounds": 1}, training={"model": "gmf"})
    decided = way_to_read(config.content)
    preparing._prepare.cache_clear()
    result = run(config, tmp_path / "run")
    preparing._prepare.cache_clear()
    assert read_config(tmp_path / "run", RESOLVED).content.text == decided
    kept = json.loads((tmp_path / "run" / "result.json").read_text())["content"]
    assert result["content"] == kept
    assert kept["text_columns"] > 0
    assert (kept["reader"] == "tfidf") == (decided == "tfidf")


@pytest.mark.parametrize("content", [{"use": False}, {"text_dim": 0}, {"text": "off"}])
def test_text_that_is_left_out_is_not_read(settings, monkeypatch, content):
    monkeypatch.setattr(preparing, "embeddings_of", lambda *_, **__: pytest.fail("text was read"))
    prepared = prepare(settings(data="demo", content=content))
    assert prepared.reader == "off"
    assert prepared.content.num_text == 0
