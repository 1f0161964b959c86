"""The result of a run: metrics of the model and of the baselines, and costs. One JSON object."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from palate.privacy import files
from palate.privacy.accounting.events import Unit
from palate.simulation.baselines.registry import BASELINES
from palate.simulation.baselines.running import run_baselines
from palate.simulation.claims import label_of
from palate.simulation.config import AUTO_BASELINES, SimulationConfig
from palate.simulation.evaluation import Evaluation, Summary, summarise
from palate.simulation.gain import gain_over_control
from palate.simulation.measure import cpu_seconds, peak_memory_mb
from palate.simulation.prepare import Prepared
from palate.simulation.run_folder import run_name

CONTRACT = (
    "run",
    "data",
    "model",
    "unit",
    "epsilon",
    "delta",
    "protection",
    "guarantee",
    "rounds",
    "seed",
    "validation",
    "test",
    "cpu_seconds",
    "peak_memory_mb",
)
"""Keys that `palate simulate --json` prints; other tools rely on them."""


def conclude(
    config: SimulationConfig,
    prepared: Prepared,
    folder: Path,
    evaluations: Mapping[str, Evaluation],
    lines: list[dict[str, Any]],
    spent_cpu_seconds: float,
    guarantee: dict[str, Any] | None,
    phase: Callable[[str], None],
    *,
    hidden: tuple[int, Evaluation] | None = None,
) -> dict[str, Any]:
    """Summarise a finished run, fit the baselines, and write `result.json`.

    Parameters
    ----------
    evaluations
        "validation" and "test".
    lines
        One line per round, resumed ones included.
    spent_cpu_seconds
        CPU-seconds of this process's part of the run, without the baselines.
    guarantee
        What the run may claim; None where nothing is protected.
    phase
        Called with a line of text at each step.
    hidden
        A number of newest items, and the test ranks of a run that does not know them; None where there is no order.
    """
    interactions, split = prepared.interactions, prepared.split
    summaries = {part: _summary(prepared, part, evaluation) for part, evaluation in evaluations.items()}
    memory = peak_memory_mb()
    rounds_cpu = [line["cpu_seconds"] for line in lines if line["purpose"] == "train"]
    validated = [line for line in lines if line["validation"]]
    best = max(validated, key=lambda line: line["validation"]["ndcg@10"], default=None)
    before, asked = cpu_seconds(), config.baselines != AUTO_BASELINES
    baselines = run_baselines(
        config.baselines if asked else tuple(BASELINES.built_in),
        split,
        content=prepared.public_columns,
        groups=interactions.demographics,
        seed=config.seed,
        training=config.training,
        promise=config.promises.get(Unit.USER),
        noise_seed=config.seed if config.privacy.noise == "seeded" else None,
        ordered=interactions.has_time,
        on_request=asked,
        remembered=True,
        progress=lambda name: phase(f"baseline {name}"),
    )
    result = {
        "run": run_name(folder),
        "data": config.data,
        "model": config.training.model,
        "unit": config.unit,
        "epsilon": config.epsilon if guarantee else None,
        "delta": config.delta if guarantee else None,
        "rounds": config.schedule.rounds,
        "seed": config.seed,
        **{part: _accuracy(summary) for part, summary in summaries.items()},
        "cpu_seconds": {
            "total": spent_cpu_seconds,
            "per_round_median": statistics.median(rounds_cpu) if rounds_cpu else 0.0,
            "baselines": cpu_seconds() - before,
        },
        "peak_memory_mb": memory,
        "protection": label_of(config),
        "guarantee": guarantee,
        "protocol": prepared.protocol,
        "dataset": {
            "users": interactions.num_users,
            "items": interactions.num_items,
            "interactions": len(interactions.item),
            "density": len(interactions.item) / (interactions.num_users * interactions.num_items),
            "has_time": interactions.has_time,
            "candidates": split.test.negatives.shape[1] + 1,
            "tied_newest": prepared.ties.newest,
            "split_version": config.split_version,
        },
        "content": {
            "columns": prepared.content.columns.shape[1],
            "text_columns": prepared.content.num_text,
            "reader": prepared.reader,
        },
        "summary": {part: _described(summary) for part, summary in summaries.items()},
        "baselines": {name: found.to_dict() for name, found in baselines.items()},
        "gain": gain_over_control(evaluations["test"], baselines),
        "hidden": {"newest": hidden[0], "test": _described(_summary(prepared, "test", hidden[1]))} if hidden else None,
        "bytes_per_device": {"down": lines[-1]["bytes_down"], "up": lines[-1]["bytes_up"]},
        "best_round": best["round"] if best else None,
        "files": {
            name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
            for name in ("evaluation.parquet", "items.parquet", "rounds.jsonl")
        },
    }
    files.replace(folder / "result.json", json.dumps(result, indent=2, allow_nan=False).encode(), mode=files.SHARED)
    return result


def _summary(prepared: Prepared, part: str, evaluation: Evaluation) -> Summary | None:
    if len(evaluation.users) == 0:
        return None
    history = prepared.split.train if part == "validation" else prepared.split.full_train
    return summarise(
        evaluation,
        train=history,
        num_items=prepared.interactions.num_items,
        content=prepared.public_columns,
        groups=prepared.interactions.demographics,
    )


def _described(summary: Summary | None) -> dict[str, object] | None:
    return summary.to_dict() if summary else None


def _accuracy(summary: Summary | None) -> dict[str, dict[str, float]] | None:
    """Metrics as plain numbers under their usual names; recall at the cut-off is the hit rate."""
    if summary is None:
        return None
    usual = {ranking: summary.accuracy(ranking) for ranking in ("sampled", "full")}
    return {
        ranking: {name: value for name, value in found.values.items() if name != f"recall@{found.top_k}"}
        for ranking, found in usual.items()
    }


def contract_view(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a result that `--json` prints."""
    return {name: result[name] for name in CONTRACT}
