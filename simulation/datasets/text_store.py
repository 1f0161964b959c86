"""Sentence embeddings of a catalogue, computed once and kept in the cache folder with the datasets.

Only what is publicly known about items is ever read: a title, a description. A file is named by what its content
depends on, the encoder's version and the sentences; it is written whole or not at all, and made again where it is
damaged.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from palate.data.text import SentenceEncoder, open_encoder
from palate.errors import RunError
from palate.models.arrays import Float32Array
from palate.privacy import files
from palate.server.store import read_tensors
from palate.simulation.datasets.presets import cache_folder

FORMAT = "palate-text/1"

_AT_ONCE = 256
_log = logging.getLogger(__name__)


def embeddings_of(
    texts: Sequence[str],
    *,
    phase: Callable[[str], None] | None = None,
    open_model: Callable[[], SentenceEncoder] = open_encoder,
    version: str,
) -> Float32Array:
    """Return embeddings of sentences, computed or from the cache.

    Parameters
    ----------
    texts
        Sentences of the items, "" where there is nothing to read, [num_items].
    phase
        Called with the progress of reading; it takes about a second for two hundred titles.
    open_model
        Opens the encoder; called only where something must be read.
    version
        The encoder's name and version.

    Returns
    -------
    float32 [num_items, width]
        Zeros where there is nothing to read.

    Raises
    ------
    EnvironmentProblem
        If the encoder is needed and not installed, or not the published one. A cache that cannot be written is none.
    """
    path = path_of(texts, version)
    kept = _read(path, len(texts))
    if kept is not None:
        return kept
    distinct = sorted(set(texts))
    encoder = open_model()
    parts = []
    for start in range(0, len(distinct), _AT_ONCE):
        if phase is not None:
            phase(f"reading titles and texts with {encoder.name}: {start:,} of {len(distinct):,}")
        parts.append(encoder.encode(distinct[start : start + _AT_ONCE]))
    place = {text: index for index, text in enumerate(distinct)}
    vectors = np.concatenate(parts) if parts else np.zeros((0, 0), dtype=np.float32)
    found: Float32Array = np.ascontiguousarray(vectors[[place[text] for text in texts]])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, save({"embeddings": found}, _label(path, found)), mode=files.SHARED)
    except OSError as error:
        _log.warning("embeddings are not kept: cannot write %s: %s", path, error.strerror or error)
    return found


def path_of(texts: Sequence[str], version: str) -> Path:
    """Where the embeddings of these sentences are kept."""
    digest = hashlib.sha256(b"palate text v1")
    for part in (version, *texts):
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return cache_folder() / "text" / f"{digest.hexdigest()}.safetensors"


def _label(path: Path, values: Float32Array) -> dict[str, str]:
    return {"format": FORMAT, "key": path.stem, "values": hashlib.sha256(values.tobytes()).hexdigest()}


def _read(path: Path, num_texts: int) -> Float32Array | None:
    """Return kept embeddings, or None where there are none or they are damaged."""
    if not path.exists():
        return None
    try:
        arrays, label = read_tensors(path, FORMAT)
    except (RunError, OSError):
        arrays, label = {}, {}
    values = arrays.get("embeddings", np.zeros(0))
    if values.dtype != np.float32 or values.ndim != 2 or len(values) != num_texts or label != _label(path, values):
        _log.warning("%s is damaged, and made again", path)
        return None
    return values
