"""Options of protection, and what follows from them: honest shares, survivors and rounds of a device.

Everything follows from public numbers: the budget, the rounds, the size of the federation and of the catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from palate.errors import ConfigError
from palate.privacy.accounting.dropout import Quorum, share_of
from palate.server.settings import cohort_size

UNPROTECTED = "none"


class PrivacyOptions(BaseModel):
    """How a budget is spent, and which failures of devices it allows for. Unit "none" uses none of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    clip_norm: float = Field(1e-3, gt=0, description="L2 bound of one device's training update; public")
    sensitivity: int = Field(4096, ge=64, le=65536, description="the same bound in integer steps")
    popularity_share: float = Field(0.1, gt=0, lt=1, description="part of the budget for the popularity round")
    evaluation_share: float = Field(
        0.1, ge=0, lt=1, description="part of the clip norm that carries the devices' own metrics; 0 asks for none"
    )
    cap: int | None = Field(None, ge=1, description="most training rounds of one device; needs participation below 1")
    interactions_per_round: int = Field(
        64, ge=1, description="most interactions of a device in a training round (units interaction and both)"
    )
    popularity_interactions: int = Field(1000, ge=1, description="the same in the popularity round")
    interaction_epsilon: float | None = Field(
        None, gt=0, description="budget for a single interaction at unit both; epsilon unless given"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the devices that drop out of every round")
    tau: float | None = Field(
        None, gt=0, lt=1, description="size the noise for a quorum of survivors; without it for all that survive"
    )
    gamma: float = Field(0.0, ge=0, lt=1, description="share of the devices that may collude and leave out their noise")
    noise: Literal["secret", "seeded"] = Field(
        "secret", description="secret noise, or noise from the seed: for experiments, and protects nobody"
    )


@dataclass(frozen=True)
class Cohort:
    """Devices of a round: asked, dropped out, and honest shares of noise in the sum."""

    size: int
    dropouts: int
    honest: int

    def least_sum(self, gamma: float) -> int:
        """Fewest vectors in a sum: the honest ones, and all that may collude."""
        return self.honest + share_of(gamma, self.size)


def cohort_of(options: PrivacyOptions, population: int, participation: float) -> Cohort:
    """Count a round's devices.

    Raises
    ------
    ConfigError
        If too many drop out for the quorum, or no honest device would be left.
    """
    size = cohort_size(population, participation)
    dropouts = share_of(options.dropout, size)
    if options.tau is None:
        honest = size - dropouts - share_of(options.gamma, size)
        if honest < 1:
            raise ConfigError(
                f"with dropout {options.dropout:g} and gamma {options.gamma:g} no honest device of {size} is left",
                hint="lower privacy.dropout or privacy.gamma",
            )
        return Cohort(size, dropouts, honest)
    quorum = Quorum(tau=options.tau, gamma=options.gamma)
    if size - dropouts < quorum.survivors_needed(size):
        raise ConfigError(
            f"{size - dropouts} of {size} devices survive a round, tau {options.tau:g} needs "
            f"{quorum.survivors_needed(size)}",
            hint="lower privacy.dropout or privacy.tau",
        )
    return Cohort(size, dropouts, quorum.honest_survivors(size))


def device_rounds(options: PrivacyOptions, rounds: int, population: int, participation: float) -> int:
    """Most training rounds of one device.

    Raises
    ------
    ConfigError
        If the cap leaves too few devices for the last rounds.
    """
    if options.cap is None or options.cap >= rounds:
        return rounds
    size = cohort_size(population, participation)
    if (rounds - 1) * size > options.cap * (population - size):
        raise ConfigError(
            f"with a cap of {options.cap}, {population} devices cannot fill {rounds} rounds of {size}",
            hint="lower --participation or --rounds, or raise privacy.cap",
        )
    return options.cap
