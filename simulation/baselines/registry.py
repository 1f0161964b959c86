"""Every baseline by name: what to call it, whom to cite, what it can run on, and how it is fitted.

Each learns from all histories in one place and without privacy (but `local_only`, which learns from one at a time, and
the two that spend a budget): a reference for what privacy and federation cost, not a competitor. Defaults were chosen
once, by NDCG@10 on the validation items of ML-1M, from the grids that the variants are taken from; test items played no
part. For other data `palate.simulation.baselines.running.best_on_validation` chooses again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from palate.errors import ConfigError
from palate.models.arrays import Float32Array
from palate.models.histories import Histories
from palate.models.training import LocalTraining
from palate.privacy.accounting.events import Unit
from palate.privacy.budget import Promise
from palate.simulation.baselines.content_only import fit_content_only
from palate.simulation.baselines.ease import MAX_ITEMS, EaseConfig, fit_ease
from palate.simulation.baselines.ials import IalsConfig, fit_ials
from palate.simulation.baselines.item_knn import ItemKnnConfig, fit_item_knn
from palate.simulation.baselines.local_only import LocalOnlyConfig, fit_local_only
from palate.simulation.baselines.popularity import fit_popularity
from palate.simulation.baselines.private_controls import fit_dp_content, fit_dp_popularity
from palate.simulation.evaluation import Scorer


@dataclass(frozen=True, eq=False)
class Known:
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
    """

    history: Histories
    num_items: int
    content: Float32Array | None = None
    seed: int = 0
    training: LocalTraining = field(default_factory=LocalTraining)
    promise: Promise | None = None
    noise_seed: int | None = None
    summed: Histories | None = None

    @property
    def budget(self) -> Promise:
        """The promise, for those that cannot do without.

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


Fit = Callable[[Known], Scorer]
"""Fits a baseline with fixed hyperparameters."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """One entry of the registry.

    Attributes
    ----------
    label
        Name for tables and plots.
    citation
        Paper.
    fit
        Fits it with its default hyperparameters.
    variants
        Other hyperparameters worth trying on validation, by what they are.
    max_items
        Largest catalogue that is practical; None for any.
    needs_content
        Whether it has nothing to learn from without public content.
    spends_budget
        Whether it is private itself, and spends the run's budget for whole people.
    """

    label: str
    citation: str
    fit: Fit
    variants: Mapping[str, Fit] = field(default_factory=dict)
    max_items: int | None = None
    needs_content: bool = False
    spends_budget: bool = False

    def label_under(self, promise: Promise | None) -> str:
        """Name it for tables, with the budget that it spends."""
        return f"{self.label} (epsilon {promise.epsilon:g})" if self.spends_budget and promise else self.label

    def obstacle(self, num_items: int, content: Float32Array | None, promise: Promise | None = None) -> str | None:
        """Why it cannot run on this data, in words for the report; None where it can."""
        if self.max_items is not None and num_items > self.max_items:
            return f"{num_items} items, at most {self.max_items} are practical"
        if self.needs_content and (content is None or content.shape[1] == 0):
            return "the items have no public content"
        if self.spends_budget and (promise is None or promise.unit is not Unit.USER):
            return "this run has no budget for whole people"
        return None


def _ease(known: Known, config: EaseConfig) -> Scorer:
    return fit_ease(known.history, known.num_items, config)


def _ials(known: Known, config: IalsConfig) -> Scorer:
    return fit_ials(known.history, known.num_items, config, seed=known.seed)


def _item_knn(known: Known, config: ItemKnnConfig) -> Scorer:
    return fit_item_knn(known.history, known.num_items, config)


def _content_only(known: Known, regularisation: float | None = None) -> Scorer:
    ridge = {} if regularisation is None else {"regularisation": regularisation}
    training = known.training.model_copy(update=ridge)
    return fit_content_only(known.history, known.num_items, known.content, training, summed=known.summed)


def _local_only(known: Known, config: LocalOnlyConfig) -> Scorer:
    return fit_local_only(known.history, known.content, config)


def _dp_popularity(known: Known) -> Scorer:
    return fit_dp_popularity(
        known.summed or known.history, known.num_items, known.budget, noise_seed=known.noise_seed
    )  # fmt: skip


def _dp_content(known: Known) -> Scorer:
    return fit_dp_content(
        known.history,
        known.num_items,
        known.budget,
        known.content,
        known.training,
        summed=known.summed,
        noise_seed=known.noise_seed,
    )


BASELINES: dict[str, Baseline] = {
    "popularity": Baseline(
        label="Popularity",
        citation="Cremonesi, Koren & Turrin (2010), Performance of recommender algorithms on top-N tasks",
        fit=lambda known: fit_popularity(known.history, known.num_items),
    ),
    "dp_popularity": Baseline(
        label="DP popularity",
        citation="Agarwal, Kairouz & Liu (2021), The Skellam mechanism, on one popularity sum",
        fit=_dp_popularity,
        spends_budget=True,
    ),
    "local_only": Baseline(
        label="Local only (no federation)",
        citation="Hu, Koren & Volinsky (2008), eq. 4, on public content",
        fit=partial(_local_only, config=LocalOnlyConfig()),
        variants={
            f"regularisation={reg:g}": partial(_local_only, config=LocalOnlyConfig(regularisation=reg))
            for reg in (10.0, 100.0)
        },
        needs_content=True,
    ),
    "dp_content": Baseline(
        label="DP popularity and content",
        citation="Agarwal, Kairouz & Liu (2021); Hu, Koren & Volinsky (2008), eq. 4, on public columns",
        fit=_dp_content,
        spends_budget=True,
    ),
    "content_only": Baseline(
        label="Popularity and content",
        citation="Hu, Koren & Volinsky (2008), eq. 4, on public columns",
        fit=_content_only,
        variants={f"regularisation={reg:g}": partial(_content_only, regularisation=reg) for reg in (10.0, 100.0)},
    ),
    "item_knn": Baseline(
        label="Item kNN",
        citation="Sarwar, Karypis, Konstan & Riedl (2001), Item-based collaborative filtering",
        fit=partial(_item_knn, config=ItemKnnConfig()),
        variants={
            f"shrinkage={shrinkage:g}": partial(_item_knn, config=ItemKnnConfig(shrinkage=shrinkage))
            for shrinkage in (0.0, 100.0)
        },
    ),
    "ials": Baseline(
        label="iALS",
        citation="Hu, Koren & Volinsky (2008); Rendle, Krichene, Zhang & Koren (2022), Revisiting iALS",
        fit=partial(_ials, config=IalsConfig()),
        variants={
            "regularisation=0.002": partial(_ials, config=IalsConfig(regularisation=0.002)),
            "regularisation=0.015": partial(_ials, config=IalsConfig(regularisation=0.015)),
            # Short histories want everything pulled harder towards zero.
            "unobserved_weight=0.5, regularisation=0.015": partial(
                _ials, config=IalsConfig(unobserved_weight=0.5, regularisation=0.015)
            ),
        },
    ),
    "ease": Baseline(
        label="EASE",
        citation="Steck (2019), Embarrassingly shallow autoencoders for sparse data",
        fit=partial(_ease, config=EaseConfig()),
        variants={
            f"regularisation={reg:g}": partial(_ease, config=EaseConfig(regularisation=reg)) for reg in (200.0, 2000.0)
        },
        max_items=MAX_ITEMS,
    ),
}
"""All baselines, weakest first."""


def baseline(name: str) -> Baseline:
    """Look a baseline up.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    if name not in BASELINES:
        raise ConfigError(f"no baseline is called {name!r}", hint=f"choose from {', '.join(BASELINES)}")
    return BASELINES[name]
