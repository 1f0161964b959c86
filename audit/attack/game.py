"""The game: canaries send contributions through the mechanism's own code, and the attacker looks for each in the sums.

The attacker is the one of differential privacy: they know what every other device contributed and subtract it, so that
the noise alone hides a canary. Honest devices who do not survive, and colluders, have removed their noise: what is
left are the m shares that the claim counts on.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import numpy as np

from palate.audit.attack.plan import AttackPlan
from palate.client.release import quantised_sum, release_sum
from palate.models.arrays import BoolArray, Float32Array, Float64Array, Int64Array
from palate.models.learning.updates import Updates
from palate.privacy.audit.canaries import Canaries, draw_canaries
from palate.privacy.integer.csprng import KEY_BYTES, Purpose, WordStream
from palate.privacy.integer.quantise import IntegerMechanism
from palate.privacy.mechanisms.terms import ReleaseTerms

OVERLENGTH = np.float32(4.0)
"""Length of a canary in clip norms: a missing clip is noticed."""

ZERO_INPUT_VALUES = 1 << 19
"""Noise values of zero-input rounds for each mechanism: a standard deviation of 0.99 of the claim is ten standard
errors away."""
MAX_ZERO_INPUT_VALUES = 1 << 22
"""Of all mechanisms together, where every round has another."""

_ALIGNMENT = 0.3
_MAX_COMPARED, _MAX_COMPARED_VALUES = 1024, 1 << 23  # rounds whose noise is compared: every one with every other
_ZERO_INPUT_COMPARED = 8

KeySource = Callable[[], bytes]
Builder = Callable[[ReleaseTerms, int], IntegerMechanism]
Watcher = Callable[[int], None]


def fresh_key() -> bytes:
    """Take a key from the operating system."""
    return os.urandom(KEY_BYTES)


@dataclass(frozen=True, eq=False, kw_only=True)
class Observed:
    """What the attacker has at the end.

    Attributes
    ----------
    scores
        Signal of each canary with all else subtracted, float64 [repeats * canaries]; a canary that is in has 1 more.
    output_scores
        The same from the output alone, with the other canaries in it.
    included
        Which canaries took part, bool [repeats * canaries].
    crowding
        Canaries a dimension.
    noise
        Noise of rounds, some zero-input ones first, in any unit, float32 [some rounds, num_values].
    zero_input
        Integers of the zero-input rounds of each mechanism, by its terms.
    longest
        Largest squared L2 norm of a canary's integers, by the mechanism's terms.
    """

    scores: Float64Array
    output_scores: Float64Array
    included: BoolArray
    crowding: float
    noise: Float32Array
    zero_input: dict[ReleaseTerms, Int64Array]
    longest: dict[ReleaseTerms, int]


@dataclass(frozen=True, eq=False)
class _Sums:
    """Rounds as the attacker decodes them, in units of the clip norm; of one round, or of many with weights.

    Attributes
    ----------
    output, noise
        What came out, and that with the canaries subtracted, float64 [num_values].
    own
        Each canary's own part in its score, float64 [canaries].
    """

    output: Float64Array
    noise: Float64Array
    own: Float64Array

    def plus(self, other: _Sums, weight: float) -> _Sums:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return _Sums(*(total + weight * values for total, values in pairs))


def play(
    plan: AttackPlan,
    rng: np.random.Generator,
    *,
    build: Builder = ReleaseTerms.mechanism,
    key: KeySource = fresh_key,
    watch: Watcher = lambda _: None,
) -> Observed:
    """Play all rounds of a plan.

    Rounds are weighted by their squared inverse noise multipliers, which gives the score whose separation is
    ``mu = sqrt(sum 1/z^2)``: by Neyman and Pearson no other does better against Gaussian noise.

    Parameters
    ----------
    plan
        What to play.
    rng
        Of the auditor: canaries, coins and the base devices' contributions.
    build
        Makes the mechanism from terms and the length of a vector; tests put faulty ones here.
    key
        Gives 32 secret bytes for every device and round; from the operating system unless a test must repeat itself.
    watch
        Called with the number of rounds that are done.

    Raises
    ------
    PrivacyError
        If the mechanism or the canaries cannot be made.
    """
    mechanisms = {terms: build(terms, plan.num_values) for terms in plan.rounds}
    wanted = min(ZERO_INPUT_VALUES, MAX_ZERO_INPUT_VALUES // len(mechanisms))
    zero_input = {terms: _zero_input(terms, mechanism, wanted, key) for terms, mechanism in mechanisms.items()}
    longest = dict.fromkeys(mechanisms, 0)
    kept = [zeros[:_ZERO_INPUT_COMPARED].astype(np.float32) for zeros in zero_input.values()]
    room = min(_MAX_COMPARED, _MAX_COMPARED_VALUES // plan.num_values)
    total_weight = sum(terms.noise_multiplier**-2 for terms in plan.rounds)
    alone, outputs, included = [], [], []
    done = count(1)
    for _ in range(plan.repeats):
        canaries = draw_canaries(rng, plan.canaries, plan.num_values)
        base = _base_devices(rng, plan)
        sums = _Sums(np.zeros(plan.num_values), np.zeros(plan.num_values), np.zeros(plan.canaries))
        for terms in plan.rounds:
            found, norm = _round(terms, mechanisms[terms], canaries, base, key)
            sums = sums.plus(found, terms.noise_multiplier**-2 / total_weight)
            longest[terms] = max(longest[terms], norm)
            if room:
                kept.append(found.noise[None].astype(np.float32))
                room -= 1
            watch(next(done))
        alone.append(canaries.directions @ sums.noise.astype(np.float32) + sums.own)
        outputs.append((canaries.directions @ sums.output.astype(np.float32)).astype(np.float64))
        included.append(canaries.included)
    return Observed(
        scores=np.concatenate(alone),
        output_scores=np.concatenate(outputs),
        included=np.concatenate(included),
        crowding=plan.canaries / plan.num_values,
        noise=np.concatenate(kept),
        zero_input={terms: zeros.reshape(-1) for terms, zeros in zero_input.items()},
        longest=longest,
    )


def _round(
    terms: ReleaseTerms, mechanism: IntegerMechanism, canaries: Canaries, base: Updates, key: KeySource
) -> tuple[_Sums, int]:
    """Play one round; also the largest squared norm of a canary's integers."""
    quantiser, ring = mechanism.quantiser, mechanism.ring
    own = np.zeros(len(canaries.included))
    together = np.zeros(quantiser.size, dtype=np.int64)
    longest = 0
    for canary in np.flatnonzero(canaries.included):  # the others send zeros, which is what zero-out means
        direction = canaries.directions[canary]
        sent = quantiser.quantise(OVERLENGTH * np.float32(terms.clip_norm) * direction, _stream(key, Purpose.ROUNDING))
        together += sent
        own[canary] = direction @ sent
        longest = max(longest, int(sent @ sent))
    known = quantised_sum(_scaled(base, terms.clip_norm), [key() for _ in range(base.num_devices)], quantiser)
    released = release_sum(known + together, terms.honest_shares, mechanism, _stream(key, Purpose.NOISE))
    output = ring.add(released, ring.reduce(-known))
    unit = np.float32(1.0 / terms.clip_norm)
    alone = mechanism.decode(ring.add(output, ring.reduce(-together)))
    return (
        _Sums(
            (mechanism.decode(output) * unit).astype(np.float64),
            (alone * unit).astype(np.float64),
            own / (quantiser.scale * terms.clip_norm),
        ),
        longest,
    )


