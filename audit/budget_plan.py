"""A privacy budget planned before any data is touched: two of epsilon, noise and rounds decide the third.

The plan is for the integer mechanism with unit `user`. Every figure comes from `palate.privacy.accounting`; here they
are put together, with the rounds of the device that takes part most often as the ones that are promised.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from scipy.stats import binom

from palate.errors import ConfigError
from palate.privacy.accounting.calibrate import calibrate_skellam, rounds_left
from palate.privacy.accounting.crosscheck import checked_epsilon
from palate.privacy.accounting.dropout import Quorum, local_event
from palate.privacy.accounting.events import Composed, SkellamEvent
from palate.privacy.accounting.filters import SkellamMeter, budget_nano_for, price_nano
from palate.privacy.accounting.guarantee import LOCAL_WARNING, Guarantee, account_for, as_dict
from palate.server.values import setting_refused

NOTICE = "Equal rounds at unit user. palate simulate spends a part of its budget on a popularity round first."

DROPOUTS = (0.0, 0.1, 0.3)


MAX_ROUNDS, _MAX_DEVICES = 10**6, 10**9


Question = Literal["cost", "noise", "rounds"]
"""What a plan answers."""


class PlanRequest(BaseModel):
    """What is known; of epsilon, noise_multiplier and rounds exactly one is None, and asked for.

    Beyond its bounds a plan means nothing: the least noise costs epsilon 10^4 a round, sums live in a ring of 32 bits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epsilon: float | None = Field(None, ge=1e-3, le=1e3, description="budget")
    noise_multiplier: float | None = Field(
        None, ge=1e-2, le=1e6, description="standard deviation of the noise in the sum, divided by the sensitivity"
    )
    rounds: int | None = Field(None, ge=1, le=MAX_ROUNDS, description="rounds of the schedule")
    delta: float = Field(1e-5, gt=0, lt=1, description="failure probability of the guarantee")
    spent_rounds: int = Field(
        0,
        ge=0,
        le=MAX_ROUNDS,
        description="rounds with the same noise that a device has already taken part in; answers how many are left",
    )
    devices: int = Field(1000, ge=1, le=_MAX_DEVICES, description="devices in the federation")
    cohort: int = Field(1000, ge=1, le=_MAX_DEVICES, description="devices asked in each round")
    cap: int | None = Field(None, ge=1, le=MAX_ROUNDS, description="most rounds in which one device takes part")
    tau: float = Field(0.6, description="tau: a round needs more than this share of its cohort")
    gamma: float = Field(0.2, description="gamma: share of the cohort that may collude with the server")
    sensitivity: int = Field(2**12, ge=1, le=2**30, description="L2 bound of a device's integer vector")
    num_values: int | None = Field(None, ge=1, le=2**40, description="length of a device's vector")

    @model_validator(mode="after")
    def _asks_one_thing(self) -> PlanRequest:
        given = [self.epsilon, self.noise_multiplier, self.rounds]
        number = len(given) - given.count(None)
        if number != 2:
            how_many = ("none", "only one", "", "each")[number]
            raise ConfigError(
                f"{how_many} of --epsilon, --noise-multiplier and --rounds is given, a plan takes two",
                hint="ask for the cost (--noise-multiplier 2 --rounds 50), the noise (--epsilon 8 --rounds 50) "
                "or the rounds left (--epsilon 8 --noise-multiplier 2)",
            )
        if self.spent_rounds and self.question != "rounds":
            raise ConfigError(
                f"spent_rounds is {self.spent_rounds}, but the rounds left are not asked for",
                hint="give --epsilon and --noise-multiplier without --rounds, or leave out --spent-rounds",
            )
        if self.cohort > self.devices:
            raise ConfigError(
                f"cohort is {self.cohort}, it must be at most the {self.devices} devices",
                hint="ask fewer devices in a round",
            )
        if self.cap is not None and self.spent_rounds > self.cap:
            raise ConfigError(
                f"spent_rounds is {self.spent_rounds}, it must be at most the cap of {self.cap} rounds",
                hint="raise --cap, or give fewer --spent-rounds",
            )
        return self

    @property
    def quorum(self) -> Quorum:
        """Who must survive a round, and who may collude."""
        return Quorum(tau=self.tau, gamma=self.gamma)

    @property
    def question(self) -> Question:
        """What is asked for: the one that is not given."""
        if self.rounds is None:
            return "rounds"
        return "noise" if self.noise_multiplier is None else "cost"

    @property
    def budget(self) -> float:
        """The epsilon to keep; infinite where the cost is asked for."""
        return math.inf if self.epsilon is None else self.epsilon

    def rounds_of_a_device(self, rounds: int) -> int:
        """Return in how many of some rounds one device may take part."""
        return rounds if self.cap is None else min(rounds, self.cap)


