"""What is attacked: the rounds of a run, out of its signed ledger, or rounds sized for a budget that is asked about.

Noise in different coordinates is independent and alike, so an attack on shorter vectors than the run's says as much
about its mechanism, and costs less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby

from palate.audit.opening import Source
from palate.audit.records import LedgerRecord
from palate.errors import ConfigError, RunError
from palate.privacy.accounting.calibrate import calibrate_skellam
from palate.privacy.accounting.checks import require_count, require_delta
from palate.privacy.accounting.dropout import Quorum
from palate.privacy.accounting.events import Composed, Event, SkellamEvent, Unit
from palate.privacy.accounting.gaussian import total_mu
from palate.privacy.accounting.guarantee import Guarantee, account_for
from palate.privacy.audit.canaries import MIN_CANARIES
from palate.privacy.errors import PrivacyError
from palate.privacy.ledger.body import Intent
from palate.privacy.ledger.verify import verify_ledger
from palate.privacy.mechanisms.terms import ReleaseTerms

MECHANISM = "skellam"
LEDGER = "server"
_BASE_DEVICES = 50

SENSITIVITY, QUORUM = 1 << 12, Quorum(tau=0.6, gamma=0.2)
"""Of rounds that are sized for a budget."""


@dataclass(frozen=True, kw_only=True)
class Game:
    """Size of the attack.

    Attributes
    ----------
    canaries
        Approximate number in all repeats together.
    num_values
        Length of a contribution; shortened where a round's sensitivity is too small for it.
    repeats
        How often all rounds are played, each time with new canaries; None for as often as it takes to have them all:
        a cohort holds no more canaries than devices.
    """

    canaries: int = 2000
    num_values: int = 8192
    repeats: int | None = None

    def __post_init__(self) -> None:
        require_count("canaries", self.canaries, least=MIN_CANARIES)
        require_count("num_values", self.num_values, least=MIN_CANARIES)
        if self.repeats is not None:
            require_count("repeats", self.repeats)


@dataclass(frozen=True, kw_only=True)
class AttackPlan:
    """Rounds to attack, and with what.

    Attributes
    ----------
    source
        Where the rounds come from, for the reader.
    rounds
        Terms of every round, in order.
    delta
        Of the claim.
    canaries
        In each repeat.
    base_devices
        Further devices, with contributions that the attacker knows.
    num_values
        Length of a contribution.
    repeats
        How often all rounds are played.
    claimed_values
        Length of vectors in the claim; None for any.
    """

    source: str
    rounds: tuple[ReleaseTerms, ...]
    delta: float
    canaries: int
    base_devices: int
    num_values: int
    repeats: int
    claimed_values: int | None = None

    @property
    def events(self) -> list[Event]:
        """The rounds as events for the accountant."""
        return [
            Composed(
                SkellamEvent(
                    sensitivity=terms.sensitivity, variance=terms.sum_variance, num_values=self.claimed_values
                ),
                len(list(same)),
            )
            for terms, same in groupby(self.rounds)
        ]

    @property
    def mu(self) -> float:
        """Parameter of the Gaussian mechanism that is as wide, over all rounds."""
        return total_mu(terms.noise_multiplier for terms in self.rounds)

    @property
    def steps(self) -> int:
        """Rounds to play, over all repeats."""
        return len(self.rounds) * self.repeats

    def claim(self) -> Guarantee:
        """Account for the rounds: what is proven."""
        return account_for(self.events, self.delta)


def plan_for(*, epsilon: float, delta: float, rounds: int, devices: int, game: Game) -> AttackPlan:
    """Size equal rounds for a budget, as `palate plan` does, and an attack on them.

    Raises
    ------
    PrivacyError
        If a number is out of range, or no noise meets the budget.
    """
    require_count("devices", devices)
    found = calibrate_skellam(
        epsilon=epsilon, delta=delta, rounds=rounds, sensitivity=SENSITIVITY, num_values=game.num_values
    )
    terms = ReleaseTerms(
        clip_norm=1.0,
        sensitivity=SENSITIVITY,
        share_variance=math.ceil(QUORUM.share_variance(found.noise_multiplier, SENSITIVITY, devices)),
        honest_shares=QUORUM.honest_survivors(devices),
        roster_size=devices,
    )
    source = f"a plan for epsilon {epsilon:g} at delta {delta:g} over {rounds} round{'s' if rounds > 1 else ''}"
    return plan_of((terms,) * rounds, delta=delta, game=game, source=source, claimed_values=game.num_values)


def plan_of_run(source: Source, game: Game) -> AttackPlan:
    """Take the rounds from a run's ledger, after verifying it, so that the plan attacked is the one that ran.

    A ledger keeps what decides privacy, integers all of them; it keeps neither the clip norm nor the length of vectors.
    The attack is in units of the clip norm.

    Parameters
    ----------
    source
        The run, or its server's file of ledgers, with the key that must have signed it.
    game
        Size of the attack.

    Raises
    ------
    RunError
        If the run released nothing.
    ConfigError
        If there is no server's ledger, or its unit or mechanism is not one that this attack is made for.
    LedgerError
        If the ledger does not verify.
    """
    if not source.books:
        raise ConfigError(
            f"{source.name} is an exported ledger, an attack needs the file of the server's",
            hint="give the run folder, or its ledgers/server.sqlite",
        )
    verified = verify_ledger(source.books[0], LEDGER, source.key.public, allow_open=True)
    policy = verified.state.policy
    if policy is None or policy.unit != Unit.USER:
        raise ConfigError(
            f"the run protects unit {policy.unit if policy else 'none'}, this attack is made for unit user",
            hint="choose a run with --unit user or both",
        )
    record = LedgerRecord(LEDGER, source.books[0].name, verified.events, verified.state)
    rounds = tuple(map(_terms, record.counted))
    if not rounds:
        raise RunError(f"{source.name} released nothing: its ledger has no rounds", hint="attack a run that has begun")
    words = f"{len(rounds)} round{'s' * (len(rounds) > 1)} of the verified ledger of {source.name}"
    return plan_of(rounds, delta=float(policy.delta), game=game, source=words)


def plan_of(
    rounds: tuple[ReleaseTerms, ...], *, delta: float, game: Game, source: str, claimed_values: int | None = None
) -> AttackPlan:
    """Fit an attack to rounds: no more canaries than the smallest roster has devices, and vectors that fit S.

    Raises
    ------
    PrivacyError
        If delta is out of range, or the canaries do not fit.
    """
    require_delta(delta)
    require_count("rounds", len(rounds))
    roster = min(terms.roster_size for terms in rounds)
    num_values = min(_longest(terms, game.num_values) for terms in set(rounds))
    canaries = min(game.canaries, max(MIN_CANARIES, roster), num_values)
    return AttackPlan(
        source=source,
        rounds=rounds,
        delta=delta,
        canaries=canaries,
        base_devices=min(_BASE_DEVICES, max(0, roster - canaries)),
        num_values=num_values,
        repeats=game.repeats or math.ceil(game.canaries / canaries),
        claimed_values=claimed_values,
    )


def _longest(terms: ReleaseTerms, wanted: int) -> int:
    """Longest vector that fits the terms' sensitivity, halving the requested length."""
    while wanted > MIN_CANARIES:
        try:
            terms.mechanism(wanted)
        except PrivacyError:
            wanted //= 2
        else:
            return wanted
    return MIN_CANARIES


def _terms(intent: Intent) -> ReleaseTerms:
    if intent.mechanism != MECHANISM:
        raise ConfigError(
            f"round {intent.round} used the mechanism {intent.mechanism!r}, this attack is made for {MECHANISM!r}",
            hint="choose a run with --unit user",
        )
    if intent.sum_var_int % intent.m_honest:
        raise RunError(
            f"round {intent.round}: a variance of {intent.sum_var_int} is not {intent.m_honest} equal shares",
            hint="the ledger was not written by palate simulate",
        )
    return ReleaseTerms(
        clip_norm=1.0,
        sensitivity=intent.clip_int,
        share_variance=intent.sum_var_int // intent.m_honest,
        honest_shares=intent.m_honest,
        roster_size=intent.n1,
    )
