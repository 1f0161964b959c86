"""Units of protection: what each protects, and for unit user the event of a round with the integers of its plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from palate.privacy.accounting.events import Adjacency, Assumption, Unit
from palate.privacy.budget import PROTECTED, events_of
from palate.privacy.errors import PrivacyError
from palate.privacy.mechanisms.registry import MECHANISMS
from palate.privacy.mechanisms.terms import ReleaseTerms
from palate.privacy.wire import NUM_METRICS, RoundPlan

TERMS = ReleaseTerms(clip_norm=0.5, sensitivity=4096, share_variance=90_000, honest_shares=6, roster_size=8)
PLAN = RoundPlan(
    run="r",
    server_round=1,
    purpose="train",
    unit="user",
    participation=1.0,
    training="{}",
    fixed=np.zeros((9, 1), np.float32),
    learned=np.zeros((9, 2), np.float32),
    terms=TERMS,
)


def test_a_round_is_one_event_about_one_person_counting_on_honest_noise_alone():
    (event,) = events_of(PLAN).values()
    assert (event.sensitivity, event.variance, event.num_values) == (4096, 6 * 90_000, 18)
    assert event.unit is Unit.USER
    assert event.adjacency is Adjacency.ZERO_OUT
    assert event.noise_multiplier == TERMS.noise_multiplier


def test_metrics_are_values_of_the_same_release_and_no_second_event():
    (event,) = events_of(replace(PLAN, evaluation_share=0.1)).values()
    assert event.num_values == 18 + NUM_METRICS


def test_the_event_says_what_it_rests_on():
    (event,) = events_of(PLAN).values()
    assert set(event.assumptions) == {Assumption.SECURE_AGGREGATION, Assumption.HONEST_FRACTION}


def test_a_plan_without_terms_has_no_event():
    with pytest.raises(PrivacyError, match="no terms"):
        events_of(replace(PLAN, terms=None))


def test_the_mechanism_is_registered_and_names_its_papers():
    mechanism = MECHANISMS["user"]
    assert mechanism.label == "user-level differential privacy"
    assert "Agarwal" in mechanism.source


def test_every_unit_says_what_it_protects_and_only_none_protects_nothing():
    assert set(MECHANISMS) == set(PROTECTED)
    assert {unit: mechanism.protects for unit, mechanism in MECHANISMS.items()} == {
        "user": (Unit.USER,),
        "interaction": (Unit.INTERACTION,),
        "both": (Unit.USER, Unit.INTERACTION),
        "none": (),
    }
    assert [unit for unit, mechanism in MECHANISMS.items() if mechanism.per_interaction] == ["interaction", "both"]
    assert [unit for unit, mechanism in MECHANISMS.items() if mechanism.hides_rows] == ["user"]
