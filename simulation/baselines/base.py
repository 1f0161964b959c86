"""The definition of a baseline: name, citation, limits, and how it is fitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from palate.errors import ConfigError
from palate.models.arrays import Float32Array
from palate.models.histories import Histories, history_weights
from palate.models.training import LocalTraining
from palate.privacy.accounting.events import Unit
from palate.privacy.budget import Promise
from palate.simulation.evaluation import Scorer


@dataclass(frozen=True, eq=False)
class FitData:
    """What a baseline is fitted on.

    Attributes
    ----------
    history
        Histories of all users: training for validation, training and validation for the test.
    num_items
        Size of the catalogue.
    content
        Public content features, float32 [num_items, k], or None.
    seed
        For those that start from random numbers.
    training
        The run's parameters of local training, for controls that fit people as the run does.
    promise
        The budget for whole people, for those that spend one; None where nothing is protected.
    noise_seed
        Makes noise that repeats, and protects nobody; None takes it from the operating system.
    summed
        Histories that the run's own rounds sum up: training, whatever is ranked. The controls, which are the run
        without something, count popularity on them and fit people to `history`, as the run does; None is `history`.
    ordered
        Whether the order of a history is known.
    """

    history: Histories
    num_items: int
    content: Float32Array | None = None
    seed: int = 0
    training: LocalTraining = field(default_factory=LocalTraining)
    promise: Promise | None = None
    noise_seed: int | None = None
    summed: Histories | None = None
    ordered: bool = False

    @property
    def recency(self) -> Float32Array:
        """Weight of every interaction when recommending, float32 [num_interactions]; 1/(1 + age) with a known order.

        The references know about time what Palate's models know, so that a lead over them is no matter of recency.
        """
        if not self.ordered:
            return np.ones(len(self.history.items), dtype=np.float32)
        return history_weights(self.history, LocalTraining(forgetting="hyperbolic"))

    @property
    def budget(self) -> Promise:
        """The promise, for baselines that need one.

        Raises
        ------
        ConfigError
            If there is none, or it is not about whole people.
        """
        if self.promise is None or self.promise.unit is not Unit.USER:
            raise ConfigError(
                f"a private control needs a budget for whole people, not {self.promise}", hint="use unit user or both"
            )
        return self.promise


Fit = Callable[..., Scorer]
"""Fits a baseline to `FitData`; the hyperparameters of `Baseline.candidates` are given by name."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A reference that is fitted and evaluated with a run.

    Attributes
    ----------
    name
        Key in the registry.
    label
        Name for tables and plots.
    citation
        Paper, with its year; "" for none.
    fit
        Fits it.
    candidates
        Hyperparameters to choose from by validation NDCG@10, first those without validation items; none for fixed ones.
    weighs_recency
        Whether recent interactions count more where the order of a history is known; the label says so.
    needs_order
        Whether it has nothing to learn from where no order is known.
    expensive
        Whether it takes long: it is remembered for the same data, and many people are too many unless asked for.
    max_items
        Largest catalogue that is practical; None for any.
    needs_content
        Whether it has nothing to learn from without public content.
    spends_budget
        Whether it is private itself, and spends the run's budget for whole people.
    """

    name: str
    label: str
    citation: str = ""
    fit: Fit
    candidates: tuple[Mapping[str, float], ...] = ()
    weighs_recency: bool = False
    needs_order: bool = False
    expensive: bool = False
    max_items: int | None = None
    needs_content: bool = False
    spends_budget: bool = False

    def obstacle(
        self, num_items: int, content: Float32Array | None, promise: Promise | None = None, *, ordered: bool = True
    ) -> str | None:
        """Why it cannot run on this data, in words for the report; None where it can."""
        if self.needs_order and not ordered:
            return "the data has no times"
        if self.max_items is not None and num_items > self.max_items:
            return f"{num_items} items, at most {self.max_items} are practical"
        if self.needs_content and (content is None or content.shape[1] == 0):
            return "the items have no public content"
        if self.spends_budget and (promise is None or promise.unit is not Unit.USER):
            return "this run has no budget for whole people"
        return None


def require_positive(regularisation: float) -> None:
    """Refuse a ridge that would not make normal equations definite; raises ConfigError."""
    if not 0.0 < regularisation < float("inf"):
        raise ConfigError(f"regularisation is {regularisation}, it must be positive", hint="30 is a usual ridge")
