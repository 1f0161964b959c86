"""From the configuration that was asked for to the one that is run: what the data decides.

Without a known order nothing is recent. The ridge on the user vector depends on how much taste a history shows, and
is chosen on validation data: a few candidates are trained for six rounds each. That looks at private data, so it is
for unit `none` only. A protected run is planned from public numbers: the size of the federation and the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from palate.models.learning.kernel import ShardScorer, fresh_state, popularity_sum, refit_state, train_shard
from palate.models.scores.registry import score_model
from palate.models.table import initial_embeddings
from palate.models.training import LocalTraining
from palate.server.coordinator import Coordinator
from palate.server.planning import AUTO, merge, planned
from palate.server.settings import cannot_filter, cohort_size
from palate.simulation.config import SimulationConfig, nested
from palate.simulation.evaluation import evaluate
from palate.simulation.prepare import Prepared, way_to_read
from palate.simulation.seeding import device_keys, table_rng

CANDIDATES = (10.0, 30.0, 100.0, 300.0)
_PROBE_ROUNDS = 6


def resolve(config: SimulationConfig, prepared: Prepared, phase: Callable[[str], None]) -> SimulationConfig:
    """Return the configuration that is run; it resolves to itself."""
    content = config.content.model_copy(update={"text": way_to_read(config.content)})
    config = config.model_copy(update={"content": content})  # whoever resumes reads in the same way
    training = config.training
    if not prepared.interactions.has_time:
        training = training.model_copy(update={"recency_half_life": float("inf"), "serving_half_life": float("inf")})
    tunable = config.tune and config.unit == "none" and training.objective == "whole"
    if tunable and (prepared.split.validation.item >= 0).any():
        chosen = _best_ridge(config.model_copy(update={"training": training}), prepared, phase)
        training = training.model_copy(update={"regularisation": chosen})
    config = config.model_copy(update={"training": training, "tune": False})
    return _planned(config, prepared, phase) if config.auto else config


def _planned(config: SimulationConfig, prepared: Prepared, phase: Callable[[str], None]) -> SimulationConfig:
    """Decide what was left to the size of the federation and the budget, and say so."""
    if config.epsilon is None or config.delta is None:
        return config.model_copy(update={"auto": ()})
    cohort = cohort_size(prepared.interactions.num_users, config.schedule.participation)
    num_items, content = prepared.interactions.num_items, prepared.content.columns.shape[1] > 0
    on_own_items = config.training.model_copy(update={"own_items_only": True})
    plan = planned(
        config.epsilon,
        config.delta,
        cohort,
        num_items=num_items,
        content=content,
        given=_settings_of(config, [name for name in AUTO if name not in config.auto]),
        own_items=config.training.objective == "whole",
        filterable=cannot_filter(on_own_items, config.optimiser, config.release) is None,
    )
    decided = {name: value for name, value in plan.items() if name in config.auto}
    known = "with" if content else "without"
    size = f"{cohort:,} devices and {num_items:,} items {known} content"
    budget = f"epsilon {config.epsilon:g} and delta {config.delta:g}, unit {config.unit}"
    phase(f"planned for {size} at {budget}: " + _in_words(decided))
    values = merge(config.model_dump(), {**nested(decided), "auto": ()})
    return SimulationConfig.model_validate(values)


def _settings_of(config: SimulationConfig, names: Sequence[str]) -> dict[str, float]:
    """Look up settings by their dotted names."""
    sections = ((name, *name.split(".")) for name in names)
    return {name: getattr(getattr(config, section), last) for name, section, last in sections}


def _in_words(decided: Mapping[str, float]) -> str:
    words = ", ".join(
        f"{name} {'true' if value is True else format(value, '.3g')}" for name, value in decided.items() if value
    )
    if decided.get("schedule.head"):
        words += " (embeddings of popular items alone; the others keep their popularity)"
    if decided.get("training.own_items_only"):
        words += " (a person's update pulls at the own items alone; the noise of all covers every item that is learned)"
    if decided.get("optimiser.groups"):
        words += " (noise in what is learned is filtered, by groups of items that go together)"
    if decided.get("schedule.rounds") == 1:
        words += " (too little to learn from: popularity, content and the own history are what recommends)"
    return words


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
    schedule = config.schedule.model_copy(update={"rounds": _PROBE_ROUNDS, "participation": 1.0})
    probe = config.model_copy(update={"training": training, "schedule": schedule})
    num_users, num_items = prepared.interactions.num_users, prepared.interactions.num_items
    embeddings = initial_embeddings(
        num_items, schedule.dim, scale=schedule.initial_scale, rng=table_rng(config.seed)
    )  # fmt: skip
    settings = probe.server_settings(run="probe", population=num_users)
    coordinator = Coordinator(settings, prepared.content.columns, embeddings)
    history, users = prepared.split.train, np.arange(num_users)
    coordinator.apply(popularity_sum(history, users, num_items).astype(np.float64))
    state = fresh_state(coordinator.table, training, num_users)
    while not coordinator.finished:
        keys = device_keys(config.seed, coordinator.next_round, users)
        trained = train_shard(coordinator.table, history, state, users, keys, training)
        coordinator.apply(trained.update.T.reshape(-1).astype(np.float64))
    fitted = refit_state(coordinator.table, history, state, training)
    scorer = ShardScorer(score_model(linear, "whole"), torch.from_numpy(coordinator.table.rows), fitted)
    return float(evaluate(scorer, prepared.split.validation, history, with_full=False).metrics().ndcg.value)
