"""Facets that the owner pinned or muted: the part of the profile that a person writes, kept in the vault."""

from __future__ import annotations

import json
from typing import cast

from palate.client.recommending.told import Setting
from palate.client.vault import PROFILE, Vault
from palate.client.vault.errors import NotInVault

NAME = "settings"


class FacetSettings:
    """Pinned and muted facets of a vault.

    Parameters
    ----------
    vault
        An open vault.
    """

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def __repr__(self) -> str:
        return "FacetSettings(<sealed>)"

    def read(self) -> dict[str, Setting]:
        """Return settings by facet, as "genre: Crime", in the order in which they were made."""
        try:
            return cast("dict[str, Setting]", json.loads(self._vault.get(PROFILE, NAME)))
        except NotInVault:
            return {}

    def set(self, facet: str, setting: Setting | None) -> Setting | None:
        """Pin or mute a facet, or with None neither any more, and return what it was."""
        with self._vault.transaction():
            settings = self.read()
            before = settings.pop(facet, None)
            if setting is not None:
                settings[facet] = setting
            if before != setting:
                self._vault.put(PROFILE, NAME, json.dumps(settings).encode("ascii"))
        return before
