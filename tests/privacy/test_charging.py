"""A round's entry in a ledger is a function of its plan, and the policy is the budget that was promised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from palate.privacy.accounting.events import Unit
from palate.privacy.accounting.filters import SkellamMeter, budget_nano_for
from palate.privacy.budget import Promise, events_of
from palate.privacy.charging import intents, ledger_name
from palate.privacy.errors import PrivacyError
from palate.privacy.mechanisms.terms import ReleaseTerms
from palate.privacy.wire import RoundPlan

TERMS = ReleaseTerms(clip_norm=0.5, sensitivity=4096, share_variance=9_000_000, honest_shares=6, roster_size=8)
PLAN = RoundPlan(
    run="r",
    server_round=3,
    purpose="train",
    unit="user",
    participation=1.0,
    training="{}",
    fixed=np.zeros((9, 1), np.float32),
    learned=np.zeros((9, 2), np.float32),
    terms=TERMS,
)


def test_an_entry_says_everything_that_an_auditor_needs():
    (intent,) = intents(PLAN).values()
    assert (intent.run, intent.round, intent.mechanism, intent.unit) == ("r", 3, "skellam", "user")
    assert (intent.adjacency, intent.sampling) == ("zero-out", "none-claimed")
    assert (intent.clip_int, intent.sum_var_int) == (4096, 6 * 9_000_000)
    assert (intent.m_honest, intent.n1) == (6, 8)
    assert intent.model == f"sha256:{PLAN.table_hash}"
    assert intent.transcript == f"sha256:{PLAN.content_hash}"


def test_the_ledgers_price_is_that_of_the_accounting_package():
    """In fractions there, in integers here; a ledger does not know a vector's length, and assumes none."""
    for changes in ({}, {"share_variance": 77}, {"sensitivity": 65_536}, {"honest_shares": 1, "share_variance": 1000}):
        plan = replace(PLAN, terms=replace(TERMS, **changes))
        (event,) = events_of(plan).values()
        (intent,) = intents(plan).values()
        assert intent.charge_nano == SkellamMeter(1).price_nano(replace(event, num_values=None))
        assert intent.charge_nano >= SkellamMeter(1).price_nano(event)


@pytest.mark.parametrize(
    "changes",
    [
        {"server_round": 4},
        {"run": "s"},
        {"training": '{"epochs": 2}'},
        {"participation": 0.5},
        {"evaluation_share": 0.1},
        {"interactions_per_round": 7},
        {"learned": np.ones((9, 2), np.float32)},
        {"terms": replace(TERMS, clip_norm=0.25)},
        {"terms": replace(TERMS, roster_size=9)},
    ],
)
def test_another_plan_is_another_entry(changes):
    assert intents(replace(PLAN, **changes)) != intents(PLAN)


def test_nothing_is_charged_where_nothing_is_protected():
    assert intents(replace(PLAN, unit="none", terms=None)) == {}


def test_a_unit_without_mechanism_and_a_plan_without_terms_are_refused():
    with pytest.raises(PrivacyError, match="no mechanism for unit 'household'"):
        intents(replace(PLAN, unit="household"))
    with pytest.raises(PrivacyError, match="no terms"):
        intents(replace(PLAN, terms=None))


@pytest.mark.parametrize("epsilon", [0.5, 8.0])
def test_the_policy_is_the_largest_budget_within_the_promise(epsilon):
    policy = Promise(unit=Unit.USER, epsilon=epsilon, delta=1e-5).policy(smallest_cohort=7)
    assert (policy.unit, policy.adjacency, policy.delta, policy.n_min) == ("user", "zero-out", "1e-5", 7)
    meter = SkellamMeter(1)  # which counts on nothing
    assert policy.budget_nano == budget_nano_for(meter, epsilon, 1e-5)
    assert meter.epsilon(policy.budget_nano, 1e-5) <= epsilon < meter.epsilon(policy.budget_nano + 10**6, 1e-5)


def test_a_ledger_is_named_after_its_owner_and_a_second_unit_beside_it():
    assert ledger_name("device-000007", Unit.USER) == "device-000007"
    assert ledger_name("server", Unit.INTERACTION) == "server.interaction"
