"""The run folder as the server keeps it: crash-safe checkpoints, metrics line by line.

A checkpoint is written to a temporary name in the same folder, flushed, and renamed: after kill -9 there is the old one
or the new one, never half of either. `rounds.jsonl` is cut back to the checkpoint when a run is resumed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from palate.errors import RunError
from palate.models.arrays import AnyArray
from palate.models.table import ItemTable
from palate.privacy import files
from palate.server.coordinator import Snapshot

TABLE_FORMAT = "palate-item-table/1"
CHECKPOINT_FORMAT = "palate-server-checkpoint/2"


class RunStore:
    """Server files of one run folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoint_path = folder / "checkpoint.safetensors"
        self.table_path = folder / "item_table.safetensors"
        self.rounds_path = folder / "rounds.jsonl"

    def save(self, snapshot: Snapshot, metadata: Mapping[str, str]) -> None:
        """Write the checkpoint and the item table after a round."""
        arrays: dict[str, AnyArray] = {
            "fixed": snapshot.table.fixed,
            "learned": snapshot.table.learned,
            "popularity": snapshot.popularity,
        }
        label = {
            **metadata,
            "round": str(snapshot.server_round),
            "applied": str(snapshot.applied),
            "popularity_rounds": str(snapshot.popularity_rounds),
            "popularity_noise": repr(snapshot.popularity_noise),
            "hash": snapshot.table.content_hash,
        }
        files.replace(self.table_path, save(_owned(arrays), {**label, "format": TABLE_FORMAT}), mode=files.SHARED)
        if snapshot.active is not None:
            arrays["active"] = snapshot.active
        arrays |= {f"optimiser.{name}": value for name, value in snapshot.optimiser.items()}
        files.replace(
            self.checkpoint_path, save(_owned(arrays), {**label, "format": CHECKPOINT_FORMAT}), mode=files.SHARED
        )

    def load(self, metadata: Mapping[str, str]) -> Snapshot | None:
        """Read the last checkpoint, or return None where there is none.

        Raises
        ------
        RunError
            If the checkpoint is damaged, or belongs to other metadata (another catalogue, another run).
        """
        if not self.checkpoint_path.exists():
            return None
        arrays, label = read_tensors(self.checkpoint_path, CHECKPOINT_FORMAT)
        for name, value in metadata.items():
            if label.get(name) != value:
                raise RunError(
                    f"{self.checkpoint_path}: its {name} is not this run's",
                    hint="the folder belongs to another run or catalogue; choose another --folder",
                )
        try:
            table = ItemTable(arrays["fixed"], arrays["learned"])
            popularity, server_round, applied = arrays["popularity"], int(label["round"]), int(label["applied"])
            popularity_rounds = int(label.get("popularity_rounds", 1))  # an earlier version asked once
            popularity_noise = float(label.get("popularity_noise", 0.0))
        except (KeyError, ValueError) as error:
            raise _damaged(self.checkpoint_path) from error
        if table.content_hash != label.get("hash"):
            raise _damaged(self.checkpoint_path)
        optimiser = {
            name.removeprefix("optimiser."): value for name, value in arrays.items() if name.startswith("optimiser.")
        }
        active = arrays.get("active")
        if active is not None and (active.dtype != np.bool_ or active.shape != (table.num_items,)):
            raise _damaged(self.checkpoint_path)
        return Snapshot(
            server_round, applied, table, popularity, optimiser, active, popularity_rounds, popularity_noise
        )

    def append_round(self, line: Mapping[str, object]) -> None:
        """Add a round's metrics."""
        with self.rounds_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def write_rounds(self, lines: Iterable[Mapping[str, object]]) -> None:
        """Replace all lines at once."""
        files.replace(self.rounds_path, "".join(json.dumps(line) + "\n" for line in lines).encode(), mode=files.SHARED)

    def read_rounds(self, up_to: int) -> list[dict[str, Any]]:
        """Read the lines of rounds 0 to `up_to`, and cut the file back to them; -1 empties it.

        Raises
        ------
        RunError
            If one of these lines is missing or damaged; what comes after them a crash may have cut short.
        """
        kept = self.rounds_path.read_bytes().splitlines()[: up_to + 1] if self.rounds_path.exists() else []
        try:
            lines: list[dict[str, Any]] = [json.loads(text) for text in kept]
            complete = [line["round"] for line in lines] == list(range(up_to + 1))
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(self.rounds_path) from error
        if not complete:
            raise _damaged(self.rounds_path)
        self.write_rounds(lines)
        return lines


def read_tensors(path: Path, expected_format: str) -> tuple[dict[str, AnyArray], dict[str, str]]:
    """Read a safetensors file and its metadata.

    Raises
    ------
    RunError
        If it is missing, damaged or of another format.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            label = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing", hint="is this the folder of a run?") from error
    except (SafetensorError, ValueError, TypeError) as error:
        raise _damaged(path) from error
    if label.get("format") != expected_format:
        raise RunError(
            f"{path}: format {label.get('format')!r} is not {expected_format!r}",
            hint="it was written by another version or another tool",
        )
    return arrays, label


def _owned(arrays: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
    """Contiguous arrays: safetensors writes memory in its order."""
    return {name: np.ascontiguousarray(value) for name, value in arrays.items()}


def _damaged(path: Path) -> RunError:
    return RunError(f"{path} is damaged", hint="remove the run folder and start again, or restore it from a backup")
