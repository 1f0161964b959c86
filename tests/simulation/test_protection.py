"""Options of protection that do not go together are refused before the first round, with a way out."""

from __future__ import annotations

import pytest

from palate.errors import ConfigError
from palate.simulation.protection import PrivacyOptions, cohort_of, device_rounds


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dropout": 0.5, "tau": 0.6}, "18 of 36 devices survive a round, tau 0.6 needs 22"),
        ({"dropout": 0.6, "gamma": 0.45}, "no honest device"),
    ],
)
def test_too_many_failures_for_the_noise_are_refused_before_the_first_round(settings, options, words):
    with pytest.raises(ConfigError, match=words) as refused:
        settings(unit="user", privacy=options).terms(population=36)
    assert refused.value.hint


def test_a_quorum_sizes_the_noise_for_those_who_may_be_left(settings):
    cohort = cohort_of(PrivacyOptions(tau=0.7, gamma=0.1, dropout=0.2), 1000, 1.0)
    assert (cohort.size, cohort.dropouts) == (1000, 200)
    assert cohort.honest == 700 + 1 - 100
    assert cohort_of(PrivacyOptions(dropout=0.2, gamma=0.1), 1000, 0.5).honest == 500 - 100 - 50


@pytest.mark.parametrize(
    ("cap", "rounds", "fits"), [(1, 4, True), (1, 5, False), (2, 7, True), (2, 8, False), (9, 9, True)]
)
def test_a_cap_that_leaves_rounds_unfilled_is_refused(cap, rounds, fits):
    """200 of 800: a round needs 200 who have not reached the cap, whoever was drawn before."""
    options = PrivacyOptions(cap=cap)
    if fits:
        assert device_rounds(options, rounds, 800, 0.25) == min(cap, rounds)
    else:
        with pytest.raises(ConfigError, match=f"with a cap of {cap}") as refused:
            device_rounds(options, rounds, 800, 0.25)
        assert refused.value.hint


@pytest.mark.parametrize(("gamma", "honest"), [(0.29, 71), (0.57, 43), (0.3, 70)])
def test_colluders_are_counted_as_written_and_not_as_floats_store_it(gamma, honest):
    assert cohort_of(PrivacyOptions(gamma=gamma), 100, 1.0).honest == honest
