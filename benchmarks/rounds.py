"""What one training round costs: CPU-seconds for the whole federation on one core.

Local training is timed by itself (`palate.models.learning.kernel.train`, shard by shard), and again inside
whole rounds of the Flower apps, with messages, state files and aggregation.
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from child import on_this_machine
from federations import NCF, NCF_DIM, configuration, flower_rounds, local_rounds, timed
from outcome import Check, Outcome, command, missing, print_checks
from rich.console import Console

from palate.models.training import LocalTraining


@dataclass(frozen=True, kw_only=True)
class Case:
    """Something to time.

    Attributes
    ----------
    fixed_columns
        Whether the item table has popularity and content columns.
    """

    name: str
    training: LocalTraining
    dim: int
    fixed_columns: bool


CASES = (
    Case(name="ncf", training=NCF, dim=NCF_DIM, fixed_columns=False),
    Case(name="neumf/whole", training=LocalTraining(), dim=64, fixed_columns=True),
    Case(name="gmf/whole", training=LocalTraining(model="gmf"), dim=64, fixed_columns=True),
    Case(
        name="linear/bce",
        training=LocalTraining(model="linear", objective="bce", learning_rate=0.1, item_learning_rate=0.1),
        dim=64,
        fixed_columns=True,
    ),
)

TARGETS = {("ml-100k", "ncf"): 0.5, ("ml-1m", "ncf"): 5.0}
"""CPU-seconds of local training in one round."""


def measure(data: str, case: Case, repeats: int, folder: Path) -> dict[str, Any]:
    """Time one case on one dataset."""
    config = configuration(data, case.training, dim=case.dim, rounds=repeats + 1, content=case.fixed_columns)
    work = local_rounds(config, fixed_columns=case.fixed_columns)
    spent = timed(work, repeats)
    median = statistics.median(spent)
    return {
        "data": data,
        "case": case.name,
        "training": case.training.model_dump_json(),
        "row_dim": work.table.fixed_dim + work.table.dim,
        "local_cpu_seconds": {"median": median, "min": min(spent), "all": spent},
        "flower_round_cpu_seconds": {"median": statistics.median(flower_rounds(config, folder))},
        "users_per_cpu_second": work.num_users / median,
        "samples_per_cpu_second": work.samples / median if work.samples else None,
    }


def main(
    data: Annotated[list[str] | None, typer.Option(help="Dataset; may be repeated.")] = None,
    case: Annotated[list[str] | None, typer.Option(help="Case; may be repeated. [default: all]")] = None,
    repeats: Annotated[int, typer.Option(min=3, help="Rounds to time, after one to warm up.")] = 3,
) -> None:
    """Time training rounds and write results/rounds.json."""
    talk = Console(stderr=True)
    rows, checks, skipped = [], [], []
    for name in data or ["ml-100k", "ml-1m"]:
        if not on_this_machine(name):
            skipped.append(missing(name))
            continue
        for each in CASES:
            if case and each.name not in case:
                continue
            talk.print(f"{name} {each.name} ...", highlight=False)
            with tempfile.TemporaryDirectory() as folder:
                row = measure(name, each, repeats, Path(folder))
            rows.append(row)
            spent = row["local_cpu_seconds"]["median"]
            checks.append(
                Check(
                    name=f"{name} {each.name}, local training",
                    measured=spent,
                    unit="CPU-s",
                    target=TARGETS.get((name, each.name)),
                )
            )
            checks.append(
                Check(
                    name=f"{name} {each.name}, whole round",
                    measured=row["flower_round_cpu_seconds"]["median"],
                    unit="CPU-s",
                )
            )
    outcome = Outcome("rounds", tuple(checks), tuple(skipped), {"rows": rows})
    outcome.write()
    print_checks([outcome], Console())


if __name__ == "__main__":
    command(main)
