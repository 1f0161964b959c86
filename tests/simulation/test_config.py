"""Flags, TOML file and run folder mean one configuration; what cannot be used is refused in one line."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.errors import ConfigError
from palate.server.resolving import PROTECTED
from palate.server.settings import Schedule
from palate.simulation.config import SimulationConfig, checked_config, load_config

NONE = {"unit": "none"}

PROTECTIONS = st.just(NONE) | st.fixed_dictionaries(
    {},
    optional={
        "unit": st.just("user"),
        "epsilon": st.floats(1e-3, 100),
        "delta": st.floats(1e-12, 0.5),
        "privacy": st.fixed_dictionaries(
            {"tau": st.none() | st.floats(0.1, 0.9), "cap": st.none() | st.integers(1, 99)},
            optional={"noise": st.sampled_from(["secret", "seeded"]), "clip_norm": st.floats(1e-9, 1e9)},
        ),
    },
)
CONFIGS = st.builds(
    lambda protection, seed, shards, half_life, share, items, strict, names: checked_config(
        protection
        | {
            "data": "a 'quoted' \\ path",
            "seed": seed,
            "shards": shards,
            "baselines": names,
            "training": {"recency_half_life": half_life},
            "schedule": {"participation": share},
            "read": {"items": items, "strict": strict, "min_rating": half_life if half_life < 5 else None},
        }
    ),
    PROTECTIONS,
    st.integers(0, 2**63 - 1),
    st.integers(1, 4096),
    st.floats(1e-300, exclude_min=True) | st.just(float("inf")),
    st.floats(1e-300, 1.0),
    st.none() | st.just("items of mine.csv"),
    st.booleans(),
    st.lists(st.sampled_from(["popularity", "ease", "ials"]), unique=True).map(tuple),
)


@pytest.mark.parametrize("unit", ["none", "interaction", "both"])
def test_a_head_is_refused_where_there_is_no_noise_of_popularity_to_stand_out_of(unit):
    with pytest.raises(ConfigError, match=f"head is 3, and unit '{unit}' does not use it") as refused:
        checked_config({"unit": unit, "schedule": {"head": 3.0}})
    assert "unit user" in refused.value.hint
    assert checked_config({"schedule": {"head": 3.0}}).schedule.head == 3.0


@pytest.mark.parametrize("unit", ["none", "interaction", "both"])
def test_updates_on_own_items_only_are_refused_where_noise_does_not_cover_every_row_of_a_sum(unit):
    with pytest.raises(ConfigError, match=f"own_items_only is true, and unit '{unit}' does not allow it") as refused:
        checked_config({"unit": unit, "training": {"own_items_only": True}})
    assert (refused.value.exit_code, "use unit user" in refused.value.hint) == (2, True)
    assert checked_config({"training": {"own_items_only": True}}).training.own_items_only


def test_a_configuration_without_own_items_only_does_not_name_it():
    assert "own_items_only = " not in checked_config({}).to_toml()
    assert "own_items_only = true" in checked_config({"training": {"own_items_only": True}}).to_toml()


FILTERED = {"training": {"own_items_only": True}, "optimiser": {"groups": 5}}


@pytest.mark.parametrize(
    ("changes", "words", "remedy"),
    [
        ({"training": {}}, "optimiser.groups is 5, and people push", "training.own_items_only to true"),
        ({"training": {"own_items_only": False}}, "people push the rows of all items back", "own_items_only to true"),
        (NONE | {"training": {}}, "optimiser.groups is 5", "optimiser.groups to 0"),
        ({"optimiser": {"groups": 5, "momentum": 0.5}}, "momentum 0.5 brings old noise back", "momentum to 0"),
        ({"optimiser": {"groups": 5, "item_regularisation": 0.1}}, "0.1 pushes all rows", "item_regularisation to 0"),
        ({"optimiser": {"groups": 5, "name": "adam"}}, "optimiser 'adam' does not filter", "name to curvature"),
        ({"release": {"steps": ["project"]}}, "release steps (project) change the noise", "release.steps to none"),
    ],
)
def test_a_filter_of_noise_is_refused_where_it_would_not_know_the_noise(changes, words, remedy):
    assert checked_config(FILTERED).optimiser.groups == 5
    with pytest.raises(ConfigError) as refused:
        checked_config(FILTERED | changes)
    assert words in refused.value.message
    assert remedy in refused.value.hint
    assert refused.value.exit_code == 2


@given(CONFIGS)
def test_a_configuration_survives_toml_and_json(config):
    assert checked_config(tomllib.loads(config.to_toml())) == config
    assert SimulationConfig.model_validate_json(config.model_dump_json()) == config


def test_equal_configurations_have_equal_fingerprints_and_others_do_not():
    base = checked_config(NONE)
    assert base.fingerprint == checked_config({"unit": "none", "seed": 1}).fingerprint
    changes = [{"seed": 2}, {"shards": 5}, {"schedule": {"dim": 63}}, {"training": {"epochs": 2}}, {"baselines": ()}]
    prints = {checked_config(NONE | change).fingerprint for change in changes}
    assert len(prints | {base.fingerprint}) == 1 + len(changes)


def test_the_run_name_says_data_model_unit_and_seed():
    name = checked_config({"unit": "none", "data": "some/where/films.csv.gz", "seed": 5}).default_run_name
    assert name.startswith("films-neumf-none-seed5-")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"unit": "household"}, "unit 'household' has no mechanism"),
        ({"epsilon": 0.0}, "epsilon = 0"),
        ({"delta": 1.0}, "delta = 1"),
        ({"privacy": {"clip_norm": 0.0}}, "privacy.clip_norm = 0"),
        ({"privacy": {"clip_norm": float("nan")}}, "privacy.clip_norm = nan"),
        ({"privacy": {"sensitivity": 1}}, "privacy.sensitivity = 1"),
        ({"privacy": {"evaluation_share": 1.0}}, "privacy.evaluation_share = 1"),
        ({"privacy": {"noise": "little"}}, "privacy.noise = 'little'"),
        (NONE | {"epsilon": 1.0}, "no epsilon"),
        (NONE | {"delta": 1e-5}, "no epsilon and no delta"),
        (NONE | {"training": {"model": "svd"}}, "unknown model 'svd'"),
        (NONE | {"training": {"model": "mlp"}}, "cannot be trained with objective 'whole'"),
        (NONE | {"optimiser": {"name": "sgd"}}, "unknown server optimiser 'sgd'"),
        (NONE | {"baselines": ["svd"]}, "unknown baseline 'svd'"),
        (NONE | {"schedule": {"rounds": 0}}, "schedule.rounds = 0"),
        (NONE | {"schedule": {"participation": 1.5}}, "schedule.participation = 1.5"),
        (NONE | {"schedule": {"participation": float("nan")}}, "schedule.participation = nan"),
        (NONE | {"training": {"learning_rate": float("inf")}}, "training.learning_rate = inf"),
        (NONE | {"training": {"regularisation": float("inf")}}, "training.regularisation = inf"),
        (NONE | {"optimiser": {"step_size": float("inf")}}, "optimiser.step_size = inf"),
        (NONE | {"schedule": {"initial_scale": float("inf")}}, "schedule.initial_scale = inf"),
        (NONE | {"training": {"recency_half_life": float("nan")}}, "recency_half_life = nan"),
        (NONE | {"schedule": 3}, "schedule = 3"),
        (NONE | {"seed": -1}, "seed = -1"),
        (NONE | {"seed": 2**63}, "seed = "),
        (NONE | {"colour": "red"}, "colour = 'red'"),
        (NONE | {"engine": "cloud"}, "engine = 'cloud'"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_name_in_one_line(values, words):
    with pytest.raises(ConfigError) as refused:
        checked_config(values)
    assert words in refused.value.message
    assert "\n" not in refused.value.message
    assert refused.value.hint


def test_a_misspelt_setting_is_answered_with_the_right_one():
    with pytest.raises(ConfigError, match=r"schedule.round = 5: there is no such setting") as refused:
        checked_config({"schedule": {"round": 5}})
    assert refused.value.hint == "did you mean schedule.rounds?"


def test_settings_given_as_objects_mean_what_they_mean_as_values():
    """What nobody set in a section is what the unit uses, and not the default of the section's class."""
    by_objects = SimulationConfig(data="demo", epsilon=2.0, schedule=Schedule(rounds=5))
    assert by_objects == checked_config({"data": "demo", "epsilon": 2.0, "schedule": {"rounds": 5}})
    assert by_objects.schedule.popularity == "saturating"


