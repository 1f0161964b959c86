"""Uploads of one round on disk until its sum is made: a file that only grows (`palate.privacy.aggregators.leader`).

Each record is the device's number, the length of the upload, a CRC-32 of both and the upload, and the upload (whose own
tag says that nobody changed it). What is not whole at the end is cut off: its device is asked for the same bytes again.
In memory there is the place of each record alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from zlib import crc32

from palate.errors import EnvironmentProblem
from palate.privacy import files

_HEADER = Struct(">QII")
_UNSYNCED = 64  # uploads that may be lost if the machine stops; to sync each costs more than all else about it


def spool_name(number: int | None) -> str:
    """Name of the file of a round."""
    return f"{number}.uploads"


class UploadSpool:
    """A `palate.privacy.aggregators.leader.Spool` in a file.

    Parameters
    ----------
    path
        The file; made if it is not there, readable by its owner only.

    Raises
    ------
    EnvironmentProblem
        If it cannot be opened or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[int, tuple[int, int]] = {}  # start of the upload, and its length
        self._end = 0
        self._unsynced = 0
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, files.PRIVATE)
            files.sync_folder(path.parent)
            self._read()
        except OSError as error:
            raise self._unusable(error) from error

    def put(self, device: int, upload: bytes) -> None:
        """Keep a device's upload.

        Raises
        ------
        EnvironmentProblem
            If the disk is full or broken; nothing of the upload counts then.
        """
        record = _HEADER.pack(device, len(upload), _checksum(device, upload)) + upload
        try:
            view, at = memoryview(record), self._end
            while view:
                written = os.pwrite(self._file, view, at)
                view, at = view[written:], at + written
        except OSError as error:
            os.ftruncate(self._file, self._end)
            raise self._unusable(error) from error
        self._places[device] = self._end + _HEADER.size, len(upload)
        self._end = at
        self._unsynced += 1
        if self._unsynced >= _UNSYNCED:
            self.sync()

    def sync(self) -> None:
        """Have every upload on disk when this returns.

        Raises
        ------
        EnvironmentProblem
            If the disk is broken.
        """
        try:
            os.fdatasync(self._file)
        except OSError as error:
            raise self._unusable(error) from error
        self._unsynced = 0

    def get(self, device: int, most: int | None = None) -> bytes | None:
        """Return a device's upload, or its first `most` bytes; None if it is not here."""
        place = self._places.get(device)
        if place is None:
            return None
        start, size = place
        return os.pread(self._file, size if most is None else min(size, most), start)

    def devices(self) -> Iterator[int]:
        """Yield the devices whose uploads are here, in the order in which they came."""
        return iter(self._places)

    def sizes(self) -> Iterator[tuple[int, int]]:
        """Yield each device with the bytes of its upload."""
        return ((device, size) for device, (_, size) in self._places.items())

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _read(self) -> None:
        """Find the records that are whole, and cut off what follows them."""
        size = os.fstat(self._file).st_size
        while self._end + _HEADER.size <= size:
            device, length, checksum = _HEADER.unpack(os.pread(self._file, _HEADER.size, self._end))
            start = self._end + _HEADER.size
            if start + length > size or _checksum(device, os.pread(self._file, length, start)) != checksum:
                break
            self._places[device] = start, length
            self._end = start + length
        os.ftruncate(self._file, self._end)

    def _unusable(self, error: OSError) -> EnvironmentProblem:
        return EnvironmentProblem(
            f"{self._path}: {error.strerror}", hint="free some space or mend the disk, then: palate server resume"
        )


def _checksum(device: int, upload: bytes) -> int:
    return crc32(upload, crc32(_HEADER.pack(device, len(upload), 0)))


def reports_in(path: Path) -> int:
    """Count the uploads of a spool that another process may be writing, without reading them."""
    count = at = 0
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            while at + _HEADER.size <= size:
                file.seek(at)
                _, length, _ = _HEADER.unpack(file.read(_HEADER.size))
                at += _HEADER.size + length
                count += at <= size
    except FileNotFoundError:
        return 0
    return count
