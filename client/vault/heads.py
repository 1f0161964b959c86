"""Heads in the vault: a score model's parameters as safetensors, labelled with what they were learned for.

As for tables, safetensors and not pickle: even if the vault's keys were lost to somebody, opening what they wrote runs
no code. A head fits one model, one objective and one shape; for any other it counts as absent and is learned anew.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from palate.client.vault.errors import EntryRefused, NotInVault, VaultTampered
from palate.client.vault.purposes import HEADS
from palate.client.vault.store import Vault
from palate.models.scores.base import Head, Shape
from palate.models.scores.registry import initial_head
from palate.models.table import ItemTable

if TYPE_CHECKING:
    from palate.models.fitting import Fitting
    from palate.models.training import LocalTraining

    HeadOf = Fitting | LocalTraining  # by model, objective and hidden

FORMAT: Final = "palate-head/1"
_HEADER_SIZE = 8  # safetensors begins with the length of its JSON header, little-endian


def head_name(training: HeadOf) -> str:
    """Name under which the vault keeps a head."""
    return f"{training.model}/{training.objective}"


def read_head(vault: Vault, training: HeadOf, table: ItemTable) -> Head | None:
    """Return the head that the device trained for this table; None if there is none, or one of another shape.

    Raises
    ------
    ConfigError
        If the score model is unknown here.
    VaultTampered
        If what is kept as a head is none.
    """
    try:
        data = vault.get(HEADS, head_name(training))
    except NotInVault:
        return None
    shape = Shape(fixed_dim=table.fixed_dim, dim=table.dim, hidden=training.hidden)
    return unpack_head(data, training, shape)


def pack_head(training: HeadOf, shape: Shape, head: Head) -> bytes:
    """Write a head as the bytes that the vault keeps under `head_name`.

    Parameters
    ----------
    training, shape
        What it was learned for.
    head
        Its parameters without batch dimension, as `initial_head` names and shapes them, float32.

    Raises
    ------
    EntryRefused
        If names, shapes or types are others, or a value is not finite.
    """
    _check(training, shape, head)
    return save({name: np.ascontiguousarray(value) for name, value in head.items()}, _label(training, shape))


def unpack_head(data: bytes, training: HeadOf, shape: Shape) -> Head | None:
    """Read what `pack_head` wrote; None if it was learned for something else.

    Raises
    ------
    VaultTampered
        If the bytes are not a head.
    """
    try:
        size = int.from_bytes(data[:_HEADER_SIZE], "little")
        label = json.loads(data[_HEADER_SIZE : _HEADER_SIZE + size]).get("__metadata__")
        head: Head = load(data)
        if not isinstance(label, dict) or label.get("format") != FORMAT:
            raise ValueError("another format")
        if label != _label(training, shape):
            return None
        _check(training, shape, head)
    except (SafetensorError, EntryRefused, ValueError, AttributeError) as error:
        raise VaultTampered(
            f"what is kept as a head of {training.model} is not one ({type(error).__name__})",
            hint="restore the vault from a backup; or leave the fleet, and learn it anew",
        ) from None
    return head


def _check(training: HeadOf, shape: Shape, head: Head) -> None:
    expected = initial_head(training.model, training.objective, shape)
    if head.keys() != expected.keys():
        raise EntryRefused(
            f"a head of {training.model} has {len(expected)} parameters, this one {len(head)} or others",
            hint="take the state of the model that was trained",
        )
    for name, value in head.items():
        if value.shape != expected[name].shape or value.dtype != np.float32:
            raise EntryRefused(
                f"{name} is {value.dtype} {list(value.shape)}, not float32 {list(expected[name].shape)}",
                hint="take the state of one person, without batch dimension",
            )
        if not np.isfinite(value).all():
            raise EntryRefused(f"{name} holds values that are not finite", hint="do not keep a head that diverged")


def _label(training: HeadOf, shape: Shape) -> dict[str, str]:
    sizes = {"fixed_dim": str(shape.fixed_dim), "dim": str(shape.dim), "hidden": str(shape.hidden)}
    return {"format": FORMAT, "model": training.model, "objective": training.objective, **sizes}
