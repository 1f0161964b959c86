"""The ridge on the user vector, chosen on validation data: a few candidates are trained for six rounds each.

The best value depends on how informative histories are. The choice looks at private data, so it is for unit `none`
only; a protected run is planned from public numbers (`palate.server.resolving`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from palate.models.learning.kernel import fit_heads, fresh_heads, popularity_sum, scorer_of, train
from palate.models.training import LocalTraining
from palate.simulation.config import SimulationConfig
from palate.simulation.evaluation import evaluate
from palate.simulation.prepare import Prepared, coordinator_of
from palate.simulation.seeding import device_keys

CANDIDATES = (10.0, 30.0, 100.0, 300.0)
PROBE_ROUNDS = 6


def is_tuned(config: SimulationConfig, prepared: Prepared) -> bool:
    """Tell whether a run chooses its ridge on validation data."""
    can = config.tune and not config.promises and config.training.objective == "whole"
    return can and bool((prepared.split.validation.item >= 0).any())


def tuned(config: SimulationConfig, prepared: Prepared, phase: Callable[[str], None]) -> SimulationConfig:
    """Return the configuration with its ridge chosen, where that is asked for; it is tuned once."""
    training = config.training
    if is_tuned(config, prepared):
        training = training.model_copy(update={"regularisation": _best_ridge(config, prepared, phase)})
    return config.model_copy(update={"training": training, "tune": False})


def _best_ridge(config: SimulationConfig, prepared: Prepared, phase: Callable[[str], None]) -> float:
    """Choose among the candidates by validation NDCG, upwards and downwards from the default while it gets better."""
    default = LocalTraining().regularisation
    found: dict[float, float] = {}

    def quality(candidate: float) -> float:
        if candidate not in found:
            phase(f"choosing the ridge on validation data, {candidate:g}")
            found[candidate] = _probe(config, prepared, candidate)
        return found[candidate]

    start = CANDIDATES.index(default)
    for way in (CANDIDATES[start + 1 :], CANDIDATES[:start][::-1]):
        best = quality(default)
        for candidate in way:
            if quality(candidate) <= best:
                break
            best = found[candidate]
        if best > found[default]:
            break
    return max(found, key=lambda candidate: found[candidate])


def _probe(config: SimulationConfig, prepared: Prepared, regularisation: float) -> float:
    """Train the linear part for a few rounds with all devices; its validation NDCG."""
    linear = "linear" if config.training.model == "linear" else "gmf"
    training = config.training.model_copy(update={"regularisation": regularisation, "model": linear})
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
    fitted = fit_heads(coordinator.table, history, heads, training)
    scorer = scorer_of(coordinator.table, fitted, training)
    return float(evaluate(scorer, prepared.split.validation, history, with_full=False).metrics().ndcg.value)