@pytest.mark.parametrize("content", [b"unit =", b"\xff\xfe\x00", b"[training]\n[training]\n"])
def test_a_file_that_is_not_toml_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="is not a TOML file"):
        load_config(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="is not a TOML file"):
        load_config(tmp_path)


def test_the_servers_part_carries_the_public_population():
    settings = checked_config(NONE | {"schedule": {"participation": 0.5}}).server_settings(run="r", population=30)
    assert settings.cohort == 15
    assert settings.unit == "none"
    assert settings.terms is None
    assert settings.evaluation_share == 0


def test_protection_is_the_default_and_has_a_budget_with_settings_of_its_own():
    config = checked_config({})
    assert (config.unit, config.epsilon, config.delta) == ("user", 8.0, 1e-5)
    assert config == checked_config({"unit": "user"})
    for section in ("schedule", "optimiser"):
        for name, value in PROTECTED[section].items():
            assert getattr(getattr(config, section), name) == value
    chosen = checked_config({"epsilon": 2.0, "schedule": {"rounds": 7}, "optimiser": {"step_size": 0.25}})
    assert (chosen.epsilon, chosen.delta, chosen.schedule.rounds, chosen.schedule.dim) == (2.0, 1e-5, 7, 8)
    assert (chosen.optimiser.step_size, chosen.optimiser.decay) == (0.25, 1.0)
    plain = checked_config(NONE)
    assert (plain.epsilon, plain.delta, plain.schedule) == (None, None, Schedule())


def test_a_protected_configuration_hands_the_server_terms_for_its_numbers():
    settings = checked_config({"schedule": {"participation": 0.5}}).server_settings(run="r", population=30)
    assert settings.unit == "user"
    assert settings.evaluation_share == 0.1
    for terms in (settings.terms.popularity, settings.terms.train):
        assert (terms.roster_size, terms.honest_shares) == (15, 15)
