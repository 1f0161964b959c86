"""The server's ledger: charged once before a plan leaves, closed once, and what came to nothing stays charged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.privacy.accounting.events import Unit
from palate.privacy.budget import Promise
from palate.privacy.charging import intents
from palate.privacy.ledger.errors import BudgetExceeded, RoundRefused
from palate.privacy.ledger.verify import verify_ledger
from palate.privacy.mechanisms.terms import ReleaseTerms
from palate.privacy.wire import RoundPlan
from palate.server.ledger import ServerLedger

TERMS = ReleaseTerms(clip_norm=1.0, sensitivity=4096, share_variance=4096**2, honest_shares=4, roster_size=5)


def plan(number: int, *, share_variance: int = TERMS.share_variance) -> RoundPlan:
    return RoundPlan(
        run="r",
        server_round=number,
        purpose="popularity",
        unit="user",
        participation=1.0,
        training="{}",
        fixed=np.zeros((3, 1), dtype=np.float32),
        learned=np.zeros((3, 2), dtype=np.float32),
        terms=replace(TERMS, share_variance=share_variance),
    )


@pytest.fixture
def key():
    return Ed25519PrivateKey.generate()


@pytest.fixture
def open_ledger(tmp_path, key):
    policy = Promise(unit=Unit.USER, epsilon=4.0, delta=1e-5).policy(smallest_cohort=2)
    return lambda: ServerLedger(tmp_path / "server.sqlite", key, {Unit.USER: policy})


def test_a_round_is_charged_once_however_often_it_begins(open_ledger):
    ledger = open_ledger()
    before = ledger.left_nano(Unit.USER)
    ledger.begin(plan(0))
    ledger.begin(plan(0))
    ledger.close()
    again = open_ledger()
    again.begin(plan(0))
    (charged,) = again.charged(Unit.USER)
    assert before - again.left_nano(Unit.USER) == charged.charge_nano
    with pytest.raises(RoundRefused, match="other parameters"):
        again.begin(plan(0, share_variance=2 * TERMS.share_variance))


def test_rounds_are_closed_once_and_nothing_comes_back(open_ledger, tmp_path, key):
    ledger = open_ledger()
    for number in (0, 1):
        ledger.begin(plan(number))
    left = ledger.left_nano(Unit.USER)
    for _ in range(2):
        ledger.finish("r", 0, "ab" * 32)
        ledger.write_off("r", 1)
        ledger.write_off("r", 0)  # released: there is nothing to write off
        ledger.write_off("r", 7)
    assert ledger.left_nano(Unit.USER) == left
    events = verify_ledger(tmp_path / "server.sqlite", "server", key.public_key()).events
    ends = [(event.round, event.status) for event in events if event.kind == "OUTCOME"]
    assert ends == [(0, "released"), (1, "written-off")]


def test_a_round_beyond_the_budget_is_refused_and_not_written(open_ledger):
    ledger = open_ledger()
    price = intents(plan(0))[Unit.USER].charge_nano
    affordable = ledger.left_nano(Unit.USER) // price
    for number in range(affordable):
        ledger.begin(plan(number))
    with pytest.raises(BudgetExceeded):
        ledger.begin(plan(affordable))
    assert len(ledger.charged(Unit.USER)) == affordable
