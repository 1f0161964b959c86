"""Where things lie in a fleet's folder, and the keys in it.

    fleet.toml           what the operator decides
    catalogue.parquet    the public list of items
    keys/                signing keys of server and authority, certificates (0700, files 0600)
    nodes/               who belongs to the fleet (`palate.server.fleet.transport.enrolment`)
    fleet.sqlite         rounds, messages, and the wish to stop
    spool/               with a helper: reports of the open round
    device-heads         with a helper: each device's newest report; in no backup
    helper/              with a helper that is asked by files: questions and replies
    leader.card          with a helper: what its operator needs (palate helper trust)
    run/                 checkpoint, item table, rounds.jsonl, log/ (the public record of rounds)
    runs/                what earlier runs left, by name: settings, catalogue, checkpoint, item table, rounds
    next/                a next run that is being put in place (`palate.server.fleet.next_run`)
    ledgers/             what was charged: server.sqlite, public.key
    server.jsonl         what happened, one JSON object a line, without personal data

One process at a time runs a fleet: it holds a lock on the folder.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from palate.errors import ConfigError, EnvironmentProblem, RunError
from palate.privacy import files

_ATTEMPTS, _PAUSE_SECONDS = 5, 0.1


@dataclass(frozen=True)
class FleetFolder:
    """The folder of one fleet."""

    root: Path

    @property
    def config(self) -> Path:
        """What the operator decides."""
        return self.root / "fleet.toml"

    @property
    def catalogue(self) -> Path:
        """The public list of items."""
        return self.root / "catalogue.parquet"

    @property
    def state(self) -> Path:
        """Rounds and messages."""
        return self.root / "fleet.sqlite"

    @property
    def nodes(self) -> Path:
        """Folder of the list of devices that are or were enrolled."""
        return self.root / "nodes"

    @property
    def invitations(self) -> Path:
        """Public halves of one-time codes, and who used them."""
        return self.nodes / "invitations.sqlite"

    @property
    def enrolment(self) -> Path:
        """The list itself."""
        return self.nodes / "fleet.sqlite"

    @property
    def keys(self) -> Path:
        """Folder of secrets and certificates."""
        return self.root / "keys"

    @property
    def server_key(self) -> Path:
        """Ed25519 key that signs offers, receipts, the log and the ledger."""
        return self.keys / "server.key"

    @property
    def authority_key(self) -> Path:
        """Ed25519 key that certifies devices; absent where somebody else holds it."""
        return self.keys / "authority.key"

    @property
    def authority_public_key(self) -> Path:
        """The public half, which devices pin."""
        return self.keys / "authority.pub"

    @property
    def helper_card(self) -> Path:
        """What the helper's operator gave: its key, address and certificate; absent in a fleet of peers."""
        return self.keys / "helper.card"

    @property
    def leader_card(self) -> Path:
        """What the helper's operator is given."""
        return self.root / "leader.card"

    @property
    def device_heads(self) -> Path:
        """The newest report of each device, under two aggregators (`palate.server.fleet.device_heads`)."""
        return self.root / "device-heads"

    @property
    def spools(self) -> Path:
        """Reports of the open round, with a helper."""
        return self.root / "spool"

    @property
    def helper_files(self) -> Path:
        """Questions and replies of a helper that is asked by files."""
        return self.root / "helper"

    @property
    def run(self) -> Path:
        """Checkpoint, item table and rounds."""
        return self.root / "run"

    @property
    def start(self) -> Path:
        """What the run takes over from the one before; absent in a fleet's first run."""
        return self.run / "start.safetensors"

    @property
    def runs(self) -> Path:
        """What earlier runs left, by name."""
        return self.root / "runs"

    @property
    def next(self) -> Path:
        """What the next run begins with, while it is put in place."""
        return self.root / "next"

    @property
    def log(self) -> Path:
        """The public record of rounds."""
        return self.run / "log"

    @property
    def ledger(self) -> Path:
        """What was charged."""
        return self.root / "ledgers" / "server.sqlite"

    @property
    def ledger_key(self) -> Path:
        """Public key of the ledger, for those who verify it."""
        return self.root / "ledgers" / "public.key"

    @property
    def events(self) -> Path:
        """What happened, for people and programs that watch the server."""
        return self.root / "server.jsonl"

    def authority_is_separate(self, stated: bool) -> bool:
        """Whether others may be said to enrol devices: the operator states it, and their key does not lie here."""
        return stated and not self.authority_key.exists()

    def require(self) -> None:
        """Check that this is the folder of a fleet.

        Raises
        ------
        ConfigError
            If it is not.
        """
        if not self.config.exists():
            raise ConfigError(
                f"{self.root} is not the folder of a fleet", hint="make one with palate server init, or give --folder"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder alone, as long as this process runs.

        Raises
        ------
        RunError
            If another server runs this fleet.
        """
        busy = RunError(f"{self.root}: another palate server runs this fleet", hint="stop it first: palate server stop")
        with held(self._lock, busy):
            yield

    def is_locked(self) -> bool:
        """Whether a server runs this fleet."""
        return is_held(self._lock)

    @property
    def _lock(self) -> Path:
        return self.root / "fleet.lock"


@contextmanager
def held(lock: Path, busy: RunError) -> Iterator[None]:
    """Hold a folder alone by a lock on a file in it; raises `busy` where another process holds it."""
    with lock.open("a") as file:
        for left in range(_ATTEMPTS)[::-1]:  # whoever only looks holds it for a moment
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not left:
                    raise busy from None
                time.sleep(_PAUSE_SECONDS)
        yield


def is_held(lock: Path) -> bool:
    """Whether a process holds a folder by this file."""
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def make_key(path: Path) -> Ed25519PrivateKey:
    """Make an Ed25519 key and write it as hexadecimal digits, for its owner's eyes only.

    Raises
    ------
    ConfigError
        If there is a file already: a key that devices pin is never replaced.
    EnvironmentProblem
        If it cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            files.create(path, f"{key.private_bytes_raw().hex()}\n".encode("ascii"))
        except FileExistsError:
            raise ConfigError(f"{path} is there already", hint="keep it, or choose another folder") from None
    except OSError as error:  # a file in the place of the folder, too
        raise EnvironmentProblem(f"{path} cannot be written: {error.strerror}", hint="choose another folder") from None
    return key


def read_key(path: Path) -> Ed25519PrivateKey:
    """Read a key.

    Raises
    ------
    RunError
        If it is missing or damaged.
    """
    return Ed25519PrivateKey.from_private_bytes(_read_hex(path))


def write_public_key(path: Path, key: Ed25519PublicKey) -> None:
    """Write a public key as hexadecimal digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.replace(path, key.public_bytes_raw().hex().encode("ascii") + b"\n", mode=files.SHARED)


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Read a public key; raises as `read_key`."""
    return Ed25519PublicKey.from_public_bytes(_read_hex(path))


def _read_hex(path: Path) -> bytes:
    try:
        raw = bytes.fromhex(path.read_text(encoding="ascii").strip())
        if len(raw) != 32:
            raise ValueError(f"{len(raw)} bytes")
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing", hint="restore it from a backup; a new key is a new fleet") from error
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is not a key", hint="restore it from a backup") from error
    return raw
