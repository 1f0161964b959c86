"""Small values in the vault: each has one name and one form, and is read and written here."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from palate.client.vault.errors import NotInVault
from palate.client.vault.purposes import Purpose
from palate.client.vault.store import Vault

_T = TypeVar("_T")


@dataclass(frozen=True)
class Record(Generic[_T]):
    """One value in a vault.

    Attributes
    ----------
    purpose, name
        Where it is.
    encode, decode
        Its bytes; JSON unless given.
    """

    purpose: Purpose
    name: str
    encode: Callable[[_T], bytes] = lambda value: json.dumps(value).encode("ascii")
    decode: Callable[[bytes], _T] = json.loads

    def read(self, vault: Vault) -> _T | None:
        """Return the value; None if there is none. Raises as `Vault.get`, and what `decode` raises."""
        try:
            data = vault.get(self.purpose, self.name)
        except NotInVault:
            return None
        return self.decode(data)

    def write(self, vault: Vault, value: _T) -> None:
        """Keep a value, in place of what was there; raises as `Vault.put`."""
        vault.put(self.purpose, self.name, self.encode(value))

    def drop(self, vault: Vault) -> None:
        """Remove the value; nothing happens if there is none."""
        with suppress(NotInVault):
            vault.delete(self.purpose, self.name)
