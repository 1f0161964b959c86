"""Server optimisers: from the sum of updates to new item embeddings, one registry.

All of them see only what a server may see: the sum, the table itself, and the popularity sum. `step_size` is the
root mean square of a step of `momentum`, about that of `adam`, and that of `curvature` in the metric of its row scale
(before momentum adds up); it shrinks by `decay` every round.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from palate.errors import ConfigError
from palate.models.arrays import BoolArray, Float64Array
from palate.server.filtering import filter_rows

_ROUNDING = 1e-6

OptimiserState = dict[str, Float64Array]


class OptimiserConfig(BaseModel):
    """Which optimiser, and how large its steps are."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field("curvature", description="server optimiser: average, momentum, adam or curvature")
    step_size: float = Field(0.3, gt=0, description="RMS of a step; for average the factor of the mean update")
    relative: bool = Field(
        False, description="count step_size in means of the root of a history's length, known from popularity"
    )
    decay: float = Field(0.85, gt=0, le=1, description="factor of the step size from round to round")
    item_regularisation: float = Field(
        2e-4, ge=0, description="ridge on the learned embeddings, relative to the sum of all user weights"
    )
    momentum: float = Field(0.0, ge=0, lt=1, description="share of the last direction that is kept")
    second_momentum: float = Field(0.99, ge=0, lt=1, description="Adam's decay of squared directions")
    groups: int = Field(
        0,
        ge=0,
        description="curvature: after every round filter noise from all that was learned, by so many groups of items "
        "that go together; needs training.own_items_only; 0 for none",
    )


@dataclass(frozen=True)
class Aggregate:
    """What a round brings to the server.

    Attributes
    ----------
    total
        Sum of the updates less the item ridge, float64 [num_items, dim].
    devices
        Expected number of devices in the sum (public).
    popularity
        Popularity sum of the popularity round, not negative, float64 [num_items].
    all_users
        Estimate ``W`` of the sum of all user weights, from the popularity sum.
    unobserved_weight
        Weight ``a0`` of the local loss (public).
    server_round
        1 for the first training round.
    mean_root_length
        Estimate of the mean of ``sqrt(n_u)``, from the popularity sum; at least a millionth.
    noise_std
        Standard deviation of the noise in every entry of the learned rows of `total` (public); 0 for none.
    active
        Which rows are learned, bool [num_items]; None for all.
    """

    total: Float64Array
    devices: float
    popularity: Float64Array
    all_users: float
    unobserved_weight: float
    server_round: int
    mean_root_length: float = 1.0
    noise_std: float = 0.0
    active: BoolArray | None = None


class Optimiser(ABC):
    """One way to step. State is a dict of matrices, so that a run can be resumed exactly."""

    name: ClassVar[str]

    def __init__(self, config: OptimiserConfig) -> None:
        self.config = config
        self.state: OptimiserState = {}

    def step(self, aggregate: Aggregate) -> Float64Array:
        """Return the change of the embeddings, float64 [num_items, dim]."""
        shrunk = self.config.step_size * self.config.decay ** (aggregate.server_round - 1)
        if self.config.relative:
            shrunk *= aggregate.mean_root_length
        return shrunk * self.direction(aggregate)

    @abstractmethod
    def direction(self, aggregate: Aggregate) -> Float64Array:
        """Return the step before it is scaled by the step size."""

    def accumulate(self, name: str, value: Float64Array, keep: float) -> Float64Array:
        """Exponential sum ``keep * old + value``, kept in the state."""
        old = self.state.get(name)
        self.state[name] = value if old is None else keep * old + value
        return self.state[name]


class Average(Optimiser):
    """Mean of the updates: FedAvg's step on the item table (McMahan et al. 2017)."""

    name = "average"

    def direction(self, aggregate: Aggregate) -> Float64Array:
        """Return the mean update."""
        return aggregate.total / aggregate.devices


class Momentum(Optimiser):
    """Heavy-ball momentum with a step of known size (FedAvgM: Hsu, Qi & Brown 2019, normalised)."""

    name = "momentum"

    def direction(self, aggregate: Aggregate) -> Float64Array:
        """Return the accumulated direction at unit root mean square."""
        velocity = self.accumulate("velocity", aggregate.total, self.config.momentum)
        size = float(np.sqrt(np.mean(velocity**2)))
        return velocity / size if size > 0 else velocity


