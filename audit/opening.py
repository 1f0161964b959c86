"""Finds what there is to audit: the ledgers of a run folder, or one file, and the public key to verify them with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from palate.errors import ConfigError, RunError
from palate.simulation.report.files import damaged, exists, file_bytes, is_file
from palate.simulation.run_reader import locate_run

LEDGERS = "ledgers"
KEY_NAME = "public.key"
SERVER_BOOK = "server.sqlite"

BESIDE = (
    "The key is in the ledger's folder: anybody who could replace the ledger could replace the key. "
    "Give the key from elsewhere with --key."
)

_KEY_DIGITS = 64
_SQLITE = b"SQLite format 3\0"
_SUFFIX = ".sqlite"


@dataclass(frozen=True, kw_only=True)
class Key:
    """A public key and where it came from.

    Attributes
    ----------
    public
        Ed25519.
    origin
        Words for the reader.
    beside
        It was found in the ledger's folder, which proves less.
    """

    public: Ed25519PublicKey
    origin: str
    beside: bool

    @property
    def digits(self) -> str:
        """The key as 64 hexadecimal digits."""
        return self.public.public_bytes_raw().hex()


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is audited.

    Attributes
    ----------
    name
        Of the run or the file.
    run
        The run folder; None for a single file, of which no counterpart is known.
    folder
        Folder of the files.
    books
        Files of ledgers, the server's first.
    text
        A single exported ledger, in place of books.
    key
        What everything must be signed with.
    """

    name: str
    run: Path | None
    folder: Path
    books: tuple[Path, ...]
    text: Path | None
    key: Key

    @property
    def finished(self) -> bool:
        """Whether the run has ended; a single file is taken as it is."""
        return self.run is None or is_file(self.run / "result.json")


def open_source(target: str, key: str | None = None) -> Source:
    """Find ledgers and their key.

    Parameters
    ----------
    target
        A run folder or its name under runs/, a file of ledgers (.sqlite), or an exported one.
    key
        64 hexadecimal digits, or a file that holds them; by default the one in the ledger's folder.

    Raises
    ------
    RunError
        If there is no such run or file, or the run keeps no ledgers.
    ConfigError
        If the key cannot be used, or none is given and none is in the folder.
    EnvironmentProblem
        If a file may not be read.
    """
    file = Path(target).expanduser()
    if target and is_file(file):
        is_book = file_bytes(file.parent, file.name, limit=len(_SQLITE)) == _SQLITE
        return Source(
            name=file.name,
            run=None,
            folder=file.parent,
            books=(file,) if is_book else (),
            text=None if is_book else file,
            key=_key(file.parent, key),
        )
    run = locate_run(target)
    folder = run / LEDGERS
    books = sorted(folder.glob(f"*{_SUFFIX}")) if exists(folder) else []
    if not books:
        raise RunError(
            f"{run} keeps no ledgers: {folder} holds no {_SUFFIX} file",
            hint="only runs with a protected unit keep a record of what they spend",
        )
    server = folder / SERVER_BOOK
    if server not in books:
        raise damaged(folder, SERVER_BOOK, "it is missing")
    return Source(
        name=run.name,
        run=run,
        folder=folder,
        books=(server, *(book for book in books if book != server)),
        text=None,
        key=_key(folder, key),
    )


def _key(folder: Path, given: str | None) -> Key:
    if given is None:
        path = folder / KEY_NAME
        if not is_file(path):
            raise ConfigError(
                f"no key to verify with: {path} does not exist", hint="give it with --key, 64 hexadecimal digits"
            )
        return Key(public=_parsed(_read(path), str(path)), origin=f"{path.name}, beside the ledger", beside=True)
    if _is_key(given):
        return Key(public=_parsed(given, "--key"), origin="given by the reader", beside=False)
    path = Path(given).expanduser()
    if not is_file(path):
        raise ConfigError(
            f"--key {given} is neither {_KEY_DIGITS} hexadecimal digits nor a file", hint="check the digits or the path"
        )
    beside = path.resolve().parent == folder.resolve()
    return Key(public=_parsed(_read(path), str(path)), origin=f"file {path}", beside=beside)


def _read(path: Path) -> str:
    return file_bytes(path.parent, path.name, limit=1024).decode("ascii", errors="replace").strip()


def _is_key(text: str) -> bool:
    return len(text) == _KEY_DIGITS and set(text.lower()) <= set("0123456789abcdef")


def _parsed(text: str, where: str) -> Ed25519PublicKey:
    if not _is_key(text):
        raise ConfigError(
            f"{where} holds {len(text)} characters that are no key", hint=f"a key is {_KEY_DIGITS} hexadecimal digits"
        )
    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(text))
