"""A privacy budget planned before any data is touched: two of epsilon, noise and rounds decide the third.

The plan is for the integer mechanism with unit `user`. Every figure comes from `palate.privacy.accounting`; here they
are put together, with the rounds of the device that takes part most often as the ones that are promised.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from palate.models.errors import ConfigError
from palate.privacy.accounting.calibrate import calibrate_skellam, rounds_left
from palate.privacy.accounting.checks import require_count, require_delta, require_positive
from palate.privacy.accounting.crosscheck import checked_epsilon
from palate.privacy.accounting.dropout import Quorum, local_event
from palate.privacy.accounting.events import Composed, SkellamEvent
from palate.privacy.accounting.filters import ZcdpMeter, budget_nano_for, price_nano
from palate.privacy.accounting.guarantee import Guarantee
from palate.privacy.accounting.guarantee import epsilon as account_for
from palate.privacy.accounting.schedule import Cost, Schedule, schedule_cost

NOTICE = "This plans budgets for the user-level mechanism; palate simulate cannot run a protected unit yet."
LOCAL_WARNING = "One device's share alone, if secure aggregation fails: it is no protection by itself."

MAX_ROUNDS, MAX_DEVICES = 10**6, 10**9
MIN_EPSILON, MAX_EPSILON = 1e-3, 1e3
MIN_NOISE, MAX_NOISE = 1e-2, 1e6
MAX_SENSITIVITY = 2**30
"""Beyond these a plan means nothing: the least noise costs epsilon 10^4 a round, sums live in a ring of 32 bits."""

DROPOUTS = (0.0, 0.1, 0.3)


class Question(StrEnum):
    """What a plan answers."""

    COST = "cost"
    NOISE = "noise"
    ROUNDS = "rounds"


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """What is known; of epsilon, noise_multiplier and rounds exactly one is None, and asked for.

    Attributes
    ----------
    epsilon, noise_multiplier, rounds
        Budget, noise in the sum over the sensitivity, and rounds of the schedule.
    delta
        Probability left over.
    spent_rounds
        Rounds with the same noise that a device has behind it; only where rounds are asked for.
    devices, cohort
        Devices in the federation, and those asked in each round.
    cap
        Most rounds in which one device takes part; None for no cap.
    quorum
        Who must survive a round, and who may collude.
    sensitivity
        S, L2 bound of a device's integer vector, 1 to 2^30.
    num_values
        Length of that vector; None for any length, which costs at most as much as the worst one.

    Raises
    ------
    ConfigError
        If not exactly two of the three are given, or a number is outside what can be planned.
    PrivacyError
        If a number is outside what the accounting accepts.
    """

    epsilon: float | None = None
    noise_multiplier: float | None = None
    rounds: int | None = None
    delta: float = 1e-5
    spent_rounds: int = 0
    devices: int = 1000
    cohort: int = 1000
    cap: int | None = None
    quorum: Quorum
    sensitivity: int = 2**12
    num_values: int | None = None

    def __post_init__(self) -> None:
        asked = [name for name in ("epsilon", "noise_multiplier", "rounds") if getattr(self, name) is None]
        if len(asked) != 1:
            raise ConfigError(
                "all three of --epsilon, --noise-multiplier and --rounds are given, two decide the third"
                if not asked
                else f"{3 - len(asked)} of --epsilon, --noise-multiplier and --rounds is given, a plan needs two",
                hint="ask for the cost (--noise-multiplier 2 --rounds 50), the noise (--epsilon 8 --rounds 50) "
                "or the rounds left (--epsilon 8 --noise-multiplier 2)",
            )
        require_delta(self.delta)
        if self.epsilon is not None:
            require_positive("epsilon", self.epsilon)
            _require_between("epsilon", self.epsilon, MIN_EPSILON, MAX_EPSILON)
        if self.noise_multiplier is not None:
            require_positive("noise_multiplier", self.noise_multiplier)
            _require_between("noise_multiplier", self.noise_multiplier, MIN_NOISE, MAX_NOISE)
        for name, most in (("rounds", MAX_ROUNDS), ("cap", MAX_ROUNDS), ("num_values", 2**40)):
            if getattr(self, name) is not None:
                _require_between(name, require_count(name, getattr(self, name)), 1, most)
        for name, most in (("devices", MAX_DEVICES), ("cohort", MAX_DEVICES), ("sensitivity", MAX_SENSITIVITY)):
            _require_between(name, require_count(name, getattr(self, name)), 1, most)
        _require_between("spent_rounds", require_count("spent_rounds", self.spent_rounds, least=0), 0, MAX_ROUNDS)
        self._check_spent()

    def _check_spent(self) -> None:
        if self.spent_rounds and self.question is not Question.ROUNDS:
            raise ConfigError(
                f"spent_rounds is {self.spent_rounds}, but the rounds left are not asked for",
                hint="give --epsilon and --noise-multiplier without --rounds, or leave out --spent-rounds",
            )
        if self.cap is not None and self.spent_rounds > self.cap:
            raise ConfigError(
                f"spent_rounds is {self.spent_rounds}, it must be at most the cap of {self.cap} rounds",
                hint="raise --cap, or give fewer --spent-rounds",
            )

    @property
    def question(self) -> Question:
        """What is asked for: the one that is not given."""
        if self.rounds is None:
            return Question.ROUNDS
        return Question.NOISE if self.noise_multiplier is None else Question.COST


@dataclass(frozen=True, kw_only=True)
class RoundCost:
    """What is spent after some rounds by the device that took part in as many as it may: epsilons at the plan's delta.

    Attributes
    ----------
    round, device_rounds
        Rounds of the schedule, and those of that device: fewer where there is a cap.
    central, local
        With secure aggregation, and without it under one share of noise.
    """

    round: int
    device_rounds: int
    central: float
    local: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The answer to a request, and what follows from it.

    Attributes
    ----------
    request
        What was asked.
    event
        One round.
    schedule
        All rounds: those asked about, or those spent and left together (at least one).
    rounds_left
        Rounds in which a device can still take part; None where that was not asked.
    cost
        The guarantee for everybody, and the likely case.
    local
        What one device's share alone would give over the same rounds.
    by_round
        Rows at 1, 2, 5, 10, ... rounds and at the end.
    notes
        What the reader should know besides; one sentence each.
    """

    request: PlanRequest
    event: SkellamEvent
    schedule: Schedule
    rounds_left: int | None
    cost: Cost
    local: Guarantee
    by_round: tuple[RoundCost, ...]
    notes: tuple[str, ...]

    @property
    def honest_survivors(self) -> int:
        """Fewest honest shares in a completed sum."""
        return self.request.quorum.honest_survivors(self.schedule.cohort)

    def costs_at(self, rounds: Iterable[int]) -> tuple[RoundCost, ...]:
        """Price the schedule after each of some numbers of rounds."""
        return tuple(_round_cost(self.event, self.request, count) for count in rounds)

    def std_inflation(self) -> dict[float, float | None]:
        """By share of dropouts: the noise of the sum over the planned one, None where the round is abandoned."""
        quorum, cohort = self.request.quorum, self.schedule.cohort
        return {dropout: quorum.std_inflation(cohort, dropout) for dropout in DROPOUTS}

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values; epsilons are rounded up in their last digits only."""
        request, event, quorum = self.request, self.event, self.request.quorum
        cohort = self.schedule.cohort
        return {
            "notice": NOTICE,
            "question": str(request.question),
            "target_epsilon": request.epsilon,
            "delta": request.delta,
            "noise_multiplier": event.noise_multiplier,
            "rounds": self.schedule.rounds,
            "spent_rounds": request.spent_rounds,
            "rounds_left": self.rounds_left,
            "devices": self.schedule.devices,
            "cohort": cohort,
            "cap": self.schedule.cap,
            "device_rounds": self.schedule.most_rounds,
            "central": as_dict(self.cost.promised),
            "likely": {"device_rounds": max(1, self.cost.likely_rounds), **as_dict(self.cost.likely)},
            "local": {"warning": LOCAL_WARNING, **as_dict(self.local)},
            "by_round": [
                {"round": row.round, "device_rounds": row.device_rounds, "central": row.central, "local": row.local}
                for row in self.by_round
            ],
            "mechanism": {
                "sensitivity": event.sensitivity,
                "num_values": request.num_values,
                "variance": event.variance,
                "share_variance": quorum.share_variance(event.noise_multiplier, event.sensitivity, cohort),
            },
            "quorum": {
                "tau": quorum.tau,
                "gamma": quorum.gamma,
                "survivors_needed": quorum.survivors_needed(cohort),
                "honest_survivors": self.honest_survivors,
                "std_inflation": [
                    {"dropout": dropout, "std_inflation": inflation}
                    for dropout, inflation in self.std_inflation().items()
                ],
            },
            "notes": list(self.notes),
        }


def as_dict(guarantee: Guarantee) -> dict[str, Any]:
    """Return a guarantee as JSON values: an epsilon never travels without what it takes to read it."""
    return {
        "epsilon": guarantee.epsilon,
        "delta": guarantee.delta,
        "unit": str(guarantee.unit),
        "adjacency": str(guarantee.adjacency),
        "accountant": guarantee.accountant,
        "amplification": guarantee.amplification,
        "assumptions": [str(assumption) for assumption in guarantee.assumptions],
        "cross_checks": [{"accountant": c.accountant, "epsilon": c.epsilon} for c in guarantee.cross_checks],
    }


def make_plan(request: PlanRequest) -> Plan:
    """Answer a request.

    Raises
    ------
    ConfigError
        If more rounds fit than can be planned.
    PrivacyError
        If the accounting refuses a number, or the target cannot be met.
    """
    left, notes = None, []
    if request.rounds is None:
        event = _event_of(request, _given(request.noise_multiplier))
        left, notes = _rounds_left(request, event)
        schedule = _schedule(request, max(1, request.spent_rounds + left))
    else:
        schedule = _schedule(request, request.rounds)
        event = (
            _calibrated(request, schedule)
            if request.noise_multiplier is None
            else _event_of(request, request.noise_multiplier)
        )
    if request.delta * request.devices >= 1:
        notes.append(
            f"Delta {request.delta:g} is not below one over {request.devices:,} devices: it would allow a guarantee "
            "that gives one person away."
        )
    honest = request.quorum.honest_survivors(request.cohort)
    return Plan(
        request=request,
        event=event,
        schedule=schedule,
        rounds_left=left,
        cost=schedule_cost(schedule, event, request.delta),
        local=account_for([Composed(local_event(event, honest), schedule.most_rounds)], request.delta),
        by_round=tuple(_round_cost(event, request, count) for count in _shown_rounds(request, schedule)),
        notes=tuple(notes),
    )


def cross_checked(plan: Plan) -> Plan:
    """Add what independent accountants say about the promised rounds; seconds, and up to a minute for a large epsilon.

    Raises
    ------
    AccountantsDisagree
        If they do not confirm the figure.
    AccountantUnavailable
        If a library is missing or fails.
    """
    promised = checked_epsilon([Composed(plan.event, plan.schedule.most_rounds)], plan.request.delta)
    return replace(plan, cost=replace(plan.cost, promised=promised))


def _schedule(request: PlanRequest, rounds: int) -> Schedule:
    return Schedule(devices=request.devices, cohort=request.cohort, rounds=rounds, cap=request.cap)


def _event_of(request: PlanRequest, noise_multiplier: float) -> SkellamEvent:
    variance = (noise_multiplier * request.sensitivity) ** 2
    return SkellamEvent(sensitivity=request.sensitivity, variance=variance, num_values=request.num_values)


def _calibrated(request: PlanRequest, schedule: Schedule) -> SkellamEvent:
    # A vector of S^2 values has the largest L1 bound of all, S^2: what an unknown length is charged.
    num_values = request.num_values or request.sensitivity**2
    found = calibrate_skellam(
        epsilon=_given(request.epsilon),
        delta=request.delta,
        rounds=schedule.most_rounds,
        sensitivity=request.sensitivity,
        num_values=num_values,
    )
    return _event_of(request, found.noise_multiplier)


def _rounds_left(request: PlanRequest, event: SkellamEvent) -> tuple[int, list[str]]:
    """Rounds that both the accountant and the device's own filter admit, within the cap; and what to say about it."""
    epsilon, delta, spent = _given(request.epsilon), request.delta, request.spent_rounds
    before = [Composed(event, spent)] if spent else []
    meter = ZcdpMeter()
    admitted = budget_nano_for(meter, epsilon, delta) // price_nano(meter, [event]) - spent
    left = max(0, min(rounds_left(event, epsilon, delta, before), admitted))
    notes = []
    if request.cap is not None and request.cap - spent < left:
        left = request.cap - spent
        notes.append(f"The cap of {request.cap} rounds ends first: the budget alone would last longer.")
    if before and account_for(before, delta).epsilon > epsilon:
        notes.append(f"The {spent} rounds spent already cost more than the budget.")
    if spent + left > MAX_ROUNDS:
        raise ConfigError(
            f"{left} rounds fit into epsilon {epsilon:g}, at most {MAX_ROUNDS} can be planned",
            hint="use less noise, a smaller epsilon or a --cap",
        )
    return left, notes


def _round_cost(event: SkellamEvent, request: PlanRequest, count: int) -> RoundCost:
    device_rounds = count if request.cap is None else min(count, request.cap)
    alone = local_event(event, request.quorum.honest_survivors(request.cohort))
    return RoundCost(
        round=count,
        device_rounds=device_rounds,
        central=account_for([Composed(event, device_rounds)], request.delta).epsilon,
        local=account_for([Composed(alone, device_rounds)], request.delta).epsilon,
    )


def _shown_rounds(request: PlanRequest, schedule: Schedule) -> list[int]:
    ladder = {step * 10**power for power in range(math.ceil(math.log10(schedule.rounds)) + 1) for step in (1, 2, 5)} | {
        request.spent_rounds,
        schedule.rounds,
        schedule.most_rounds,
    }
    return sorted(count for count in ladder if 1 <= count <= schedule.rounds)


def _require_between(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise ConfigError(
            f"{name} is {value:g}, a plan takes {least:g} to {most:g}", hint=f"give {name} within these bounds"
        )


def _given(value: float | None) -> float:
    if value is None:
        raise ConfigError("a plan needs two of --epsilon, --noise-multiplier and --rounds")
    return value
