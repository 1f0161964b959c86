"""Files that are there as a whole or not at all, and on disk before anybody goes on: keys, ledgers' neighbours, tables.

A new file is never put in the place of another and never through a link; a replacement is written beside the old file
and renamed, so that after a crash there is the one or the other.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

PRIVATE = 0o600
"""For its owner's eyes only."""
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def create(path: Path, content: bytes, *, mode: int = PRIVATE) -> None:
    """Write a file that is not there yet.

    Parameters
    ----------
    path, content
        Where, and what.
    mode
        Who may read and write it, as far as the umask lets them.

    Raises
    ------
    FileExistsError
        If something has that name; a link has, too.
    OSError
        If it cannot be written; nothing is left then.
    """
    descriptor = os.open(path, _NEW, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def replace(path: Path, content: bytes, *, mode: int = PRIVATE) -> None:
    """Write a file in the place of what is there, if anything is; a link is replaced, not followed.

    Raises
    ------
    OSError
        If it cannot be written; the old file is untouched then.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    create(draft, content, mode=mode)
    try:
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
