"""What the operator of a federation decides; public, and part of every run folder."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from palate.errors import ConfigError
from palate.models.training import LocalTraining
from palate.privacy.mechanisms.registry import MECHANISMS
from palate.privacy.mechanisms.terms import RunTerms
from palate.server.denoising import ReleaseConfig
from palate.server.optimisers import OptimiserConfig


class Schedule(BaseModel):
    """Rounds and item table of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rounds: int = Field(12, ge=1, le=10_000, description="training rounds after the popularity round")
    dim: int = Field(64, ge=1, le=4096, description="width of the learned item embedding")
    initial_scale: float = Field(
        0.1,
        gt=0,
        description="standard deviation of the starting embeddings; in means of the root of a history's length if "
        "optimiser.relative",
    )
    start: Literal["random", "content"] = Field(
        "random", description="starting embeddings: random, or mixtures of content once popularity is known"
    )
    popularity: Literal["log", "saturating"] = Field(
        "log", description="how popularity becomes a column; saturating keeps the noise of rare items small"
    )
    popularity_tolerance: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="ask for popularity again, in place of a training round, while lists by popularity may lose more "
        "HR@10 than this against the whole budget; 0 asks once, and so do units other than user",
    )
    head: float = Field(
        0.0,
        ge=0,
        description="learn embeddings only of items whose popularity is at least so many standard deviations of its "
        "noise; 0 for all, and with units other than user",
    )
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

    @model_validator(mode="after")
    def _go_together(self) -> ServerSettings:
        require_together(self.unit, self.training, self.optimiser, self.release)
        return self

    @property
    def cohort(self) -> int:
        """Devices that are asked in a round."""
        return cohort_size(self.population, self.schedule.participation)


def require_together(unit: str, training: LocalTraining, optimiser: OptimiserConfig, release: ReleaseConfig) -> None:
    """Check settings of which one is sound with others only.

    Raises
    ------
    ConfigError
        If updates are to be on own items only where their zeros would show, or a filter would not know the noise.
    """
    if training.own_items_only and not (unit in MECHANISMS and MECHANISMS[unit].hides_rows):
        raise ConfigError(
            f"training.own_items_only is true, and unit {unit!r} does not allow it",
            hint="leave it out, or use unit user: there the noise covers every row of a sum, so that zeros do not show",
        )
    unsound = cannot_filter(training, optimiser, release)
    if optimiser.groups and unsound:
        reason, remedy = unsound
        raise ConfigError(
            f"optimiser.groups is {optimiser.groups}, and {reason}", hint=f"set optimiser.groups to 0, or {remedy}"
        )


def cannot_filter(
    training: LocalTraining, optimiser: OptimiserConfig, release: ReleaseConfig
) -> tuple[str, str] | None:
    """Say why the noise in what was learned could not be filtered, and what to set instead; None where it can be.

    The filter takes the sum of all rounds for signal and independent noise of known size. Whatever pushes rows back in
    proportion to the table pushes back the noise of earlier rounds as well, and takes of the signal that is there.
    """
    if optimiser.name != "curvature":
        return f"optimiser {optimiser.name!r} does not filter", "optimiser.name to curvature"
    if optimiser.momentum:
        return f"momentum {optimiser.momentum:g} brings old noise back with every step", "optimiser.momentum to 0"
    if optimiser.item_regularisation:
        return (
            f"item_regularisation {optimiser.item_regularisation:g} pushes all rows back",
            "optimiser.item_regularisation to 0",
        )
    if release.steps:
        return f"release steps ({', '.join(release.steps)}) change the noise of a sum", "release.steps to none"
    if not training.own_items_only:
        return "people push the rows of all items back", "training.own_items_only to true (unit user)"
    return None


def cohort_size(population: int, participation: float) -> int:
    """Return how many devices a share of the population is; at least one."""
    return max(1, round(population * participation))
