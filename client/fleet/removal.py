"""That the fleet has removed this device, as its server said last: kept in the vault, so that the owner is told.

It is the server's word, and changes nothing on the device: history, budget and ledger stay, and so do the keys. Whoever
is taken in again goes on with them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from palate.client.vault import SERVERS, Vault

_NAME = "removed"


class Removal:
    """Whether the fleet of one device has removed it.

    Parameters
    ----------
    vault
        The device's open vault.
    """

    def __init__(self, vault: Vault, *, clock: Callable[[], float] = time.time) -> None:
        self._vault = vault
        self._clock = clock

    def __repr__(self) -> str:
        return "Removal(<sealed>)"

    @property
    def at(self) -> int | None:
        """When the server said so, in seconds since 1970; None if it did not."""
        return int(json.loads(self._vault.get(SERVERS, _NAME))) if self._vault.has(SERVERS, _NAME) else None

    def note(self) -> None:
        """Remember that the server says so."""
        with self._vault.transaction():
            self._vault.put(SERVERS, _NAME, json.dumps(int(self._clock())).encode("ascii"))

    def clear(self) -> None:
        """Forget it: the server takes the device again, or another welcome came."""
        if self._vault.has(SERVERS, _NAME):
            with self._vault.transaction():
                self.drop()

    def drop(self) -> None:
        """Forget it within a transaction of the caller's."""
        if self._vault.has(SERVERS, _NAME):
            self._vault.delete(SERVERS, _NAME)
