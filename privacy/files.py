"""Files that are there as a whole or not at all, and on disk before anybody goes on: keys, ledgers' neighbours, tables.

What is written gets its name when it is whole: a new file by a hard link, which takes nobody's place and follows no
link, a replacement by renaming. After a crash or a power cut there is the old state or the new one, and at most a draft
`.NAME.*.tmp` beside it.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

PRIVATE = 0o600
"""For its owner's eyes only, whatever the umask."""
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def create(path: Path, content: bytes, *, mode: int = PRIVATE) -> None:
    """Write a file that is not there yet.

    Parameters
    ----------
    path, content
        Where, and what.
    mode
        Who may read and write it; if others may, as far as the umask lets them.

    Raises
    ------
    FileExistsError
        If something has that name; a link has, too.
    OSError
        If it cannot be written; nothing is left then.
    """
    draft = _drafted(path, content, mode)
    try:
        os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
        sync_folder(path.parent)


def replace(path: Path, content: bytes, *, mode: int = PRIVATE) -> None:
    """Write a file in the place of what is there, if anything is; a link is replaced, not followed.

    Raises
    ------
    OSError
        If it cannot be written; the old file is untouched then.
    """
    draft = _drafted(path, content, mode)
    try:
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _drafted(path: Path, content: bytes, mode: int) -> Path:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    descriptor = os.open(draft, _NEW, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if mode == PRIVATE:
                os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return draft
