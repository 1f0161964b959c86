"""The reference for speed: one Flower ClientApp per person, as tutorials do it, beside the vectorised federation.

Every person is a node with NCF's perceptron 64-32-1 in plain PyTorch: `DataLoader`, SGD, the whole item table down and
up, Flower's own FedAvg. It runs on the in-process grid, without sockets, processes or serialisation of its own, and its
steps are as large as the vectorised ones (256 positives with their four negatives). Both choices favour it.
People are sampled evenly over the lengths of histories, and cost is extrapolated linearly to all of them.
"""

from __future__ import annotations

import logging
import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from federations import NCF, NCF_DIM, configuration, flower_rounds, is_available
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from outcome import Check, Outcome, print_checks
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from palate.simulation.config import SimulationConfig
from palate.simulation.data.types import IntArray, LongArray
from palate.simulation.grid import InProcessGrid, run_in_process
from palate.simulation.measure import cpu_seconds
from palate.simulation.prepare import prepare

TARGET_RATIO = 10.0
"""The vectorised federation has to be at least this many times cheaper."""

BATCH = 256
_RAY_INIT = {"logging_level": logging.ERROR, "log_to_driver": False, "include_dashboard": False}


class NCF6432(nn.Module):
    """NCF's perceptron on [user embedding | item embedding]."""

    def __init__(self, num_items: int) -> None:
        super().__init__()
        self.item = nn.Embedding(num_items, NCF_DIM)
        self.user = nn.Embedding(1, NCF_DIM)
        self.hidden = nn.Linear(2 * NCF_DIM, NCF.hidden)
        self.out = nn.Linear(NCF.hidden, 1)

    def forward(self, items: Tensor) -> Tensor:
        """Logits of items, int64 [...] to float32 [...]."""
        user = self.user(torch.zeros_like(items))
        joined = torch.cat([user, self.item(items)], dim=-1)  # [..., 2 * NCF_DIM]
        logits: Tensor = self.out(torch.relu(self.hidden(joined))).squeeze(-1)
        return logits


@dataclass(frozen=True)
class Sample:
    """Some people of a dataset.

    Attributes
    ----------
    users
        Their indices, int64 [m].
    people, interactions
        How many people the dataset has, and how many training interactions the sample has.
    """

    users: LongArray
    people: int
    num_items: int
    interactions: int


def sample_people(config: SimulationConfig, count: int) -> Sample:
    """Choose people evenly over the lengths of their histories: their mean length is the dataset's."""
    train = prepare(config).split.train
    order = np.argsort(train.lengths, kind="stable")
    middles = (np.arange(count) + 0.5) * len(order) / count  # the middle of each of `count` equal strata
    users = order[middles.astype(np.int64)]
    return Sample(users, len(order), prepare(config).interactions.num_items, int(train.lengths[users].sum()))


def make_client_app(config_json: str, users: tuple[int, ...]) -> ClientApp:
    """Build the tutorial's ClientApp: partition i is person `users[i]`."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        person = int(context.node_config["partition-id"])
        num_items, items = _history(config_json, users[person])
        model = NCF6432(num_items)
        _load(model, message, context)
        generator = torch.Generator().manual_seed(1000 * int(message.content.config_records["config"]["server-round"]) + person)
        loss = _fit(model, _loader(items, num_items, generator))
        state = model.state_dict()
        context.state["head"] = ArrayRecord({name: value for name, value in state.items() if name != "item.weight"})
        update = ArrayRecord({"item.weight": state["item.weight"]})
        metrics = MetricRecord({"loss": loss, "num-examples": len(items)})
        return Message(RecordDict({"arrays": update, "metrics": metrics}), reply_to=message)

    return app


def _load(model: NCF6432, message: Message, context: Context) -> None:
    state = message.content.array_records["arrays"].to_torch_state_dict()
    if "head" in context.state:
        state |= context.state.array_records["head"].to_torch_state_dict()
    model.load_state_dict(state, strict=False)


def _loader(items: IntArray, num_items: int, generator: torch.Generator) -> DataLoader[tuple[Tensor, ...]]:
    positives = torch.from_numpy(items.astype(np.int64))[:, None]
    negatives = torch.randint(num_items, (len(items), NCF.negatives), generator=generator)
    samples = torch.cat([positives, negatives], dim=1)  # [n, 1 + negatives]
    labels = torch.zeros(samples.shape)
    labels[:, 0] = 1.0
    return DataLoader(TensorDataset(samples, labels), batch_size=BATCH, shuffle=True, generator=generator)


def _fit(model: NCF6432, loader: DataLoader[tuple[Tensor, ...]]) -> float:
    optimiser = torch.optim.SGD(model.parameters(), lr=NCF.learning_rate)
    criterion = nn.BCEWithLogitsLoss()
    total, batches = 0.0, 0
    for samples, labels in loader:
        optimiser.zero_grad()
        loss = criterion(model(samples), labels)
        loss.backward()
        optimiser.step()
        total, batches = total + loss.item(), batches + 1
    return total / max(batches, 1)


@lru_cache(maxsize=65_536)
def _history(config_json: str, user: int) -> tuple[int, IntArray]:
    """Return the number of items and a person's history; kept, as a device keeps its own data."""
    prepared = prepare(SimulationConfig.model_validate_json(config_json))
    return prepared.interactions.num_items, prepared.split.train.of(user).copy()


