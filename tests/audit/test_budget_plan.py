"""Budgets planned without data: the cap is what the promise rests on; luck is shown, not promised."""

from __future__ import annotations

import numpy as np
import pytest

from palate.audit.budget_plan import Plan, make_plan, requested
from palate.errors import ConfigError
from palate.privacy.accounting.events import Composed
from palate.privacy.accounting.guarantee import account_for


def plan(**numbers: int | float) -> Plan:
    return make_plan(requested(**{"noise_multiplier": 2.0, **numbers}))


def test_a_cap_is_the_main_lever():
    schedule = {"devices": 6040, "cohort": 200, "rounds": 300, "delta": 1e-6}
    capped, open_ended = plan(**schedule, cap=5), plan(**schedule)
    assert capped.promised.epsilon == pytest.approx(5.55, rel=3e-3)
    assert open_ended.likely.epsilon == pytest.approx(13.7, rel=0.03)
    assert open_ended.promised == account_for([Composed(open_ended.event, 300)], 1e-6)


def test_the_likely_busiest_device_matches_simulated_runs():
    found = plan(devices=200, cohort=20, rounds=60).likely_rounds
    rng = np.random.default_rng(7)
    busiest = rng.binomial(60, 0.1, size=(2000, 200)).max(axis=1)
    assert np.mean(busiest > found) < 0.5
    assert np.mean(busiest > found - 2) > 0.5


def test_the_likely_case_never_exceeds_the_promise():
    assert plan(devices=10, cohort=10, rounds=7).likely_rounds == 7
    assert plan(devices=6040, cohort=200, rounds=300, cap=5).likely_rounds == 5
    assert plan(devices=10, cohort=5, rounds=3, cap=9).most_rounds == 3


@pytest.mark.parametrize("wrong", [{"devices": 0}, {"cohort": 0}, {"rounds": -1}, {"cap": 0}, {"cohort": 11}])
def test_impossible_schedules_are_refused(wrong: dict[str, int]):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        plan(**{"devices": 10, "cohort": 5, "rounds": 3, **wrong})
