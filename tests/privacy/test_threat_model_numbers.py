"""The figures in docs/threat-model.md are computed again, so nobody is promised a number that was mistyped."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path

import pytest
from scipy.stats import norm

from palate.privacy.accounting.calibrate import calibrate_gaussian, calibrate_skellam
from palate.privacy.accounting.dropout import local_event
from palate.privacy.accounting.events import Composed
from palate.privacy.accounting.guarantee import account_for, round_up

PAGE = Path(__file__).parents[2] / "docs" / "threat-model.md"
DELTA = 1e-5
GUESSES = "epsilon"
LOCAL = "central epsilon"


def table(first_heading: str) -> list[list[Decimal]]:
    """Numbers of the page's table whose first column has this heading, without signs for percent and thousands."""
    rows = [
        line.strip().strip("|").split("|") for line in PAGE.read_text().splitlines() if line.strip().startswith("|")
    ]
    cells = [[cell.strip().replace("%", "").replace(",", "") for cell in row] for row in rows]
    [start] = [place for place, row in enumerate(cells) if row[0] == first_heading]
    numbers = []
    for row in cells[start + 2 :]:
        if not row[0].replace(".", "").isdigit():
            break
        numbers.append([Decimal(cell) for cell in row])
    return numbers


def digits(value: Decimal) -> int:
    return -int(value.as_tuple().exponent)


def accuracy_by_brute_force(epsilon: float) -> float:
    """Best share of right guesses of a fair coin over all tests that (epsilon, delta) leaves: on a grid, from below."""
    best = 0.0
    for step in range(200_001):
        false_alarms = step / 200_000
        hits = min(1.0, math.exp(epsilon) * false_alarms + DELTA)
        if 1 - false_alarms <= math.exp(epsilon) * (1 - hits) + DELTA:
            best = max(best, (hits + 1 - false_alarms) / 2)
    return best


def mu_of(epsilon: float) -> float:
    return 1 / calibrate_gaussian(epsilon=epsilon, delta=DELTA, rounds=1).noise_multiplier


def test_both_tables_are_there():
    assert [float(row[0]) for row in table(GUESSES)] == [0.5, 1, 2, 4, 8]
    assert [float(row[0]) for row in table(LOCAL)] == [1, 4, 8]


def test_what_an_attacker_can_reach_is_rounded_up_from_the_formulas():
    for row in table(GUESSES):
        epsilon, mu = float(row[0]), mu_of(float(row[0]))
        expected = [
            (math.exp(epsilon) + DELTA) / (1 + math.exp(epsilon)),
            norm.cdf(mu / 2),
            norm.cdf(mu),  # contributions of two people may lie opposite: twice as far apart
            norm.cdf(norm.ppf(0.01) + mu),
        ]
        assert [str(cell) for cell in row[1:]] == [
            round_up(100 * value, digits(cell)) for value, cell in zip(expected, row[1:], strict=True)
        ]


def test_mu_belongs_to_its_epsilon_by_the_definition_of_privacy():
    for row in table(GUESSES):
        epsilon, mu = float(row[0]), mu_of(float(row[0]))
        # delta is how far two normals, mu apart, differ beyond e^epsilon; the worst set is a half-line
        cuts = [epsilon / mu + mu / 2 + offset for offset in (-1e-3, 0.0, 1e-3)]
        excess = [norm.sf(cut - mu) - math.exp(epsilon) * norm.sf(cut) for cut in cuts]
        assert max(excess) == excess[1]
        assert excess[1] == pytest.approx(DELTA, rel=1e-6)


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 8.0])
def test_the_first_figure_is_the_best_of_all_tests_that_privacy_leaves(epsilon: float):
    closed_form = (math.exp(epsilon) + DELTA) / (1 + math.exp(epsilon))
    best = accuracy_by_brute_force(epsilon)
    assert best <= closed_form + 1e-12
    assert best == pytest.approx(closed_form, abs=2e-3)


def test_local_epsilons_are_those_of_one_share_of_the_noise():
    rounds, devices = 4, 2000
    for central, local in table(LOCAL):
        plan = calibrate_skellam(
            epsilon=float(central), delta=DELTA, rounds=rounds, sensitivity=4096, num_values=10_000
        )
        alone = account_for([Composed(local_event(plan, devices), rounds)], DELTA).epsilon
        assert str(local) == round_up(alone, 0)
