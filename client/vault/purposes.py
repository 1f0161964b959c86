"""What a vault is used for: each purpose has a data key of its own, and says whether its owner may export it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

RESERVED = "vault"
"""The vault's own key: it seals the record of what the vault holds."""


@dataclass(frozen=True)
class Purpose:
    """One kind of thing that a vault keeps.

    Attributes
    ----------
    name
        Up to 32 lower-case letters, digits and hyphens; stands in the file in clear.
    exported
        Whether `Vault.export` shows it: the owner's data and public keys yes, secret keys no.
    """

    name: str
    exported: bool


IDENTITY = Purpose("identity", exported=False)
"""Secret keys: the device's own, its node's, and the one that signs its ledger."""

SERVERS = Purpose("servers", exported=True)
"""Servers that the owner joined, with their pinned public keys."""

HISTORY = Purpose("history", exported=True)
"""Interactions, and what the owner dislikes or hides."""

PROFILE = Purpose("profile", exported=True)
"""Interests in words, as the owner edited them."""

HEADS = Purpose("heads", exported=True)
"""Learned parameters of score models: the user's embedding and the layers above it."""

TABLES = Purpose("tables", exported=False)
"""The last item table and its catalogue: public, and large."""

ROUNDS = Purpose("rounds", exported=False)
"""Open rounds: secrets of secure aggregation and the sealed messages that may have left."""

PURPOSES: Final = {purpose.name: purpose for purpose in (IDENTITY, SERVERS, HISTORY, PROFILE, HEADS, TABLES, ROUNDS)}
