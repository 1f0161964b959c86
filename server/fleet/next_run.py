"""The next run of a fleet: the same keys, people, register and ledgers, from the last table, with today's catalogue.

What a run leaves is moved to `runs/NAME/`, and what the next one begins with is prepared in `next/`, which appears all
at once. From then on the change is finished by whoever opens the folder, so a crash leaves the old run or the new one.
The table was released with noise: to start from it costs nobody any privacy. The next run's rounds cost anew.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from palate.data.options import ReadOptions
from palate.errors import RunError
from palate.models.arrays import BoolArray, IntegerArray
from palate.privacy import files
from palate.privacy.charging import ledger_name
from palate.privacy.ledger.body import Intent
from palate.privacy.ledger.verify import verify_ledger
from palate.server.coordinator import WarmStart
from palate.server.fleet.catalogue import counted_content, make_catalogue, read_catalogue
from palate.server.fleet.config import FleetConfig, checked_config, load_config, to_toml
from palate.server.fleet.folder import FleetFolder, read_key
from palate.server.fleet.state import FleetState, RoundStatus
from palate.server.fleet.transport.enrolment import Enrolment
from palate.server.ledger import SERVER
from palate.server.store import CHECKPOINT_FORMAT, read_tensors
from palate.server.values import merge, read_toml

START_FORMAT = "palate-start-table/1"
_OF_A_RUN = ("checkpoint.safetensors", "item_table.safetensors", "rounds.jsonl", "settings.json", "start.safetensors")
"""What a run leaves in run/; the public log beside them goes on from run to run."""


@dataclass(frozen=True)
class NextRun:
    """What was prepared.

    Attributes
    ----------
    run, before
        Names of the next run and of the one that is over.
    items, new, gone
        Items of the catalogue, and how many of them are new; and how many are no longer there.
    learned
        Items whose learned columns the run starts from.
    devices
        Devices that it is planned for.
    notes
        What was guessed or passed over in the file of items.
    """

    run: str
    before: str
    items: int
    new: int
    gone: int
    learned: int
    devices: int
    notes: tuple[str, ...]


def begin_next_run(
    folder: FleetFolder,
    given: Mapping[str, Any],
    *,
    catalogue: Path | None = None,
    read: ReadOptions | None = None,
    unfinished: bool = False,
) -> NextRun:
    """Prepare the next run, and put it in the place of the one that is over.

    Parameters
    ----------
    folder
        The fleet's; no server runs it.
    given
        Settings of fleet.toml that differ from the last run's, nested. The number of devices is that of the enrolled
        unless it is given.
    catalogue
        The list of items, where it has changed.
    read
        Column names of that file; what is None is guessed.
    unfinished
        Whether the last run may be cut short.

    Raises
    ------
    RunError
        If a server runs the fleet, or its run is under way.
    ConfigError, DataError, PrivacyError
        If a setting cannot be used, the catalogue cannot be read, or no noise meets the budget.
    """
    folder.require()
    with folder.locked():
        finish(folder)
        config = load_config(folder.config)
        _require_over(folder, config.run, 1 + config.schedule.rounds, unfinished=unfinished)
        draft = folder.root / f".next.{secrets.token_hex(4)}.tmp"
        draft.mkdir(mode=0o700)
        try:
            made = _prepare(folder, draft, given, catalogue, read)
            draft.replace(folder.next)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        finish(folder)
        with closing(FleetState(folder.state)) as state:
            state.forgive_losses()
    return made


def finish(folder: FleetFolder) -> None:
    """Finish a change of runs that was begun; does nothing where none was. Each step may be repeated."""
    if not folder.next.is_dir():
        return
    staged = folder.next / folder.config.name
    if staged.exists():  # else all but the folder itself is done
        archive = folder.runs / load_config(folder.config).run
        archive.mkdir(parents=True, exist_ok=True)
        for name in _OF_A_RUN:
            if (folder.run / name).exists():
                (folder.run / name).replace(archive / name)
        for kept in (folder.config, folder.catalogue):
            if not (archive / kept.name).exists():
                files.replace(archive / kept.name, kept.read_bytes(), mode=files.SHARED)
        files.replace(folder.catalogue, (folder.next / folder.catalogue.name).read_bytes())
        staged.replace(folder.config)
    if (start := folder.next / folder.start.name).exists():
        start.replace(folder.start)
    shutil.rmtree(folder.next)


def read_start(path: Path) -> WarmStart | None:
    """Read what a run takes over from the one before; None for a fleet's first run.

    Raises
    ------
    RunError
        If the file is damaged.
    """
    if not path.exists():
        return None
    arrays, _ = read_tensors(path, START_FORMAT)
    return WarmStart(arrays["popularity"], arrays["learned"])


def promised_in_all(folder: FleetFolder, config: FleetConfig) -> float:
    """Return the epsilon, at the run's delta, of a person who takes part in all runs, this one to its end included."""
    promise, nano = config.promise, config.promise.policy(smallest_cohort=config.cohort.smallest).budget_nano
    if folder.ledger.exists():
        name = ledger_name(SERVER, promise.unit)
        record = verify_ledger(folder.ledger, name, read_key(folder.server_key).public_key(), allow_open=True)
        nano += sum(each.charge_nano for each in record.events if isinstance(each, Intent) and each.run != config.run)
    return promise.meter.epsilon(nano, config.delta)


