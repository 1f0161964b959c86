"""What an attack has shown, in words and rows for the terminal and for the page."""

from __future__ import annotations

from dataclasses import dataclass

from palate.audit.attack.verdict import AttackResult, Finding, round_down
from palate.privacy.accounting.guarantee import round_up

LIMITS = "An attack can refute a claim and cannot prove one: what holds it up is the accounting and the code."


@dataclass(frozen=True)
class Figure:
    """One epsilon: its name, its digits, and how it came about."""

    name: str
    epsilon: str
    words: str


def headline(result: AttackResult) -> str:
    """Say how the attack ended, and against what claim."""
    claim = result.claim
    outcome = "VIOLATED" if result.violations else "Not refuted"
    return (
        f"{outcome}: epsilon {round_up(claim.epsilon)} at delta {claim.delta:g} per {claim.unit}, {result.plan.source}."
    )


def figures(result: AttackResult) -> list[Figure]:
    """List every epsilon: claims are rounded up, what was measured is rounded down."""
    claim, estimate, bound, one_run = result.claim, result.estimate, result.bound, result.one_run
    low, high = (result.epsilon(mu) for mu in (estimate.low, estimate.high))
    return [
        Figure("claim", round_up(claim.epsilon), f"{claim.accountant}: proven if the code is right"),
        Figure(
            "theory",
            round_up(result.epsilon(result.plan.mu)),
            f"Gaussian noise as wide, exactly; mu {result.plan.mu:.3f}",
        ),
        Figure(
            "estimate",
            round_down(result.epsilon(estimate.mu)),
            f"95% interval {round_down(low)} to {round_up(high)}; mu {estimate.mu:.3f} from the canaries' scores",
        ),
        Figure(
            "lower bound", round_down(result.epsilon(bound.mu)), f"confidence {1 - bound.error:.4%}: this one decides"
        ),
        Figure(
            "lower bound, 95%",
            round_down(result.epsilon(result.shown_bound.mu)),
            "at the usual confidence, for information",
        ),
        Figure(
            "one-run certificate",
            round_down(one_run.epsilon),
            f"{one_run.correct} of {one_run.guesses} guesses right; confidence 95%, with no other assumption",
        ),
    ]


def verdict(finding: Finding) -> str:
    """Say in a word whether the claim survived a check."""
    return "ok" if finding.held else "VIOLATED"


def setting(result: AttackResult) -> str:
    """Describe the attack, and what it takes for granted."""
    plan = result.plan
    times = "once" if plan.repeats == 1 else f"{plan.repeats:,} times"
    return (
        f"{result.num_canaries:,} canaries of {plan.num_values:,} values in {len(plan.rounds):,} "
        f"round{'s' * (len(plan.rounds) > 1)}, played {times}; the attacker knows all other contributions. "
        f"Assuming: {'; '.join(result.claim.assumptions)}."
    )
