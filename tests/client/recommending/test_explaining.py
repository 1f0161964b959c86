"""Explanations: both sums are the score, for every registered model; a term is what leaving its source out changes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from oracle.device import score_catalogue
from oracle.modules import initial_state

from palate.client.recommending.explaining import explain, joined, reason
from palate.client.recommending.facets import column_groups, facets_of_item, group_of
from palate.client.recommending.taste import (
    DISLIKED_TARGET,
    DISLIKED_WEIGHT,
    Nudge,
    contrast,
    fit,
    space_of,
)
from palate.data.catalogue import Catalogue
from palate.models.scores.base import ResidualHead, ScoreModel, Shape
from palate.models.scores.registry import SCORE_MODELS, fitting_of
from palate.models.table import ItemTable
from palate.models.training import LocalTraining

from .conftest import preferences_of

FIXED = ("popularity", "genre: Crime", "genre: Crime, after 1995", "decade: 1990s", "text 1")
DIM, NUM_ITEMS = 6, 80
ITEMS = np.array([3, 9, 27, 41, 8], dtype=np.int32)
CLOSED_FORM = [name for name, model in SCORE_MODELS.items() if "whole" in model.objectives]


def table(seed: int = 0) -> ItemTable:
    rng = np.random.default_rng(seed)
    fixed = rng.normal(size=(NUM_ITEMS, len(FIXED))).astype(np.float32)
    fixed[:, 0] = rng.uniform(0, 3, NUM_ITEMS)
    return ItemTable(fixed, rng.normal(size=(NUM_ITEMS, DIM)).astype(np.float32))


def trained_state(name: str, objective: str, seed: int) -> dict[str, torch.Tensor]:
    shape = Shape(fixed_dim=len(FIXED), dim=DIM, hidden=4)
    generator = torch.Generator().manual_seed(seed)
    fresh = initial_state(name, objective, shape)
    return {key: 0.3 * torch.randn(value.shape, generator=generator) for key, value in fresh.items()}


def trained_head(name: str, state: dict[str, torch.Tensor]) -> ResidualHead:
    parameters = {key: value.numpy() for key, value in state.items()}
    return ResidualHead(SCORE_MODELS[name], parameters, len(FIXED) + DIM)


def preferences():
    events = [("had", int(item)) for item in ITEMS]
    return preferences_of([*events, ("dislike", 60), ("like", 9)])


@pytest.mark.parametrize("name", CLOSED_FORM)
@pytest.mark.parametrize("seed", range(3))
def test_both_sums_are_the_score_of_every_model(name, seed):
    shared, config = table(seed), fitting_of(LocalTraining(model=name, hidden=4))
    state = trained_state(name, "whole", seed)
    expected = score_catalogue(shared, ITEMS, state, config)
    model = SCORE_MODELS[name]
    head = trained_head(name, state) if model.residual_head else None
    space = space_of(shared.rows, config, popularity=0, intercept=model.intercept)
    taste = fit(space, preferences_of([("had", int(item)) for item in ITEMS]), config)
    groups = column_groups(FIXED, DIM, intercept=model.intercept)
    for explanation in explain(np.arange(NUM_ITEMS), space, taste, groups, head):
        assert explanation.score == pytest.approx(expected[explanation.item], abs=1e-5)  # by the sources
        assert sum(explanation.columns.values()) == pytest.approx(expected[explanation.item], abs=1e-5)


class Unsplit(SCORE_MODELS["neumf"]):
    """A head that knows no split of its own: it gets the one of the base class."""

    contributions = vars(ScoreModel)["contributions"]


@pytest.mark.parametrize("model", [SCORE_MODELS["neumf"], Unsplit])
def test_the_parts_of_a_non_linear_score_add_up_and_an_unread_column_adds_nothing(model):
    head = replace(trained_head("neumf", trained_state("neumf", "whole", 1)), model=model)
    rows = table().rows
    wide = np.column_stack([rows, np.ones(NUM_ITEMS, dtype=np.float32)])
    parts = head.contributions(wide)
    np.testing.assert_allclose(parts.sum(axis=1) + head.empty_score, head.scores(wide), atol=1e-5)
    np.testing.assert_array_equal(head.scores(wide), head.scores(rows))
    assert not parts[:, : len(FIXED)].any()
    assert not parts[:, -1].any(), "the constant column is not the head's"
    assert parts[:, len(FIXED) : -1].any()


def test_an_items_term_is_what_setting_its_target_to_nought_takes_from_the_score():
    config = fitting_of(LocalTraining(model="gmf", unobserved_weight=0.2, regularisation=0.5))
    space = space_of(table().rows, config, popularity=0)
    nudge = Nudge("asked", "crime", contrast(space, np.arange(30, 40)), 0.7)
    taste = fit(space, preferences(), config, [nudge])
    wide = space.rows.astype(np.float64)
    own = [source.item for source in taste.sources if source.item >= 0]
    weights = np.concatenate([taste.weights, [DISLIKED_WEIGHT]])
    normal = 0.2 * wide.T @ wide + 0.5 * np.eye(wide.shape[1]) + (wide[own] * weights[:, None]).T @ wide[own]
    target = np.array([1.0] * 5 + [DISLIKED_TARGET])
    whole = np.linalg.solve(normal, wide[own].T @ (weights * target))
    explained = explain(np.array([12, 70]), space, taste, column_groups(FIXED, DIM, intercept=False))
    for place in range(len(own)):
        without = np.where(np.arange(len(own)) == place, 0.0, target)
        changed = whole - np.linalg.solve(normal, wide[own].T @ (weights * without))
        for explanation in explained:
            assert explanation.values[place] == pytest.approx(wide[explanation.item] @ changed, abs=1e-9)


def test_reasons_name_what_speaks_for_this_item_rather_than_for_any():
    rng = np.random.default_rng(3)
    rows = np.zeros((40, 3), dtype=np.float32)
    rows[:, 0] = rng.uniform(0, 1, 40)
    rows[:20, 1], rows[20:, 2] = 1.0, 1.0
    space = space_of(rows, fitting_of(LocalTraining(regularisation=1.0)), popularity=0)
    rows[[1, 30], 0] = 1.0
    catalogue = Catalogue(
        ids=tuple(map(str, range(40))),
        titles=tuple(f"Film {item}" for item in range(40)),
        genres=tuple(("Crime",) if item < 20 else ("War",) for item in range(40)),
        years=np.full(40, 1995, dtype=np.int32),
        texts=("",) * 40,
    )
    taste = fit(space, preferences_of([("had", 1), ("had", 30)]), fitting_of(LocalTraining(regularisation=1.0)))
    groups = ("popularity", "genre: Crime", "genre: War")
    crime, war = explain(np.array([5, 25]), space, taste, groups)
    said = [reason(each, facets_of_item(each.item, catalogue), catalogue) for each in (crime, war)]
    assert all(each.columns["popularity"] >= each.score / 2 for each in (crime, war))
    assert said == [
        "popular with everybody; because of Film 1 and the genre Crime",
        "popular with everybody; because of Film 30 and the genre War",
    ]
    rows[:, 0] /= 10
    space = space_of(rows, fitting_of(LocalTraining(regularisation=1.0)), popularity=0)
    taste = fit(space, preferences_of([("had", 1), ("had", 30)]), fitting_of(LocalTraining(regularisation=1.0)))
    crime = explain(np.array([5]), space, taste, groups)[0]
    assert crime.columns["popularity"] < crime.score / 2
    assert reason(crime, facets_of_item(5, catalogue), catalogue) == "because of Film 1 and the genre Crime"


def test_an_item_that_shares_no_genre_is_no_reason_and_three_reasons_are_enough():
    rows = np.zeros((40, 2), dtype=np.float32)
    rows[:, 1] = 1.0 + 0.01 * np.arange(40)
    genres = [("Crime",)] * 40
    genres[3] = ("War",)
    catalogue = Catalogue(
        ids=tuple(map(str, range(40))),
        titles=tuple(f"Film {item}" for item in range(40)),
        genres=tuple(genres),
        years=np.full(40, 1995, dtype=np.int32),
        texts=("",) * 40,
    )
    space = space_of(rows, fitting_of(LocalTraining(regularisation=1.0)), popularity=None)
    taste = fit(
        space, preferences_of([("had", item) for item in (3, 4, 5, 6)]), fitting_of(LocalTraining(regularisation=1.0))
    )
    explanation = explain(np.array([39]), space, taste, ("decade: 1990s", "genre: Crime"))[0]
    said = reason(explanation, ("genre: Crime", "decade: 1990s"), catalogue)
    assert "Film 3" not in said
    assert 1 <= said.count("Film ") + said.count("the ") <= 3


def test_a_blockbuster_in_the_history_is_no_reason_for_every_other_blockbuster():
    rng = np.random.default_rng(3)
    rows = np.zeros((40, 3), dtype=np.float32)
    rows[:, 0] = rng.uniform(0, 0.5, 40)
    rows[:20, 1], rows[20:, 2] = 1.0, 1.0
    rows[[5, 30], 0] = 4.0
    space = space_of(rows, fitting_of(LocalTraining(regularisation=1.0)), popularity=0)
    taste = fit(space, preferences_of([("had", 1), ("had", 30)]), fitting_of(LocalTraining(regularisation=1.0)))
    explanation = explain(np.array([5]), space, taste, ("popularity", "genre: Crime", "genre: War"))[0]
    sources = [source.item for source in explanation.sources]
    assert explanation.values[sources.index(30)] > 0, "the blockbuster does add to the score"
    catalogue = Catalogue.of([f"Film {item}" for item in range(40)])
    said = reason(explanation, ("genre: Crime",), catalogue)
    assert said == "popular with everybody; because of Film 1 and the genre Crime"


def test_what_adds_hardly_anything_to_the_score_is_no_reason():
    rng = np.random.default_rng(3)
    rows = np.zeros((40, 3), dtype=np.float32)
    rows[:, 0] = rng.uniform(0, 1, 40)
    rows[:20, 1], rows[20:, 2] = 1.0, 1.0
    catalogue = Catalogue(
        ids=tuple(map(str, range(40))),
        titles=tuple(f"Film {item}" for item in range(40)),
        genres=(("Crime",),) * 20 + (("War",),) * 20,
        years=np.zeros(40, dtype=np.int32),
        texts=("",) * 40,
    )
    said = {}
    for regularisation in (1.0, 20.0):
        config = fitting_of(LocalTraining(regularisation=regularisation))
        space = space_of(rows, config, popularity=0)
        taste = fit(space, preferences_of([("dislike", 25)]), config)
        explanation = explain(np.array([5]), space, taste, ("popularity", "genre: Crime", "genre: War"))[0]
        assert explanation.columns["genre: Crime"] > 0
        said[regularisation] = reason(explanation, ("genre: Crime",), catalogue)
    # 7 % and 0.2 % of the score
    assert said == {1.0: "popular with everybody; because of the genre Crime", 20.0: "popular with everybody"}


def test_an_unknown_person_is_told_that_it_is_popularity():
    shared = table()
    space = space_of(shared.rows, fitting_of(LocalTraining()), popularity=0)
    taste = fit(space, preferences_of([]), fitting_of(LocalTraining()))
    explanation = explain(np.array([4]), space, taste, column_groups(FIXED, DIM, intercept=False))[0]
    catalogue = Catalogue(("a",), ("A",), ((),), np.zeros(1, dtype=np.int32), ("",))
    assert reason(explanation, (), catalogue) == "popular with everybody"


def test_columns_go_by_the_facet_that_they_speak_of():
    assert list(map(group_of, FIXED)) == ["popularity", "genre: Crime", "genre: Crime", "decade: 1990s", "description"]
    assert group_of("genre: Look, after all") == "genre: Look, after all"


@pytest.mark.parametrize(
    ("words", "said"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (list("abc"), "a, b and c")]
)
def test_words_are_joined_as_a_sentence_does(words, said):
    assert joined(words) == said
