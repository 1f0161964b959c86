"""A backup: one file with all that belongs together, and a list of what must be in it.

It is a tar archive whose last member, `backup.json`, has the length and the SHA-256 of every other. Databases of SQLite
are copied by SQLite, so that others may write to them meanwhile; every other file is copied as long as it was when it
was opened. Backups hold secret keys: their owner alone may read them.
"""

from __future__ import annotations

import json
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, Final

from palate.errors import ConfigError, EnvironmentProblem, RunError
from palate.privacy import files

FORMAT: Final = "palate-backup/1"
ENDING: Final = ".backup"
_CONTENTS = "backup.json"
_MOST_CONTENTS_BYTES = 1 << 24
_PIECE = 1 << 20
_PASSING = (".lock", "-wal", "-shm", "-journal")
"""Ends of names that mean nothing in another place: locks, and what SQLite keeps beside a database."""
_DAMAGED_HINT = "take another backup; this one was changed, or was copied in part"


@dataclass(frozen=True)
class Contents:
    """What a backup says of itself.

    Attributes
    ----------
    kind
        Of what it is a backup: "server" or "helper".
    fleet
        Name of the fleet.
    made_at
        When, in seconds since 1970.
    files
        Length and SHA-256 of each file, by its path in the folder.
    """

    kind: str
    fleet: str
    made_at: float
    files: dict[str, tuple[int, str]]

    @property
    def date(self) -> str:
        """When it was made, for people."""
        return f"{datetime.fromtimestamp(self.made_at, UTC):%Y-%m-%d %H:%M:%S} UTC"

    def to_json(self) -> bytes:
        """Write as JSON."""
        listed = {name: {"size": size, "sha256": digest} for name, (size, digest) in self.files.items()}
        values = {"format": FORMAT, "of": self.kind, "fleet": self.fleet, "made_at": self.made_at, "files": listed}
        return json.dumps(values, indent=1).encode()

    @staticmethod
    def from_json(data: bytes) -> Contents:
        """Read; raises ValueError, KeyError or TypeError where it is none."""
        values = json.loads(data)
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']!r} is not {FORMAT!r}")
        listed = {str(name): (int(each["size"]), str(each["sha256"])) for name, each in values["files"].items()}
        return Contents(str(values["of"]), str(values["fleet"]), float(values["made_at"]), listed)


def archive_in(target: Path, folder: Path, fleet: str, now: float) -> Path:
    """Name the file of a backup: the target, or one in it that is named after the fleet and the time.

    Raises
    ------
    ConfigError
        If it would lie in the folder that is backed up, or in one that is not there.
    """
    if target.is_dir():
        target = target / f"{fleet}-{datetime.fromtimestamp(now, UTC):%Y%m%d-%H%M%S}{ENDING}"
    if folder.resolve() in target.resolve().parents:
        raise ConfigError(f"{target} lies in the folder that it is a backup of", hint="keep it on another medium")
    if not target.parent.is_dir():
        raise ConfigError(f"{target.parent} is no folder", hint="make it first, or name another file")
    return target


