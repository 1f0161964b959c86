"""`palate.plan`: every setting of a run decided before it starts, with the reason for each and what it will cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from palate.loading import Data
from palate.models.scores.base import ScoreModel
from palate.models.scores.registry import SCORE_MODELS
from palate.server.values import merge, nested
from palate.simulation.baselines.base import Baseline
from palate.simulation.baselines.registry import BASELINES
from palate.simulation.planning import Plan
from palate.simulation.planning import plan as planned


def plan(
    data: Data,
    *,
    epsilon: float | None = None,
    delta: float | None = None,
    unit: str = "user",
    model: str | type[ScoreModel] | None = None,
    rounds: int | None = None,
    dim: int | None = None,
    seed: int | None = None,
    baselines: Sequence[str | Baseline] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Plan:
    """Decide every setting of a run on this data.

    Nothing private is looked at: a protected run is planned from its budget and the size of the federation.

    Parameters
    ----------
    data
        What `palate.load` returned.
    epsilon, delta
        Budget of the whole run; 8 and 1e-5 unless given, absent with unit "none".
    unit
        What one guarantee covers: "user", "interaction" or "both"; "none" is no privacy.
    model
        Score model: a name such as "neumf", "gmf" or "sequential", or a class of your own.
    rounds, dim
        Training rounds and width of the item embedding; planned unless given.
    seed
        Seed of everything random but the noise.
    baselines
        References to compute with the run, by name or as objects; none for an empty list. Unless given all, but
        the expensive ones only for at most 20,000 people.
    settings
        Any other setting by its dotted name, such as {"training.recency_half_life": 20}; docs/configuration.md lists
        them. A name given above wins.

    Raises
    ------
    palate.errors.ConfigError
        If a setting is unknown or out of range, or settings do not go together.

    Examples
    --------
    >>> plan = palate.plan(data, epsilon=8)
    >>> plan.settings.schedule.dim, plan.reasons["schedule.dim"]
    >>> plan.to_frame().filter(pl.col("source") != "default")
    """
    named = {
        "data": data.source,
        "unit": unit,
        "epsilon": epsilon,
        "delta": delta,
        "seed": seed,
        "baselines": None if baselines is None else tuple(BASELINES.name_of(each) for each in baselines),
        "training.model": None if model is None else SCORE_MODELS.name_of(model),
        "schedule.rounds": rounds,
        "schedule.dim": dim,
    }
    given = merge(nested(dict(settings or {})), nested(named))
    read = data.options.model_dump(exclude_none=True, exclude_defaults=True)
    data.hold()
    return planned(merge(given, {"read": read} if read else {}))
