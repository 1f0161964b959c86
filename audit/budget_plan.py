"""A privacy budget planned before any data is touched: two of epsilon, noise and rounds decide the third.

The plan is for the integer mechanism with unit `user`. Every figure comes from `palate.privacy.accounting`; here they
are put together, with the rounds of the device that takes part most often as the ones that are promised.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from palate.audit.plan_request import MAX_ROUNDS, PlanRequest
from palate.audit.schedule import Cost, Schedule, schedule_cost
from palate.errors import ConfigError
from palate.privacy.accounting.calibrate import calibrate_skellam, rounds_left
from palate.privacy.accounting.crosscheck import checked_epsilon
from palate.privacy.accounting.dropout import local_event
from palate.privacy.accounting.events import Composed, SkellamEvent
from palate.privacy.accounting.filters import SkellamMeter, budget_nano_for, price_nano
from palate.privacy.accounting.guarantee import LOCAL_WARNING, Guarantee, account_for, as_dict

NOTICE = "Equal rounds at unit user. palate simulate spends a part of its budget on a popularity round first."

DROPOUTS = (0.0, 0.1, 0.3)


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


def make_plan(request: PlanRequest) -> Plan:
    """Answer a request.

    Raises
    ------
    ConfigError
        If more rounds fit than can be planned.
    PrivacyError
        If the accounting refuses a number, or the target cannot be met.
    """
    noise = request.noise_multiplier
    event = _calibrated(request) if noise is None else _event_of(request, noise)
    left, notes, rounds = None, list[str](), request.rounds
    if rounds is None:
        left, notes = _rounds_left(request, event)
        rounds = max(1, request.spent_rounds + left)
    schedule = Schedule(devices=request.devices, cohort=request.cohort, rounds=rounds, cap=request.cap)
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


def _event_of(request: PlanRequest, noise_multiplier: float) -> SkellamEvent:
    variance = (noise_multiplier * request.sensitivity) ** 2
    return SkellamEvent(sensitivity=request.sensitivity, variance=variance, num_values=request.num_values)


def _calibrated(request: PlanRequest) -> SkellamEvent:
    found = calibrate_skellam(
        epsilon=request.budget,
        delta=request.delta,
        rounds=request.device_rounds or 1,
        sensitivity=request.sensitivity,
        # A vector of S^2 values has the largest L1 bound of all, S^2: what an unknown length is charged.
        num_values=request.num_values or request.sensitivity**2,
    )
    return _event_of(request, found.noise_multiplier)


def _rounds_left(request: PlanRequest, event: SkellamEvent) -> tuple[int, list[str]]:
    """Count the rounds that both the accountant and the device's own filter admit, within the cap; with notes."""
    epsilon, delta, spent = request.budget, request.delta, request.spent_rounds
    before = [Composed(event, spent)] if spent else []
    meter = SkellamMeter(event.sensitivity)
    admitted = budget_nano_for(meter, epsilon, delta) // price_nano(meter, [event]) - spent
    left = max(0, min(rounds_left(event, epsilon, delta, before), admitted))
    notes: list[str] = []
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
    powers = range(len(str(schedule.rounds)))
    ladder = {step * 10**power for power in powers for step in (1, 2, 5)} | {request.spent_rounds, schedule.most_rounds}
    # Behind the cap nothing changes any more.
    return sorted({schedule.rounds, *(count for count in ladder if 1 <= count <= schedule.most_rounds)})
