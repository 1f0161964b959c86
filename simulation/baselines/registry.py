"""Every baseline by name, weakest first. A new one is a file and a line here, or an entry point of another package.

Each learns from all histories in one place and without privacy (but `local_only`, which learns from one at a time, and
the two that spend a budget): a reference for what privacy and federation cost, not a competitor. Defaults were chosen
once, by NDCG@10 on the validation items of ML-1M; test items played no part.
"""

from __future__ import annotations

from palate.models.registry import Registry, instance_of
from palate.simulation.baselines.base import Baseline

BASELINES: Registry[Baseline] = Registry(
    "baseline",
    "palate.baselines",
    {
        "popularity": "palate.simulation.baselines.popularity:POPULARITY",
        "dp_popularity": "palate.simulation.baselines.private_controls:DP_POPULARITY",
        "local_only": "palate.simulation.baselines.local_only:LOCAL_ONLY",
        "dp_content": "palate.simulation.baselines.private_controls:DP_CONTENT",
        "content_only": "palate.simulation.baselines.content_only:CONTENT_ONLY",
        "item_knn": "palate.simulation.baselines.item_knn:ITEM_KNN",
        "transitions": "palate.simulation.baselines.transitions:TRANSITIONS",
        "ials": "palate.simulation.baselines.ials:IALS",
        "ease": "palate.simulation.baselines.ease:EASE",
    },
    instance_of(Baseline),
)
