"""Results of the game: a lower bound against the claim, an estimate against the theory, and tests of the noise.

Findings are judged at levels so strict that a right mechanism is accused less than once in 100,000 audits: the error
probabilities below add up to 9e-6. The one-run certificate is not among them: with delta in it, it cannot reach such a
level (its p-value is at least about ``2 m delta / v``). An audit can only refute: faults that it does not find may
still exist.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from pydantic_core import to_jsonable_python

from palate.audit.attack.game import Builder, KeySource, Observed, Watcher, fresh_key, play
from palate.audit.attack.plan import AttackPlan
from palate.errors import PalateError
from palate.models.arrays import BoolArray, Float64Array
from palate.privacy.accounting.guarantee import Guarantee, as_dict, round_up
from palate.privacy.audit.estimators import MuBound, MuEstimate, bound_mu, epsilon_of, fit_mu
from palate.privacy.audit.noise_tests import correlation_test, low_bits_test, shape_test, variance_test
from palate.privacy.audit.one_run import OneRunBound, one_run_bound
from palate.privacy.mechanisms.terms import ReleaseTerms

BOUND_ERROR = 5e-6
"""Probability with which the lower bound may be wrong when it decides."""
NOISE_ERROR = 1e-6
"""Probability with which right noise may fail a kind of test; divided by the number of mechanisms."""
SHOWN_ERROR = 0.05
"""Of the bound that is shown for information."""


class EmpiricalViolation(PalateError):
    """The mechanism does not keep what is claimed of it."""

    exit_code: ClassVar[int] = 7


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check.

    Attributes
    ----------
    name
        What was checked.
    value, bound
        What was seen, and what it is held against.
    held
        Whether the claim survives.
    words
        One sentence for the reader.
    """

    name: str
    value: float
    bound: float
    held: bool
    words: str


