"""How much cheaper the vectorised federation is than one Flower ClientApp per person, in the same process.

The plain app (`naive_app`) runs on the in-process grid, without sockets and worker processes, and its steps are as
large as the vectorised ones (256 positives with their four negatives): both choices favour it. `--ray` runs it on
Flower's own engine too. People are sampled evenly over the lengths of histories; the cost of a round is extrapolated
linearly from the sample to everyone.
"""

from __future__ import annotations

import logging
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from child import on_this_machine
from federations import NCF, NCF_DIM, configuration, flower_rounds
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from naive_app import make_client_app, make_server_app
from outcome import Check, Outcome, command, missing, print_checks
from rich.console import Console

from palate.models.arrays import Int64Array
from palate.models.histories import Histories
from palate.simulation.grid import InProcessGrid, run_in_process
from palate.simulation.prepare import prepare

Engine = Callable[[ServerApp, ClientApp, int], None]

_RAY_INIT: dict[str, int | bool] = {"logging_level": logging.ERROR, "log_to_driver": False, "include_dashboard": False}


def sample_people(histories: Histories, count: int) -> Int64Array:
    """Choose people evenly over the lengths of their histories, so that their mean length is everyone's."""
    order = np.argsort(histories.lengths, kind="stable")
    middles = (np.arange(count) + 0.5) * len(order) / count  # the middle of each of `count` equal strata
    return order[middles.astype(np.int64)]


def in_process(server: ServerApp, client: ClientApp, nodes: int) -> None:
    """Run on Palate's in-process grid, one node after the other."""
    run_in_process(server, InProcessGrid(client, nodes, workers=1))


def on_ray(server: ServerApp, client: ClientApp, nodes: int) -> None:
    """Run on Flower's own engine."""
    from flwr.simulation import run_simulation

    backend: dict[str, Any] = {
        "init_args": {**_RAY_INIT, "num_cpus": os.cpu_count() or 1},
        "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
    }
    run_simulation(server, client, nodes, backend_config=backend)


def measure(data: str, people: int, rounds: int, engines: dict[str, Engine], folder: Path) -> dict[str, Any]:
    """Time the plain app and the vectorised federation on one dataset."""
    config = configuration(data, NCF, dim=NCF_DIM, rounds=rounds + 1, content=False)
    prepared = prepare(config)
    train, everyone = prepared.split.train, prepared.interactions.num_users
    sample = sample_people(train, min(people, everyone))
    vectorised = statistics.median(flower_rounds(config, folder))
    row: dict[str, Any] = {
        "data": data,
        "people": everyone,
        "sampled_people": len(sample),
        "mean_history": float(train.lengths.mean()),
        "sampled_mean_history": float(train.lengths[sample].mean()),
        "vectorised_round_cpu_seconds": vectorised,
        "plain": {},
    }
    client = make_client_app(config.model_dump_json(), tuple(int(user) for user in sample))
    for name, engine in engines.items():
        cpu: list[float] = []
        engine(make_server_app(prepared.interactions.num_items, rounds, cpu), client, len(sample))
        per_person = statistics.median(cpu) / len(sample)
        row["plain"][name] = {
            "cpu_seconds_per_person": per_person,
            "round_cpu_seconds_extrapolated": per_person * everyone,
            "ratio": per_person * everyone / vectorised,
        }
    return row


def checks_of(row: dict[str, Any]) -> list[Check]:
    """Name the numbers of one dataset."""
    data = row["data"]
    checks = [Check(name=f"{data} vectorised round", measured=row["vectorised_round_cpu_seconds"], unit="CPU-s")]
    for engine, found in row["plain"].items():
        spent = found["round_cpu_seconds_extrapolated"]
        checks += [
            Check(name=f"{data} plain Flower round {engine}, extrapolated", measured=spent, unit="CPU-s"),
            Check(name=f"{data} plain / vectorised {engine}", measured=found["ratio"], unit="times"),
        ]
    return checks


def main(
    data: Annotated[list[str] | None, typer.Option(help="Dataset; may be repeated.")] = None,
    people: Annotated[int, typer.Option(min=2, help="People to sample.")] = 100,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds to time, after one to warm up.")] = 3,
    ray: Annotated[bool, typer.Option("--ray", help="Also on Flower's own engine; needs palate[ray].")] = False,
) -> None:
    """Time a plain Flower app and write results/naive_flower.json."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    talk = Console(stderr=True)
    engines: dict[str, Engine] = {"in process": in_process}
    if ray:
        engines["on Ray"] = on_ray
    rows, checks, skipped = [], [], []
    for name in data or ["ml-100k", "ml-1m"]:
        if not on_this_machine(name):
            skipped.append(missing(name))
            continue
        talk.print(f"{name}: {people} people, one ClientApp each ...", highlight=False)
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(name, people, rounds, engines, Path(folder)))
        checks += checks_of(rows[-1])
    outcome = Outcome("naive_flower", tuple(checks), tuple(skipped), {"rows": rows})
    outcome.write()
    print_checks([outcome], Console())


if __name__ == "__main__":
    command(main)
