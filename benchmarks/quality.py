"""How good the recommendations are, and after how much work: `palate simulate` over datasets and seeds.

Numbers are read from the run folders that `palate` leaves, as any other program would. Seeds change the training,
not the split; baselines are fitted once per dataset, with the first seed.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from child import on_this_machine, run_palate
from outcome import RESULTS, Check, Outcome, command, missing, print_checks
from rich.console import Console

DATASETS = ("ml-1m", "ml-100k", "msweb", "movietweetings-100k", "online-retail", "demo")

METRICS = tuple(
    (part, ranking, metric)
    for part in ("validation", "test")
    for ranking in ("sampled", "full")
    for metric in ("hr@10", "ndcg@10")
)
"""Part, ranking and name of every number in the table."""

NEAR_BEST = 0.99
"""Share of the best validation NDCG@10 that counts as trained."""

HIT_RATE, NDCG = ("test", "sampled", "hr@10"), ("test", "sampled", "ndcg@10")
TARGETS = {
    "ml-1m": (
        ("HR@10", HIT_RATE, 0.77, False),
        ("NDCG@10", NDCG, 0.52, False),
        ("HR@10, above it look for a leak", HIT_RATE, 0.83, True),  # SASRec, which models the order, reports .82
    ),
    "ml-100k": (("HR@10, against popularity", HIT_RATE, 0.40, False),),
}
"""Name, metric, bound, and whether it is an upper one."""

TRAINED_TARGET_CPU_SECONDS = 120.0
"""On MovieLens 1M."""


@dataclass(frozen=True)
class Run:
    """What one finished run folder says.

    Attributes
    ----------
    metrics
        By part, ranking and name; None where the data has nobody to ask.
    baselines
        Label and metrics of each baseline by its name; empty where none was fitted.
    cpu_seconds
        Of the whole command without its baselines.
    trained_cpu_seconds
        From the start of the command until the validation NDCG@10 was near its best: reading, choosing the ridge,
        rounds and validations; None without validation.
    """

    metrics: dict[tuple[str, str, str], float | None]
    baselines: dict[str, tuple[str, dict[tuple[str, str, str], float | None]]]
    cpu_seconds: float
    trained_cpu_seconds: float | None


def read_run(folder: Path, command_cpu_seconds: float) -> Run:
    """Read a finished run, whose command used `command_cpu_seconds` in all."""
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in (folder / "rounds.jsonl").read_text(encoding="utf-8").splitlines()]
    baselines = {
        name: (found["label"], metrics_of(found))
        for name, found in result["baselines"].items()
        if not found.get("skipped")
    }
    cpu = result["cpu_seconds"]  # "total" counts from the first round
    without_baselines = command_cpu_seconds - float(cpu["baselines"])
    rounds = trained_after(lines)
    trained = None if rounds is None else without_baselines - float(cpu["total"]) + rounds
    return Run(metrics_of(result["summary"]), baselines, without_baselines, trained)


def metrics_of(summary: Mapping[str, Any]) -> dict[tuple[str, str, str], float | None]:
    """Pick the table's numbers."""
    return {
        (part, ranking, metric): ((summary.get(part) or {}).get(ranking) or {}).get(metric)
        for part, ranking, metric in METRICS
    }


def trained_after(lines: Sequence[Mapping[str, Any]]) -> float | None:
    """CPU-seconds of rounds and validations until NDCG@10 was first near the best of the run; None without."""
    validated = [line["validation"]["ndcg@10"] for line in lines if line["validation"]]
    spent = 0.0
    for line in lines:
        spent += float(line["cpu_seconds"]) + float(line["evaluation_cpu_seconds"])
        if line["validation"] and line["validation"]["ndcg@10"] >= NEAR_BEST * max(validated):
            return spent
    return None


def run_all(data: str, seeds: Sequence[int], settings: Sequence[str], label: str, talk: Console) -> list[Run]:
    """Run a dataset with every seed; the first run fits the baselines."""
    runs = []
    for position, seed in enumerate(seeds):
        folder = RESULTS / "runs" / f"{Path(data).name}-{label}-seed{seed}"
        baselines = "all" if position == 0 else "none"
        talk.print(f"{data} seed {seed}, baselines {baselines} ...", highlight=False)
        chosen = [word for text in settings for word in ("--set", text)]
        what = ["simulate", "--data", data, "--unit", "none", "--seed", str(seed), "--baselines", baselines]
        spent = run_palate([*what, *chosen, "--folder", str(folder), "--fresh", "--no-report", "--json"])
        runs.append(read_run(folder, spent.cpu_seconds))
    return runs


