"""Private files: readable by their owner alone, never through a link, and overwritten before they go.

`palate.privacy.files` makes them, whole; here they are checked, read and destroyed.

What guards against a symbolic link is the open itself (O_NOFOLLOW) and what guards against loose rights is fstat of the
file that was opened: a check of the path beforehand could be outrun.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from palate.client.vault.errors import LooseFile
from palate.privacy import files as whole

FILE_MODE = whole.PRIVATE
FOLDER_MODE = 0o700
_OTHERS_WRITE = 0o022
_OTHERS_ANYTHING = 0o077
_SAFE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # O_NONBLOCK: a FIFO in the way must not hang us
_SHRED_CHUNK = 1 << 20


def own_folder(folder: Path, *, make: bool = False) -> None:
    """Check that a folder is the user's and that nobody else may put files into it.

    Parameters
    ----------
    folder
        The folder.
    make
        Whether to create it, for its owner alone, if it is not there.

    Raises
    ------
    LooseFile
        If it belongs to somebody else, or others may write in it.
    OSError
        If it cannot be made or is not a folder.
    """
    if make and not folder.exists():
        folder.mkdir(parents=True, mode=FOLDER_MODE, exist_ok=True)
        folder.chmod(FOLDER_MODE)  # whatever the umask took away
    found = folder.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    _check_owner(folder, found)
    if found.st_mode & _OTHERS_WRITE:
        raise LooseFile(
            f"{folder} has mode {stat.S_IMODE(found.st_mode):04o}, others may write in it; 0755 is the most",
            hint=f"chmod 700 {folder}, after a look at what is in it",
        )


def check_private(path: Path) -> None:
    """Check that a path is a plain file of the user's, without rights for anybody else; raises as `read_private`."""
    _check_file(path, path.lstat())


def read_private(path: Path, limit: int) -> bytes:
    """Read at most `limit` bytes of a private file.

    Raises
    ------
    LooseFile
        If it is a link or no plain file, belongs to somebody else, or others have any right to it.
    FileNotFoundError
        If it is not there.
    """
    handle = _open(path, os.O_RDONLY)
    try:
        _check_file(path, os.fstat(handle))
        return os.read(handle, limit)
    finally:
        os.close(handle)


def shred(path: Path) -> None:
    """Overwrite a file with random bytes, wait for the disk, and remove it; nothing happens if it is not there.

    A disk or a file system that writes elsewhere than where it read keeps the old bytes: that is out of reach here.

    Raises
    ------
    LooseFile
        If it is a link or no plain file: what it names may not be ours to destroy.
    """
    try:
        handle = _open(path, os.O_WRONLY)
    except FileNotFoundError:
        return
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise _not_plain(path)
        left = found.st_size
        while left > 0:
            left -= os.write(handle, os.urandom(min(left, _SHRED_CHUNK)))
        os.fsync(handle)
    finally:
        os.close(handle)
    path.unlink(missing_ok=True)
    whole.sync_folder(path.parent)


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags | _SAFE)
    except OSError as error:
        # ELOOP says "a link" (EMLINK on BSDs); ENXIO is a FIFO without a reader.
        if error.errno in {errno.ELOOP, errno.EMLINK, errno.ENXIO}:
            raise _not_plain(path) from None
        raise


def _check_file(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise _not_plain(path)
    _check_owner(path, found)
    if found.st_mode & _OTHERS_ANYTHING:
        raise LooseFile(
            f"{path} has mode {stat.S_IMODE(found.st_mode):04o}, others have rights to it; {FILE_MODE:04o} is the most",
            hint=f"chmod 600 {path}; if others may have read it, forget this vault and begin a new one",
        )


def _check_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid != os.getuid():
        raise LooseFile(
            f"{path} belongs to user {found.st_uid}, this program runs as user {os.getuid()}",
            hint="run it as the owner, or choose a folder of your own",
        )


def _not_plain(path: Path) -> LooseFile:
    return LooseFile(
        f"{path} is a link or no plain file; a vault's files are plain",
        hint="find out who put it there, then remove it",
    )