def _zero_input(terms: ReleaseTerms, mechanism: IntegerMechanism, wanted: int, key: KeySource) -> Int64Array:
    """Run rounds in which every device contributes zeros, int64 [num_rounds, num_values]."""
    size = mechanism.quantiser.size
    rounds = np.empty((-(-wanted // size), size), dtype=np.int64)
    for place in rounds:
        zeros = mechanism.quantiser.quantise(np.zeros(size, dtype=np.float32), _stream(key, Purpose.ROUNDING))
        place[:] = mechanism.ring.centre(
            release_sum(zeros, terms.honest_shares, mechanism, _stream(key, Purpose.NOISE))
        )
    return rounds


def _base_devices(rng: np.random.Generator, plan: AttackPlan) -> Updates:
    """Draw unit vectors with a common part, as people have tastes in common."""
    errors = rng.standard_normal((plan.base_devices, plan.num_values), dtype=np.float32)
    common = rng.standard_normal(plan.num_values, dtype=np.float32)
    errors /= np.linalg.norm(errors, axis=1, keepdims=True)
    common /= np.linalg.norm(common)
    errors *= np.float32(np.sqrt(1 - _ALIGNMENT**2))
    errors += np.float32(_ALIGNMENT) * common
    return Updates(errors, np.ones((plan.base_devices, 1), dtype=np.float32))


def _scaled(base: Updates, clip_norm: float) -> Updates:
    return base if clip_norm == 1.0 else Updates(base.errors * np.float32(clip_norm), base.vectors)


def _stream(key: KeySource, purpose: Purpose) -> WordStream:
    return WordStream(key(), purpose)
