"""The device's folder: what lies where, and who may look at it.

Everything secret is in the vault (docs/formats/vault.md). Beside it lie the ledger, which holds no data but is nobody
else's business, and what is public: the catalogue, the last table and the certificate authority of the server.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from palate.errors import EnvironmentProblem, RunError

ENVIRONMENT = "PALATE_HOME"
NEW_WELCOME = "ask the operator for a new welcome"
"""What to do about a catalogue that cannot be used."""


def default_home() -> Path:
    """Return the folder that PALATE_HOME names, or the platform's place for a program's data."""
    named = os.environ.get(ENVIRONMENT)
    if named:
        return Path(named)
    from platformdirs import user_data_path

    return user_data_path("palate", appauthor=False) / "device"


@dataclass(frozen=True)
class DeviceFolder:
    """Paths of one device.

    Attributes
    ----------
    home
        The folder; private to its owner.
    """

    home: Path

    @property
    def vault(self) -> Path:
        """Folder of the vault."""
        return self.home / "vault"

    @property
    def ledger(self) -> Path:
        """The device's ledger file."""
        return self.home / "ledger.sqlite"

    @property
    def public_key(self) -> Path:
        """The key that signs the ledger, 64 hexadecimal digits, where `palate audit ledger` looks for it."""
        return self.home / "public.key"

    @property
    def catalogue(self) -> Path:
        """The fleet's public catalogue."""
        return self.home / "catalogue.parquet"

    @property
    def table(self) -> Path:
        """The last item table that was verified."""
        return self.home / "table.safetensors"

    @property
    def authority(self) -> Path:
        """The certificate authority of the server, PEM."""
        return self.home / "authority.crt"

    @property
    def log(self) -> Path:
        """What happened, in words; for the owner's eyes."""
        return self.home / "client.log"

    @property
    def lock(self) -> Path:
        """What the one program holds that takes part in rounds; empty."""
        return self.home / "agent.lock"

    def make(self) -> None:
        """Make the folder, private to its owner.

        Raises
        ------
        EnvironmentProblem
            If it cannot be made, or is there and others have rights to it.
        """
        try:
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            mode = self.home.stat().st_mode & 0o777
        except OSError as error:
            raise EnvironmentProblem(
                f"{self.home} cannot be made: {error.strerror}", hint="choose another folder with --folder"
            ) from None
        if mode & 0o077:
            raise EnvironmentProblem(
                f"{self.home} has mode {mode:04o}, others can read it", hint=f"chmod 700 {self.home}"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only program that takes part in rounds with this folder; the lock ends with the process.

        Raises
        ------
        RunError
            If another one does already, or the folder is not there.
        """
        try:
            descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise RunError(
                f"{self.home} is no device's folder: {error.strerror}", hint="begin with: palate client init"
            ) from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RunError(
                    f"another program takes part in rounds with {self.home}", hint="end it first: one device, one agent"
                ) from None
            yield
        finally:
            os.close(descriptor)
