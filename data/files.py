"""Bytes of files: plain, gzipped, in a zip archive or a folder, each bounded before anything is unpacked.

A zip archive states how large its members are. All of that is checked first: the number of members, their unpacked
sizes alone and together, and how far each is compressed (Fifield 2019, "A better zip bomb", lists what a hostile one
can do). Reading stops at the stated size, whatever the archive holds. Nothing is ever written to disk.
"""

from __future__ import annotations

import gzip
import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Final

from palate.data.values import shorten
from palate.errors import DataError, EnvironmentProblem

MAX_MEMBERS: Final = 10_000
"""Files in an archive or a folder."""
MAX_RATIO: Final = 200
"""Unpacked size over packed size, from a size where it matters; exports of text reach 30."""
_RATIO_FROM = 1 << 20
_DECODED_FREELY = 1 << 25
"""As `_RATIO_FROM`, for the values of a file: a constant column is packed without end."""
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # the second is an empty archive
_ENTRY = b"PK\x01\x02"
"""Begins an entry of an archive's directory."""
_LEFT_OUT = frozenset(("__macosx", "deleted", "orphaned", "likes", "lists"))
"""Folders of archives that hold no history: of macOS, and Letterboxd's what was deleted, liked and listed."""
_ZIP_ERRORS = (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, EOFError, zlib.error, ValueError)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How large a file may be; it is checked before anything is unpacked or decoded.

    Attributes
    ----------
    max_bytes
        Of the file, and of what it unpacks to.
    max_rows
        Records in it.
    max_decoded_bytes
        Of its values in memory.
    """

    max_bytes: int = 1 << 40
    max_rows: int = 1 << 40
    max_decoded_bytes: int = 1 << 40

    def check_rows(self, name: str, rows: int) -> None:
        """Refuse a file with too many records; raises `DataError`."""
        if rows > self.max_rows:
            raise DataError(f"{name} has more than {self.max_rows:,} rows", hint="read it in parts")

    def check_bytes(self, name: str, size: int) -> None:
        """Refuse a file that is too large; raises `DataError`."""
        if size > self.max_bytes:
            raise DataError(f"{name} has more than {self.max_bytes:,} bytes", hint="read it in parts")

    def check_decoded(self, name: str, stored: int, decoded: int) -> None:
        """Refuse a file whose values take too much memory, or far more than data does; raises `DataError`.

        Parameters
        ----------
        name
            Of the file, for messages.
        stored, decoded
            Bytes of the file, and of its values.
        """
        if decoded > self.max_decoded_bytes or decoded > max(_DECODED_FREELY, MAX_RATIO * stored):
            raise DataError(
                f"{name} has {stored:,} bytes, and its values would take {decoded:,} bytes of memory",
                hint="no history or catalogue is like that; if you trust it, read it in parts, as CSV",
            )


UNLIMITED: Final = Limits()


def read_bytes(path: Path, limits: Limits = UNLIMITED) -> bytes:
    """Whole content of a file, unpacked where it is gzipped or alone in a zip archive.

    Raises
    ------
    DataError
        If there is no such file, or it is a folder, empty, damaged or too large.
    EnvironmentProblem
        If the file may not be read.
    """
    data = _stored(path, limits)
    if data.startswith(_ZIP):
        with _archive(path.name, data) as archive:
            members = [each for each in _members(path.name, archive) if "__MACOSX" not in each.filename]
            if len(members) != 1:
                inside = shorten([each.filename for each in members], 5)
                raise DataError(
                    f"{path.name} holds {len(members)} files: {inside}", hint="unpack it, and name one of them"
                )
            data = _unpacked(path.name, len(data), archive, members, limits)[0][1]
    return _not_empty(path.name, _gunzipped(path.name, data, limits))


def read_known_files(
    path: Path, is_known: Callable[[str], bool], limits: Limits = UNLIMITED
) -> tuple[list[tuple[str, bytes]], tuple[str, ...]]:
    """Files of an export: the known ones of a folder or a zip archive, or the one file itself.

    Parameters
    ----------
    path
        A file, a zip archive or a folder.
    is_known
        Whether a file of this name is to be read; asked for those in archives and folders.
    limits
        How large all files together may be.

    Returns
    -------
    tuple
        Names and contents, in the order of their names; and the names of those that were not read.

    Raises
    ------
    DataError
        As `read_bytes`; or if an archive or a folder holds too many files, too much, or none that is known.
    EnvironmentProblem
        If a file may not be read.
    """
    if path.is_dir():
        names = sorted(_names(path))
        known = [name for name in names if is_known(name.rpartition("/")[2])]
        limits.check_bytes(path.name, sum((path / name).stat().st_size for name in known))
        found = [(name, _gunzipped(name, _stored(path / name, limits), limits)) for name in known]
        return _known(path.name, found, names), tuple(name for name in names if name not in known)
    data = _stored(path, limits)
    if not data.startswith(_ZIP):
        return [(path.name, _not_empty(path.name, _gunzipped(path.name, data, limits)))], ()
    with _archive(path.name, data) as archive:
        members = sorted(_members(path.name, archive), key=lambda each: each.filename)
        names = [each.filename for each in members]
        usable = [each for each in members if _may_hold_history(each.filename)]
        chosen = [each for each in usable if is_known(each.filename.rpartition("/")[2])]
        chosen = usable if len(usable) == 1 else chosen
        found = _unpacked(path.name, len(data), archive, chosen, limits)
        found = [(name, _gunzipped(name, content, limits)) for name, content in found]
    chosen_names = {each.filename for each in chosen}
    return _known(path.name, found, names), tuple(name for name in names if name not in chosen_names)


def _known(name: str, found: list[tuple[str, bytes]], names: Sequence[str]) -> list[tuple[str, bytes]]:
    if not found:
        raise DataError(
            f"{name} holds no file that is known as an export; it has {shorten(names, 5) or 'nothing'}",
            hint="name the file inside it that has your history",
        )
    return found


def _may_hold_history(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return not (_LEFT_OUT & {part.casefold() for part in parts[:-1]}) and not parts[-1].startswith(".")


def _names(folder: Path) -> Iterator[str]:
    """Relative names of the files in a folder that may hold a history; links are not followed."""
    count = 0
    for base, folders, files in os.walk(folder):
        folders[:] = sorted(folders)
        for file in files:
            count += 1
            if count > MAX_MEMBERS:
                raise DataError(f"{folder.name} holds more than {MAX_MEMBERS:,} files", hint="name one of them")
            at = Path(base, file)
            name = at.relative_to(folder).as_posix()
            if _may_hold_history(name) and at.is_file() and not at.is_symlink():
                yield name


def _stored(path: Path, limits: Limits) -> bytes:
    """Content of a file, not unpacked."""
    try:
        limits.check_bytes(path.name, path.stat().st_size)
        with path.open("rb") as file:
            data = _read_at_most(file, limits.max_bytes + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"no such file: {path}", hint="check the path; palate data list shows the presets") from error
    except IsADirectoryError as error:
        raise DataError(f"{path} is a folder, not a file", hint="name the file inside it") from error
    except PermissionError as error:
        raise EnvironmentProblem(f"no permission to read {path}", hint="check the file's owner and mode") from error
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}", hint="check the path") from error
    limits.check_bytes(path.name, len(data))
    return data


def _gunzipped(name: str, data: bytes, limits: Limits) -> bytes:
    if not data.startswith(b"\x1f\x8b"):
        return data
    most = min(limits.max_bytes, max(_RATIO_FROM, MAX_RATIO * len(data)))
    try:
        size = 0  # first without keeping anything
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            while size <= most and (part := file.read(1 << 20)):
                size += len(part)
        limits.check_bytes(name, size)
        if size > most:
            raise _too_far_packed(name, len(data))
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name} is a damaged gzip file: {error}", hint="fetch or compress it again") from error


def _too_far_packed(name: str, packed: int, unpacked: int | None = None) -> DataError:
    size = "" if unpacked is None else f" to {unpacked:,} bytes"
    return DataError(
        f"{name} would unpack{size} from {packed:,} bytes, more than {MAX_RATIO} times as much",
        hint="no export is packed like that; if you trust it, unpack it yourself and name the file",
    )


def _not_empty(name: str, data: bytes) -> bytes:
    if not data.strip():
        raise empty_file(name)
    return data


def empty_file(name: str) -> DataError:
    """Error for a file without content."""
    return DataError(f"{name} is empty", hint="it needs a header line, and rows below it")


def _read_at_most(file: IO[bytes], size: int) -> bytes:
    parts, left = [], size
    while left and (part := file.read(min(left, 1 << 24))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


@contextmanager
def _archive(name: str, data: bytes) -> Iterator[zipfile.ZipFile]:
    if data.count(_ENTRY) > 2 * MAX_MEMBERS:  # the directory is read as a whole, some 500 bytes of memory an entry
        raise DataError(f"{name} holds more than {MAX_MEMBERS:,} files", hint="unpack it, and name one of them")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield archive
    except _ZIP_ERRORS as error:
        raise DataError(f"{name} is a zip archive that cannot be read: {error}", hint="unpack it first") from error


def _members(name: str, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Files in an archive; nothing is unpacked."""
    members = [each for each in archive.infolist() if not each.is_dir()]
    if any(each.filename == "[Content_Types].xml" for each in members):
        raise DataError(f"{name} is a spreadsheet", hint="save the sheet as CSV, then name that file")
    if len(members) > MAX_MEMBERS:
        raise DataError(f"{name} holds more than {MAX_MEMBERS:,} files", hint="unpack it, and name one of them")
    return members


def _unpacked(
    name: str, stored: int, archive: zipfile.ZipFile, members: Sequence[zipfile.ZipInfo], limits: Limits
) -> list[tuple[str, bytes]]:
    """Names and contents of some members, once all of their sizes have been checked."""
    limits.check_bytes(name, sum(each.file_size for each in members))
    if sum(each.compress_size for each in members) > stored:
        raise DataError(f"{name} has files that overlap", hint="no export is packed like that; unpack it yourself")
    for each in members:
        if each.file_size > _RATIO_FROM and each.file_size > MAX_RATIO * max(each.compress_size, 1):
            raise _too_far_packed(f"{name}: {each.filename}", each.compress_size, each.file_size)
    found = []
    for each in members:
        with archive.open(each) as file:
            content = _read_at_most(file, each.file_size + 1)
        limits.check_bytes(name, len(content))
        found.append((each.filename, content))
    return found
