"""A head out of the vault as plain arrays: PyTorch takes longer to load than a list takes to make.

`palate.client.vault.heads` writes heads and specifies their form; this reads the same bytes with NumPy alone.
"""

from __future__ import annotations

import json
from typing import Final

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from palate.client.vault import HEADS, Vault
from palate.client.vault.errors import NotInVault, VaultTampered
from palate.errors import ConfigError
from palate.models.scores.plain import Arrays, plain_head
from palate.models.table import ItemTable
from palate.models.training import LocalTraining

FORMAT: Final = "palate-head/1"
"""As `palate.client.vault.heads.FORMAT`; a test holds them equal."""

_HEADER_SIZE = 8


def read_head(vault: Vault, training: LocalTraining, table: ItemTable) -> Arrays | None:
    """Return the head that the device trained for this table; None if there is none that fits.

    Parameters
    ----------
    vault
        An open vault.
    training
        Parameters of the run that made the table.
    table
        Decides the shape; a head of another one counts as absent.

    Raises
    ------
    VaultTampered
        If what is kept as a head is none.
    """
    try:
        data = vault.get(HEADS, f"{training.model}/{training.objective}")
    except NotInVault:
        return None
    try:
        size = int.from_bytes(data[:_HEADER_SIZE], "little")
        label = json.loads(data[_HEADER_SIZE : _HEADER_SIZE + size]).get("__metadata__")
        if not isinstance(label, dict) or label.get("format") != FORMAT:
            raise ValueError("another format")
        if label != _label(training, table):
            return None
        arrays: Arrays = load(data)
        if not all(value.dtype == np.float32 and np.isfinite(value).all() for value in arrays.values()):
            raise ValueError("values that are not finite")
        plain_head(training.model, arrays)
    except ConfigError:  # a model whose head adds nothing to the closed form
        return None
    except (SafetensorError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise VaultTampered(
            f"what is kept as a head of {training.model} is not one ({type(error).__name__})",
            hint="restore the vault from a backup; or leave the fleet, and learn it anew",
        ) from None
    return arrays


def _label(training: LocalTraining, table: ItemTable) -> dict[str, str]:
    sizes = {"fixed_dim": str(table.fixed_dim), "dim": str(table.dim), "hidden": str(training.hidden)}
    return {"format": FORMAT, "model": training.model, "objective": training.objective, **sizes}
