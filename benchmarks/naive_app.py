"""A plain Flower app as tutorials write it: one ClientApp per person, one small PyTorch model, Flower's FedAvg.

Every person is a node with NCF's perceptron 64-32-1: `DataLoader`, SGD on positives and sampled negatives, the whole
item table down and up. User embedding and head stay in the node's context, as in Flower's guide to personal layers.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import torch
from federations import NCF, NCF_DIM
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from palate.errors import FederationError
from palate.models.arrays import Int32Array
from palate.simulation.config import SimulationConfig
from palate.simulation.measure import cpu_seconds
from palate.simulation.prepare import prepare

Batches = DataLoader[tuple[Tensor, ...]]


class Perceptron(nn.Module):
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
        joined = torch.cat([user, self.item(items)], dim=-1)  # [..., 2 * dim]
        logits: Tensor = self.out(torch.relu(self.hidden(joined))).squeeze(-1)
        return logits


def make_client_app(config_json: str, users: tuple[int, ...]) -> ClientApp:
    """Build the ClientApp: partition i is person `users[i]`."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        person = users[int(context.node_config["partition-id"])]
        num_items, items = _history(config_json, person)
        model = Perceptron(num_items)
        state = message.content.array_records["arrays"].to_torch_state_dict()
        if "head" in context.state:
            state |= context.state.array_records["head"].to_torch_state_dict()
        model.load_state_dict(state, strict=False)
        generator = torch.Generator().manual_seed(person)  # the same draws every round; what they cost is the same
        loss = _fit(model, _batches(items, num_items, generator))
        trained = model.state_dict()
        context.state["head"] = ArrayRecord({name: value for name, value in trained.items() if name != "item.weight"})
        update = ArrayRecord({"item.weight": trained["item.weight"]})
        metrics = MetricRecord({"loss": loss, "num-examples": len(items)})
        return Message(RecordDict({"arrays": update, "metrics": metrics}), reply_to=message)

    return app


def make_server_app(num_items: int, rounds: int, cpu: list[float]) -> ServerApp:
    """Build the ServerApp: FedAvg of item tables; CPU-seconds of the rounds after a warm-up one go to `cpu`."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        del context
        arrays = ArrayRecord({"item.weight": Perceptron(num_items).item.weight.detach()})
        strategy = _CompleteFedAvg(fraction_evaluate=0.0)
        for server_round in range(rounds + 1):
            before = cpu_seconds()
            arrays = strategy.start(grid, arrays, num_rounds=1).arrays
            if server_round > 0:
                cpu.append(cpu_seconds() - before)

    return app


class _CompleteFedAvg(FedAvg):
    """FedAvg that does not go on without the nodes that failed: they would cost nothing."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average, or raise FederationError."""
        answered = list(replies)
        failed = [reply for reply in answered if reply.has_error()]
        if failed:
            raise FederationError(f"{len(failed)} of {len(answered)} nodes failed: {failed[0].error.reason}")
        return super().aggregate_train(server_round, answered)


def _batches(items: Int32Array, num_items: int, generator: torch.Generator) -> Batches:
    positives = torch.from_numpy(items.astype(np.int64))[:, None]
    negatives = torch.randint(num_items, (len(items), NCF.negatives), generator=generator)
    samples = torch.cat([positives, negatives], dim=1)  # [n, 1 + negatives]
    labels = torch.zeros(samples.shape)
    labels[:, 0] = 1.0
    return DataLoader(TensorDataset(samples, labels), batch_size=NCF.batch_size, shuffle=True, generator=generator)


def _fit(model: Perceptron, batches: Batches) -> float:
    optimiser = torch.optim.SGD(model.parameters(), lr=NCF.learning_rate)
    criterion = nn.BCEWithLogitsLoss()
    losses: list[float] = []
    for samples, labels in batches:
        optimiser.zero_grad()
        loss = criterion(model(samples), labels)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return sum(losses) / max(len(losses), 1)


@lru_cache(maxsize=65_536)
def _history(config_json: str, user: int) -> tuple[int, Int32Array]:
    """Return the number of items and a person's history; kept, as a device keeps its own data."""
    prepared = prepare(SimulationConfig.model_validate_json(config_json))
    return prepared.interactions.num_items, prepared.split.train.of(user).copy()
