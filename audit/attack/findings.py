"""Findings of an attack as sentences and tables, for the terminal and for the page."""

from __future__ import annotations

from palate.audit.attack.verdict import AttackResult, round_down
from palate.privacy.accounting.guarantee import round_up
from palate.simulation.report.tables import Cell, Grid, Row, text_grid

LIMITS = "An attack can refute a claim and cannot prove one: what holds it up is the accounting and the code."


def headline(result: AttackResult) -> str:
    """Say how the attack ended, and against what claim."""
    claim = result.claim
    outcome = "VIOLATED" if result.violations else "Not refuted"
    return (
        f"{outcome}: epsilon {round_up(claim.epsilon)} at delta {claim.delta:g} per {claim.unit}, {result.plan.source}."
    )


def lower_bound(result: AttackResult) -> str:
    """Write the lower bound on epsilon that decides, rounded down."""
    return round_down(result.epsilon(result.bound.mu))


def epsilon_grid(result: AttackResult) -> Grid:
    """Show every epsilon: claims are rounded up, what was measured is rounded down."""
    claim, estimate, bound, one_run = result.claim, result.estimate, result.bound, result.one_run
    low, high = (result.epsilon(mu) for mu in (estimate.low, estimate.high))
    interval = f"95% interval {round_down(low)} to {round_up(high)}; mu {estimate.mu:.3f} from the canaries' scores"
    guesses = f"{one_run.correct} of {one_run.guesses} guesses right; confidence 95%, with no other assumption"
    rows = (
        ("claim", round_up(claim.epsilon), f"{claim.accountant}: proven if the code is right"),
        (
            "theory",
            round_up(result.epsilon(result.plan.mu)),
            f"Gaussian noise as wide, exactly; mu {result.plan.mu:.3f}",
        ),
        ("estimate", round_down(result.epsilon(estimate.mu)), interval),
        ("lower bound", lower_bound(result), f"confidence {1 - bound.error:.4%}: this one decides"),
        (
            "lower bound, 95%",
            round_down(result.epsilon(result.shown_bound.mu)),
            "at the usual confidence, for information",
        ),
        ("one-run certificate", round_down(one_run.epsilon), guesses),
    )
    return text_grid("Epsilon at the same delta", ("", "Epsilon", ""), rows)


def check_grid(result: AttackResult) -> Grid:
    """Show what was checked about the mechanism, and whether the claim survived."""
    rows = tuple(
        Row(
            found.name,
            (Cell("ok" if found.held else "VIOLATED", tone="good" if found.held else "bad"), Cell(found.words)),
        )
        for found in result.findings
    )
    return Grid("What was checked", ("Check", "Verdict", ""), rows)


def setting(result: AttackResult) -> str:
    """Describe the attack, and what it takes for granted."""
    plan = result.plan
    times = "once" if plan.repeats == 1 else f"{plan.repeats:,} times"
    return (
        f"{result.num_canaries:,} canaries of {plan.num_values:,} values in {len(plan.rounds):,} "
        f"round{'s' * (len(plan.rounds) > 1)}, played {times}; the attacker knows all other contributions. "
        f"Assuming: {'; '.join(result.claim.assumptions)}."
    )
