"""Run a simulation on one of its engines: the same ServerApp, ClientApp and session every time."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from palate.errors import DataError, RunError
from palate.simulation import run_folder
from palate.simulation.config import SimulationConfig
from palate.simulation.prepare import Prepared, prepare
from palate.simulation.progress import Watcher
from palate.simulation.resolving import in_words, resolve
from palate.simulation.results import contract_view
from palate.simulation.session import SimulationSession
from palate.simulation.tuning import tuned

_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}


def simulate(
    config: SimulationConfig, folder: Path, watcher: Watcher, *, fresh: bool = False, ray_address: str = ""
) -> dict[str, Any]:
    """Run, resume, or return the result of a run that has finished.

    Parameters
    ----------
    config
        The run.
    folder
        Its run folder; made if missing.
    watcher
        Follows the run.
    fresh
        Delete the run that is in the folder first.
    ray_address
        Ray cluster for engine "flower"; a local one if empty.

    Raises
    ------
    PalateError
        For unusable data, folders or machines, and where the data is no longer that of the run in the folder.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    with run_folder.locked(folder):
        if fresh:
            run_folder.clear(folder)
        folder = folder.resolve()  # "." has no name, and a run needs one
        new = not (folder / run_folder.ASKED).exists()
        run_folder.claim(folder, config)
        done = finished_result(folder)
        if done is not None:
            found = prepare(run_folder.located(folder, config, here=True), watcher.phase)
            run_folder.pin_data(folder, found.data_hash)  # other data has no result yet
            return done
        with _log_to(folder / "log.txt"), threadpool_limits(1):  # nodes are the parallelism
            watcher.phase(f"reading {config.data}")
            try:
                prepared = prepare(run_folder.located(folder, config, here=True), watcher.phase)
            except DataError:
                if new:  # no run has begun: leave the folder free for the corrected command
                    run_folder.clear(folder)
                raise
            config = run_folder.located(folder, resolved(config, prepared, folder, watcher), here=True)
            session = SimulationSession(config, prepared, folder, watcher)
            run_on_engine(config, session, ray_address=ray_address)
        if session.result is None:
            raise RunError(f"{folder}: the run ended without a result", hint=f"see {folder / 'log.txt'}")
        return session.result


def run_on_engine(config: SimulationConfig, session: SimulationSession, *, ray_address: str) -> None:
    """Hand the session to the engine of the configuration."""
    from palate.client.app import make_app as make_client_app
    from palate.server.app import make_app as make_server_app
    from palate.simulation.host import close_nodes, num_nodes, open_node

    config_json, run_dir = config.model_dump_json(), str(session.folder.resolve())

    def open_host(context: Any) -> Any:
        return open_node(config_json, run_dir, int(context.node_config["partition-id"]))

    client_app, server_app = make_client_app(open_host), make_server_app(session)
    nodes = num_nodes(config, session.prepared.interactions.num_users)
    try:
        if config.engine == "flower":
            from palate.simulation.grid import run_on_ray

            run_on_ray(server_app, client_app, nodes, ray_address)
        else:
            from palate.simulation.grid import InProcessGrid, run_in_process

            run_in_process(server_app, InProcessGrid(client_app, nodes, workers=os.cpu_count() or 1))
    finally:
        close_nodes()


def resolved(config: SimulationConfig, prepared: Prepared, folder: Path, watcher: Watcher) -> SimulationConfig:
    """Return the configuration that is run; decided once, and kept in `resolved.toml` for resumed runs."""
    run_folder.pin_data(folder, prepared.data_hash)
    if (folder / run_folder.RESOLVED).exists():
        return run_folder.read_config(folder, run_folder.RESOLVED)
    decided, settings = resolve(config, prepared)
    if words := in_words(settings):
        watcher.phase(words)
    decided = tuned(decided, prepared, watcher.phase)
    run_folder.write_config(folder, decided, run_folder.RESOLVED)
    return decided


def finished_result(folder: Path) -> dict[str, Any] | None:
    """Return the result of a finished run, or None; raises RunError if it is damaged."""
    path = folder / "result.json"
    if not path.exists():
        return None
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        contract_view(result)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged", hint="delete it to compute it again, or use --fresh") from error
    return result


@contextlib.contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Send the logs of Palate and Flower to a file while the context lasts, and nowhere else."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in ("palate", "flwr")]
    before = [(logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
        handler.close()
