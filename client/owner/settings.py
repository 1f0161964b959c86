"""Facets that the owner pinned or muted: the part of the profile that a person writes, kept in the vault."""

from __future__ import annotations

import json
from typing import Final, cast

from palate.client.recommending.told import Setting
from palate.client.vault import PROFILE, Vault
from palate.client.vault.errors import NotInVault

NAME: Final = "settings"


def read_settings(vault: Vault) -> dict[str, Setting]:
    """Return settings by facet, as "genre: Crime", in the order in which they were made."""
    try:
        return cast("dict[str, Setting]", json.loads(vault.get(PROFILE, NAME)))
    except NotInVault:
        return {}


def keep_setting(vault: Vault, facet: str, setting: Setting | None) -> Setting | None:
    """Pin or mute a facet, or with None neither any more, and return what it was."""
    with vault.transaction():
        settings = read_settings(vault)
        before = settings.pop(facet, None)
        if setting is not None:
            settings[facet] = setting
        if before != setting:
            vault.put(PROFILE, NAME, json.dumps(settings).encode("ascii"))
    return before
