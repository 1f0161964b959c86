"""Heads in the vault: a score model's parameters as safetensors, labelled with what they were learned for.

As for tables, safetensors and not pickle: even if the vault's keys were lost to somebody, opening what they wrote runs
no code. A head fits one model, one objective and one shape; for any other it counts as absent and is learned anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from palate.client.vault.errors import EntryRefused, NotInVault, VaultTampered
from palate.client.vault.purposes import HEADS
from palate.client.vault.store import Vault
from palate.models.scores.base import Shape, State
from palate.models.scores.registry import initial_state

FORMAT = "palate-head/1"
_HEADER_SIZE = 8  # safetensors begins with the length of its JSON header, little-endian


def save_head(vault: Vault, model: str, objective: str, shape: Shape, state: Mapping[str, Tensor]) -> None:
    """Keep one person's head.

    Parameters
    ----------
    vault
        An open vault.
    model, objective, shape
        What it was learned for.
    state
        Its parameters without batch dimension, as `initial_state` names and shapes them, float32.

    Raises
    ------
    EntryRefused
        If names, shapes or types are others, or a value is not finite.
    """
    vault.put(HEADS, head_name(model, objective), pack_head(model, objective, shape, state))


def load_head(vault: Vault, model: str, objective: str, shape: Shape) -> State | None:
    """Return the head that was kept; None if there is none, or only one of another shape.

    Raises
    ------
    VaultTampered
        If what is there was not written by `save_head`.
    """
    try:
        data = vault.get(HEADS, head_name(model, objective))
    except NotInVault:
        return None
    return unpack_head(data, model, objective, shape)


def pack_head(model: str, objective: str, shape: Shape, state: Mapping[str, Tensor]) -> bytes:
    """Write a head as the bytes that the vault keeps under `head_name`; parameters and errors as for `save_head`."""
    _check(model, objective, shape, state)
    return save({name: value.detach().contiguous() for name, value in state.items()}, _label(model, objective, shape))


def unpack_head(data: bytes, model: str, objective: str, shape: Shape) -> State | None:
    """Read what `pack_head` wrote; None if it is of another shape.

    Raises
    ------
    VaultTampered
        If the bytes are not a head.
    """
    try:
        size = int.from_bytes(data[:_HEADER_SIZE], "little")
        label = json.loads(data[_HEADER_SIZE : _HEADER_SIZE + size]).get("__metadata__")
        state: State = load(data)
        if not isinstance(label, dict) or label.get("format") != FORMAT:
            raise ValueError("another format")
        if label != _label(model, objective, shape):
            return None
        _check(model, objective, shape, state)
    except (SafetensorError, EntryRefused, ValueError, AttributeError) as error:
        raise VaultTampered(
            f"what is kept as a head of {model} is not one ({type(error).__name__})",
            hint="erase the heads: the device learns them anew from its history",
        ) from None
    return state


def _check(model: str, objective: str, shape: Shape, state: Mapping[str, Tensor]) -> None:
    expected = initial_state(model, objective, shape)
    if state.keys() != expected.keys():
        raise EntryRefused(
            f"a head of {model} has {len(expected)} parameters, this one {len(state)} or others",
            hint="take the state of the model that was trained",
        )
    for name, value in state.items():
        if value.shape != expected[name].shape or value.dtype != torch.float32:
            raise EntryRefused(
                f"{name} is {value.dtype} {list(value.shape)}, not float32 {list(expected[name].shape)}",
                hint="take the state of one person, without batch dimension",
            )
        if not torch.isfinite(value).all():
            raise EntryRefused(f"{name} holds values that are not finite", hint="do not keep a head that diverged")


def _label(model: str, objective: str, shape: Shape) -> dict[str, str]:
    sizes = {"fixed_dim": str(shape.fixed_dim), "dim": str(shape.dim), "hidden": str(shape.hidden)}
    return {"format": FORMAT, "model": model, "objective": objective, **sizes}


def head_name(model: str, objective: str) -> str:
    """Name under which the vault keeps a head."""
    return f"{model}/{objective}"
