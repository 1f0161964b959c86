"""Engines for Flower apps: an in-process Grid without sockets, Ray or serialisation, and Flower's own engine on Ray.

In process, nodes run in a thread pool (the numerical libraries release the interpreter lock); replies come back in the
order of the nodes, so sums do not depend on which thread was faster. The few internals of Flower that a grid needs are
confined to this file.
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from palate.errors import EnvironmentProblem

_RUN_ID = 1
_NODE_CRASHED = 102


class InProcessGrid(Grid):
    """Grid whose nodes live in this process.

    Parameters
    ----------
    client_app
        What every node runs.
    num_nodes
        Number of nodes; node i has partition-id i.
    workers
        Threads that run nodes.
    """

    def __init__(
        self,
        client_app: ClientApp,
        num_nodes: int,
        *,
        workers: int,
    ) -> None:
        self._client_app = client_app
        self._run = Run.create_empty(run_id=_RUN_ID)
        TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = _RUN_ID
        threads = max(1, min(workers, num_nodes))
        # nodes are the parallelism: threads inside a node would only wait for each other
        inner = torch.get_num_threads() if threads == 1 else 1
        self._pool = ThreadPoolExecutor(
            threads, thread_name_prefix="node", initializer=torch.set_num_threads, initargs=(inner,)
        )
        self._ids = count(1)
        self._replies: dict[str, Message] = {}
        self.contexts = {
            partition + 2: Context(
                run_id=_RUN_ID,
                node_id=partition + 2,
                node_config={"partition-id": partition, "num-partitions": num_nodes},
                state=RecordDict(),
                run_config={},
            )
            for partition in range(num_nodes)
        }

    def set_run(self, run: Run) -> None:
        """Use another run object."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that all messages belong to."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Build a message (deprecated in Flower, but part of the interface)."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return all nodes; they are always connected."""
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Run the addressed nodes, and keep their replies."""
        sent = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(next(self._ids))
            sent.append(message)
        for message, reply in zip(sent, self._pool.map(self._deliver, sent), strict=True):
            self._replies[message.metadata.message_id] = reply
        return [message.metadata.message_id for message in sent]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Hand out replies, each once."""
        return [self._replies.pop(name) for name in message_ids if name in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Run the addressed nodes and return their replies, in order; there is nothing to time out."""
        del timeout
        return self.pull_messages(self.push_messages(messages))

    def close(self) -> None:
        """Stop the worker threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _deliver(self, message: Message) -> Message:
        # A node gets its own records, as over a network; array payloads are immutable bytes and are shared.
        private: Any = copy.copy(message)
        private.__dict__["_content"] = copy.deepcopy(message.content)
        try:
            return self._client_app(private, self.contexts[message.metadata.dst_node_id])
        except Exception as error:
            return Message(Error(code=_NODE_CRASHED, reason=type(error).__name__), reply_to=message)


def run_in_process(server_app: ServerApp, grid: InProcessGrid) -> None:
    """Run a ServerApp to its end on an in-process grid."""
    context = Context(run_id=_RUN_ID, node_id=1, node_config={}, state=RecordDict(), run_config={})
    try:
        server_app(grid, context)
    finally:
        grid.close()


def run_on_ray(server_app: ServerApp, client_app: ClientApp, nodes: int, address: str) -> None:
    """Run on Flower's own engine: nodes in worker processes, on one machine or on the cluster at the address.

    Raises
    ------
    EnvironmentProblem
        If Ray is not installed.
    """
    from flwr.simulation import run_simulation

    try:
        import ray  # noqa: F401 - Flower ends the process where it is missing
    except ImportError as error:
        raise EnvironmentProblem(
            "the flower engine needs Ray, which is not installed", hint="pip install 'palate[ray]'"
        ) from error
    init_args: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "include_dashboard": False}
    init_args |= {"address": address} if address else {"num_cpus": os.cpu_count()}
    logging.getLogger("flwr").setLevel(logging.INFO)
    run_simulation(
        server_app=server_app,
        client_app=client_app,
        num_supernodes=nodes,
        backend_config={"init_args": init_args, "client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
