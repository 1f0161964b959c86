"""Write a file whole or not at all, and on disk before the call returns. Everything in Palate uses this module.

A file gets its name when it is complete: a new file by a hard link, which replaces nothing and follows no link, a
replacement by renaming. After a crash or a power cut there is the old state or the new one, and at most a draft
`.NAME.*.tmp` in the same folder. Where a file system has no hard links, a new file is written under its own name, and
only a crash in the middle of that leaves a part of it.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PRIVATE = 0o600
"""Mode of a file that only its owner may read, whatever the umask."""
SHARED = 0o666
"""Mode of a file that others may read as far as the umask lets them."""
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
"""What file systems without hard links answer: FAT, some that are mounted from elsewhere."""
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def create(path: Path, content: bytes, *, mode: int = PRIVATE) -> None:
    """Write a file that does not exist yet.

    Parameters
    ----------
    path, content
        Where, and what.
    mode
        `PRIVATE` or `SHARED`.

    Raises
    ------
    FileExistsError
        If something has that name; a link counts.
    OSError
        If it cannot be written or synced; nothing of that name is left then.
    """
    with _opened(path.parent) as folder:  # before anything is written: without it the write cannot be made durable
        draft = _draft_of(path)
        _write_new(draft, content, mode)
        try:
            os.link(draft, path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _write_new(path, content, mode)
        finally:
            draft.unlink(missing_ok=True)
        try:
            os.fsync(folder)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def replace(path: Path, content: bytes, *, mode: int = PRIVATE) -> None:
    """Write a file, in place of an older one if there is one; a link is replaced, not followed.

    Raises
    ------
    OSError
        If it cannot be written; it names `path`, not the draft. The old file is untouched then, unless the disk failed
        while the new name reached it.
    """
    with replacing(path, mode=mode) as file:
        file.write(content)


@contextmanager
def replacing(path: Path, *, mode: int = PRIVATE) -> Iterator[BinaryIO]:
    """Write a file piece by piece: it takes the place of an older one once the context ends without an error.

    Raises
    ------
    OSError
        As `replace`.
    """
    draft = _draft_of(path)
    try:
        with _opened(path.parent) as folder:
            try:
                with _new(draft, mode) as file:
                    yield file
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)
            os.fsync(folder)
    except OSError as error:
        if error.filename is not None and Path(error.filename) not in (draft, path.parent):
            raise  # of something else that the caller read or wrote
        raise OSError(error.errno, error.strerror, str(path)) from error


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk."""
    with _opened(folder) as descriptor:
        os.fsync(descriptor)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _draft_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def _write_new(path: Path, content: bytes, mode: int) -> None:
    with _new(path, mode) as file:
        file.write(content)


@contextmanager
def _new(path: Path, mode: int) -> Iterator[BinaryIO]:
    """Open a file that does not exist yet; on disk when the context ends, or gone if it ends with an error."""
    descriptor = os.open(path, _NEW, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if mode == PRIVATE:
                os.fchmod(descriptor, mode)
            yield file
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
