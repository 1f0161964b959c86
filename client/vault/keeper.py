"""Where the master key lies: in the keyring of the system, or in a private file beside the vault.

A keyring ties the key to the owner's login; the file only keeps other users out, and a thief of the whole disk has it
too. So the file is the fallback, and its use can be seen (`Vault.keeper`). `PALATE_KEYRING=file` asks for it, on
machines without a desktop for example; `PALATE_KEYRING=os` refuses it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeAlias

from palate.client.vault import files
from palate.client.vault.errors import NoKeyring, VaultError, VaultLocked, WrongKey
from palate.privacy import files as whole

Choice = Literal["auto", "os", "file"]

KEY_SIZE = 32
KEY_FILE = "vault.key"
SERVICE = "palate"
ENVIRONMENT = "PALATE_KEYRING"

_LABEL = "palate-vault-key/1"
_TEXT = re.compile(rf"{_LABEL} ([0-9a-f]{{{2 * KEY_SIZE}}})")
_READ_LIMIT = 256
_REAL_BACKEND = 1  # keyring's own scale: "fail" has 0, "null" -1, plain-text files 0.5


class FileKeeper:
    """The key in a file of the vault's folder.

    Parameters
    ----------
    folder
        The vault's folder.
    """

    kind = "file"

    def __init__(self, folder: Path) -> None:
        self._path = folder / KEY_FILE

    def make(self, vault: bytes) -> bytes:
        """Write a fresh key; a key that an interrupted start left behind is taken instead.

        Raises
        ------
        LooseFile
            If something else than a private file has its name.
        """
        with suppress(FileExistsError):
            whole.create(self._path, (_spell(os.urandom(KEY_SIZE)) + "\n").encode("ascii"))
        return self.load(vault)

    def load(self, _: bytes) -> bytes:
        """Read the key.

        Raises
        ------
        WrongKey
            If the file is missing or holds no key.
        LooseFile
            If it is a link, belongs to somebody else, or others have rights to it.
        """
        try:
            text = files.read_private(self._path, _READ_LIMIT)
        except FileNotFoundError:
            raise WrongKey(
                f"{self._path} is missing; without it nobody can open the vault",
                hint="restore it from a backup, or forget this vault and begin a new one",
            ) from None
        return _read(text.decode("ascii", errors="replace").removesuffix("\n"), str(self._path))

    def shred(self, _: bytes) -> None:
        """Overwrite and remove the file; raises as `files.shred`."""
        files.shred(self._path)


class KeyringKeeper:
    """The key in the system's keyring, under the vault's id.

    Raises
    ------
    NoKeyring
        If the package `keyring` is missing or finds no keyring that keeps secrets.
    """

    kind = "keyring"

    def __init__(self) -> None:
        self._keyring = _system_keyring()

    def make(self, vault: bytes) -> bytes:
        """Store a fresh key and read it back.

        Raises
        ------
        VaultLocked
            If the keyring is locked.
        NoKeyring
            If it does not keep what it is given.
        """
        key = os.urandom(KEY_SIZE)
        with _answering():
            self._keyring.set_password(SERVICE, vault.hex(), _spell(key))
            kept = self._keyring.get_password(SERVICE, vault.hex())
        if kept != _spell(key):  # some keyrings accept everything and keep nothing
            raise _no_keyring("it does not give back what it was given")
        return key

    def load(self, vault: bytes) -> bytes:
        """Fetch the key.

        Raises
        ------
        WrongKey
            If the keyring has none for this vault.
        VaultLocked, NoKeyring
            If the keyring is locked or does not answer.
        """
        with _answering():
            text = self._keyring.get_password(SERVICE, vault.hex())
        if text is None:
            raise WrongKey(
                f"the keyring has no key for vault {vault.hex()}",
                hint="log in as the owner who made it, or forget this vault and begin a new one",
            )
        return _read(text, "the keyring's entry")

    def shred(self, vault: bytes) -> None:
        """Overwrite the entry and delete it; raises as `load` if the keyring does not answer."""
        with _answering():
            if self._keyring.get_password(SERVICE, vault.hex()) is not None:
                self._keyring.set_password(SERVICE, vault.hex(), _spell(os.urandom(KEY_SIZE)))
                self._keyring.delete_password(SERVICE, vault.hex())


Keeper: TypeAlias = FileKeeper | KeyringKeeper
"""A place for one master key of 32 bytes: `make` puts a fresh one there, `load` returns it, `shred` destroys it."""


def choose(folder: Path, choice: Choice) -> Keeper:
    """Choose the place for a new vault's key: the keyring where there is one, the file otherwise.

    Parameters
    ----------
    folder
        The vault's folder.
    choice
        "os" or "file" to insist; "auto" follows `PALATE_KEYRING`, and without it takes the best there is.

    Raises
    ------
    NoKeyring
        If the keyring is asked for and there is none, or the choice is unknown.
    """
    if choice == "auto":
        asked = os.environ.get(ENVIRONMENT) or "auto"
        if asked not in {"auto", "os", "file"}:
            raise NoKeyring(
                f"{ENVIRONMENT} is {asked!r}, not auto, os or file", hint=f"set {ENVIRONMENT}=file, or unset it"
            )
    else:
        asked = choice
    if asked == "file":
        return FileKeeper(folder)
    try:
        return KeyringKeeper()
    except NoKeyring:
        if asked == "os":
            raise
        return FileKeeper(folder)


def _system_keyring() -> Any:
    try:
        import keyring
    except ImportError:
        raise _no_keyring("the package keyring is not installed") from None
    with _answering():
        backend = keyring.get_keyring()
        priority = float(backend.priority)
    if priority < _REAL_BACKEND:
        raise _no_keyring(f"the best found has priority {priority:g}, at least {_REAL_BACKEND} is needed")
    return backend


@contextmanager
def _answering() -> Iterator[None]:
    """Give the failures of any keyring two names; its own words are left out, for they may quote what it was given."""
    try:
        yield
    except VaultError:
        raise
    except Exception as error:  # backends raise what their D-Bus, Keychain or Credential libraries raise
        if type(error).__name__ in {"KeyringLocked", "LockedException"}:
            raise VaultLocked(
                "the keyring is locked", hint="unlock it (log in to the desktop), then try again"
            ) from None
        raise _no_keyring(f"it fails with {type(error).__name__}") from None


def _no_keyring(why: str) -> NoKeyring:
    return NoKeyring(
        f"no keyring that keeps secrets: {why}",
        hint=f"unlock or install one, or set {ENVIRONMENT}=file before the vault is made to keep the key in a file",
    )


def _spell(key: bytes) -> str:
    return f"{_LABEL} {key.hex()}"


def _read(text: str, where: str) -> bytes:
    match = _TEXT.fullmatch(text)
    if match is None:
        raise WrongKey(
            f"{where} holds no key of the form {_LABEL!r} and {2 * KEY_SIZE} digits",
            hint="restore it from a backup, or forget this vault and begin a new one",
        )
    return bytes.fromhex(match[1])
