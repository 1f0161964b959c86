"""`flwr run .`: the simulation as an ordinary Flower app, configured by Flower's run config.

Keys of the run config are the names of `SimulationConfig`, with nested ones in dotted form;
`config-file` names a TOML file to start from, `run-dir` the run folder. Empty texts and zeros count as not given.
docs/flower.md lists them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path

from palate.client.host import Host
from palate.errors import ConfigError
from palate.server.values import merge, nested
from palate.simulation import run_folder
from palate.simulation.config import SimulationConfig, checked_config, load_config
from palate.simulation.federation import resolved
from palate.simulation.host import num_nodes, open_node
from palate.simulation.prepare import prepare
from palate.simulation.progress import Watcher
from palate.simulation.session import SimulationSession

RunConfig = Mapping[str, bool | float | int | str]

log = logging.getLogger("flwr")  # Flower shows its own log to those who follow the run

_HELD = contextlib.ExitStack()
"""Keeps a run folder locked as long as its ServerApp's process lives, or until it opens another."""

_OWN_KEYS = frozenset({"session", "run-dir", "config-file"})


def read_run_config(run_config: RunConfig) -> tuple[SimulationConfig, Path]:
    """Turn a run config into a configuration and a run folder.

    Raises
    ------
    ConfigError
        If a key is unknown or a value cannot be used.
    """
    if not run_config.get("run-dir"):
        raise ConfigError("run-dir is not set", hint="flwr run . --run-config 'run-dir=\"/path/to/runs/name\"'")
    values = {name: value for name, value in run_config.items() if value and name not in _OWN_KEYS}
    given = {name.replace("-", "_"): value for name, value in values.items()}
    config_file = str(run_config.get("config-file", ""))
    base = load_config(Path(config_file)) if config_file else {}
    config = checked_config(merge(base, nested(given)))
    return config, Path(str(run_config["run-dir"])).expanduser()


def open_host(run_config: RunConfig, node_config: RunConfig) -> Host:
    """Open the shard that a node of Flower's simulation hosts."""
    config, folder = read_run_config(run_config)
    prepared = prepare(config)
    connected, expected = int(node_config["num-partitions"]), num_nodes(config, prepared.interactions.num_users)
    if connected != expected:
        raise ConfigError(
            f"{connected} nodes are connected, the run is made for {expected}",
            hint=f'--federation-config "num-supernodes={expected}", or set shards={connected}',
        )
    config = run_folder.read_config(folder, run_folder.RESOLVED)
    return open_node(config.model_dump_json(), str(folder.resolve()), int(node_config["partition-id"]))


def open_session(run_config: RunConfig) -> SimulationSession:
    """Open the run folder and the session of a run."""
    config, folder = read_run_config(run_config)
    watcher = Watcher(lambda progress: log.info("palate: %s: %s", folder, progress.words))
    _HELD.close()  # of an earlier run of this process
    _HELD.enter_context(run_folder.locked(folder))
    run_folder.claim(folder, config)
    prepared = prepare(config)
    config = resolved(config, prepared, folder, watcher)
    return SimulationSession(config, prepared, folder, watcher)
