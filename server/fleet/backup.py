"""Backup and restore of a fleet's folder: what belongs together, as it was at one moment, also while the server runs.

A copy is of one moment if the server could have been killed there. A round writes its files in a known order, so those
that it writes last are copied first; and where a round begins, changes its status or ends between the first copy and
the last, all is copied again. A restored folder is checked before it appears, as one in which a server starts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from palate.errors import PalateError, RunError
from palate.privacy.aggregators.messages import Request
from palate.privacy.ledger.heads import NOTES_SUFFIX
from palate.server.archive import Contents, archive_in, files_in, restoring, write_archive
from palate.server.fleet.books_check import check_agreement, check_books, check_whole
from palate.server.fleet.config import load_config
from palate.server.fleet.folder import FleetFolder, read_key, read_public_key
from palate.server.fleet.spool import reports_in, spool_name
from palate.server.fleet.state import FleetState
from palate.server.fleet.summary import status_of
from palate.server.fleet.transparency import TransparencyLog
from palate.server.fleet.watching import Happening, RoundEnded
from palate.server.store import RunStore

log = logging.getLogger(__name__)

KIND: Final = "server"
_LEFT_OUT: Final = {Path("device-heads")}
"""With old ones, devices that went on would be refused (`palate.server.fleet.device_heads`)."""
_ATTEMPTS, _PAUSE_SECONDS = 20, 0.5


@dataclass(frozen=True)
class Restored:
    """What was restored.

    Attributes
    ----------
    contents
        The backup's own list.
    status
        Of the fleet, as `palate.server.fleet.summary.status_of` has it.
    """

    contents: Contents
    status: dict[str, Any]


def back_up(
    folder: FleetFolder,
    target: Path,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Path, Contents]:
    """Write a backup of a fleet, whether its server runs or not; return the file, and what is in it.

    Parameters
    ----------
    folder
        The fleet's.
    target
        The file, which is replaced; or a folder, in which it is named after the fleet and the time.
    clock, sleep
        Seconds since 1970, and how to wait.

    Raises
    ------
    ConfigError
        If it is not the folder of a fleet, or the target is in it.
    RunError
        If rounds begin and end too fast for a copy of one moment, or fleet.sqlite is damaged.
    EnvironmentProblem
        If the backup cannot be written.
    """
    folder.require()
    now = clock()
    target = archive_in(target, folder.root, load_config(folder.config).name, now)
    with ExitStack() as stack:
        if not folder.is_locked():
            stack.enter_context(folder.locked())  # nobody starts a server, or a next run, meanwhile
        for _ in range(_ATTEMPTS):
            moment = _moment(folder)
            names = sorted(set(files_in(folder.root)) - _LEFT_OUT, key=lambda name: (_rank(name), name))
            fleet = load_config(folder.config).name
            contents = write_archive(target, folder.root, names, kind=KIND, fleet=fleet, now=now)
            if _moment(folder) == moment:
                return target, contents
            sleep(_PAUSE_SECONDS)
    target.unlink()
    raise RunError(
        f"{folder.root}: rounds begin and end while they are copied", hint="try again when a round is under way"
    )


@dataclass(frozen=True)
class BackupWatcher:
    """Writes a backup whenever a round has ended; one that cannot be written stops no round.

    Attributes
    ----------
    folder, target
        As of `back_up`.
    tell
        Told in words of a backup that could not be written.
    """

    folder: FleetFolder
    target: Path
    tell: Callable[[str], None]

    def __call__(self, happening: Happening) -> None:
        """Write one, if a round has ended."""
        if not isinstance(happening, RoundEnded):
            return
        try:
            back_up(self.folder, self.target)
        except PalateError as error:
            log.warning("no backup was written after round %d: %s", happening.round.number, error.message)
            self.tell(f"warning: {error.message}; the next round tries again")


def restore(source: Path, folder: FleetFolder) -> Restored:
    """Restore a backup into a folder that is empty or not there yet; it appears once all is checked.

    Raises
    ------
    ConfigError
        If the folder is not empty, or the file is no backup of a server.
    RunError
        If the backup is damaged, or its files do not belong together.
    PalateError
        If a key, a card or a setting in it cannot be used.
    """
    with restoring(source, folder.root, kind=KIND) as (draft, contents):
        check_folder(FleetFolder(draft))
        status = status_of(FleetFolder(draft))
    return Restored(contents, status)


def check_folder(folder: FleetFolder) -> None:
    """Check that keys, ledger, rounds, table, log and spool of a folder belong together.

    Raises
    ------
    RunError
        If they do not, or one is damaged.
    """
    folder.require()
    config, signer = load_config(folder.config), read_key(folder.server_key)
    if folder.ledger_key.exists() and read_public_key(folder.ledger_key) != signer.public_key():
        raise RunError(f"{folder.server_key} is not the key of the ledger", hint="restore both from one backup")
    check_whole(folder.state, folder.ledger, *folder.nodes.glob("*.sqlite"))
    with closing(FleetState(folder.state)) as state:
        charged = check_books(folder.ledger, state, signer.public_key())
        snapshot = RunStore(folder.run).load({"run": config.run})
        check_agreement(
            config.run,
            state.rounds(),
            charged=charged,
            last_in_table=None if snapshot is None else snapshot.server_round,
            log=TransparencyLog(folder.log, config.name, signer),
        )
        unfinished = state.unfinished()
        collection = None if unfinished is None else state.collection(unfinished.number)
        if unfinished is None or collection is None or collection.request is None:
            return
        asked, here = Request.from_bytes(collection.request), reports_in(folder.spools / spool_name(unfinished.number))
        if len(asked.records) != here:
            raise RunError(
                f"{here} reports of round {unfinished.number} are in spool/, the helper was asked about "
                f"{len(asked.records)}",
                hint="restore spool/ and fleet.sqlite from the same backup",
            )


def _moment(folder: FleetFolder) -> object:
    """Return what is the same for as long as no round begins, changes its status or ends, and no next run begins."""
    with closing(FleetState(folder.state)) as state:
        unfinished = state.unfinished()
        collection = None if unfinished is None else state.collection(unfinished.number)
        begun = tuple((each.number, each.status) for each in state.rounds())
    asked = None if collection is None else (collection.request, collection.answer)
    return folder.config.read_bytes(), folder.next.exists(), begun, asked


def _rank(name: Path) -> int:
    """Say when a file is copied: the later a round writes it, the earlier."""
    order = (
        name.name.endswith(NOTES_SUFFIX),  # written after the ledger
        name.parts[0] == "ledgers",
        name == Path("run", "log", "checkpoint"),  # written after the leaves
        name.parts[:2] == ("run", "log"),
        name == Path("run", "checkpoint.safetensors"),  # the table beside it is written before it; both may differ then
    )
    return order.index(True) if True in order else len(order)
