"""A pause: the owner wants no rounds for now, and stays a member; kept in the vault, read when a round is asked for.

A round that has begun is finished: its noised vector may have left already. What the server learns is a refusal, as for
any other limit.
"""

from __future__ import annotations

from palate.client.vault import SERVERS, Vault

_NAME = "pause"
_ON = b"true"


class Pause:
    """The pause of one device.

    Parameters
    ----------
    vault
        The device's open vault.
    """

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def __repr__(self) -> str:
        return "Pause(<sealed>)"

    @property
    def on(self) -> bool:
        """Whether the device takes part in no new round."""
        return self._vault.has(SERVERS, _NAME)

    def set(self, on: bool) -> None:
        """Pause, or go on."""
        with self._vault.transaction():
            if on:
                self._vault.put(SERVERS, _NAME, _ON)
            elif self.on:
                self._vault.delete(SERVERS, _NAME)
