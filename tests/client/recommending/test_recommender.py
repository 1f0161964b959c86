"""Lists for one person: the scores of training, filters that hold, feedback that counts at once, sums that add up."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from oracle.device import score_catalogue
from oracle.modules import initial_state

from palate.client.recommending.recommender import Recommender
from palate.client.recommending.requests import Request
from palate.client.recommending.reranking import NOTCHES
from palate.errors import ConfigError
from palate.models import lists
from palate.models.new_items import introduce
from palate.models.scores.base import Shape
from palate.models.scores.registry import SCORE_MODELS, fitting_of, serving_training
from palate.models.table import ItemTable
from palate.models.training import LocalTraining

from .conftest import preferences_of

CRIME = (1, 5, 9, 13, 17, 21)  # every fourth film is of crime
NAMES = ("popularity", "genre: Comedy", "genre: Crime", "genre: Horror", "genre: War", "decade: 1990s")
MODELS = [(name, objective) for name, model in sorted(SCORE_MODELS.items()) for objective in sorted(model.objectives)]


def had(*items: int, extra: tuple[tuple[str, int | str], ...] = ()):
    return preferences_of([*(("had", item) for item in items), *extra])


def items_of(answer) -> list[int]:
    return [line.item for line in answer.recommendations]


@pytest.mark.parametrize(("name", "objective"), MODELS)
@pytest.mark.parametrize("weights", [{"serving_half_life": 3.0}, {"serving_forgetting": "hyperbolic"}], ids=str)
def test_scores_are_those_of_the_copy_that_serves_and_reasons_add_up(name, objective, weights, table, catalogue):
    config = LocalTraining(model=name, objective=objective, hidden=4, regularisation=2.0, **weights)
    shape = Shape(fixed_dim=table.fixed_dim, dim=table.dim, hidden=4)
    generator = torch.Generator().manual_seed(2)
    state = {
        key: 0.3 * torch.randn(value.shape, generator=generator)
        for key, value in initial_state(name, objective, shape).items()
    }
    whole = objective == "whole"
    serving = serving_training(config, noised_head=not whole)
    expected = score_catalogue(table, np.array(CRIME, dtype=np.int32), state if whole else None, serving)
    shelf = Recommender(
        table, catalogue, NAMES, fitting_of(config), head={key: value.numpy() for key, value in state.items()}
    )
    person = shelf.person(had(*CRIME))
    np.testing.assert_allclose(person.scores, expected, atol=1e-5)
    for line in person.recommend(Request(count=20)).recommendations:
        assert line.score == pytest.approx(expected[line.item], abs=1e-5)
        assert sum(line.explanation.columns.values()) == pytest.approx(expected[line.item], abs=1e-5)


def test_a_list_loads_nothing_that_takes_longer_than_itself():
    modules = "palate.client.owner.device, palate.client.owner.list_text, palate.client.owner.naming"
    heavy = ("torch", "scipy", "polars", "pydantic", "rapidfuzz", "snowballstemmer", "flwr")
    code = f"import sys, {modules}; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_plain_list_is_the_best_of_what_was_not_had_disliked_or_hidden(shelf):
    preferences = had(*CRIME, extra=(("dislike", 25), ("hide", 29)))
    person = shelf.person(preferences)
    gone = np.zeros((1, len(person.scores)), dtype=bool)
    gone[0, [*CRIME, 25, 29]] = True
    assert items_of(person.recommend()) == lists.top_items(person.scores[None], gone, 10)[0].tolist()


def test_hiding_changes_no_score_and_undo_brings_the_list_back(shelf):
    before = shelf.person(had(*CRIME))
    first = items_of(before.recommend())[0]
    events = [*(("had", item) for item in CRIME), ("hide", first)]
    after = shelf.person(preferences_of(events))
    np.testing.assert_array_equal(before.scores, after.scores)
    assert first not in items_of(after.recommend())
    assert items_of(shelf.person(preferences_of(events[:-1])).recommend()) == items_of(before.recommend())


def test_feedback_counts_in_the_next_list(shelf, catalogue):
    def share(preferences, genre: str) -> float:
        chosen = items_of(shelf.person(preferences).recommend(Request(count=20)))
        return float(np.mean([genre in catalogue.genres[item] for item in chosen]))

    liked = had(*CRIME, extra=tuple(("like", item) for item in (2, 6, 10, 14)))
    disliked = had(*CRIME, extra=tuple(("dislike", item) for item in range(25, 73, 4)))
    assert share(liked, "Horror") > share(had(*CRIME), "Horror")
    assert share(disliked, "Crime") < share(had(*CRIME), "Crime")


@pytest.mark.parametrize("history", [(), CRIME])
def test_a_pin_brings_more_of_a_facet_and_a_mute_less(shelf, catalogue, history):
    def share(*events: tuple[str, int | str]) -> float:
        chosen = items_of(shelf.person(had(*history, extra=events)).recommend(Request(count=40)))
        return float(np.mean(["War" in catalogue.genres[item] for item in chosen]))

    facet = "genre: War"
    assert share(("mute", facet)) < share() < share(("pin", facet))
    pinned = shelf.person(had(*history, extra=(("pin", facet),)))
    assert any("the genre War (pinned)" in line.why for line in pinned.recommend().recommendations)


def test_a_setting_for_a_facet_that_is_gone_rests(shelf):
    gone = shelf.person(had(*CRIME, extra=(("pin", "genre: Opera"),)))
    np.testing.assert_array_equal(gone.scores, shelf.person(had(*CRIME)).scores)


@pytest.mark.parametrize(
    "request_",
    [
        Request(genres=("genre: War", "genre: Horror"), without=("genre: Comedy",), count=15),
        Request(first_year=1985, last_year=1995, count=15),
        Request(without_years=((1980, 1999),), count=15, diversity=0.6),
        Request(titles=(40, 41), unlike=(42,), more=("genre: War",), less=("genre: Crime",), popularity=-1, count=15),
        Request(new_only=True, count=5),
    ],
)
def test_filters_hold(shelf, catalogue, request_):
    chosen = items_of(shelf.person(had(*CRIME)).recommend(request_))
    assert chosen
    assert not set(chosen) & {*CRIME, *request_.titles, *request_.unlike}
    for item in chosen:
        own, year = {f"genre: {genre}" for genre in catalogue.genres[item]}, int(catalogue.years[item])
        assert not request_.genres or own & set(request_.genres)
        assert not own & set(request_.without)
        assert (request_.first_year or 0) <= year <= (request_.last_year or 9999)
        assert not any(first <= year <= last for first, last in request_.without_years)
        assert not request_.new_only or year >= catalogue.years.max() - 1


def test_a_title_in_a_request_brings_what_is_like_it(shelf, table):
    person = shelf.person(had(*CRIME))
    plain = person.recommend()
    far, near = 42, items_of(plain)[0]
    rows = table.rows[:, 1:]
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def likeness(answer, item: int) -> float:
        return float(np.mean([unit[other] @ unit[item] for other in items_of(answer) if other != item]))

    assert likeness(person.recommend(Request(titles=(far,))), far) > likeness(plain, far) + 0.1
    assert likeness(person.recommend(Request(unlike=(near,))), near) < likeness(plain, near) - 0.1


def test_a_wish_for_the_less_known_brings_what_is_less_popular(shelf, table):
    person = shelf.person(had(*CRIME))

    def popularity(wish: int) -> float:
        return float(table.fixed[items_of(person.recommend(Request(popularity=wish, count=20))), 0].mean())

    assert popularity(-1) < popularity(0) < popularity(1)


def test_the_dial_never_makes_a_list_less_diverse(shelf, table):
    for preferences in (had(), had(*CRIME), had(3, 6)):
        person, previous = shelf.person(preferences), -1.0
        for notch in range(NOTCHES + 1):
            chosen = np.array([items_of(person.recommend(Request(diversity=notch / NOTCHES)))])
            found = lists.intra_list_diversity(chosen, table.fixed[:, 1:]) or 0.0
            assert found >= previous - 1e-6
            previous = found


def test_somebody_unknown_gets_what_is_popular_and_chosen_genres_first(shelf, table, catalogue):
    plain = shelf.person(had()).recommend()
    assert items_of(plain) == np.argsort(-table.fixed[:, 0], kind="stable")[:10].tolist()
    assert "nothing is known of your taste yet" in plain.notes[0]
    chosen = shelf.person(had()).recommend(Request(genres=("genre: War",)))
    assert all("War" in line.genres for line in chosen.recommendations)
    popularity = [table.fixed[line.item, 0] for line in chosen.recommendations]
    assert np.mean(popularity) > 2 * table.fixed[:, 0].mean()


@pytest.mark.parametrize("constant", [False, True])
def test_a_table_without_popularity_claims_none(table, catalogue, training, constant):
    fixed = np.column_stack([np.full(table.num_items, 0.5, np.float32), table.fixed[:, 1:]])
    bare = ItemTable(fixed if constant else fixed[:, 1:], table.learned)
    shelf = Recommender(bare, catalogue, NAMES if constant else NAMES[1:], training)
    for person in (shelf.person(had(*CRIME)), shelf.person(had())):
        plain = person.recommend()
        answers = [person.recommend(shelf.reader.read(asked)) for asked in ("popular crime", "obscure crime")]
        assert items_of(answers[0]) == items_of(answers[1])
        assert [answer.understood for answer in answers] == ["Crime", "Crime"]
        assert all("nothing here says what is well known" in " ".join(answer.notes) for answer in answers)
        assert not any("popular" in note or "well known" in note for note in plain.notes)
    assert "nothing is known of your taste yet" in shelf.person(had()).recommend().notes[0]


def test_new_items_are_recommended_for_their_content(table, catalogue, training):
    new = np.array([1, 100, 101, 102, 103])
    shelf = Recommender(table, catalogue, NAMES, training, new=new)
    person = shelf.person(had(5, 9, 13, 17, 21))
    np.testing.assert_allclose(person.scores, introduce(table, new).rows @ person.taste.vector, atol=1e-5)
    answer = person.recommend(Request(new_only=True))
    assert sorted(items_of(answer)) == new.tolist()
    assert all(line.is_new for line in answer.recommendations)
    assert "Crime" in answer.recommendations[0].genres
    assert answer.notes[0].startswith("5 of 10")


def test_an_answer_is_plain_json_and_never_shows_the_person(shelf, catalogue):
    person = shelf.person(had(*CRIME, extra=(("pin", "genre: War"),)))
    preferences = json.loads(json.dumps(person.recommend().to_dict(catalogue, explain=True)))
    first = preferences["recommendations"][0]
    *items, pinned = first["sources"]
    assert [(source["item"], source["title"]) for source in items] == [
        (catalogue.ids[item], catalogue.titles[item]) for item in CRIME
    ]
    assert (pinned["kind"], "item" in pinned, "title" in pinned) == ("pinned", False, False)
    assert sum(source["value"] for source in first["sources"]) == pytest.approx(first["score"], abs=1e-5)
    assert repr(person) == "Person(<on this device only>)"


def test_a_request_in_words_becomes_a_list(shelf, catalogue):
    request = shelf.reader.read("no war, scary, from the 80s, like picture number 42")
    answer = shelf.person(had(*CRIME)).recommend(request)
    assert answer.understood.startswith("like Picture number 42")
    assert all("War" not in line.genres and 1980 <= line.year <= 1989 for line in answer.recommendations)


def test_a_portrait_names_what_was_had_and_its_words(shelf):
    portrait = shelf.person(had(7, 21, 49, 1, 5)).portrait
    assert portrait.words[0][0] == "trains"
    assert portrait.sentence.startswith("drawn to Crime")


def test_what_does_not_fit_together_is_refused(shelf, table, catalogue, training):
    with pytest.raises(ConfigError, match="named columns"):
        Recommender(table, catalogue, NAMES[:-1], training)
    with pytest.raises(ConfigError, match="all 240 items are new"):
        Recommender(table, catalogue, NAMES, training, new=range(240))
    with pytest.raises(ConfigError, match="item 240"):
        shelf.person(had(240))
    with pytest.raises(ConfigError, match="no facet"):
        shelf.person(had()).recommend(Request(genres=("genre: Opera",)))
