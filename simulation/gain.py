"""What learning together adds: a run against the control that is the same run without it, person by person.

With a budget for whole people the control spends all of it on popularity (`dp_content`), otherwise it knows popularity
exactly (`content_only`). Both know public content and each person's own recent history, as the run does. Differences
are paired, so that their standard error is that of the difference, not of two independent means.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from palate.models import metrics
from palate.models.arrays import Float64Array
from palate.simulation.baselines.running import BaselineResult
from palate.simulation.evaluation import Evaluation

FAIR_CONTROLS = ("dp_content", "content_only")
"""Controls that know what a run knows but learn nothing together; the first that there is, is compared with."""


def gain_over_control(test: Evaluation, baselines: Mapping[str, BaselineResult]) -> dict[str, Any] | None:
    """Compare a run's test ranks with its fair control's; None where no control was computed.

    Returns
    -------
    dict
        `control` (its name), and for "sampled" and "full" `{"hr@k": {"value", "se", "low", "high"}, "ndcg@k": {...}}`:
        run minus control.
    """
    for name in FAIR_CONTROLS:
        control = baselines[name].test_evaluation if name in baselines else None
        if control is not None:
            return {"control": name} | {
                ranking: _differences(test, control, ranking) for ranking in ("sampled", "full")
            }
    return None


def _differences(test: Evaluation, control: Evaluation, ranking: str) -> dict[str, dict[str, float]]:
    k = test.top_k
    own, other = test.ranks(ranking), control.ranks(ranking)
    return {
        f"hr@{k}": _mean(metrics.hit_rate(own, k) - metrics.hit_rate(other, k)),
        f"ndcg@{k}": _mean(metrics.ndcg(own, k) - metrics.ndcg(other, k)),
    }


def _mean(differences: Float64Array) -> dict[str, float]:
    """Mean over people with its standard error and 95% normal interval."""
    value, people = float(differences.mean()), len(differences)
    error = float(differences.std(ddof=1) / np.sqrt(people)) if people > 1 else 0.0
    return {"value": value, "se": error, "low": value - 1.96 * error, "high": value + 1.96 * error}
