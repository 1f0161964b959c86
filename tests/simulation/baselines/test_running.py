"""The registry's entries on planted tastes, and the rules of fitting, selecting and reporting."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest

from palate.errors import ConfigError
from palate.models.histories import Histories
from palate.privacy.accounting.events import Unit
from palate.privacy.budget import Promise
from palate.simulation.baselines import remembering, running
from palate.simulation.baselines.base import FitData
from palate.simulation.baselines.registry import BASELINES
from palate.simulation.baselines.running import run_baselines
from palate.simulation.datasets.splits import HeldOut, Split
from palate.simulation.evaluation import evaluate

NUM_USERS, NUM_ITEMS, NUM_TASTES = 240, 60, 4
PROMISE = Promise(unit=Unit.USER, epsilon=8.0, delta=1e-5)


def planted(seed=0):
    """Users who mostly stay with one of a few groups of items; inside a group some items are more popular."""
    rng = np.random.default_rng(seed)
    taste = rng.integers(0, NUM_TASTES, NUM_USERS)
    group = np.arange(NUM_ITEMS) % NUM_TASTES
    weight = 1.0 / (1.0 + np.arange(NUM_ITEMS) // NUM_TASTES)
    histories, held = [], {"validation": [], "test": []}
    for user in range(NUM_USERS):
        chance = weight * np.where(group == taste[user], 1.0, 0.03)
        sequence = rng.choice(NUM_ITEMS, 8, replace=False, p=chance / chance.sum())
        sequence = rng.permutation(sequence)
        histories.append(sequence[:-2])
        held["validation"].append(sequence[-2])
        held["test"].append(sequence[-1])
    indptr = np.arange(0, 6 * NUM_USERS + 1, 6, dtype=np.int64)
    negatives = rng.integers(0, NUM_ITEMS, (NUM_USERS, 30)).astype(np.int32)
    split = Split(
        Histories(indptr, np.concatenate(histories).astype(np.int32)),
        HeldOut(np.array(held["validation"], dtype=np.int32), negatives),
        HeldOut(np.array(held["test"], dtype=np.int32), negatives),
        NUM_ITEMS,
    )
    content = np.eye(NUM_TASTES, dtype=np.float32)[group] - 1 / NUM_TASTES
    return split, content


@pytest.fixture(scope="module")
def world():
    return planted()


@pytest.mark.parametrize("name", [name for name in BASELINES if not name.endswith("popularity")])
def test_every_model_of_taste_beats_popularity_on_planted_tastes(world, name):
    split, content = world
    known = FitData(split.train, NUM_ITEMS, content, promise=PROMISE, noise_seed=1, ordered=True)
    popular, found = (
        evaluate(BASELINES[which].fit(known), split.validation, split.train).metrics("full").ndcg.value
        for which in ("popularity", name)
    )
    assert found > popular + 0.02


def test_results_come_in_order_with_validation_and_test_and_can_be_told_as_json(world):
    split, content = world
    announced = []
    found = run_baselines(
        ["item_knn", "popularity"],
        split,
        content=content,
        groups={"half": ["left", "right"] * (NUM_USERS // 2)},
        progress=announced.append,
    )
    assert list(found) == announced == ["item_knn", "popularity"]
    told = json.loads(json.dumps(found["item_knn"].to_dict(), allow_nan=False))
    for part in ("validation", "test"):
        assert told[part]["sampled"]["users"] == NUM_USERS
        assert [band["label"] for band in told[part]["by_group"]["half"]] == ["left", "right"]
    assert told["skipped"] is None
    assert told["cpu_seconds"] > 0
    assert found["item_knn"].test_evaluation.metrics().hit_rate.value == told["test"]["sampled"]["hr@10"]


def test_validation_is_fitted_on_training_items_and_test_on_training_and_validation(world):
    split, content = world
    fitted, entry = [], BASELINES["popularity"]

    def spy(known):
        fitted.append(known.history)
        return entry.fit(known)

    run_baselines([replace(entry, fit=spy)], split, content=content)
    assert [len(history.items) for history in fitted] == [6 * NUM_USERS, 7 * NUM_USERS]
    assert not (fitted[1].items.reshape(NUM_USERS, 7) == split.test.item[:, None]).any()


@pytest.mark.parametrize("name", ["content_only", "dp_content", "dp_popularity"])
def test_a_control_sums_what_its_run_sums_and_fits_people_to_all_they_know(world, name):
    split, content = world

    def quality(evaluation):
        return evaluation.metrics("full").ndcg.value

    def fitted(**known):
        known = FitData(num_items=NUM_ITEMS, content=content, promise=PROMISE, noise_seed=1, **known)
        return quality(evaluate(BASELINES[name].fit(known), split.test, split.full_train))

    ran = quality(run_baselines([name], split, content=content, promise=PROMISE, noise_seed=1)[name].test_evaluation)
    assert ran == fitted(history=split.full_train, summed=split.train)
    assert ran != fitted(history=split.full_train)


def test_what_cannot_run_is_skipped_with_its_reason(world):
    split, _ = world
    small = replace(BASELINES["ease"], max_items=NUM_ITEMS - 1)
    found = run_baselines([small, "local_only", "content_only", "transitions"], split)
    assert found["transitions"].skipped == "the data has no times"
    assert found["ease"].skipped == "60 items, at most 59 are practical"
    assert found["local_only"].skipped == "the items have no public content"
    assert found["content_only"].skipped is None
    assert found["ease"].test is None


@pytest.mark.parametrize("promise", [None, Promise(unit=Unit.INTERACTION, epsilon=8.0, delta=1e-5)])
def test_without_a_budget_for_whole_people_private_controls_are_skipped_with_the_reason(world, promise):
    split, content = world
    found = run_baselines(["dp_popularity", "popularity", "dp_content"], split, content=content, promise=promise)
    assert [found[name].skipped for name in found] == [
        "this run has no budget for whole people", None, "this run has no budget for whole people",
    ]  # fmt: skip
    assert found["dp_popularity"].label == "DP popularity"


def test_a_private_control_is_named_after_its_budget_and_repeats_under_a_noise_seed(world):
    split, content = world
    first, second = (
        run_baselines(["dp_popularity", "dp_content"], split, content=content, promise=PROMISE, noise_seed=4)
        for _ in range(2)
    )
    assert [result.label for result in first.values()] == [
        "DP popularity (epsilon 8)", "DP popularity and content (epsilon 8)",
    ]  # fmt: skip
    for name, result in first.items():
        assert result.test == second[name].test
        assert result.validation is not None


def test_without_validation_items_the_test_still_runs(world):
    split, content = world
    nobody = replace(split, validation=replace(split.validation, item=np.full(NUM_USERS, -1, dtype=np.int32)))
    found = run_baselines(["item_knn"], nobody, content=content)["item_knn"]
    assert found.validation is None
    assert found.test.sampled.num_users == NUM_USERS


def test_an_unknown_name_is_refused_before_anything_is_fitted(world):
    split, content = world
    announced = []
    with pytest.raises(ConfigError, match="unknown baseline 'magic'"):
        run_baselines(["popularity", "magic"], split, content=content, progress=announced.append)
    assert announced == []


def test_every_entry_names_its_paper_and_is_found_by_name():
    for name, entry in BASELINES.items():
        assert entry.name == name
        assert entry.label
        assert "(" in entry.citation, f"{name}: a citation has a year"


def independent(num_users=500, num_items=200, length=12, seed=3):
    """People without tastes: everybody draws from the same popularity, so that nothing is better than popularity."""
    rng = np.random.default_rng(seed)
    share = 1.0 / np.arange(1, num_items + 1) ** 0.8
    share /= share.sum()
    drawn = np.array([rng.choice(num_items, length + 2, replace=False, p=share) for _ in range(num_users)])
    drawn = rng.permuted(drawn, axis=1).astype(np.int32)
    unseen = [np.setdiff1d(np.arange(num_items), own) for own in drawn]
    negatives = np.array([rng.choice(own, 99, replace=False) for own in unseen], dtype=np.int32)
    history = Histories(np.arange(0, length * num_users + 1, length, dtype=np.int64), drawn[:, :-2].ravel())
    return Split(history, HeldOut(drawn[:, -2], negatives), HeldOut(drawn[:, -1], negatives), num_items)


def test_a_tuned_reference_does_not_lose_to_popularity_where_there_is_nothing_else_to_learn():
    found = run_baselines(["popularity", "ials", "ease"], independent())
    popular = found["popularity"].validation.sampled.hit_rate
    for name in ("ials", "ease"):
        assert found[name].validation.sampled.hit_rate.value > popular.value - 2 * popular.standard_error
    assert found["ials"].settings["regularisation"] > 0.02


def test_settings_are_chosen_by_validation_and_kept_for_the_test(world):
    split, content = world
    fitted, entry = [], BASELINES["ease"]

    def spy(known, *, regularisation):
        fitted.append((len(known.history.items), regularisation))
        return entry.fit(known, regularisation=regularisation)

    found = run_baselines([replace(entry, fit=spy)], split, content=content)["ease"]
    assert [ridge for size, ridge in fitted if size == 6 * NUM_USERS] == [800.0, 200.0, 3000.0]
    assert fitted[-1] == (7 * NUM_USERS, found.settings["regularisation"])
    each = {
        ridge: run_baselines([replace(entry, candidates=({"regularisation": ridge},))], split, content=content)["ease"]
        for ridge in (800.0, 200.0, 3000.0)
    }
    best = max(each, key=lambda ridge: each[ridge].validation.sampled.ndcg.value)
    assert found.settings == {"regularisation": best}
    assert found.test == each[best].test


def test_the_label_says_whether_a_reference_knows_the_order(world):
    split, _ = world
    labels = [run_baselines(["item_knn"], split, ordered=ordered)["item_knn"].label for ordered in (False, True)]
    assert labels == ["Item kNN", "Item kNN, by recency"]


def test_many_people_are_too_many_for_expensive_references_unless_they_are_asked_for(world, monkeypatch):
    split, content = world
    monkeypatch.setattr(running, "MANY_PEOPLE", NUM_USERS - 1)
    names = ["dp_content", "item_knn"]
    alike = {"content": content, "promise": PROMISE, "noise_seed": 1}
    found = run_baselines(names, split, on_request=False, **alike)
    assert found["item_knn"].skipped == "240 people, above 239 only on request (--baselines all)"
    assert found["dp_content"].test is not None
    assert run_baselines(names, split, **alike)["item_knn"].test is not None


@pytest.fixture
def memory(tmp_path, monkeypatch):
    monkeypatch.setattr(remembering, "folder", lambda: tmp_path / "kept")
    return tmp_path / "kept"


def test_an_expensive_reference_is_fitted_once_for_the_same_data(world, memory, monkeypatch):
    split, content = world
    known = {"content": content, "groups": {"half": ["left", "right"] * (NUM_USERS // 2)}, "remembered": True}
    first = run_baselines(["ease", "popularity"], split, **known)["ease"]
    kept = list(memory.iterdir())
    assert len(kept) == 1  # popularity is cheap
    assert kept[0].stat().st_mode & 0o077 == 0
    monkeypatch.setattr(running, "_fitted", None)  # nothing may be fitted now
    again = run_baselines(["ease"], split, **known)["ease"]
    assert (again.validation, again.test) == (first.validation, first.test)
    assert again.test_evaluation is None
    assert again.to_dict() == first.to_dict()


def test_other_data_seeds_or_code_are_fitted_again(world, memory, monkeypatch):
    split, content = world
    alike = {"content": content, "remembered": True}
    run_baselines(["ease"], split, **alike)
    other = replace(split, test=replace(split.test, negatives=split.test.negatives[:, ::-1]))
    run_baselines(["ease"], other, **alike)
    run_baselines(["ease"], split, **alike | {"content": content + 1})
    run_baselines(["ease"], split, **alike, ordered=True)
    run_baselines(["ease"], split, **alike, seed=1)
    monkeypatch.setattr(remembering, "_computing", lambda: ["another version"])
    run_baselines(["ease"], split, **alike)
    assert len(list(memory.iterdir())) == 6


def test_a_changed_baseline_or_one_of_another_package_is_not_remembered(world, memory):
    split, content = world
    run_baselines([replace(BASELINES["ease"], label="Mine")], split, content=content, remembered=True)
    assert not memory.exists()


def test_a_damaged_or_forgotten_result_is_made_again(world, memory):
    split, content = world
    first = run_baselines(["ease"], split, content=content, remembered=True)["ease"]
    (path,) = memory.iterdir()
    path.write_text(path.read_text().replace(f'"users": {NUM_USERS}', '"users": 3'))
    again = run_baselines(["ease"], split, content=content, remembered=True)["ease"]
    assert again.test == first.test
    assert again.test_evaluation is not None
    assert remembering.forget() == 1
    assert list(memory.iterdir()) == []


def test_the_least_used_results_are_forgotten(memory, monkeypatch):
    monkeypatch.setattr(remembering, "MOST_FILES", 2)
    for number, key in enumerate(("a", "b")):
        remembering.remember(key, {"number": number})
        os.utime(memory / f"{key}.json", (number, number))
    assert remembering.recall("a") == {"number": 0}  # used now
    remembering.remember("c", {"number": 2})
    assert sorted(path.stem for path in memory.iterdir()) == ["a", "c"]
    assert remembering.recall("b") is None
