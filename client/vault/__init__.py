"""The device's vault: everything secret that a device keeps, sealed at rest (docs/formats/vault.md).

>>> with Vault.create(folder) as vault:                                                             # doctest: +SKIP
...     vault.put(HISTORY, "marks", b"{}")
"""

from palate.client.vault.purposes import HEADS, HISTORY, IDENTITY, PROFILE, ROUNDS, SERVERS, TABLES, Purpose
from palate.client.vault.store import Vault
from palate.client.vault.tombstone import Tombstone

__all__ = [
    "HEADS",
    "HISTORY",
    "IDENTITY",
    "PROFILE",
    "ROUNDS",
    "SERVERS",
    "TABLES",
    "Purpose",
    "Tombstone",
    "Vault",
]
