"""The privacy budget: from an epsilon to the noise of every round, and from rounds back to epsilon.

Forward, when a run is planned:

1. `promises_of` turns a unit and an epsilon into a `Promise` for each accounting unit that is protected (`PROTECTED`).
2. `run_terms` searches for the least noise with which one popularity round and all training rounds keep every promise.
   `for_roster` and `for_batch` spread that noise over the devices of a fleet's round.
3. `Promise.policy` is the same promise as a ledger keeps it: the most that a device may be charged.

Back, when a round runs and when the run is over:

4. `events_of` says what the plan of a round releases about each unit.
5. `palate.privacy.charging` writes these events as entries of a ledger, before anything is computed, and reads entries
   as events again.
6. `palate.privacy.accounting.guarantee.account_for` adds events up.

Sizing and accounting call the same function for an event, so what is sized is what is charged. Everything here follows
from public numbers; nothing sees data. docs/budget.md walks through one run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from palate.privacy.accounting.calibrate import smallest_noise_multiplier
from palate.privacy.accounting.checks import require_count, require_share
from palate.privacy.accounting.dropout import Quorum
from palate.privacy.accounting.events import Adjacency, Assumption, Composed, Event, SkellamEvent, Unit
from palate.privacy.accounting.filters import SkellamMeter, budget_nano_for
from palate.privacy.durations import duration_words, write_duration
from palate.privacy.errors import PrivacyError
from palate.privacy.integer.ring import Ring
from palate.privacy.ledger.body import Intent, Policy, delta_text
from palate.privacy.mechanisms.terms import ReleaseTerms, RunTerms
from palate.privacy.wire import RoundPlan

SENSITIVITY = 4096
"""Default number of integer steps that the budget of an owner counts on."""

ADJACENCY = "zero-out"
PUBLIC = "the list of items is public, and so is who takes part"


class Protected(NamedTuple):
    """How a round protects one unit of accounting.

    Attributes
    ----------
    unit
        Unit whose presence is hidden.
    many
        Whether up to B clipped contributions of a round belong to the unit; otherwise one does.
    alone
        Whether the device's own noise must hide it; otherwise the noise of all honest devices in the sum does.
    """

    unit: Unit
    many: bool
    alone: bool


PROTECTED: dict[str, tuple[Protected, ...]] = {
    "user": (Protected(Unit.USER, many=False, alone=False),),
    "interaction": (Protected(Unit.INTERACTION, many=False, alone=True),),
    "both": (Protected(Unit.USER, many=True, alone=False), Protected(Unit.INTERACTION, many=False, alone=True)),
    "none": (),
}
"""What each unit of a run protects. A unit that is not here has no valid mechanism in this version, and is refused."""


@dataclass(frozen=True, kw_only=True)
class Promise:
    """The budget of one ledger, for one unit.

    Attributes
    ----------
    unit, epsilon, delta
        The guarantee.
    sensitivity
        S, integer steps that the contribution to every round has at least. Finer steps let a budget hold more; 1 counts
        on nothing.
    every_seconds
        How long a window is where the budget renews; 0 where it is for life.
    rounds
        The rounds that a budget without windows covers, in words.
    """

    unit: Unit
    epsilon: float
    delta: float
    sensitivity: int = 1
    every_seconds: int = 0
    rounds: str = "all rounds together"

    @property
    def meter(self) -> SkellamMeter:
        """What charges to the ledger prove together."""
        return SkellamMeter(self.sensitivity)

    def require(self, intent: Intent) -> Intent:
        """Return a charge that this budget may hold.

        Raises
        ------
        PrivacyError
            If its integers are coarser than the budget counts on.
        """
        if intent.clip_int < self.sensitivity:
            raise PrivacyError(
                f"round {intent.round} of {intent.run} clips to {intent.clip_int} integer steps, this device's budget "
                f"counts on {self.sensitivity} or more",
                hint="plan with a larger privacy.sensitivity",
            )
        return intent

    def policy(self, *, smallest_cohort: int) -> Policy:
        """Return the first entry of the ledger: a budget that is enforceable round by round."""
        return Policy(
            unit=str(self.unit),
            adjacency=ADJACENCY,
            delta=delta_text(self.delta),
            budget_nano=budget_nano_for(self.meter, self.epsilon, self.delta),
            n_min=smallest_cohort,
        )

    def over_windows(self, windows: int) -> float:
        """Return the epsilon, at the same delta, of a person whose budget was used up in so many windows.

        Charges add up over windows as over rounds, so this is what the sum of the budgets proves.
        """
        require_count("windows", windows)
        return self.meter.epsilon(windows * budget_nano_for(self.meter, self.epsilon, self.delta), self.delta)

    @property
    def covers(self) -> str:
        """The rounds that the epsilon is about."""
        if not self.every_seconds:
            return f"for {self.rounds}"
        return f"for all rounds within a window of {duration_words(self.every_seconds)}"

    @property
    def reading(self) -> dict[str, Any]:
        """Everything needed to read an epsilon of this ledger, as JSON values; for rounds of real devices."""
        return {
            "unit": str(self.unit),
            "delta": self.delta,
            "every": write_duration(self.every_seconds),
            "adjacency": str(Adjacency.ZERO_OUT),
            "amplification": "none claimed",
            "assumptions": [str(Assumption.SECURE_AGGREGATION), str(Assumption.HONEST_FRACTION), PUBLIC],
        }

    @property
    def line(self) -> str:
        """The guarantee in one line: epsilon, delta, unit and window."""
        return f"epsilon {self.epsilon:g} at delta {self.delta:g} per {self.unit}, {self.covers}"

    @property
    def words(self) -> str:
        """All that it takes to read an epsilon of this ledger, as a sentence; for those who ask."""
        return (
            f"epsilon is per {self.unit}, at delta {self.delta:g}, {self.covers} ({Adjacency.ZERO_OUT}; no "
            f"amplification is claimed); it holds if {'; '.join(self.reading['assumptions'])}"
        )


def promises_of(
    unit: str, epsilon: float, delta: float, *, sensitivity: int, interaction_epsilon: float | None = None
) -> dict[Unit, Promise]:
    """Return what every device of a run promises, by unit of accounting; empty for unit "none".

    Parameters
    ----------
    unit, epsilon, delta
        The unit of the run, and its guarantee.
    sensitivity
        S, integer steps that the budgets count on.
    interaction_epsilon
        Epsilon of an interaction where the run protects persons too; `epsilon` unless given.

    Raises
    ------
    PrivacyError
        If the unit has no mechanism.
    """
    rows = _protected(unit)
    return {
        row.unit: Promise(
            unit=row.unit,
            epsilon=(interaction_epsilon or epsilon) if row.alone and len(rows) > 1 else epsilon,
            delta=delta,
            sensitivity=sensitivity,
        )
        for row in rows
    }


def _protected(unit: str) -> tuple[Protected, ...]:
    if unit not in PROTECTED:
        raise PrivacyError(f"no mechanism for unit {unit!r}", hint=f"choose one of {', '.join(PROTECTED)}")
    return PROTECTED[unit]


@dataclass(frozen=True, kw_only=True)
class RunBudget:
    """Budget of a run, and how it is divided.

    Attributes
    ----------
    unit, epsilon, delta, interaction_epsilon
        The guarantee, as for `promises_of`.
    rounds
        Training rounds in which one device takes part, at most.
    spare_rounds
        Failed rounds of each kind that the budget pays for besides: a failed round has been charged.
    popularity_share
        f, share of the budget for popularity rounds, in (0, 1). The budget is split by squared inverse noise
        multipliers, which add up to the cost; training rounds share the rest evenly.
    clip_norm
        C of a training update; of a contribution to the popularity round it is 1 by construction.
    sensitivity
        S, the same bound in integer steps.
    owners_sensitivity
        Steps that the budgets of owners count on, where they are fewer than S; S unless given.
    honest_shares, roster_size
        m honest shares of noise among n1 devices. 1 of 1 sizes the noise for a single device, for `for_roster`.
    popularity_interactions, interactions_per_round
        B, most interactions of a device in a popularity and in a training round, where single interactions are clipped.
    """

    unit: str
    epsilon: float
    delta: float
    interaction_epsilon: float | None = None
    rounds: int
    spare_rounds: int = 0
    popularity_share: float
    clip_norm: float
    sensitivity: int
    owners_sensitivity: int | None = None
    honest_shares: int = 1
    roster_size: int = 1
    popularity_interactions: int = 0
    interactions_per_round: int = 0

    @property
    def promises(self) -> dict[Unit, Promise]:
        """What every device promises, by unit."""
        steps = self.owners_sensitivity or self.sensitivity
        return promises_of(
            self.unit, self.epsilon, self.delta, sensitivity=steps, interaction_epsilon=self.interaction_epsilon
        )


class _Kind(NamedTuple):
    """One kind of round: its noise multiplier over that of a single release for everything, and its numbers."""

    popularity: bool
    rounds: int
    factor: float
    clip_norm: float
    interactions: int


def run_terms(budget: RunBudget) -> RunTerms:
    """Size the least noise that keeps every promise, so that devices with that budget take part to the end.

    A device's own noise must hide an interaction (norm S); the noise of m honest devices must hide a person. Where
    both are promised, a round uses the larger of the two shares. With one epsilon for both, B up to sqrt(m) then costs
    no noise beyond what an interaction needs, and in the popularity round B up to m.

    Raises
    ------
    PrivacyError
        If a number is out of range, or no noise meets the budget.
    """
    rows = _protected(budget.unit)
    if not rows:
        raise PrivacyError(f"unit {budget.unit} needs no noise", hint="leave out epsilon, or choose another unit")
    if _clips_interactions(rows):
        require_interactions(budget.popularity_interactions)
        require_interactions(budget.interactions_per_round)
    kinds = _kinds(budget)
    shares = [_share_variances(budget, row, kinds) for row in rows]
    honest = max(_honest(row, budget.honest_shares) for row in rows)

    def terms(kind: _Kind, share_variance: int) -> ReleaseTerms:
        return ReleaseTerms(
            clip_norm=kind.clip_norm,
            sensitivity=budget.sensitivity,
            share_variance=share_variance,
            honest_shares=honest,
            roster_size=budget.roster_size,
            ring_bits=_ring_bits(budget, kind, share_variance) if _clips_interactions(rows) else 32,
        )

    popularity, train = (terms(kind, max(each)) for kind, each in zip(kinds, zip(*shares, strict=True), strict=True))
    return RunTerms(popularity=popularity, train=train)


def _kinds(budget: RunBudget) -> tuple[_Kind, _Kind]:
    require_count("rounds", budget.rounds)
    require_count("spare_rounds", budget.spare_rounds, least=0)
    require_share("popularity_share", budget.popularity_share, zero=False)
    if budget.popularity_share == 1.0:
        raise PrivacyError("popularity_share 1 leaves nothing for training", hint="choose a share below 1")
    popularity, train = 1 + budget.spare_rounds, budget.rounds + budget.spare_rounds
    popularity_factor = math.sqrt(popularity) / math.sqrt(budget.popularity_share)
    train_factor = math.sqrt(train / (1.0 - budget.popularity_share))
    return (
        _Kind(True, popularity, popularity_factor, 1.0, budget.popularity_interactions),
        _Kind(False, train, train_factor, budget.clip_norm, budget.interactions_per_round),
    )


def _share_variances(budget: RunBudget, row: Protected, kinds: Sequence[_Kind]) -> list[int]:
    """Find the smallest whole shares of noise that keep the promise for one unit, one for each kind of round."""
    promise, honest = budget.promises[row.unit], _honest(row, budget.honest_shares)
    norms = [_norm(row, budget.sensitivity, kind.interactions, different_items=kind.popularity) for kind in kinds]

    def shares(noise_multiplier: float) -> list[int]:
        return [
            math.ceil((noise_multiplier * kind.factor * norm) ** 2 / honest)
            for kind, norm in zip(kinds, norms, strict=True)
        ]

    def events(noise_multiplier: float) -> Sequence[Event]:
        return [  # of any length, as a ledger prices them: it knows none
            Composed(_event(row, norm, share, budget.honest_shares), kind.rounds)
            for kind, norm, share in zip(kinds, norms, shares(noise_multiplier), strict=True)
        ]

    return shares(smallest_noise_multiplier(events, promise.epsilon, promise.delta, enforced_by=promise.meter))


def _honest(row: Protected, honest_shares: int) -> int:
    return 1 if row.alone else honest_shares


def _norm(row: Protected, sensitivity: int, interactions: int, *, different_items: bool) -> int:
    """Bound the L2 norm of a unit's integers: S, or for B contributions B S by the triangle inequality.

    In a popularity round a person's items differ. Contributions are then orthogonal, and the bound is sqrt(B) S.
    """
    if not row.many:
        return sensitivity
    if different_items:
        return math.isqrt(interactions * sensitivity**2 - 1) + 1
    return interactions * sensitivity


def _event(
    row: Protected, norm: int, share_variance: int, honest_shares: int, num_values: int | None = None
) -> SkellamEvent:
    """Name a release about one unit. What a device's own noise hides assumes nothing about others."""
    if row.alone:
        return SkellamEvent(sensitivity=norm, variance=share_variance, unit=row.unit, assumptions=())
    variance = honest_shares * share_variance
    return SkellamEvent(sensitivity=norm, variance=variance, num_values=num_values, unit=row.unit)


