"""Parts of a plan that the table does not contain: parameters of training, and column names.

Both are public. A list is fitted as the run trains, and explained by the names; a device keeps the last ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pydantic import ValidationError

from palate.client.vault import TABLES, Vault
from palate.client.vault.records import Record
from palate.models.training import LocalTraining

TRAINING: Final = Record[str](TABLES, "training", str.encode, bytes.decode)
"""JSON, as the run's plans have it."""

COLUMNS: Final = Record[Sequence[str]](TABLES, "columns")
"""Names of the table's fixed columns, as the run's plans have them."""


def read_training(vault: Vault) -> LocalTraining | None:
    """Return the parameters of the last run; None if there are none that this version understands."""
    kept = TRAINING.read(vault)
    try:
        return None if kept is None else LocalTraining.model_validate_json(kept)
    except ValidationError:
        return None
