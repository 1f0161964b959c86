"""Two libraries and this one, on the same events; and the traps that a library sets."""

from __future__ import annotations

import ast
import math
import sys
from pathlib import Path

import pytest

from palate.privacy import accounting
from palate.privacy.accounting import crosscheck, guarantee
from palate.privacy.accounting.crosscheck import AccountantsDisagree, checked_epsilon, cross_check, require_agreement
from palate.privacy.accounting.events import Composed, GaussianEvent, SkellamEvent
from palate.privacy.accounting.guarantee import CrossCheck, account_for

dp_accounting = pytest.importorskip("dp_accounting", reason="the extra `audit` is not installed")
DELTA = 1e-5


def gaussian(noise_multiplier: float, rounds: int) -> list[Composed]:
    return [Composed(GaussianEvent(noise_multiplier=noise_multiplier), rounds)]


def figures(events: list[Composed]) -> dict[str, float]:
    return {check.accountant: check.epsilon for check in cross_check(events, DELTA)}


@pytest.mark.parametrize(
    ("events", "exact", "prv", "rdp"),
    [
        (gaussian(5.0, 50), 6.573, 6.583, 7.088),
        (gaussian(2.0, 50), 20.676, 20.686, 22.627),
        (gaussian(20.0, 200), 2.943, 2.953, 3.190),
    ],
    ids=["5x50", "2x50", "20x200"],
)
def test_reference_values_from_two_libraries_and_ours(events, exact: float, prv: float, rdp: float):
    found = figures(events)
    assert found["exact Gaussian"] == pytest.approx(exact, abs=1e-3)
    assert found["dp_accounting PLD"] == pytest.approx(exact, abs=1e-3)
    assert found["Opacus PRV"] == pytest.approx(prv, abs=2e-3)
    for accountant in ("RDP", "dp_accounting RDP", "Opacus RDP"):  # at whole orders
        assert found[accountant] == pytest.approx(rdp, abs=2e-3)


@pytest.mark.parametrize(("noise_multiplier", "expected"), [(3.731, 1), (1.994, 2), (1.081, 4), (0.600, 8)])
def test_reference_noise_from_two_libraries(noise_multiplier: float, expected: float):
    assert crosscheck.google_pld(gaussian(noise_multiplier, 1), DELTA) == pytest.approx(expected, rel=1e-3)
    assert crosscheck.opacus_prv(gaussian(noise_multiplier, 1), DELTA) == pytest.approx(expected + 0.01, abs=5e-3)


def test_the_claim_for_integer_noise_stays_above_every_gaussian_figure():
    event = SkellamEvent(sensitivity=4096, variance=(5.0 * 4096) ** 2, num_values=60_000)
    claim = checked_epsilon([Composed(event, 50)], DELTA)
    by_name = {check.accountant: check.epsilon for check in claim.cross_checks}
    assert claim.epsilon == account_for([Composed(event, 50)], DELTA).epsilon
    assert claim.epsilon > by_name["dp_accounting PLD"]
    assert claim.epsilon < by_name["dp_accounting PLD"] + 0.01 < by_name["Opacus RDP"]


def test_accountants_that_differ_are_named():
    close = [CrossCheck(accountant="one", epsilon=1.0), CrossCheck(accountant="two", epsilon=1.04)]
    require_agreement(close, 0.05)
    with pytest.raises(AccountantsDisagree, match=r"one says epsilon 1\.0+, two says 1\.04") as caught:
        require_agreement(close, 0.03)
    assert caught.value.hint


def test_a_figure_that_is_not_a_number_is_no_agreement():
    for values in ((1.0, math.nan), (math.nan, 1.0)):
        with pytest.raises(AccountantsDisagree):
            require_agreement([CrossCheck(accountant=str(v), epsilon=v) for v in values], 0.05)


@pytest.mark.parametrize("faulty", ["google_pld", "opacus_prv", "google_rdp", "opacus_rdp"])
def test_a_faulty_accountant_is_noticed(monkeypatch: pytest.MonkeyPatch, faulty: str):
    honest = getattr(crosscheck, faulty)
    monkeypatch.setattr(crosscheck, faulty, lambda events, delta: 0.97 * honest(events, delta))
    with pytest.raises(AccountantsDisagree):
        cross_check(gaussian(5.0, 50), DELTA)


def test_a_claim_below_the_cross_checks_is_noticed(monkeypatch: pytest.MonkeyPatch):
    honest = guarantee.composed_rdp
    monkeypatch.setattr(guarantee, "composed_rdp", lambda events: 0.5 * honest(events))
    event = SkellamEvent(sensitivity=4096, variance=(5.0 * 4096) ** 2, num_values=60_000)
    with pytest.raises(AccountantsDisagree, match="Skellam"):
        checked_epsilon([Composed(event, 50)], DELTA)


def test_a_missing_library_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(crosscheck.AccountantUnavailable, match="dp-accounting") as caught:
        crosscheck.google_pld(gaussian(1.0, 1), DELTA)
    assert "dp-accounting" in caught.value.hint


@pytest.mark.parametrize("figure", [math.inf, math.nan])
def test_a_figure_that_is_not_finite_is_an_accountant_that_cannot_answer(
    monkeypatch: pytest.MonkeyPatch, figure: float
):
    monkeypatch.setattr("opacus.accountants.PRVAccountant.get_epsilon", lambda self, delta: figure)
    with pytest.raises(crosscheck.AccountantUnavailable, match=f"its epsilon is {figure}") as caught:
        crosscheck.opacus_prv(gaussian(5.0, 1), DELTA)
    assert caught.value.hint


def test_asking_twice_gives_the_same_answer_and_leaves_the_events_alone():
    events = [*gaussian(5.0, 10), *gaussian(6.0, 3)]
    before = [*events]
    first = [crosscheck.opacus_rdp(events, DELTA), crosscheck.google_rdp(events, DELTA)]
    assert [crosscheck.opacus_rdp(events, DELTA), crosscheck.google_rdp(events, DELTA)] == first
    assert events == before


def test_opacus_gdp_underreports_and_is_nowhere_used():
    from opacus.accountants import GaussianAccountant

    with pytest.warns(UserWarning, match="underestimate"):
        approximate = GaussianAccountant()
    approximate.history = [(0.6, 0.1, 1)]  # noise multiplier 0.6, a tenth sampled, one step
    sampled = dp_accounting.PoissonSampledDpEvent(0.1, dp_accounting.GaussianDpEvent(0.6))
    exact = dp_accounting.pld.PLDAccountant().compose(sampled).get_epsilon(DELTA)
    assert approximate.get_epsilon(DELTA) < 0.4 * exact
    for path in Path(accounting.__file__).parent.glob("*.py"):
        names = {
            alias.name
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert not names & {"GaussianAccountant", "gdp", "create_accountant"}, path
