"""Backup and restore of a helper's folder: settings, cards, keys and the ledger; never round keys, nor the anchor.

Round keys that came back would open rounds that were answered (`palate.server.helper.secrets_folder`), and an anchor
that came back with its ledger would vouch for an old one. So a restored helper answers no round whose key was made
before, and starts only where the anchor, which was kept elsewhere, has seen no newer ledger.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from palate.errors import RunError
from palate.server.archive import Contents, archive_in, files_in, restoring, write_archive
from palate.server.helper.cards import HelperCard
from palate.server.helper.folder import HelperFolder, open_book

KIND: Final = "helper"
_KEPT = {"helper.toml", "helper.card", "leader.card", "keys", "ledger"}
"""What a backup has; with "round-keys" and "anchor" it would be dangerous."""


@dataclass(frozen=True)
class Restored:
    """What was restored.

    Attributes
    ----------
    contents
        The backup's own list.
    answers
        Rounds that its ledger has answered.
    anchor
        Where the anchor is looked for.
    anchored
        Whether it is there, and agrees with the ledger.
    """

    contents: Contents
    answers: int
    anchor: Path
    anchored: bool


def back_up(folder: HelperFolder, target: Path, *, clock: Callable[[], float] = time.time) -> tuple[Path, Contents]:
    """Write a backup of a helper, whether it runs or not; return the file, and what is in it.

    Parameters
    ----------
    folder
        The helper's.
    target
        The file, which is replaced; or a folder, in which it is named after the fleet and the time.
    clock
        Seconds since 1970.

    Raises
    ------
    ConfigError
        If it is not the folder of a helper, or the target is in it.
    EnvironmentProblem
        If the backup cannot be written.
    """
    fleet, now = folder.load_config().fleet, clock()
    target = archive_in(target, folder.root, fleet, now)
    names = [name for name in files_in(folder.root) if name.parts[0] in _KEPT]
    return target, write_archive(target, folder.root, names, kind=KIND, fleet=fleet, now=now)


def restore(source: Path, folder: HelperFolder) -> Restored:
    """Restore a backup into a folder that is empty or not there yet; it appears once all is checked.

    Raises
    ------
    ConfigError
        If the folder is not empty, or the file is no backup of a helper.
    RunError, LedgerUnreadable, Tampered
        If the backup is damaged, or its files do not belong together.
    Rollback, Fork
        If the anchor is there and has seen a newer ledger, or another one.
    """
    with restoring(source, folder.root, kind=KIND) as (draft, contents):
        place = HelperFolder(draft)
        config = place.load_config()
        anchor = place.anchor(config)
        there = anchor.path.exists()
        with closing(open_book(place, config, anew=not there, alone=False)) as book:
            answers = book.head()[0]
        card = HelperCard.open(place.card.read_bytes())
        if card.key != anchor.key.public_key().public_bytes_raw() or card.fleet != config.fleet:
            raise RunError(f"{source}: helper.card is not of its key and fleet", hint="take another backup")
    return Restored(contents, answers, folder.root / config.anchor, there)
