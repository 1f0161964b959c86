"""The server of a fleet as one process: opens the folder, listens, and runs rounds until there are none left."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.data.catalogue import printable
from palate.errors import ConfigError, RunError
from palate.models.table import initial_embeddings
from palate.privacy import files
from palate.privacy.run_notice import CATALOGUE_PATH, RUN_PATH, RunNotice
from palate.server.coordinator import Coordinator
from palate.server.fleet.books_check import check_books, check_whole
from palate.server.fleet.catalogue import content_of, read_catalogue
from palate.server.fleet.certificates import check_accepted, last_moment
from palate.server.fleet.claims import FleetClaim, claim_of, parties_of
from palate.server.fleet.collecting import CollectionProtocol
from palate.server.fleet.config import FleetConfig, load_config
from palate.server.fleet.device_heads import DeviceHeads
from palate.server.fleet.eventlog import EventLog, LogHandler
from palate.server.fleet.folder import FleetFolder, read_key, read_public_key
from palate.server.fleet.grid_messages import GridMessages
from palate.server.fleet.inviting import Doorkeeper
from palate.server.fleet.losses import Losses
from palate.server.fleet.metrics import Metrics
from palate.server.fleet.next_run import finish, read_start
from palate.server.fleet.operation import Books, Operation
from palate.server.fleet.peers import Parties, PeerProtocol
from palate.server.fleet.registering import RegisterKeeper
from palate.server.fleet.rounds import RoundProtocol, largest_answer
from palate.server.fleet.setup import tls_authority, tls_server
from palate.server.fleet.state import FleetState
from palate.server.fleet.transparency import TransparencyLog
from palate.server.fleet.transport.http import FleetLimits
from palate.server.fleet.transport.server import ENROLMENT_FILE, FleetServer
from palate.server.fleet.watching import SystemClock, Watcher, watch_all
from palate.server.helper.cards import HelperCard
from palate.server.helper.link import HelperLink
from palate.server.helper.remote import FileLink, HttpsLink
from palate.server.ledger import ServerLedger
from palate.server.settings import ServerSettings
from palate.server.store import RunStore

_STARTING_TABLE = 1  # which stream of the public seed
_WRAPPING_BYTES = 1 << 16
"""What Flower puts around an answer, and more."""
_NOT_OF_THE_RUN = {"listen", "deadlines", "failures"}
"""Settings that may change while a run is under way."""


@dataclass(frozen=True)
class Opened:
    """A fleet's folder, ready to run rounds.

    Attributes
    ----------
    config
        What the operator decided.
    address
        Where the server listens.
    claim
        Against whom the guarantee holds.
    operation
        Runs the rounds.
    books
        Where they are written down.
    metrics_port
        Where the metrics page is; None without one.
    """

    config: FleetConfig
    address: str
    claim: FleetClaim
    operation: Operation
    books: Books
    metrics_port: int | None


@contextmanager
def opened(
    folder: FleetFolder,
    *,
    bind: str | None = None,
    port: int | None = None,
    wait_for: int | None = None,
    resuming: bool = False,
    watchers: Sequence[Watcher] = (),
    helper: HelperLink | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Iterator[Opened]:
    """Open a fleet's folder and listen, until the context ends.

    Parameters
    ----------
    folder
        The fleet's.
    bind, port
        Where to listen, in place of what fleet.toml says.
    wait_for
        Devices that the first round waits for, in place of what fleet.toml says.
    resuming
        Whether the operator wants to go on although rounds were lost in a row.
    watchers
        Who is told of what happens.
    helper
        The second aggregator, in place of the one that the folder names.
    interrupted
        Asked again and again whether to stop at once.

    Raises
    ------
    ConfigError, RunError, DataError, EnvironmentProblem
        If another server runs the fleet, a file is missing, damaged or contradicts another, or the address is taken.
    FleetHalted
        If it has stopped by itself and is not resumed.
    """
    folder.require()
    with ExitStack() as stack:
        stack.enter_context(folder.locked())
        finish(folder)
        config = load_config(folder.config)
        signer = read_key(folder.server_key)
        folder.run.mkdir(exist_ok=True)
        _freeze(folder, config)
        settings = config.server_settings()
        coordinator, metadata, notice = _beginning(folder, config, settings)
        check_whole(folder.state, folder.nodes / ENROLMENT_FILE, folder.ledger)
        state = FleetState(folder.state)
        stack.callback(state.close)
        check_books(folder.ledger, state, signer.public_key())
        losses = Losses.found(state, config.halt_after)
        if losses.halted and not resuming:
            raise losses.error()
        policy = config.promise.policy(smallest_cohort=config.cohort.smallest)
        ledger = ServerLedger(folder.ledger, signer, {config.promise.unit: policy}, run=config.run)
        stack.callback(ledger.close)
        events = EventLog(folder.events, config.promise)
        stack.callback(events.close)
        handler = LogHandler(events)
        own = logging.getLogger("palate.server")
        own.addHandler(handler)
        stack.callback(own.removeHandler, handler)
        watching: list[Watcher] = [events, *watchers]
        port_of_metrics = config.listen.metrics_port
        tls = tls_server(folder)
        check_accepted(tls, tls_authority(folder).certificate, config.listen.host)
        ends = partial(_ends_at, tls.certificate)
        metrics = Metrics(port_of_metrics, config.promise, tls_ends=ends) if port_of_metrics else None
        if metrics is not None:
            stack.enter_context(metrics)
        watching += [] if metrics is None else [metrics]
        largest = max(largest_answer(plan) for plan in coordinator.example_plans())
        server = stack.enter_context(
            FleetServer(
                folder.nodes,
                certificate=tls.certificate,
                key=tls.key,
                host=bind or config.listen.bind,
                port=config.listen.port if port is None else port,
                limits=FleetLimits(max_reply_bytes=largest + _WRAPPING_BYTES),
                calls={RUN_PATH: notice.sign(signer), CATALOGUE_PATH: folder.catalogue.read_bytes()},
                open_calls=Doorkeeper(folder).calls,
            )
        )
        books = Books(
            state=state,
            enrolment=server.enrolment,
            store=RunStore(folder.run),
            metadata=metadata,
            ledger=ledger,
            log=TransparencyLog(folder.log, config.name, signer),
        )
        operation = Operation(
            config,
            settings,
            coordinator,
            books=books,
            protocol=_protocol(folder, config, signer, books, helper, stack),
            grid_messages=GridMessages(server.grid),
            clock=SystemClock(),
            watcher=watch_all(watching),
            interrupted=interrupted,
            wait_for=wait_for,
        )
        state.request_stop(None)
        if losses.halted:  # last of all: what cannot start has not been resumed
            state.forgive_losses()
            events.write("run-resumed", rounds=[each.number for each in losses.rounds])
        events.write("server-started", address=server.address, process=os.getpid())
        claim = claim_of(folder, config)
        yield Opened(config, server.address, claim, operation, books, None if metrics is None else metrics.port)


def _beginning(
    folder: FleetFolder, config: FleetConfig, settings: ServerSettings
) -> tuple[Coordinator, dict[str, str], RunNotice]:
    """Return the run's state machine as new, what its files are labelled with, and what devices are told of it."""
    catalogue, digest = read_catalogue(folder.catalogue)
    content = content_of(catalogue, config.content)
    columns = ("popularity", *map(printable, content.names))
    metadata = {
        "run": config.run,
        "unit": settings.unit,
        "protection": "user-level differential privacy",
        "catalogue": digest,
        "columns": json.dumps(columns),
    }
    embeddings = initial_embeddings(
        catalogue.num_items,
        config.schedule.dim,
        scale=config.schedule.initial_scale,
        rng=np.random.default_rng([config.seed, _STARTING_TABLE]),
    )
    start = read_start(folder.start)
    coordinator = Coordinator(settings, content.columns, embeddings, columns=columns, start=start)
    notice = RunNotice(
        fleet=config.name,
        run=config.run,
        epsilon=config.epsilon,
        delta=config.delta,
        rounds=config.schedule.rounds,
        smallest_roster=config.cohort.smallest,
        tau_thousandths=round(config.cohort.tau * 1000),
        gamma_thousandths=round(config.cohort.gamma * 1000),
        num_items=catalogue.num_items,
        catalogue_sha256=digest,
        table_hash="" if start is None else coordinator.table.content_hash,
    )
    return coordinator, metadata, notice