def mean_and_sd(values: Iterable[float | None]) -> tuple[float, float] | None:
    """Mean and sample standard deviation (0 for a single value) of what is known; None if nothing is."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else 0.0


def table_rows(data: str, label: str, runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    """One row for Palate, mean and standard deviation over seeds, and one per baseline."""
    yield {
        "data": data,
        "who": label,
        "seeds": len(runs),
        "metrics": {"/".join(key): mean_and_sd(run.metrics[key] for run in runs) for key in METRICS},
        "cpu_seconds": mean_and_sd(run.cpu_seconds for run in runs),
        "trained_cpu_seconds": mean_and_sd(run.trained_cpu_seconds for run in runs),
    }
    for name, metrics in runs[0].baselines.values():
        yield {
            "data": data,
            "who": name,
            "seeds": 1,
            "metrics": {"/".join(key): mean_and_sd([metrics[key]]) for key in METRICS},
            "cpu_seconds": None,
            "trained_cpu_seconds": None,
        }


def checks_of(data: str, runs: Sequence[Run]) -> Iterator[Check]:
    """Compare a dataset's means with the targets, and with the strongest baselines of the same run."""
    for name, key, bound, at_most in TARGETS.get(data, ()):
        found = mean_and_sd(run.metrics[key] for run in runs)
        yield Check(name=f"{data} {name}", measured=found and found[0], target=bound, at_most=at_most)
    trained = mean_and_sd(run.trained_cpu_seconds for run in runs)
    target = TRAINED_TARGET_CPU_SECONDS if data == "ml-1m" else None
    yield Check(
        name=f"{data} to within 1% of best validation", measured=trained and trained[0], unit="CPU-s", target=target
    )
    strong = [runs[0].baselines[name][1][HIT_RATE] for name in ("ials", "ease") if name in runs[0].baselines]
    rivals = [value for value in strong if value is not None]
    own = mean_and_sd(run.metrics[HIT_RATE] for run in runs)
    if rivals and own:
        yield Check(
            name=f"{data} HR@10 above the better of iALS and EASE",
            measured=own[0] - max(rivals),
            target=0.0 if data == "ml-100k" else None,
            at_most=False,
        )


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write the table for people; `mean ± sd` where there are several seeds."""
    head = ["data", "model", *("/".join(key) for key in METRICS), "CPU-s", "CPU-s to 99%"]
    lines = [" | ".join(head), " | ".join(["---", "---", *["---:"] * (len(head) - 2)])]
    for row in rows:
        several = row["seeds"] > 1
        numbers = [_cell(row["metrics"]["/".join(key)], several=several, digits=4) for key in METRICS]
        costs = [_cell(row[name], several=several, digits=0) for name in ("cpu_seconds", "trained_cpu_seconds")]
        lines.append(" | ".join([row["data"], row["who"], *numbers, *costs]))
    return "".join(f"| {line} |\n" for line in lines)


def _cell(found: tuple[float, float] | None, *, several: bool, digits: int) -> str:
    if found is None:
        return "-"
    mean, deviation = found
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}" if several else f"{mean:.{digits}f}"


def main(
    data: Annotated[list[str] | None, typer.Option(help="Dataset; may be repeated. [default: all]")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, with commas.")] = "1,2,3",
    setting: Annotated[list[str] | None, typer.Option("--set", help="Setting for palate simulate --set.")] = None,
    without_recency: Annotated[
        bool, typer.Option("--without-recency", help="The control for order: all interactions weigh alike.")
    ] = False,
) -> None:
    """Measure quality and write results/quality.json and results/quality.md."""
    settings = [*(setting or []), *(["training.recency_half_life=inf"] if without_recency else [])]
    label = "Palate without recency" if without_recency else "Palate"
    name = "quality-without-recency" if without_recency else "quality"
    talk = Console(stderr=True)
    rows: list[dict[str, Any]] = []
    checks: list[Check] = []
    skipped: list[str] = []
    for each in data or DATASETS:
        if not on_this_machine(each):
            skipped.append(missing(each))
            continue
        runs = run_all(each, [int(seed) for seed in seeds.split(",")], settings, name, talk)
        rows += table_rows(each, label, runs)
        checks += checks_of(each, runs)
    outcome = Outcome(name, tuple(checks), tuple(skipped), {"settings": settings, "rows": rows})
    outcome.write()
    (RESULTS / f"{name}.md").write_text(markdown(rows), encoding="utf-8")
    print_checks([outcome], Console())


if __name__ == "__main__":
    command(main)