class Adam(Optimiser):
    """Adam on the sum of updates (FedAdam: Reddi et al. 2021, algorithm 2)."""

    name = "adam"

    def direction(self, aggregate: Aggregate) -> Float64Array:
        """Return the bias-corrected ratio of first to root second moment."""
        beta1, beta2, count = self.config.momentum, self.config.second_momentum, aggregate.server_round
        first = self.accumulate("first", (1 - beta1) * aggregate.total, beta1) / (1 - beta1**count)
        second = self.accumulate("second", (1 - beta2) * aggregate.total**2, beta2) / (1 - beta2**count)
        tiny = 1e-8 * float(np.sqrt(second.max(initial=0.0))) + 1e-30
        return first / (np.sqrt(second) + tiny)


class Curvature(Optimiser):
    """Two-sided curvature preconditioning from the aggregate only.

    The ridge loss has about the item Hessian ``h_i M``: a scalar per item, ``h_i = a0 W + sum_{u has i} w_u`` (W the
    sum of all user weights), times one matrix of the user vectors, taken to be the same for all items. ``h`` is known
    from the popularity sum. M is not, and need not be sent: the aggregate's own column covariance replaces it, as
    in one-sided Shampoo (Gupta, Koren & Singer 2018) and Muon (Jordan et al. 2024), so that ``G (G'G)^(-1/2)`` moves
    all taste directions at an equal pace.

    With `groups` the table is, after every round, its start and what the sum of all steps so far says once its noise
    is filtered (`palate.server.filtering`); devices fit people to that, and pull from there. The sum is linear in the
    rounds' totals, so that the noise in it is known, and before it is scaled the same in all rows.
    """

    name = "curvature"

    def direction(self, aggregate: Aggregate) -> Float64Array:
        """Return the row-scaled polar factor of the aggregate."""
        scale = np.sqrt(aggregate.popularity + aggregate.unobserved_weight * aggregate.all_users)[:, None]
        scale /= np.sqrt(np.mean(scale**2))
        if self.config.groups and aggregate.noise_std > 0:
            return self._filtered(aggregate, scale)
        left, sizes, right = np.linalg.svd(aggregate.total / scale, full_matrices=False)
        seen = sizes > _ROUNDING * sizes[0]  # a direction that nobody pulls in is rounding, not taste
        whitened = left[:, seen] @ right[seen] * np.sqrt(len(scale))
        return self.accumulate("velocity", whitened / scale, self.config.momentum)

    def _filtered(self, aggregate: Aggregate, scale: Float64Array) -> Float64Array:
        """Return the way from what earlier rounds were taken for to what all rounds together are taken for now.

        What is filtered gets the size that the sum has, and so the step size keeps its meaning. The state has rows for
        only the items that are learned.
        """
        decayed = self.config.decay ** (aggregate.server_round - 1)
        rows = slice(None) if aggregate.active is None else aggregate.active
        total, row_scale = aggregate.total[rows], scale[rows]
        _, sizes, right = np.linalg.svd(total / row_scale, full_matrices=False)
        seen = sizes > _ROUNDING * sizes[0]
        whitener = decayed * np.sqrt(len(scale)) * right[seen].T @ (right[seen] / sizes[seen, None])  # [dim, dim]
        learned = self.accumulate("learned", total @ whitener, 1.0)
        noise = self.accumulate("noise", aggregate.noise_std**2 * (whitener.T @ whitener), 1.0)
        found = filter_rows(
            learned,
            noise,
            aggregate.popularity[rows],
            groups=self.config.groups,
            rng=np.random.default_rng(aggregate.server_round),
        )
        now = found * (np.linalg.norm(learned) / max(float(np.linalg.norm(found)), 1e-30)) / row_scale**2
        before = self.state.get("filtered")
        self.state["filtered"] = now
        way = np.zeros_like(aggregate.total)
        way[rows] = (now if before is None else now - before) / decayed
        return way


OPTIMISERS: dict[str, type[Optimiser]] = {kind.name: kind for kind in (Average, Momentum, Adam, Curvature)}


def build_optimiser(config: OptimiserConfig) -> Optimiser:
    """Look up and build an optimiser; raises ConfigError for an unknown name."""
    if config.name not in OPTIMISERS:
        raise ConfigError(
            f"unknown server optimiser {config.name!r}", hint=f"choose one of {', '.join(sorted(OPTIMISERS))}"
        )
    return OPTIMISERS[config.name](config)
