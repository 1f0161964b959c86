"""What runs follows from what was asked, the unit of protection and public numbers, and every choice has a reason."""

from __future__ import annotations

import pytest

from palate.server.resolving import AUTO, PublicNumbers, planned


def plan(epsilon, delta, cohort, *, num_items, content, **more):
    """Values of a plan, without their reasons."""
    numbers = PublicNumbers(cohort=cohort, num_items=num_items, content=content)
    return {name: choice.value for name, choice in planned(epsilon, delta, numbers, **more).items()}


@pytest.mark.parametrize(
    ("epsilon", "devices", "content", "head"),
    [
        (8.0, 29_858, False, True),
        (8.0, 29_858, True, False),
        (8.0, 15_000, False, False),
        (1.0, 29_858, False, False),
    ],
)
def test_popular_items_alone_are_learned_where_signal_is_plenty_and_content_is_none(epsilon, devices, content, head):
    decided = plan(epsilon, 1e-5, devices, num_items=40_981, content=content)
    assert (decided["schedule.head"] > 0) == (decided["schedule.dim"] > 32) == (decided["optimiser.groups"] > 0) == head
    assert decided["training.own_items_only"] is head
    assert set(decided) == set(AUTO)


OF_A_HEAD = ("schedule.dim", "schedule.rounds", "schedule.head", "optimiser.groups", "training.own_items_only")
ALL, DENSE = (32, 4, 0.0, 0, False), (112, 4, 3.0, 0, False)
UNFILTERED, WHOLE = (112, 4, 3.0, 0, True), (112, 7, 2.6, 120, True)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, WHOLE),
        ({"given": {"schedule.dim": 64, "schedule.rounds": 5, "schedule.head": 2.0}}, WHOLE),
        ({"given": {"optimiser.groups": 40, "training.own_items_only": True}}, WHOLE),
        ({"given": {"schedule.head": 0.0}}, ALL),
        ({"given": {"schedule.head": 0.0, "training.own_items_only": True, "optimiser.groups": 40}}, ALL),
        ({"given": {"training.own_items_only": False}}, DENSE),
        ({"given": {"training.own_items_only": False, "optimiser.groups": 0}}, DENSE),  # as a folder of before has it
        ({"own_items": False}, DENSE),
        ({"given": {"optimiser.groups": 0}}, (112, 4, 3.0, 120, True)),  # the given 0 wins
        ({"filterable": False}, UNFILTERED),
    ],
)
def test_what_is_given_by_hand_changes_what_rests_on_it(settings, wanted):
    decided = plan(8.0, 1e-5, 29_858, num_items=40_981, content=False, **settings)
    assert tuple(decided[name] for name in OF_A_HEAD) == wanted
    usual = plan(8.0, 1e-5, 29_858, num_items=40_981, content=False)
    others = [name for name in AUTO if name not in OF_A_HEAD]
    assert [decided[name] for name in others] == [usual[name] for name in others]


@pytest.mark.parametrize("cohort", [2, 300])
@pytest.mark.parametrize("epsilon", [1.0, 8.0, 100.0])
def test_no_fleet_is_strong_enough_for_a_head(cohort, epsilon):
    """So that what a fleet plans needs no look at its catalogue."""
    with_content, without = (plan(epsilon, 1e-5, cohort, num_items=1000, content=each) for each in (True, False))
    assert with_content == without


def test_a_federation_too_small_to_learn_spends_nearly_all_on_popularity():
    small, large = (plan(1.0, 1e-5, cohort, num_items=2000, content=True) for cohort in (900, 6000))
    assert small["schedule.rounds"] == 1 < large["schedule.rounds"]
    assert small["privacy.popularity_share"] > 0.9 > large["privacy.popularity_share"]
    assert small["optimiser.step_size"] < large["optimiser.step_size"]


def test_the_more_items_there_are_the_more_devices_it_takes_to_learn_of_them():
    few, many = (plan(1.0, 1e-5, 3000, num_items=size, content=True) for size in (1_000, 10_000))
    assert few["schedule.rounds"] > 1 == many["schedule.rounds"]


@pytest.mark.parametrize("epsilon", [1.0, 2.0, 4.0, 8.0])
def test_popularity_takes_a_smaller_share_the_larger_the_federation(epsilon):
    shares = [
        plan(epsilon, 1e-5, cohort, num_items=2000, content=True)["privacy.popularity_share"]
        for cohort in (500, 3000, 10_000, 100_000)
    ]
    assert shares == sorted(shares, reverse=True)
    assert 0.1 == shares[-1] < shares[0] < 1.0


@pytest.mark.parametrize(("epsilon", "cohort"), [(0.5, 300), (1.0, 6000), (8.0, 6000), (8.0, 40_000)])
def test_every_choice_has_a_reason_with_the_numbers_that_it_rests_on(epsilon, cohort):
    decided = planned(epsilon, 1e-5, PublicNumbers(cohort=cohort, num_items=2000, content=False))
    assert set(decided) == set(AUTO)
    assert all(choice.reason for choice in decided.values())
    for name in ("schedule.rounds", "schedule.dim", "privacy.popularity_share"):
        assert f"{cohort:,} devices at" in decided[name].reason
        assert f"epsilon {epsilon:g}" in decided[name].reason
