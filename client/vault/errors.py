"""All that can be wrong with a vault, by name; no message ever quotes a value, or the name of an entry."""

from __future__ import annotations

from typing import ClassVar

from palate.errors import PalateError


class VaultError(PalateError):
    """Base of this package's errors: the vault is missing, held, damaged, or locked by another key."""

    exit_code: ClassVar[int] = 14


class NoVault(VaultError):
    """A folder that holds no vault."""


class VaultExists(VaultError):
    """A folder that holds a vault already."""


class OtherVersion(VaultError):
    """A file that is no vault, or one of another version."""


class WrongKey(VaultError):
    """A master key that is missing, or that is not the one the vault was made with."""


class NoKeyring(VaultError):
    """The system has no keyring that keeps secrets, or it does not answer."""


class VaultLocked(VaultError):
    """The keyring is locked, or another program holds the file for too long."""


class LooseFile(VaultError):
    """A file or folder that others may read or change, that belongs to somebody else, or that is a link."""


class VaultTampered(VaultError):
    """Something in the vault was edited, swapped, removed, put back to an older state, or damaged."""


class NotInVault(VaultError):
    """An entry that is not there, and of which nothing says that it should be."""


class EntryRefused(VaultError):
    """A name or a value that a vault does not take."""


class KeyWornOut(VaultError):
    """A key that has sealed as much as one key may."""


class Forgotten(VaultError):
    """The folder's vault was forgotten; what its owner had spent before still counts."""
