"""Faults planted in the mechanism are found by the empirical audit, every one; a right mechanism is never accused.

The audit's error probabilities add up to 9e-6 a run (`palate.audit.attack.verdict`): over the forty clean
runs here a false alarm has a probability below 4e-4, whatever the seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from itertools import count

import numpy as np
import pytest
from scipy import stats

from palate.audit.attack.plan import AttackPlan, Game, plan_of
from palate.audit.attack.verdict import BOUND_ERROR, NOISE_ERROR, AttackResult, EmpiricalViolation, attack
from palate.privacy.integer.quantise import IntegerMechanism, Quantiser
from palate.privacy.mechanisms.terms import ReleaseTerms

CLEAN_RUNS = 40
ROUNDS = 3


def keys(seed: int) -> Callable[[], bytes]:
    """Keys for the word streams, so that a run can be repeated."""
    numbers = count()
    return lambda: sha256(b"%d %d" % (seed, next(numbers))).digest()


def plan(noise_multiplier: float, *, rounds: int = ROUNDS) -> AttackPlan:
    sensitivity, devices, honest = 1 << 12, 700, 350
    terms = ReleaseTerms(
        clip_norm=0.5,
        sensitivity=sensitivity,
        share_variance=math.ceil((noise_multiplier * sensitivity) ** 2 / honest),
        honest_shares=honest,
        roster_size=devices,
    )
    return plan_of(
        (terms,) * rounds, delta=1e-5, game=Game(canaries=500, num_values=1024), source="a test", claimed_values=1024
    )


class WithoutNoise(IntegerMechanism):
    def noise(self, stream, *, shares=1):
        return np.zeros(self.quantiser.size, dtype=np.int64)


class OneShareOnly(IntegerMechanism):
    def noise(self, stream, *, shares=1):
        return super().noise(stream, shares=1)


class SameNoiseInEveryRound(IntegerMechanism):
    def noise(self, stream, *, shares=1):
        if "first" not in vars(self):
            object.__setattr__(self, "first", super().noise(stream, shares=shares))
        return vars(self)["first"]


class NoiseTwice(IntegerMechanism):
    """Every eighth round repeats the noise of the round before."""

    def noise(self, stream, *, shares=1):
        played, before = vars(self).get("played", (0, None))
        drawn = before if played % 8 == 7 else super().noise(stream, shares=shares)
        object.__setattr__(self, "played", (played + 1, drawn))
        return drawn


class NoiseOnAGrid(IntegerMechanism):
    """Right in variance and shape, but even: the parity of a contribution is released as it is."""

    def noise(self, stream, *, shares=1):
        half = IntegerMechanism(quantiser=self.quantiser, share_variance=self.share_variance // 4)
        return 2 * half.noise(stream, shares=shares)


class UniformNoise(IntegerMechanism):
    """Bounded noise of the right variance: what lies beyond its edge is certain."""

    def noise(self, stream, *, shares=1):
        half_width = math.isqrt(3 * shares * self.share_variance)
        words = stream.words(self.quantiser.size)
        return (words % np.uint64(2 * half_width + 1)).astype(np.int64) - half_width


class QuantiserWithoutClip(Quantiser):
    def scaled(self, values, out=None, *, full=False):
        return (values * np.float32(self.scale)).astype(np.float32)

    def fits(self, integers):
        return np.ones(len(integers), dtype=bool)


def scaled_noise(factor: float):
    def build(terms: ReleaseTerms, num_values: int) -> IntegerMechanism:
        return replace(terms, share_variance=round(factor**2 * terms.share_variance)).mechanism(num_values)

    return build


def doubled_clip(terms: ReleaseTerms, num_values: int) -> IntegerMechanism:
    return replace(terms, clip_norm=2 * terms.clip_norm, sensitivity=2 * terms.sensitivity).mechanism(num_values)


def without_clip(terms: ReleaseTerms, num_values: int) -> IntegerMechanism:
    right = terms.mechanism(num_values)
    return replace(right, quantiser=QuantiserWithoutClip(**vars(right.quantiser)))


def of_class(kind: type[IntegerMechanism]):
    return lambda terms, num_values: kind(**vars(terms.mechanism(num_values)))


FAULTS = {
    "half the noise": (scaled_noise(0.5), {"canary attack", "noise size"}),
    "noise at 99 %": (scaled_noise(0.99), {"noise size"}),
    "noise at 110 %": (scaled_noise(1.1), {"noise size"}),
    "no noise": (of_class(WithoutNoise), {"canary attack", "noise size"}),
    "one share of noise": (of_class(OneShareOnly), {"canary attack", "noise size"}),
    "clip at twice the norm": (doubled_clip, {"canary attack", "sensitivity"}),
    "no clip": (without_clip, {"canary attack", "sensitivity"}),
    "the same noise in every round": (of_class(SameNoiseInEveryRound), {"noise reuse"}),
    "noise that is now and then repeated": (of_class(NoiseTwice), {"noise reuse"}),
    "noise on a grid": (of_class(NoiseOnAGrid), {"noise low bits"}),
    "uniform noise": (of_class(UniformNoise), {"noise shape"}),
}


@pytest.fixture(scope="module")
def clean_runs() -> list[AttackResult]:
    """Forty attacks on the right mechanism, with another noise multiplier in each quarter."""
    plans = [plan(z) for z in (0.8, 1.0, 2.0, 4.0)]
    return [attack(plans[seed % 4], seed=seed, key=keys(seed)) for seed in range(CLEAN_RUNS)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fault", FAULTS)
def test_every_planted_fault_is_found_and_named(fault: str, seed: int):
    build, names = FAULTS[fault]
    result = attack(plan(0.8), seed=seed, key=keys(seed), build=build)
    assert names <= {finding.name for finding in result.violations}
    assert result.to_dict()["verdict"] == "violated"
    with pytest.raises(EmpiricalViolation, match="does not keep its claim") as raised:
        result.require_kept()
    assert raised.value.exit_code == 7
    assert all(finding.words in raised.value.message for finding in result.violations)


@pytest.mark.parametrize("fault", ["half the noise", "no noise", "clip at twice the norm", "no clip"])
def test_what_is_too_weak_is_estimated_as_weak_as_it_is(fault: str):
    factor = {"half the noise": 2, "no noise": math.inf, "clip at twice the norm": 2, "no clip": 4}[fault]
    right = plan(4.0)
    estimate = attack(right, seed=5, key=keys(5), build=FAULTS[fault][0]).estimate
    if factor == math.inf:
        assert estimate.mu > 100
    else:
        assert estimate.mu == pytest.approx(factor * right.mu, abs=4 * estimate.standard_error)


def test_a_right_mechanism_is_never_accused(clean_runs: list[AttackResult]):
    assert [finding.words for result in clean_runs for finding in result.violations] == []
    for result in clean_runs:
        result.require_kept()


def test_the_levels_keep_false_alarms_over_all_clean_runs_below_one_in_a_thousand(clean_runs: list[AttackResult]):
    decided = {finding.name for finding in clean_runs[0].findings}
    assert decided == {"canary attack", "sensitivity", "noise size", "noise shape", "noise low bits", "noise reuse"}
    assert CLEAN_RUNS * (BOUND_ERROR + 4 * NOISE_ERROR) < 1e-3  # the sensitivity is exact: it cannot err


def test_no_lower_bound_exceeds_the_claim_or_the_theory(clean_runs: list[AttackResult]):
    for result in clean_runs:
        assert result.epsilon(result.bound.mu) <= result.claim.epsilon
        assert result.bound.mu <= result.plan.mu <= result.bound.mu + 3.0
    assert min(result.bound.mu for result in clean_runs[::4]) > 1.0  # and it is not empty: mu is 2.5 there


def test_the_interval_covers_the_theory_as_often_as_it_says(clean_runs: list[AttackResult]):
    """Of forty 95% intervals fewer than 33 cover with a probability of 2e-4."""
    covered = sum(result.estimate.low <= result.plan.mu <= result.estimate.high for result in clean_runs)
    assert stats.binom.cdf(32, CLEAN_RUNS, 0.95) < 1e-3
    assert covered >= 33


def test_one_run_certificates_stay_below_the_claim(clean_runs: list[AttackResult]):
    """Each at 95%: more than eight false ones of forty have a probability of 1e-4."""
    assert sum(result.one_run.epsilon > result.claim.epsilon for result in clean_runs) <= 8
    assert clean_runs[0].one_run.epsilon > 0.5


@pytest.mark.parametrize("noise_multiplier", [2.0, 4.0, 8.0])
def test_the_estimate_agrees_with_theory_over_twenty_rounds(noise_multiplier: float):
    result = attack(plan(noise_multiplier, rounds=20), seed=1, key=keys(1))
    assert result.plan.mu == pytest.approx(math.sqrt(20) / noise_multiplier, rel=1e-4)
    assert result.estimate.low <= result.plan.mu <= result.estimate.high
    assert result.estimate.high - result.estimate.low < 0.6