@dataclass(frozen=True, kw_only=True)
class AttackResult:
    """Everything that an audit has to say.

    Attributes
    ----------
    plan
        What was attacked.
    claim
        What is proven about it, if the code is right.
    bound, shown_bound
        Lower bounds on mu: the one that decides, and one at 95% for information.
    estimate
        Of mu, with a 95% interval.
    one_run
        A certificate at 95% that assumes nothing about the mechanism; for information.
    findings
        All checks.
    scores, included
        Of every canary in all repeats, for a drawing: float64 and bool [num_canaries].
    """

    plan: AttackPlan
    claim: Guarantee
    bound: MuBound
    shown_bound: MuBound
    estimate: MuEstimate
    one_run: OneRunBound
    findings: tuple[Finding, ...]
    scores: Float64Array = field(repr=False, compare=False)
    included: BoolArray = field(repr=False, compare=False)

    @property
    def num_canaries(self) -> int:
        """Canaries in all repeats."""
        return len(self.scores)

    @property
    def violations(self) -> tuple[Finding, ...]:
        """Checks that the claim did not survive."""
        return tuple(finding for finding in self.findings if not finding.held)

    def epsilon(self, mu: float) -> float:
        """Epsilon at the claim's delta of a Gaussian mechanism with parameter mu, rounded down."""
        return epsilon_of(mu, self.plan.delta)

    def require_kept(self) -> None:
        """Raise EmpiricalViolation if a check failed."""
        if self.violations:
            raise EmpiricalViolation(
                f"the mechanism does not keep its claim: {'; '.join(found.words for found in self.violations)}",
                hint="do not release anything with this build; report it to the maintainers with the output above",
            )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values; a number that is not finite is null."""
        plan, estimate = self.plan, self.estimate
        values = {
            "verdict": "violated" if self.violations else "not refuted",
            "source": plan.source,
            "claim": as_dict(self.claim),
            "mu": plan.mu,
            "lower_bound": {
                "epsilon": self.epsilon(self.bound.mu),
                "mu": self.bound.mu,
                "confidence": 1 - self.bound.error,
                "epsilon_95": self.epsilon(self.shown_bound.mu),
            },
            "estimate": {
                "epsilon": self.epsilon(estimate.mu),
                "epsilon_low": self.epsilon(estimate.low),
                "epsilon_high": self.epsilon(estimate.high),
                "mu": estimate.mu,
                "mu_low": estimate.low,
                "mu_high": estimate.high,
                "confidence": estimate.confidence,
            },
            "one_run": {
                "epsilon": self.one_run.epsilon,
                "confidence": 1 - self.one_run.error,
                "guesses": self.one_run.guesses,
                "correct": self.one_run.correct,
            },
            "attack": {
                "rounds": len(plan.rounds),
                "repeats": plan.repeats,
                "canaries": self.num_canaries,
                "num_values": plan.num_values,
                "base_devices": plan.base_devices,
            },
            "findings": self.findings,
        }
        plain: dict[str, Any] = to_jsonable_python(values, inf_nan_mode="null")
        return plain


def attack(
    plan: AttackPlan,
    *,
    seed: int | None = None,
    build: Builder = ReleaseTerms.mechanism,
    key: KeySource = fresh_key,
    watch: Watcher = lambda _: None,
) -> AttackResult:
    """Play a plan's rounds and judge the outcome; `seed` decides canaries and coins only, the rest is as in `play`.

    Raises
    ------
    PrivacyError
        If the plan's mechanisms or canaries cannot be made.
    """
    game_rng, split_rng = (np.random.default_rng(part) for part in np.random.SeedSequence(seed).spawn(2))
    return judge(plan, play(plan, game_rng, build=build, key=key, watch=watch), split_rng)


def judge(plan: AttackPlan, seen: Observed, rng: np.random.Generator) -> AttackResult:
    """Turn what the attacker has into bounds and findings; `rng` splits the canaries."""
    claim = plan.claim()
    split = int(rng.integers(1 << 62))
    bound, shown = (
        bound_mu(seen.scores, seen.included, error=error, rng=np.random.default_rng(split))
        for error in (BOUND_ERROR, SHOWN_ERROR)
    )
    return AttackResult(
        plan=plan,
        claim=claim,
        bound=bound,
        shown_bound=shown,
        estimate=fit_mu(seen.scores, seen.included, crowding=seen.crowding),
        one_run=one_run_bound(seen.output_scores, seen.included, delta=plan.delta, error=SHOWN_ERROR),
        findings=(
            _bounded(epsilon_of(bound.mu, plan.delta), claim),
            _sensitivity(seen),
            *_noise(seen),
            _reuse(seen),
        ),
        scores=seen.scores,
        included=seen.included,
    )


def round_down(value: float, digits: int = 3) -> str:
    """Decimal text of a lower bound, never above it."""
    return f"{math.floor(value * 10**digits) / 10**digits:.{digits}f}" if math.isfinite(value) else "without limit"


def _bounded(value: float, claim: Guarantee) -> Finding:
    held = value <= claim.epsilon
    outcome = "is within" if held else "exceeds"
    words = f"lower bound on epsilon {round_down(value)} {outcome} the claimed {round_up(claim.epsilon)}"
    return Finding(name="canary attack", value=value, bound=claim.epsilon, held=held, words=words)


def _sensitivity(seen: Observed) -> Finding:
    """Compare in exact integers; where several mechanisms ran, the one that comes closest to its bound."""
    terms, squared = max(seen.longest.items(), key=lambda item: item[1] / item[0].sensitivity ** 2)
    longest, bound = math.sqrt(squared), terms.sensitivity
    held = squared <= bound * bound
    words = f"a canary's integers have L2 norm {longest:.1f}, the bound is {bound}"
    return Finding(name="sensitivity", value=longest, bound=bound, held=held, words=words)


def _noise(seen: Observed) -> list[Finding]:
    level = NOISE_ERROR / len(seen.zero_input)
    weakest = min(
        (variance_test(noise, terms.sum_variance) for terms, noise in seen.zero_input.items()),
        key=lambda test: min(test.p_too_little, test.p_too_much),
    )
    count = sum(noise.size for noise in seen.zero_input.values())
    deviation = min(1.0, 2 * min(weakest.p_too_little, weakest.p_too_much))
    shape = min(shape_test(noise, terms.sum_variance) for terms, noise in seen.zero_input.items())
    low_bits = min(low_bits_test(noise, terms.sum_variance) for terms, noise in seen.zero_input.items())
    return [
        _tested(
            "noise size", deviation, level, f"zero-input noise is {weakest.ratio:.4f} of the claimed, {count:,} values"
        ),
        _tested("noise shape", shape, level, "zero-input noise against the Skellam distribution"),
        _tested("noise low bits", low_bits, level, "the last four bits of zero-input noise"),
    ]


def _reuse(seen: Observed) -> Finding:
    found = correlation_test(seen.noise)
    words = f"of {len(seen.noise)} rounds of noise the two most alike correlate {found.largest:.3f}"
    return _tested("noise reuse", found.p_value, NOISE_ERROR, words)


def _tested(name: str, p_value: float, level: float, words: str) -> Finding:
    words = f"{words}; p-value {p_value:.2g}"
    return Finding(name=name, value=p_value, bound=level, held=p_value >= level, words=words)