@dataclass(frozen=True)
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

    What is promised covers the device that takes part most often: in every round, or as often as the cap that devices
    enforce. Where a cohort is drawn at random nobody takes part in all rounds; that figure is information, for no
    device enforces luck.

    Attributes
    ----------
    request
        What was asked.
    event
        One round.
    rounds
        All rounds: those asked about, or those spent and left together (at least one).
    rounds_left
        Rounds in which a device can still take part; None where that was not asked.
    promised
        The guarantee for everybody.
    notes
        What the reader should know besides; one sentence each.
    """

    request: PlanRequest
    event: SkellamEvent
    rounds: int
    rounds_left: int | None
    promised: Guarantee
    notes: tuple[str, ...]

    @property
    def most_rounds(self) -> int:
        """Rounds in which one device can take part: what the promise covers."""
        return self.request.rounds_of_a_device(self.rounds)

    @property
    def likely_rounds(self) -> int:
        """Rounds of the busiest device when cohorts are drawn uniformly: exceeded in less than half of all runs.

        A union bound over devices, each with a Binomial(rounds, cohort / devices) count, held down by the cap.
        """
        counts = np.arange(self.rounds + 1)
        busier = binom.sf(counts, self.rounds, self.request.cohort / self.request.devices)  # [rounds + 1]
        return max(1, min(self.most_rounds, int(np.argmax(self.request.devices * busier <= 0.5))))

    @property
    def likely(self) -> Guarantee:
        """The guarantee that the busiest device of a typical run would have, as information."""
        return account_for([Composed(self.event, self.likely_rounds)], self.request.delta)

    @property
    def local(self) -> Guarantee:
        """Epsilon of one device's share alone over the same rounds."""
        return account_for([Composed(self._share, self.most_rounds)], self.request.delta)

    @property
    def _share(self) -> SkellamEvent:
        return local_event(self.event, self.honest_survivors)

    @property
    def honest_survivors(self) -> int:
        """Fewest honest shares in a completed sum."""
        return self.request.quorum.honest_survivors(self.request.cohort)

    @property
    def by_round(self) -> tuple[RoundCost, ...]:
        """Costs after 1, 2, 5, 10, ... rounds and at the end; behind the cap nothing changes any more."""
        powers, spent = range(len(str(self.rounds))), self.request.spent_rounds
        ladder = {step * 10**power for power in powers for step in (1, 2, 5)} | {spent, self.most_rounds}
        return self.costs_at(sorted({self.rounds, *(count for count in ladder if 1 <= count <= self.most_rounds)}))

    def costs_at(self, rounds: Iterable[int]) -> tuple[RoundCost, ...]:
        """Price the schedule after each of some numbers of rounds."""

        def cost(event: SkellamEvent, count: int) -> float:
            return account_for([Composed(event, count)], self.request.delta).epsilon

        own = {count: self.request.rounds_of_a_device(count) for count in rounds}
        return tuple(
            RoundCost(count, each, cost(self.event, each), cost(self._share, each)) for count, each in own.items()
        )

    def std_inflation(self) -> dict[float, float | None]:
        """By share of dropouts: the noise of the sum over the planned one, None where the round is abandoned."""
        quorum, cohort = self.request.quorum, self.request.cohort
        return {dropout: quorum.std_inflation(cohort, dropout) for dropout in DROPOUTS}

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values; epsilons are rounded up in their last digits only."""
        request, event, quorum = self.request, self.event, self.request.quorum
        cohort = request.cohort
        return {
            "notice": NOTICE,
            "question": request.question,
            "target_epsilon": request.epsilon,
            "delta": request.delta,
            "noise_multiplier": event.noise_multiplier,
            "rounds": self.rounds,
            "spent_rounds": request.spent_rounds,
            "rounds_left": self.rounds_left,
            "devices": request.devices,
            "cohort": cohort,
            "cap": request.cap,
            "device_rounds": self.most_rounds,
            "central": as_dict(self.promised),
            "likely": {"device_rounds": self.likely_rounds, **as_dict(self.likely)},
            "local": {"warning": LOCAL_WARNING, **as_dict(self.local)},
            "by_round": [asdict(row) for row in self.by_round],
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


def requested(**numbers: Any) -> PlanRequest:
    """Return the request for these numbers; raises ConfigError or PrivacyError if they cannot be planned."""
    try:
        request = PlanRequest(**numbers)
    except ValidationError as error:
        raise setting_refused(error, PlanRequest, hint="see palate plan --help") from error
    request.quorum.survivors_needed(request.cohort)  # refuses what no round could keep
    return request


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
    if request.delta * request.devices >= 1:
        notes.append(
            f"Delta {request.delta:g} is not below one over {request.devices:,} devices: it would allow a guarantee "
            "that gives one person away."
        )
    promised = account_for([Composed(event, request.rounds_of_a_device(rounds))], request.delta)
    return Plan(request=request, event=event, rounds=rounds, rounds_left=left, promised=promised, notes=tuple(notes))


def cross_checked(plan: Plan) -> Plan:
    """Add what independent accountants say about the promised rounds; seconds, and up to a minute for a large epsilon.

    Raises
    ------
    AccountantsDisagree
        If they do not confirm the figure.
    AccountantUnavailable
        If a library is missing or fails.
    """
    return replace(plan, promised=checked_epsilon([Composed(plan.event, plan.most_rounds)], plan.request.delta))


def _event_of(request: PlanRequest, noise_multiplier: float) -> SkellamEvent:
    variance = (noise_multiplier * request.sensitivity) ** 2
    return SkellamEvent(sensitivity=request.sensitivity, variance=variance, num_values=request.num_values)


def _calibrated(request: PlanRequest) -> SkellamEvent:
    event = calibrate_skellam(
        epsilon=request.budget,
        delta=request.delta,
        rounds=request.rounds_of_a_device(request.rounds or 1),
        sensitivity=request.sensitivity,
        # A vector of S^2 values has the largest L1 bound of all, S^2: what an unknown length is charged.
        num_values=request.num_values or request.sensitivity**2,
    )
    return replace(event, num_values=request.num_values)


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
