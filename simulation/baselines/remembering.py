"""What expensive baselines reached, remembered for the same data, split and code.

A file is named by everything that its content depends on: held-out items and negatives, histories, content, groups,
seed, settings, the code of baselines and evaluation, and the versions of the libraries that compute. So nothing has to
be declared outdated. Figures of people's data are as private as the data: only the owner of the cache may read them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from palate import models, simulation
from palate.models.arrays import AnyArray
from palate.privacy import files
from palate.simulation.datasets.presets import cache_folder

MOST_FILES = 256
"""Results that are kept, some 30 KB each; the one that was not used for longest goes first."""

_LIBRARIES = ("numpy", "scipy", "torch")
_log = logging.getLogger(__name__)


def key_of(arrays: Iterable[AnyArray | None], labels: Mapping[str, object]) -> str:
    """Name a result by what it depends on: arrays in a fixed order, and labels that JSON can hold."""
    digest = hashlib.sha256(b"palate baseline v1")
    for array in arrays:
        held = np.zeros(0) if array is None else np.ascontiguousarray(array)
        digest.update(f"{array is None} {held.dtype.str} {held.shape};".encode())
        digest.update(held.tobytes())
    digest.update(json.dumps([_computing(), labels], sort_keys=True).encode())
    return digest.hexdigest()


@cache
def _computing() -> list[str]:
    """Return digests of the code that computes, and versions of its libraries."""
    digest = hashlib.sha256()
    folder = Path(next(iter(simulation.__path__)))
    sources = [*folder.glob("baselines/*.py"), folder / "evaluation.py", folder / "bands.py"]
    sources += Path(next(iter(models.__path__))).rglob("*.py")
    for source in sorted(sources):
        content = source.read_bytes()
        digest.update(f"{source.name} {len(content)};".encode() + content)
    return [digest.hexdigest(), *(f"{name} {version(name)}" for name in _LIBRARIES)]


def folder() -> Path:
    """Where results are kept."""
    return cache_folder() / "baselines"


def recall(key: str) -> dict[str, Any] | None:
    """Return a kept result; None where there is none, or it is damaged."""
    path = folder() / f"{key}.json"
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["key"] != key or kept["digest"] != _digest(kept["result"]):
            raise ValueError("its content does not fit its name")
        os.utime(path)
        return dict(kept["result"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("%s is not used, and made again: %s", path, error)
        return None


def remember(key: str, result: Mapping[str, Any]) -> None:
    """Keep a result, and forget the least used beyond MOST_FILES; a cache that cannot be written is none."""
    try:
        folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        content = json.dumps({"key": key, "digest": _digest(result), "result": result}, allow_nan=False)
        files.replace(folder() / f"{key}.json", content.encode(), mode=files.PRIVATE)
        kept = sorted(folder().glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in kept[MOST_FILES:]:
            path.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("baselines are not remembered: %s", error)


def forget() -> int:
    """Delete all kept results; returns how many there were."""
    kept = list(folder().glob("*.json"))
    for path in kept:
        path.unlink(missing_ok=True)
    return len(kept)


def _digest(result: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()
