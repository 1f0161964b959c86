"""The facade as a type checker sees it: `make lint` checks this file, and nothing runs it.

Wrong use is marked with the error that it must give. Where the checker lets it pass, the mark is unused and is an error
itself.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

import palate
from palate.errors import PalateError

data: palate.Data = palate.load("ratings.csv", items=Path("movies.csv"), min_user=5)
framed: palate.Data = palate.load(pl.read_csv("ratings.csv"))
plan: palate.Plan = palate.plan(data, epsilon=8, settings={"training.recency_half_life": 20})
run: palate.Run = palate.simulate(data, plan, progress=lambda step: step.seconds_left)
hits: float = run.metrics.test.sampled.hit_rate.value
epsilon: float | None = run.guarantee.epsilon
audit: palate.AuditResult = run.audit()
faults: tuple[PalateError, ...] = audit.faults
page: Path = run.report()
titles: list[str] = [line.title for line in run.recommend(user="42", n=3)]
comparison: palate.Comparison = palate.compare(run, "runs/other")
embeddings: npt.NDArray[np.float32] = palate.Table.open("runs/demo").embeddings
version: str = palate.__version__

palate.lod("demo")  # type: ignore[attr-defined]
palate.load(42)  # type: ignore[arg-type]
palate.load("demo", item="movies.csv")  # type: ignore[call-arg]
palate.plan("demo", epsilon=8)  # type: ignore[arg-type]
palate.plan(data, epsilon="8")  # type: ignore[arg-type]
palate.simulate(data, plan, progress="loud")  # type: ignore[arg-type]
run.metric  # type: ignore[attr-defined]  # noqa: B018 - the expression is what is checked
run.folder = Path()  # type: ignore[misc]
sure: float = run.guarantee.epsilon  # type: ignore[assignment]
