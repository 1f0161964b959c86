"""What a privacy plan is asked, checked: two of epsilon, noise and rounds are known, the third is the question."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from palate.errors import ConfigError
from palate.privacy.accounting.checks import require_count, require_delta, require_positive
from palate.privacy.accounting.dropout import Quorum

MAX_ROUNDS, MAX_DEVICES = 10**6, 10**9
MIN_EPSILON, MAX_EPSILON = 1e-3, 1e3
MIN_NOISE, MAX_NOISE = 1e-2, 1e6
MAX_SENSITIVITY = 2**30
"""Beyond these a plan means nothing: the least noise costs epsilon 10^4 a round, sums live in a ring of 32 bits."""


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
        self._check_question()
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

    def _check_question(self) -> None:
        given = [self.epsilon, self.noise_multiplier, self.rounds]
        number = len(given) - given.count(None)
        if number != 2:
            how_many = ("none", "only one", "", "each")[number]
            raise ConfigError(
                f"{how_many} of --epsilon, --noise-multiplier and --rounds is given, a plan takes two",
                hint="ask for the cost (--noise-multiplier 2 --rounds 50), the noise (--epsilon 8 --rounds 50) "
                "or the rounds left (--epsilon 8 --noise-multiplier 2)",
            )

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

    @property
    def budget(self) -> float:
        """The epsilon to keep; infinite where the cost is asked for."""
        return math.inf if self.epsilon is None else self.epsilon

    @property
    def device_rounds(self) -> int | None:
        """Rounds in which one device may take part; None where nothing limits them."""
        return min((count for count in (self.rounds, self.cap) if count is not None), default=None)


def _require_between(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        shown, low, high = (f"{x:g}" if isinstance(x, float) else str(x) for x in (value, least, most))
        raise ConfigError(f"{name} is {shown}, a plan takes {low} to {high}", hint=f"give {name} within these bounds")