def _clips_interactions(rows: Sequence[Protected]) -> bool:
    return any(row.alone for row in rows)


def _ring_bits(budget: RunBudget, kind: _Kind, share_variance: int) -> int:
    """Fewest bits, 32 to 64, in which a sum of B contributions a device cannot wrap around."""
    devices, largest = budget.roster_size, kind.interactions * budget.sensitivity
    variance = devices * share_variance
    bits = min(max(Ring.fewest_bits(devices=devices, sensitivity=largest, sum_variance=variance), 32), 64)
    Ring(bits=bits).require_room(devices=devices, sensitivity=largest, sum_variance=variance)
    return bits


def for_roster(terms: RunTerms, quorum: Quorum, roster_size: int) -> RunTerms:
    """Spread the noise of a single device over those who must survive a round; the sum never has less noise.

    Parameters
    ----------
    terms
        What `run_terms` found for one device.
    quorum
        Who must survive, and who may be lying.
    roster_size
        Devices asked.

    Raises
    ------
    PrivacyError
        If a sum over the roster could wrap around.
    """
    honest = quorum.honest_survivors(roster_size)
    return RunTerms(
        popularity=_spread(terms.popularity, honest, roster_size), train=_spread(terms.train, honest, roster_size)
    )


def for_batch(terms: RunTerms, *, honest_shares: int, most_reports: int) -> RunTerms:
    """Spread the noise of a single device over the honest reports of the least batch; the sum never has less noise.

    Words get as many bits as a sum of all reports needs, because they are sent packed.

    Parameters
    ----------
    terms
        What `run_terms` found for one device.
    honest_shares
        m = B - k: of the least batch B, those that are left when all k corrupt devices are in it.
    most_reports
        n_max, reports that a sum may have.

    Raises
    ------
    PrivacyError
        If m is not between 1 and n_max.
    """

    def packed(each: ReleaseTerms) -> ReleaseTerms:
        found = _spread(each, honest_shares, most_reports)
        bits = Ring.fewest_bits(
            devices=most_reports, sensitivity=found.sensitivity, sum_variance=most_reports * found.share_variance
        )
        return replace(found, ring_bits=bits)

    return RunTerms(popularity=packed(terms.popularity), train=packed(terms.train))


