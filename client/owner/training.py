"""Parameters of local training of the run that makes the device's table: a list is fitted as the run trains.

They are public, and come with every plan; a device keeps the last ones, for the table alone does not say them.
"""

from __future__ import annotations

from typing import Final

from pydantic import ValidationError

from palate.client.vault import TABLES, Vault
from palate.client.vault.errors import NotInVault
from palate.models.training import LocalTraining

NAME: Final = "training"


def keep_training(vault: Vault, training: str) -> None:
    """Keep the parameters of a run, JSON as its plans have it."""
    vault.put(TABLES, NAME, training.encode("utf-8"))


def read_training(vault: Vault) -> LocalTraining | None:
    """Return the parameters of the last run; None if there are none that this version understands."""
    try:
        return LocalTraining.model_validate_json(vault.get(TABLES, NAME))
    except (NotInVault, ValidationError):
        return None