def files_in(folder: Path) -> list[Path]:
    """List the files of a folder that mean something in another place, as paths within it, ordered by name."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sorted(
        path
        for path in found
        if not path.name.endswith(_PASSING) and not any(part.startswith(".") for part in path.parts)
    )


def write_archive(target: Path, folder: Path, names: Iterable[Path], *, kind: str, fleet: str, now: float) -> Contents:
    """Write a backup, whole or not at all.

    Parameters
    ----------
    target
        The file; an older one is replaced.
    folder
        What is backed up.
    names
        Paths within it, in the order in which they are copied; those that are gone by then are left out.
    kind, fleet, now
        For `Contents`.

    Raises
    ------
    EnvironmentProblem
        If a file cannot be read, or the backup cannot be written.
    """
    listed: dict[str, tuple[int, str]] = {}
    try:
        with (
            files.replacing(target) as file,
            tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            for name in names:
                with _opened_copy(folder / name, target.parent) as source:
                    if source is None:
                        continue
                    member = tarfile.TarInfo(name.as_posix())
                    member.size, member.mtime = source.size, int(now)
                    member.mode = (folder / name).stat().st_mode & 0o777
                    archive.addfile(member, source)
                    listed[member.name] = (source.size, source.digest)
            contents = Contents(kind, fleet, now, listed)
            data = contents.to_json()
            last = tarfile.TarInfo(_CONTENTS)
            last.size, last.mtime, last.mode = len(data), int(now), files.PRIVATE
            archive.addfile(last, BytesIO(data))
    except (OSError, sqlite3.Error) as error:
        raise EnvironmentProblem(f"the backup {target} cannot be written: {error}", hint="check the disk") from error
    return contents


def read_archive(source: Path, folder: Path, *, kind: str) -> Contents:
    """Write the files of a backup into a folder that is not there yet, and compare each with the list.

    Raises
    ------
    ConfigError
        If it is no backup, or one of another kind.
    RunError
        If a file is missing, was added or was changed.
    EnvironmentProblem
        If the folder cannot be written.
    """
    found: dict[str, tuple[int, str]] = {}
    contents: Contents | None = None
    try:
        folder.mkdir(mode=0o700, parents=True)
        with tarfile.open(source, mode="r:") as archive:
            for member in archive:
                data = archive.extractfile(member) if member.isreg() else None
                if data is None or not _is_inside(member.name) or member.name in found or contents is not None:
                    raise RunError(f"{source} holds {member.name!r}, which is in no backup", hint=_DAMAGED_HINT)
                if member.name == _CONTENTS:
                    contents = Contents.from_json(data.read(_MOST_CONTENTS_BYTES))
                    continue
                target = folder / member.name
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                found[member.name] = _copied(data, target, member.mode)
    except FileNotFoundError as error:
        raise ConfigError(f"{source} is not there", hint="check the path") from error
    except tarfile.TarError as error:
        raise RunError(f"{source} is no backup, or is damaged: {error}", hint=_DAMAGED_HINT) from error
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{source}: its {_CONTENTS} is damaged: {error}", hint=_DAMAGED_HINT) from error
    except OSError as error:
        raise EnvironmentProblem(f"{source} cannot be restored: {error}", hint="check the disk") from error
    if contents is None or contents.files != found:
        listed = {} if contents is None else contents.files
        wrong = sorted(name for name in {*listed, *found} if listed.get(name) != found.get(name))
        what = ", ".join(wrong[:5]) if contents is not None else "its list of files is missing"
        raise RunError(f"{source} is damaged: {what}", hint=_DAMAGED_HINT)
    if contents.kind != kind:
        raise ConfigError(
            f"{source} is the backup of a {contents.kind}", hint=f"restore it with palate {contents.kind} restore"
        )
    return contents


@contextmanager
def restoring(source: Path, folder: Path, *, kind: str) -> Iterator[tuple[Path, Contents]]:
    """Yield a draft of the folder with a backup's files in it; once the context ends without an error it is the folder.

    Raises
    ------
    ConfigError
        If something is in the folder already; further as `read_archive`.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is not empty", hint="restore into a folder that is empty, or not there yet")
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.absolute().parent) as place:
        draft = Path(place) / folder.name
        contents = read_archive(source, draft, kind=kind)
        yield draft, contents
        for path in draft.rglob("*"):
            if path.is_dir():
                files.sync_folder(path)
        if folder.exists():
            folder.rmdir()
        draft.rename(folder)
        files.sync_folder(folder.absolute().parent)


class _Hashed:
    """Reads a file to the length that it had when it was opened, and hashes what was read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash = file, sha256()
        self.size = file.seek(0, 2)
        file.seek(0)

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(size)
        self._hash.update(piece)
        return piece

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


@contextmanager
def _opened_copy(path: Path, place: Path) -> Iterator[_Hashed | None]:
    """Open a file to be copied; a database as SQLite copies it; None where it is gone."""
    if not path.exists():
        yield None
    elif path.suffix != ".sqlite":
        with path.open("rb") as file:
            yield _Hashed(file)
    else:
        with tempfile.TemporaryDirectory(prefix=".backup.", dir=place) as draft:
            copy = Path(draft) / path.name
            uri = f"{path.absolute().as_uri()}?mode=ro"
            with closing(sqlite3.connect(uri, uri=True)) as live, closing(sqlite3.connect(copy)) as target:
                live.backup(target)
            with copy.open("rb") as file:
                yield _Hashed(file)


def _copied(source: IO[bytes], target: Path, mode: int) -> tuple[int, str]:
    """Write a member to disk; return its length and its SHA-256."""
    digest, size = sha256(), 0
    with files.replacing(target) as file:
        while piece := source.read(_PIECE):
            file.write(piece)
            digest.update(piece)
            size += len(piece)
    target.chmod(mode & 0o777)
    return size, digest.hexdigest()


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts
