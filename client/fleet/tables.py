"""The last item table that the server's receipts vouch for, on the device's disk: public, and what it recommends by.

The format is that of a run's `item_table.safetensors` (docs/formats/run-folder.md) without what only a server knows.
Two parts of a plan that the table lacks are kept in the vault, the last of each: parameters of training, by which a
list is fitted, and column names, by which it is explained. Both are public.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from palate.client.vault import TABLES, Vault
from palate.client.vault.records import Record
from palate.errors import RunError
from palate.models.fitting import Fitting
from palate.models.table import ItemTable
from palate.privacy import files

TABLE_FORMAT = "palate-item-table/1"
FITTING_FORMAT: Final = "palate-fitting/1"
"""Of what is kept of `fitting_of`; another one whenever that gives something else for the same parameters."""

TRAINING: Final = Record[str](TABLES, "training", str.encode, bytes.decode)
"""JSON, as the run's plans have it."""

_FITTING: Final = Record[dict[str, Any]](TABLES, "fitting")

COLUMNS: Final = Record[Sequence[str]](TABLES, "columns")
"""Names of the table's fixed columns, as the run's plans have them."""


def table_keeper(path: Path) -> Callable[[ItemTable], None]:
    """Return what writes tables to a file, each as a whole or not at all."""

    def keep(table: ItemTable) -> None:
        blocks = {name: np.ascontiguousarray(getattr(table, name)) for name in ("fixed", "learned")}
        files.replace(path, save(blocks, {"format": TABLE_FORMAT, "hash": table.content_hash}))

    return keep


def read_table(path: Path) -> ItemTable | None:
    """Read the table; None if none has come yet.

    Raises
    ------
    RunError
        If the file is damaged or of another format.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            label = file.metadata() or {}
            table = ItemTable(file.get_tensor("fixed"), file.get_tensor("learned"))
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path) from error
    if label.get("format") != TABLE_FORMAT or label.get("hash") != table.content_hash:
        raise _damaged(path)
    return table


def read_fitting(vault: Vault, training: str) -> Fitting:
    """Return what parameters of training say of the owner's copy.

    They are checked once and kept as plain values: importing what checks them takes as long as a list.

    Parameters
    ----------
    vault
        Keeps the values.
    training
        JSON, as `TRAINING` has it.

    Raises
    ------
    ValueError
        If this version does not understand them.
    """
    made_from = {"format": FITTING_FORMAT, "training": training}
    kept = _FITTING.read(vault) or {}
    if all(kept.get(name) == value for name, value in made_from.items()):
        return Fitting(**kept["fitting"])
    from palate.models.scores.registry import fitting_of
    from palate.models.training import LocalTraining

    fitting = fitting_of(LocalTraining.model_validate_json(training))
    _FITTING.write(vault, {**made_from, "fitting": asdict(fitting)})
    return fitting


def _damaged(path: Path) -> RunError:
    return RunError(f"{path} is not an item table of this version", hint="the next round brings a new one: delete it")