def _spread(terms: ReleaseTerms, honest_shares: int, roster_size: int) -> ReleaseTerms:
    share = -(-terms.sum_variance // max(honest_shares, 1))  # the terms refuse a number below 1
    return replace(terms, share_variance=share, honest_shares=honest_shares, roster_size=roster_size)


def events_of(plan: RoundPlan) -> dict[Unit, SkellamEvent]:
    """Say what a round releases about each unit that it protects; nothing for unit "none".

    Adjacency is zero-out: the contribution of the unit is replaced by zeros. In a history longer than B, deleting an
    interaction also lets an older one in; that is replace-one, and moves the sum by up to 2 S.

    Raises
    ------
    PrivacyError
        If the unit has no mechanism, the plan has no terms, or, where single interactions are clipped, it does not
        bound the interactions of a round or asks for metrics.
    """
    rows = _protected(plan.unit)
    if not rows:
        return {}
    terms = terms_of(plan)
    popularity = plan.purpose == "popularity"
    length = None if _clips_interactions(rows) else plan.update_size
    return {
        row.unit: _event(
            row,
            _norm(row, terms.sensitivity, plan.interactions_per_round, different_items=popularity),
            terms.share_variance,
            terms.honest_shares,
            length,
        )
        for row in rows
    }


def terms_of(plan: RoundPlan) -> ReleaseTerms:
    """Return the terms of a plan whose unit protects something; raises as `events_of`."""
    if plan.terms is None:
        raise PrivacyError(f"a plan of unit {plan.unit} has no terms", hint="plan it with palate.server")
    if _clips_interactions(_protected(plan.unit)):
        require_interactions(plan.interactions_per_round)
        if plan.asks_for_metrics:
            raise PrivacyError(
                f"unit {plan.unit} cannot carry metrics, and the plan gives them a share of {plan.evaluation_share}",
                hint="they depend on the whole history: set evaluation_share to 0",
            )
    return plan.terms


def require_interactions(interactions_per_round: int) -> None:
    """Raise PrivacyError unless a round takes a bounded, positive number of a person's interactions."""
    if interactions_per_round < 1:
        raise PrivacyError(
            f"interactions_per_round is {interactions_per_round}, it must be at least 1",
            hint="bound what one person can put into a round, for example by 64",
        )