def _require_over(folder: FleetFolder, run: str, planned: int, *, unfinished: bool) -> None:
    with closing(FleetState(folder.state)) as state:
        opened, rounds = state.unfinished(), state.rounds(run)
    if opened is not None:
        raise RunError(f"round {opened.number} of run {run} is open", hint="finish it first: palate server resume")
    applied = sum(each.status is RoundStatus.DONE for each in rounds)
    if applied < planned and not unfinished:
        raise RunError(
            f"run {run} is under way: {applied} of {planned} rounds are done",
            hint="go on with palate server start, or end the run as it is with --unfinished",
        )


def _prepare(
    folder: FleetFolder, draft: Path, given: Mapping[str, Any], catalogue: Path | None, read: ReadOptions | None
) -> NextRun:
    """Write catalogue, settings and starting table of the next run into a folder."""
    before, old = load_config(folder.config), read_catalogue(folder.catalogue)[0]
    target, notes = draft / folder.catalogue.name, tuple[str, ...]()
    if catalogue is None:
        items = old
        files.replace(target, folder.catalogue.read_bytes())
    else:
        items, notes = make_catalogue(catalogue, target, read)
    rows = np.array([old.rows.get(key, -1) for key in items.ids], dtype=np.int64)  # [num_items], -1 for new items
    start = _start(folder, rows)
    with closing(Enrolment(folder.enrolment)) as enrolment:
        enrolled = len(enrolment.nodes())
    counted = {
        "run": f"{before.name}-{secrets.token_hex(4)}",
        "content": counted_content(items, before.content),
        "cohort": {"devices": enrolled} if enrolled > 1 else {},
        "schedule": {} if start is None else {"dim": start.learned.shape[1]},  # the table goes on with its width
    }
    asked = merge(merge(read_toml(folder.config, missing="palate server init"), counted), given)
    config = checked_config(asked)
    config.server_settings()  # refuses a budget that no noise meets
    if start is not None:
        arrays = {"popularity": start.popularity, "learned": start.learned}
        files.replace(draft / folder.start.name, save(arrays, {"format": START_FORMAT, "run": before.run}))
    files.replace(draft / folder.config.name, to_toml(asked).encode(), mode=files.SHARED)
    new = int(np.count_nonzero(rows < 0))
    return NextRun(
        run=config.run,
        before=before.run,
        items=items.num_items,
        new=new,
        gone=old.num_items - (items.num_items - new),
        learned=0 if start is None else int(np.count_nonzero(start.known)),
        devices=config.cohort.devices,
        notes=notes,
    )


def _start(folder: FleetFolder, rows: IntegerArray) -> WarmStart | None:
    """Take the last table's rows to where they are in the next catalogue; None where no round has made one."""
    last, path = read_start(folder.start), folder.run / "checkpoint.safetensors"
    if path.exists():
        arrays, _ = read_tensors(path, CHECKPOINT_FORMAT)
        last = WarmStart(arrays["fixed"][:, 0], arrays["learned"])
    if last is None:
        return None
    known: BoolArray = rows >= 0
    zero = np.float32(0.0)
    return WarmStart(np.where(known, last.popularity[rows], zero), np.where(known[:, None], last.learned[rows], zero))
