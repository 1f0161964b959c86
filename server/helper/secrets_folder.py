"""The private halves of round keys: one file each, in no backup, overwritten before it is removed.

They lie apart from the ledger, so that a backup of the ledger holds none of them: whoever has the private key of a
round that was answered, and what its devices sent to the leader, reads each of their vectors.

A file is overwritten in place. A disk that writes elsewhere (flash, copy-on-write file systems, snapshots) may keep the
old block for a while: encrypt the medium, and take no snapshots of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from palate.errors import EnvironmentProblem
from palate.privacy import files
from palate.privacy.aggregators.sealing import RoundSecret, Suite
from palate.privacy.ledger.framing import HASH_SIZE

_ENDING = ".key"
_TAG_FILE = "CACHEDIR.TAG"
_TAG_TEXT = b"Signature: 8a477f597d28d172789f06886806bc55\n# Round keys of a palate helper: never back them up.\n"
"""Backup programs leave out folders with this file in them (bford.info/cachedir)."""


class RoundSecrets:
    """The folder of private halves.

    Parameters
    ----------
    folder
        Made if it is not there, for its owner's eyes only.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (folder / _TAG_FILE).exists():
            files.replace(folder / _TAG_FILE, _TAG_TEXT)

    def put(self, round_key_hash: bytes, secret: RoundSecret) -> None:
        """Write a private half; on disk when this returns.

        Raises
        ------
        EnvironmentProblem
            If it cannot be written.
        """
        try:
            files.create(self._path(round_key_hash), bytes([secret.suite]) + secret.private)
        except OSError as error:
            raise EnvironmentProblem(
                f"a round key cannot be written: {error.strerror}", hint="free some disk space"
            ) from None

    def get(self, round_key_hash: bytes) -> RoundSecret | None:
        """Return a private half, or None where it is not there, or half overwritten."""
        try:
            written = self._path(round_key_hash).read_bytes()
        except FileNotFoundError:
            return None
        if not written or written[0] not in tuple(Suite):
            return None
        return RoundSecret(Suite(written[0]), written[1:])

    def destroy(self, round_key_hash: bytes) -> None:
        """Overwrite and remove a private half; nothing where there is none."""
        path = self._path(round_key_hash)
        if path.exists():
            _shred(path)

    def hashes(self) -> Iterator[bytes]:
        """Yield the hashes of the round keys whose private halves are here."""
        for path in sorted(self._folder.glob(f"{'?' * 2 * HASH_SIZE}{_ENDING}")):
            with suppress(ValueError):  # not ours
                yield bytes.fromhex(path.stem)

    def sweep_drafts(self) -> None:
        """Destroy what a crash has left half written."""
        for path in self._folder.glob(".*.tmp"):
            _shred(path)

    def _path(self, round_key_hash: bytes) -> Path:
        return self._folder / f"{round_key_hash.hex()}{_ENDING}"


def _shred(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
    files.sync_folder(path.parent)
