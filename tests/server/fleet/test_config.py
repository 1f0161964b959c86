"""fleet.toml: what is left out is decided, what is wrong is named, and what is written can be read."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from palate.errors import ConfigError
from palate.privacy.accounting.guarantee import round_up
from palate.privacy.colluding import if_colluding
from palate.privacy.errors import PrivacyError
from palate.privacy.wire import FleetStep
from palate.server.fleet.claims import planned_sums
from palate.server.fleet.config import checked_config, load_config, resolve, to_toml
from palate.server.resolving import PROTECTED, PublicNumbers, planned

GIVEN = {"name": "f", "run": "f-1", "listen": {"address": "h:1"}}
HELPER = {"key": "ab" * 32}


def test_what_is_left_out_follows_from_budget_and_devices():
    config = checked_config({**GIVEN, "epsilon": 4.0, "cohort": {"devices": 200}})
    decided = planned(4.0, 1e-5, PublicNumbers(cohort=200, num_items=1000, content=True))
    assert config.schedule.dim == decided["schedule.dim"].value
    assert config.schedule.rounds == decided["schedule.rounds"].value
    assert config.privacy.popularity_share == decided["privacy.popularity_share"].value
    assert config.training.leave_one_out
    assert config.release.steps == tuple(PROTECTED["release"]["steps"])
    given = checked_config({**GIVEN, "schedule": {"rounds": 7}, "privacy": {"popularity_share": 0.5}})
    assert (given.schedule.rounds, given.privacy.popularity_share) == (7, 0.5)


def test_the_file_that_is_written_says_everything_and_reads_as_what_was_given(tmp_path):
    given = {**GIVEN, "epsilon": 3.0, "cohort": {"devices": 30, "smallest": 12}}
    text = to_toml(given)
    path = tmp_path / "fleet.toml"
    path.write_text(text)
    assert load_config(path) == checked_config(given)
    uncommented = "\n".join(line.removeprefix("# ") if " = " in line else line for line in text.splitlines())
    named = tomllib.loads("\n".join(line for line in uncommented.splitlines() if "..." not in line))
    assert named["deadlines"]["mask_seconds"] == 120.0
    assert named["optimiser"]["decay"] == PROTECTED["optimiser"]["decay"]
    assert checked_config(named) == checked_config(given)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cohort": {"gamma": 0.1, "tau": 0.6}}, "could invent them"),
        ({"cohort": {"gamma": 0.3, "tau": 0.8, "authority_is_separate": True}}, "half or more of a round of 10"),
        ({"cohort": {"gamma": 0.1, "tau": 0.55, "authority_is_separate": True}}, r"at least \(1 \+ gamma\) / 2"),
        ({"cohort": {"tau": 0.5005}}, "not a number of thousandths"),
        ({"cohort": {"devices": 5, "smallest": 6}}, "not in order"),
        ({"cohort": {"devices": 301}}, "among peers at most 300"),
        ({"schedule": {"participation": 0.5}}, "asks every device that is online"),
        ({"name": "a b"}, "is not a name"),
        ({"epsilon": -1.0}, "epsilon = -1.0"),
        ({"epsilom": 1.0}, "epsilom"),
        ({"training": {"model": "gpt"}}, "gpt"),
        ({"optimiser": {"name": "sgd"}}, "unknown server optimiser"),
        ({"optimiser": {"groups": 9}}, "optimiser.groups is 9, and people push the rows of all items back"),
        ({"deadlines": {"mask_seconds": 0.0}}, "deadlines.mask_seconds"),
        ({"helper": {"key": "ab"}}, "helper.key"),
        ({"helper": HELPER, "cohort": {"devices": 10, "gamma": 0.4, "smallest": 4}}, "no honest one beside"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(change, words):
    with pytest.raises((ConfigError, PrivacyError), match=words):
        checked_config({**GIVEN, **change})


def test_a_fleet_may_learn_from_updates_on_own_items_only_and_filter_their_noise():
    usual = checked_config(GIVEN)
    assert (usual.training.own_items_only, usual.optimiser.groups) == (False, 0)
    given = {**GIVEN, "training": {"own_items_only": True}, "optimiser": {"groups": 9}}
    settings = checked_config(given).server_settings()
    assert (settings.training.own_items_only, settings.optimiser.groups) == (True, 9)
    assert checked_config(tomllib.loads(to_toml(given))) == checked_config(given)


def test_every_step_has_a_deadline_of_its_own():
    config = checked_config({**GIVEN, "deadlines": {"reveal_seconds": 7.0}})
    assert config.deadlines.of(FleetStep.REVEAL) == 7.0
    assert all(config.deadlines.of(step) > 0 for step in FleetStep)


def test_a_missing_or_broken_file_is_said_so(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(tmp_path / "fleet.toml")
    (tmp_path / "fleet.toml").write_text("a = ")
    with pytest.raises(ConfigError, match="not a TOML file"):
        load_config(tmp_path / "fleet.toml")


@pytest.mark.parametrize("devices", [2, 5, 20, 300])
@pytest.mark.parametrize("helper", [False, True])
def test_a_fleet_of_any_size_has_defaults_that_bear_that_half_of_its_devices_are_away(devices, helper):
    asked = {**GIVEN, "cohort": {"devices": devices}, **({"helper": HELPER} if helper else {})}
    cohort = checked_config(asked).cohort
    assert cohort.smallest == max(min(devices, 3), -(-devices // 2))
    assert 1 <= cohort.least_batch(devices) <= devices
    assert "half of the" in to_toml(asked)


def test_a_quorum_that_is_left_out_fits_the_share_of_colluders():
    """Of all 20 that are planned for, gamma may be on the smallest roster, of 10: (1 + 2 gamma) / 2."""
    given = {"cohort": {"gamma": 0.2, "authority_is_separate": True}}
    assert checked_config({**GIVEN, **given}).cohort.tau == 0.7
    few = {"cohort": {"devices": 300, "gamma": 0.01, "authority_is_separate": True}}
    assert checked_config({**GIVEN, **few}).cohort.tau == 0.51
    none = {"cohort": {"gamma": 0.001, "authority_is_separate": True}}
    assert checked_config({**GIVEN, **none}).cohort.tau == 0.5, "of 20 that is none"


@pytest.mark.parametrize(("enrolled", "share"), [(20, 0.2), (50, 0.5), (100, 1.0)])
def test_among_peers_too_gamma_is_a_share_of_the_enrolled_on_every_roster_that_the_server_may_choose(enrolled, share):
    cohort = checked_config(
        {**GIVEN, "cohort": {"devices": 20, "smallest": 10, "gamma": 0.1, "tau": 0.8, "authority_is_separate": True}}
    ).cohort
    corrupt = cohort.corrupt(enrolled)
    assert corrupt == enrolled // 10
    if share >= 0.5:
        with pytest.raises(PrivacyError, match="half or more of a round of 10"):
            cohort.quorum(enrolled)
        return
    quorum = cohort.quorum(enrolled)
    assert quorum.gamma == share
    for roster in range(cohort.smallest, 21):
        assert quorum.survivors_needed(roster) - quorum.honest_survivors(roster) >= corrupt


def test_with_a_helper_a_round_may_have_ten_thousand_devices_and_the_plan_of_a_simulation_of_them():
    asked = {**GIVEN, "cohort": {"devices": 6040}, "helper": HELPER, "content": {"items": 3706}}
    config = checked_config(asked)
    decided = planned(8.0, 1e-5, PublicNumbers(cohort=6040, num_items=3706, content=True))
    assert config.schedule.rounds == decided["schedule.rounds"].value == 4
    assert config.schedule.dim == decided["schedule.dim"].value
    assert (config.privacy.spare_rounds, config.cohort.tau) == (0, 0.75)
    assert config.cohort.largest >= 10_000


@pytest.mark.parametrize("helper", [{}, {"helper": HELPER}])
@pytest.mark.parametrize("devices", [4, 5, 10, 100, 300])
def test_a_plan_survives_one_device_that_is_away_and_one_lost_round(devices, helper):
    config, planned_ = resolve({**GIVEN, "cohort": {"devices": devices}, **helper})
    cohort = config.cohort
    assert cohort.smallest < devices, "a round begins although one is away"
    needed = [
        max(cohort.smallest, cohort.least_batch(asked) if helper else cohort.quorum(devices).survivors_needed(asked))
        for asked in (devices, devices - 1)
    ]
    assert needed[0] < devices, "one of those who are asked may fall away"
    assert needed[1] <= devices - 1, "one may be away from the beginning"
    assert config.privacy.spare_rounds >= 1
    assert config.halt_after >= 2
    assert cohort.gamma == 0
    names = {"cohort.smallest", "cohort.largest", "cohort.tau", "schedule.rounds", "privacy.popularity_share"}
    assert names <= set(planned_)
    assert all(planned_[name].reason in to_toml({**GIVEN, "cohort": {"devices": devices}, **helper}) for name in names)


def test_a_large_fleet_with_a_helper_keeps_no_budget_for_lost_rounds_and_repeats_them():
    config = checked_config({**GIVEN, "cohort": {"devices": 301}, "helper": HELPER})
    assert (config.privacy.spare_rounds, config.halt_after) == (0, 3)


@pytest.mark.parametrize("described", [True, False])
def test_the_plan_of_a_fleet_knows_its_own_catalogue(described):
    catalogue = {"items": 3706, "described": described}
    config = checked_config({**GIVEN, "cohort": {"devices": 60_000}, "helper": HELPER, "content": catalogue})
    decided = planned(8.0, 1e-5, PublicNumbers(cohort=60_000, num_items=3706, content=described))
    assert (config.schedule.head > 0) is (not described)
    assert config.schedule.head == decided["schedule.head"].value
    assert config.schedule.dim == decided["schedule.dim"].value


def test_the_least_batch_is_a_share_of_those_who_are_asked_and_corrupt_devices_one_of_those_enrolled():
    cohort = checked_config({**GIVEN, "cohort": {"devices": 1000, "gamma": 0.05}, "helper": HELPER}).cohort
    assert cohort.least_batch(1000) == 750
    assert [cohort.model_copy(update={"smallest": 2}).least_batch(asked) for asked in (4, 5, 8)] == [3, 4, 6]
    assert cohort.least_batch(600) == cohort.smallest == 500
    assert (cohort.corrupt(1000), cohort.corrupt(1019), cohort.corrupt(1020)) == (50, 50, 51)


def test_what_colluders_cost_is_as_the_threat_model_says_and_at_gamma_it_is_the_budget():
    page = " ".join((Path(__file__).parents[3] / "docs" / "threat-model.md").read_text("utf-8").split())
    large = checked_config({**GIVEN, "helper": HELPER, "cohort": {"devices": 6040}})
    found = [round_up(each.epsilon) for each in if_colluding(planned_sums(large, 6040), large.delta)]
    assert "epsilon 8 becomes {} with 1%, {} with 5% and {} with 10%".format(*found) in page
    for helper in (HELPER, {}):
        cohort = {"devices": 300, "gamma": 0.05, "authority_is_separate": True}
        sized = checked_config({**GIVEN, "helper": helper, "cohort": cohort})
        (at_gamma,) = if_colluding(planned_sums(sized, 300), sized.delta, [0.05])
        assert at_gamma.epsilon <= sized.epsilon
        assert not helper or at_gamma.epsilon > sized.epsilon - 0.01, "among peers the smallest roster is what counts"
