"""What a run without protection chooses on validation data: the ridge on the user vector, and how recency weighs.

Both depend on how informative histories are. A few ridges are tried, for a few rounds each, and every table that comes
of it is served with both weightings by age, which is nearly free. The choice looks at private data, so it is for unit
`none` only; a protected run is planned from public numbers (`palate.server.resolving`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from palate.models.learning.kernel import fit_heads, fresh_heads, popularity_sum, scorer_of, train
from palate.models.scores.registry import serving_training
from palate.simulation.config import SimulationConfig
from palate.simulation.evaluation import evaluate
from palate.simulation.prepare import Prepared, coordinator_of
from palate.simulation.seeding import device_keys

RIDGE, WEIGHTS = "training.regularisation", "training.serving_forgetting"
"""The settings that are chosen."""
CANDIDATES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
PROBE_ROUNDS = 6
_START = 0.4
"""The search starts at so many squares of the mean root of a history's length, as ridges grow with what they weigh."""


def chosen_on_validation(config: SimulationConfig, prepared: Prepared) -> tuple[str, ...]:
    """Return the names of the settings that a run chooses on validation data; `RIDGE` is among them, or there are none.

    Weights by age are chosen where nobody asked for any when recommending, and items have an order.
    """
    can = config.tune and not config.promises and config.training.objective == "whole"
    if not can or not bool((prepared.split.validation.item >= 0).any()):
        return ()
    training, serving = config.training, serving_training(config.training)
    asked = training.serving_forgetting is not None or training.serving_half_life is not None
    open_to_both = serving.forgetting == "exponential" and math.isfinite(serving.recency_half_life)
    return (RIDGE, WEIGHTS) if open_to_both and not asked else (RIDGE,)


def tuned(config: SimulationConfig, prepared: Prepared, phase: Callable[[str], None]) -> SimulationConfig:
    """Return the configuration with its choices made, where there are any; it is tuned once."""
    training, names = config.training, chosen_on_validation(config, prepared)
    if names:
        best = _best(config, prepared, phase, weights=WEIGHTS in names)
        training = training.model_copy(update=best)
    return config.model_copy(update={"training": training, "tune": False})


def _best(
    config: SimulationConfig, prepared: Prepared, phase: Callable[[str], None], *, weights: bool
) -> dict[str, object]:
    """Choose by validation NDCG, upwards from the start, or else downwards, for as long as it gets better."""
    found: dict[float, tuple[float, str | None]] = {}

    def quality(ridge: float) -> float:
        if ridge not in found:
            phase(f"choosing the ridge on validation data, {ridge:g}")
            found[ridge] = max(_probe(config, prepared, ridge, weights=weights), key=lambda each: each[0])
        return found[ridge][0]

    mean_root = float(np.sqrt(prepared.split.train.lengths).mean())
    start = int(np.argmin([abs(math.log(each / (_START * mean_root**2))) for each in CANDIDATES]))
    for way in (CANDIDATES[start + 1 :], CANDIDATES[:start][::-1]):
        best = quality(CANDIDATES[start])
        for candidate in way:
            if quality(candidate) <= best:
                break
            best = quality(candidate)
        if best > quality(CANDIDATES[start]):
            break
    ridge = max(found, key=quality)
    changes: dict[str, object] = {"regularisation": ridge}
    return changes if found[ridge][1] is None else changes | {"serving_forgetting": found[ridge][1]}


def _probe(
    config: SimulationConfig, prepared: Prepared, ridge: float, *, weights: bool
) -> list[tuple[float, str | None]]:
    """Train the linear part for a few rounds; its validation NDCG as it is served, and with hyperbolic weights."""
    linear = "linear" if config.training.model == "linear" else "gmf"
    training = config.training.model_copy(update={"regularisation": ridge, "model": linear})
    schedule = config.schedule.model_copy(update={"rounds": PROBE_ROUNDS, "participation": 1.0})
    probe = config.model_copy(update={"training": training, "schedule": schedule})
    coordinator, history = coordinator_of(probe, prepared, run="probe"), prepared.split.train
    users = np.arange(history.num_users)
    coordinator.apply(popularity_sum(history, coordinator.table.num_items).astype(np.float64))
    heads = fresh_heads(coordinator.table, training, history.num_users)
    while not coordinator.finished:
        keys = device_keys(config.seed, coordinator.next_round, users)
        trained = train(coordinator.table, history, heads, keys, training)
        heads = trained.heads
        coordinator.apply(trained.update.T.reshape(-1).astype(np.float64))
    qualities = []
    for forgetting in (None, "hyperbolic") if weights else (None,):
        serving = serving_training(training.model_copy(update={"serving_forgetting": forgetting}))
        fitted = fit_heads(coordinator.table, history, heads, serving)
        scorer = scorer_of(coordinator.table, fitted, serving)
        ndcg = evaluate(scorer, prepared.split.validation, history, with_full=False).metrics().ndcg.value
        qualities.append((float(ndcg), forgetting))
    return qualities
