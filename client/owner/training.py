"""Parameters of local training of the run that makes the device's table: a list is fitted as the run trains.

They are public, and come with every plan; a device keeps the last ones, for the table alone does not say them.
"""

from __future__ import annotations

from typing import Final

from pydantic import ValidationError

from palate.client.vault import TABLES, Vault
from palate.client.vault.records import Record
from palate.models.training import LocalTraining

TRAINING: Final = Record[str](TABLES, "training", str.encode, bytes.decode)
"""JSON, as the run's plans have it."""


def read_training(vault: Vault) -> LocalTraining | None:
    """Return the parameters of the last run; None if there are none that this version understands."""
    kept = TRAINING.read(vault)
    try:
        return None if kept is None else LocalTraining.model_validate_json(kept)
    except ValidationError:
        return None
