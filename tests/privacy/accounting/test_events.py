"""Events: what they refuse, and how they compose."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.privacy.accounting.events import (
    Adjacency,
    Composed,
    GaussianEvent,
    SkellamEvent,
    Unit,
    flatten,
)
from palate.privacy.errors import PrivacyError

SKELLAM = SkellamEvent(sensitivity=4096, variance=4096.0**2 * 9, num_values=60_000)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_noise_must_be_a_positive_number(bad: float):
    with pytest.raises(PrivacyError, match="noise_multiplier"):
        GaussianEvent(noise_multiplier=bad)
    with pytest.raises(PrivacyError, match="variance"):
        SkellamEvent(sensitivity=1, variance=bad, num_values=1)


@pytest.mark.parametrize("bad", [0, -3, 2.5, True])
def test_sensitivity_and_length_must_be_positive_integers(bad):
    with pytest.raises(PrivacyError, match="sensitivity") as caught:
        SkellamEvent(sensitivity=bad, variance=1.0, num_values=1)
    assert caught.value.hint
    with pytest.raises(PrivacyError, match="num_values"):
        SkellamEvent(sensitivity=1, variance=1.0, num_values=bad)


def test_events_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SKELLAM.variance = 1.0  # the attribute is there, and may not be set


@given(st.lists(st.integers(1, 50), min_size=1, max_size=5), st.integers(1, 20))
def test_nested_composition_multiplies_and_equal_events_add_up(counts: list[int], outer: int):
    event = GaussianEvent(noise_multiplier=2.0)
    composed = [Composed(Composed(event, count), outer) for count in counts]
    assert flatten(composed) == ((event, outer * sum(counts)),)


def test_no_events_make_no_guarantee():
    with pytest.raises(PrivacyError, match="no events"):
        flatten([])


def test_units_and_adjacencies_do_not_mix():
    other_unit = dataclasses.replace(SKELLAM, unit=Unit.INTERACTION)
    with pytest.raises(PrivacyError, match="unit"):
        flatten([SKELLAM, other_unit])
    with pytest.raises(PrivacyError, match="adjacency"):
        flatten([SKELLAM, dataclasses.replace(SKELLAM, adjacency=Adjacency.REPLACE_ONE)])
