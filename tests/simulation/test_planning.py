"""What would run: the same through every door, each setting with its source and a reason."""

from __future__ import annotations

import pytest

from palate.server import resolving
from palate.server.resolving import Choice, Source
from palate.simulation import resolving as simulated
from palate.simulation.config import checked_config
from palate.simulation.planning import plan
from palate.simulation.prepare import prepare
from palate.simulation.resolving import in_words, resolve


def chosen(values):
    return {name: Choice(value, "so it is") for name, value in values.items()}


STRONG = {
    "schedule.dim": 112, "schedule.head": 2.6, "schedule.rounds": 7, "privacy.popularity_share": 0.1,
    "optimiser.groups": 120, "training.own_items_only": True,
}  # fmt: skip
WEAK = {"schedule.head": 0.0, "optimiser.groups": 0, "training.own_items_only": False}


@pytest.mark.parametrize("content", [True, False])
def test_a_plan_knows_whether_there_is_content_and_says_what_it_means(settings, monkeypatch, content):
    """A small federation would never be planned so: strength is taken for granted here."""
    asked = []

    def plan(epsilon, delta, numbers, *, given, own_items, filterable):
        asked.append((epsilon, delta, numbers, given, own_items, filterable))
        return chosen(STRONG | (WEAK if content else {}))

    monkeypatch.setattr(resolving, "planned", plan)
    config = checked_config({"data": settings().data, "content": {"use": content}, "schedule": {"rounds": 2}})
    decided, found = resolve(config, prepare(config))
    numbers = resolving.PublicNumbers(cohort=36, num_items=40, content=content)
    assert asked == [(8.0, 1e-5, numbers, {"schedule.rounds": 2}, True, True)]
    assert (decided.schedule.rounds, decided.schedule.dim) == (2, 112)  # rounds were given
    assert decided.schedule.head == (0.0 if content else 2.6)
    assert (decided.optimiser.groups, decided.training.own_items_only) == ((0, False) if content else (120, True))
    assert resolve(decided, prepare(decided))[0] == decided
    sources = {setting.name: setting.source for setting in found}
    assert (sources["schedule.dim"], sources["schedule.rounds"]) == (Source.PLANNED, Source.ASKED)
    words = in_words(found)
    assert "schedule.dim 112" in words
    assert ("optimiser.groups 120" in words and "training.own_items_only true" in words) == (not content)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"optimiser": {"momentum": 0.5}}, (True, False)),
        ({"release": {"steps": ["project"]}}, (True, False)),
        ({"training": {"model": "gmf", "objective": "bce"}}, (False, True)),
    ],
)
def test_a_plan_is_told_by_which_settings_nothing_can_be_filtered(settings, monkeypatch, given, told):
    asked = []

    def plan(epsilon, delta, numbers, *, given, own_items, filterable):
        asked.append((own_items, filterable))
        return chosen(STRONG | WEAK)

    monkeypatch.setattr(resolving, "planned", plan)
    config = checked_config({"data": settings().data, **given})
    resolve(config, prepare(config))
    assert asked == [told]


@pytest.mark.parametrize(
    "given",
    [
        {"schedule": {"head": 0.0}},
        {"training": {"own_items_only": False}},
        {"training": {"own_items_only": True}},
        {"training": {"objective": "bce", "model": "gmf"}},
        {"training": {"model": "autoencoder"}},
        {"optimiser": {"groups": 0}},
        {"optimiser": {"momentum": 0.9}},
        {"optimiser": {"item_regularisation": 0.1}},
        {"optimiser": {"name": "adam"}},
        {"release": {"steps": ["shrink"]}},
        {"schedule": {"dim": 5, "rounds": 2}},
    ],
)
def test_whatever_is_given_by_hand_what_a_strong_federation_plans_can_be_run(settings, monkeypatch, given):
    monkeypatch.setattr(simulated, "cohort_size", lambda population, participation: 29_858)
    config = checked_config({"data": settings().data, "content": {"use": False}, **given})
    decided, _ = resolve(config, prepare(config))
    for section, values in given.items():
        for name, value in values.items():
            assert getattr(getattr(decided, section), name) == (tuple(value) if name == "steps" else value)
    assert decided.optimiser.groups == 0 or decided.training.own_items_only


def test_a_plan_says_where_there_is_too_little_to_learn_from(settings):
    config = checked_config({"data": settings().data, "epsilon": 1.0})
    decided, found = resolve(config, prepare(config))
    assert decided.schedule.rounds == 1
    assert "before taste can be learned" in next(each.reason for each in found if each.name == "schedule.rounds")


def test_a_plan_names_the_source_and_the_reason_of_every_setting(settings):
    asked = {"data": settings().data, "epsilon": 2.0, "schedule": {"dim": 5}}
    found = plan(asked)
    said = {each.name: each for each in found.decisions}
    assert said["epsilon"].source is said["schedule.dim"].source is Source.ASKED
    assert said["schedule.rounds"].source is Source.PLANNED
    assert said["delta"].source is Source.UNIT
    assert said["privacy.clip_norm"].source is Source.DEFAULT
    assert said["content.text"].source is Source.DATA
    assert all(each.reason for each in found.decisions)
    assert (found.people, found.items) == (36, 40)
    assert found.to_dict()["promises"] == [{"unit": "user", "epsilon": 2.0, "delta": 1e-5}]
    terms = found.settings.terms(population=36)
    assert found.noise_multipliers == (terms.popularity.noise_multiplier, terms.train.noise_multiplier)


def test_a_plan_without_protection_promises_nothing(settings):
    found = plan(settings())
    assert (found.noise_multipliers, found.protection.protected) == (None, False)
    assert found.to_dict()["promises"] == []
    assert "no privacy" in str(found.protection)


def test_a_plan_says_what_would_be_left_with_more_colluders_where_others_protect(settings):
    data = settings().data
    made = plan({"data": data, "epsilon": 8.0})
    assert [each.share for each in made.if_colluding] == [0.01, 0.05, 0.1]
    assert 7.99 < made.if_colluding[0].epsilon < made.if_colluding[1].epsilon < made.if_colluding[2].epsilon
    assert made.to_dict()["if_colluding"] == [each.to_json() for each in made.if_colluding]
    assert made.colluders.startswith("if more of all people")
    alone = plan({"data": data, "unit": "interaction", "epsilon": 8.0})
    assert (alone.if_colluding, alone.colluders) == ((), "")