def make_server_app(num_items: int, rounds: int, cpu: list[float]) -> ServerApp:
    """Build the tutorial's ServerApp: FedAvg over item tables; CPU-seconds of rounds after the first go to `cpu`."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        del context
        arrays = ArrayRecord({"item.weight": NCF6432(num_items).item.weight.detach()})
        strategy = FedAvg(fraction_evaluate=0.0)
        for server_round in range(rounds + 1):
            before = cpu_seconds()
            arrays = strategy.start(grid, arrays, num_rounds=1).arrays
            if server_round > 0:
                cpu.append(cpu_seconds() - before)

    return app


def in_process(server: ServerApp, client: ClientApp, nodes: int) -> None:
    """Run on Palate's in-process grid, one node after the other."""
    run_in_process(server, InProcessGrid(client, nodes, workers=1))


def on_ray(server: ServerApp, client: ClientApp, nodes: int) -> None:
    """Run on Flower's own engine."""
    from flwr.simulation import run_simulation

    backend = {"init_args": _RAY_INIT | {"num_cpus": os.cpu_count()}, "client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    run_simulation(server, client, nodes, backend_config=backend)


def time_naive(
    config: SimulationConfig,
    sample: Sample,
    rounds: int,
    engine: Callable[[ServerApp, ClientApp, int], None],
) -> list[float]:
    """CPU-seconds of the sampled people's rounds, after a warm-up one."""
    cpu: list[float] = []
    client = make_client_app(config.model_dump_json(), tuple(int(user) for user in sample.users))
    engine(make_server_app(sample.num_items, rounds, cpu), client, len(sample.users))
    return cpu


def measure(data: str, people: int, rounds: int, ray: bool, folder: Path) -> dict[str, Any]:
    """Time the naive app and the vectorised federation on one dataset, in this process."""
    config = configuration(data, NCF, dim=NCF_DIM, rounds=rounds + 1, content=False)
    sample = sample_people(config, min(people, prepare(config).interactions.num_users))
    vectorised = statistics.median(flower_rounds(config, folder))
    row: dict[str, Any] = {
        "data": data,
        "sampled_people": len(sample.users),
        "people": sample.people,
        "sampled_mean_history": sample.interactions / len(sample.users),
        "mean_history": len(prepare(config).split.train.items) / sample.people,
        "vectorised_round_cpu_seconds": vectorised,
    }
    engines = {"in_process": in_process} | ({"ray": on_ray} if ray else {})
    for name, engine in engines.items():
        spent = time_naive(config, sample, rounds, engine)
        per_person = statistics.median(spent) / len(sample.users)
        row[name] = {
            "cpu_seconds_per_person": per_person,
            "round_cpu_seconds_extrapolated": per_person * sample.people,
            "ratio": per_person * sample.people / vectorised,
        }
    return row


def checks_of(row: dict[str, Any]) -> list[Check]:
    """Name the numbers of one dataset."""
    data = row["data"]
    checks = [
        Check(name=f"{data}, vectorised round", measured=row["vectorised_round_cpu_seconds"], unit="CPU-s"),
    ]
    for engine in ("in_process", "ray"):
        if engine not in row:
            continue
        found, label = row[engine], engine.replace("_", " ")
        checks += [
            Check(
                name=f"{data}, one ClientApp per person, {label}, extrapolated",
                measured=found["round_cpu_seconds_extrapolated"],
                unit="CPU-s",
            ),
            Check(
                name=f"{data}, ratio to the vectorised round, {label}",
                measured=found["ratio"],
                target=TARGET_RATIO,
                at_most=False,
            ),
        ]
    return checks


def main(
    data: Annotated[list[str] | None, typer.Option(help="Dataset; may be repeated.")] = None,
    people: Annotated[int, typer.Option(min=2, help="People to sample.")] = 100,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds to time, after one to warm up.")] = 3,
    ray: Annotated[bool, typer.Option("--ray", help="Also on Flower's own engine; needs palate[ray].")] = False,
) -> None:
    """Time a plain Flower app and write results/naive_flower.json."""
    logging.getLogger("flwr").setLevel(logging.WARNING)
    talk = Console(stderr=True)
    rows, checks, skipped = [], [], []
    for name in data or ["ml-100k", "ml-1m"]:
        if not is_available(name):
            skipped.append(f"{name} is not on this machine (set PALATE_DATA, or palate data get {name})")
            continue
        talk.print(f"{name}: {people} people, one ClientApp each ...", highlight=False)
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(name, people, rounds, ray, Path(folder)))
        checks += checks_of(rows[-1])
    outcome = Outcome("naive_flower", tuple(checks), tuple(skipped), {"rows": rows})
    outcome.write()
    print_checks([outcome], Console())


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(main)
    app()
