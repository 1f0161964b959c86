"""A small swarm over TLS: devices die, devices lie, and every sum is exactly the plain sum of the accepted vectors."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import typer
from typer.testing import CliRunner

from palate.cli.server_swarm import swarm
from palate.errors import ConfigError
from palate.simulation.swarm.faults import REFUSED_AS, Faults, Lie, Moment
from palate.simulation.swarm.people import Population

APP = typer.Typer(pretty_exceptions_enable=False)
APP.command("swarm")(swarm)


def test_a_swarm_with_deaths_and_lies_completes_and_names_every_lie():
    arguments = ["--devices", "60", "--rounds", "1", "--killed", "0.2", "--lying", "0.1", "--seed", "5"]
    result = CliRunner().invoke(APP, [*arguments, "--workers", "1", "--compare", "--json"], catch_exceptions=False)
    found = json.loads(result.stdout)
    assert [check for check in found["checks"] if not check["held"]] == []
    assert [each["status"] for each in found["rounds"]] == ["done", "done"]
    assert all(each["exact"] and each["vectors"] == each["survivors"] for each in found["rounds"])
    deaths = sum((Counter(each["deaths"]) for each in found["rounds"]), Counter())
    assert set(deaths) == set(Moment)
    assert deaths.total() == 12
    refusals = sum((Counter(each["refusals"]) for each in found["rounds"]), Counter())
    assert set(refusals) == set(REFUSED_AS.values())
    last = found["rounds"][-1]
    assert set(last["lies"]) == set(Lie), "a replay needs a round before"
    assert last["survivors"] <= 60 - 4, "of five kinds of liars only who sends two reports is in the sum, once"
    assert found["epsilon_spent"] <= 8
    assert found["people_ranked"] == 60
    assert abs(found["hr@10"] - found["simulated"]["hr@10"]) < 0.2, "60 people: a standard error is .06"


def test_faults_are_drawn_alike_from_a_seed_and_hit_the_shares_that_were_asked_for():
    drawn = Faults.drawn(200, killed=0.3, lying=0.05, rounds=5, seed=3)
    assert drawn == Faults.drawn(200, killed=0.3, lying=0.05, rounds=5, seed=3)
    assert drawn != Faults.drawn(200, killed=0.3, lying=0.05, rounds=5, seed=4)
    assert (len(drawn.deaths), len(drawn.lies)) == (60, 10)
    assert not set(drawn.deaths) & set(drawn.lies)
    assert Counter(drawn.lies.values()) == dict.fromkeys(Lie, 2)
    assert Counter(each.moment for each in drawn.deaths.values()) == dict.fromkeys(Moment, 20)


def test_a_person_of_a_swarm_has_all_but_the_item_of_the_test():
    people = Population.drawn("demo", 10, epsilon=8.0, seed=2)
    split = people.prepared.split
    for user in people.users:
        items = people.items_of(int(user))
        test, validation = split.test.item[user], split.validation.item[user]
        ids = people.prepared.interactions.catalogue.ids
        assert len(items) == split.train.lengths[user] + (validation >= 0)
        assert validation < 0 or items[-1] == ids[validation]
        assert test < 0 or ids[test] not in items


def test_more_devices_than_people_are_refused():
    with pytest.raises(ConfigError, match="5000 devices, but demo has"):
        Population.drawn("demo", 5000, epsilon=8.0, seed=1)


def test_more_faults_than_devices_are_refused():
    with pytest.raises(ConfigError, match="more than all devices"):
        CliRunner().invoke(APP, ["--killed", "0.9", "--lying", "0.2"], catch_exceptions=False)
