"""What the operator of a federation decides; public, and part of every run folder."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from palate.models.errors import ConfigError
from palate.models.training import LocalTraining
from palate.privacy.mechanisms.budget import RunTerms
from palate.server.denoising import ReleaseConfig
from palate.server.optimisers import OptimiserConfig


class Schedule(BaseModel):
    """Rounds and item table of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rounds: int = Field(12, ge=1, le=10_000, description="training rounds after the popularity round")
    dim: int = Field(64, ge=1, le=4096, description="width of the learned item embedding")
    initial_scale: float = Field(
        0.1, gt=0, description="standard deviation of the starting embeddings; in means of the root of a history's "
        "length if optimiser.relative"
    )  # fmt: skip
    start: Literal["random", "content"] = Field(
        "random", description="starting embeddings: random, or mixtures of content once popularity is known"
    )
    popularity: Literal["log", "saturating"] = Field(
        "log", description="how popularity becomes a column; saturating keeps the noise of rare items small"
    )
    head: float = Field(
        0.0, ge=0, description="learn embeddings only of items whose popularity is at least so many standard "
        "deviations of its noise; 0 for all, and with units other than user"
    )  # fmt: skip
    participation: float = Field(1.0, gt=0, le=1, description="share of devices in a round")
    timeout_seconds: float = Field(3600.0, gt=0, description="how long a round waits for answers")


class ServerSettings(BaseModel):
    """One run, complete.

    `population` is the public number of enrolled devices; the mean update is the sum over `participation` times it,
    so that no device ever needs to send a count.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str = Field(min_length=1, description="name of the run")
    unit: str = Field(description="unit of protection; names the mechanism")
    terms: RunTerms | None = Field(None, description="noise of the rounds; none for unit none")
    evaluation_share: float = Field(0.0, ge=0, lt=1, description="part of the clip norm for the devices' metrics")
    interactions_per_round: int = Field(0, ge=0, description="most interactions of a device in a round; 0 for all")
    popularity_interactions: int = Field(0, ge=0, description="the same in the popularity round")
    population: int = Field(ge=1, description="enrolled devices")
    nodes: int = Field(1, ge=1, description="nodes that must be connected before a round starts")
    schedule: Schedule = Schedule()
    training: LocalTraining = LocalTraining()
    optimiser: OptimiserConfig = OptimiserConfig()
    release: ReleaseConfig = ReleaseConfig()
    start_seed: int = Field(0, ge=0, description="public seed of the starting embeddings")

    @property
    def cohort(self) -> int:
        """Devices that are asked in a round."""
        return cohort_size(self.population, self.schedule.participation)


def cohort_size(population: int, participation: float) -> int:
    """Return how many devices a share of the population is; at least one."""
    return max(1, round(population * participation))


def setting_refused(error: ValidationError, *, hint: str) -> ConfigError:
    """Say what is wrong with the first bad setting in one line that names it."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return ConfigError(f"{place} = {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}", hint=hint)