def _protocol(
    folder: FleetFolder,
    config: FleetConfig,
    key: Ed25519PrivateKey,
    books: Books,
    helper: HelperLink | None,
    stack: ExitStack,
) -> RoundProtocol:
    """Return how the rounds of this fleet are made: among peers, or with the helper that fleet.toml names."""
    if not config.helper.there:
        parties = Parties(key, read_public_key(folder.authority_public_key))
        return PeerProtocol(config, parties, time.time, enrolled=lambda: len(books.enrolment.nodes()))
    link = _helper_of(folder, config, key, stack) if helper is None else helper
    register = RegisterKeeper(config.name, parties_of(folder, config), key, books.state, books.enrolment, link)
    heads = DeviceHeads(folder.device_heads)
    return CollectionProtocol(config, register, link, books.log, folder.spools, heads, time.time)


def _helper_of(folder: FleetFolder, config: FleetConfig, key: Ed25519PrivateKey, stack: ExitStack) -> HelperLink:
    """Reach the helper as fleet.toml says; ConfigError if the card in the folder is of another one."""
    parties = parties_of(folder, config)
    if config.helper.link == "files":
        return FileLink(folder.helper_files, parties, key)
    try:
        card = HelperCard.open(folder.helper_card.read_bytes())
    except OSError as error:
        raise RunError(
            f"{folder.helper_card} cannot be read: {error.strerror}", hint="ask the helper for it"
        ) from error
    if (card.key, card.fleet) != (parties.helper, config.name):
        raise ConfigError(
            f"{folder.helper_card} is of another helper than helper.key in fleet.toml",
            hint="devices pin the helper's key: another helper is another fleet",
        )
    return stack.enter_context(HttpsLink(card, parties, key, patience_seconds=0.0))  # the operation asks again


def _ends_at(certificate: Path) -> float:
    return last_moment(certificate).timestamp()


def _freeze(folder: FleetFolder, config: FleetConfig) -> None:
    """Hold a run to the settings that it began with: its noise was sized for them, and devices were told.

    Raises
    ------
    RunError
        If fleet.toml says something else now.
    """
    path = folder.run / "settings.json"
    now = json.loads(config.model_dump_json(exclude=_NOT_OF_THE_RUN))
    if not path.exists():
        files.replace(path, json.dumps(now, indent=1).encode(), mode=files.SHARED)
        return
    try:
        then = json.loads(path.read_bytes())
    except ValueError as error:
        raise RunError(f"{path} is damaged", hint="restore it from a backup") from error
    changed = sorted(name for name in {*now, *then} if now.get(name) != then.get(name))
    if changed:
        raise ConfigError(
            f"fleet.toml has changed since the run began: {', '.join(changed)}",
            hint="undo the change; other settings are for another run: palate server new-run, once this one is over",
        )
