"""Flower's own simulation engine on Ray: the same apps, nodes in worker processes, on one machine or a cluster."""

from __future__ import annotations

import logging
import os
from typing import Any

from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.simulation import run_simulation

from palate.errors import EnvironmentProblem


def run_on_ray(server_app: ServerApp, client_app: ClientApp, num_nodes: int, *, address: str = "") -> None:
    """Run the apps on Flower's engine.

    Parameters
    ----------
    num_nodes
        Nodes; each needs one CPU while it works.
    address
        Address of a running Ray cluster whose machines see the same run folder and data; a local one if empty.

    Raises
    ------
    EnvironmentProblem
        If Ray is not installed.
    """
    try:
        import ray  # noqa: F401 - Flower ends the process where it is missing
    except ImportError as error:
        raise EnvironmentProblem(
            "the flower engine needs Ray, which is not installed", hint="pip install 'palate[ray]'"
        ) from error
    init_args: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "include_dashboard": False}
    if address:
        init_args["address"] = address
    else:
        init_args["num_cpus"] = os.cpu_count()
    logging.getLogger("flwr").setLevel(logging.INFO)
    run_simulation(
        server_app=server_app,
        client_app=client_app,
        num_supernodes=num_nodes,
        backend_config={"init_args": init_args, "client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
