"""Prepare the data of a run from its configuration: interactions, split, public content.

Deterministic: every process that prepares the same configuration has the same people and the same items, so that
nodes on other machines need no data sent to them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np

from palate.data import text
from palate.data.catalogue import Catalogue
from palate.data.content import Content, content_features
from palate.data.interactions import Interactions
from palate.data.options import ReadOptions
from palate.models.arrays import Float32Array, Int32Array, Int64Array
from palate.models.histories import Histories
from palate.models.table import initial_embeddings
from palate.server.coordinator import Coordinator
from palate.simulation.config import ContentOptions, SimulationConfig
from palate.simulation.datasets.arrivals import Arrivals, hold_out_items
from palate.simulation.datasets.presets import PRESETS, load
from palate.simulation.datasets.splits import HeldOut, Split, split_for
from palate.simulation.datasets.text_store import embeddings_of
from palate.simulation.datasets.ties import Ties, break_ties, ties_of
from palate.simulation.seeding import table_rng

EVALUATION_SEED = 20_170_403
"""Draws the evaluation negatives; part of the protocol, so the same whatever the seed of a run."""

TFIDF, EMBEDDING, NO_TEXT = "tfidf", "embedding", "off"
"""Ways to read titles and texts, as the setting content.text names them."""


@dataclass(frozen=True)
class Prepared:
    """Data of one run.

    Attributes
    ----------
    protocol
        In words, how held-out items and negatives were chosen.
    content
        Public content columns and their names.
    data_hash
        SHA-256 of everybody's history and held-out items, in the order of the data; as private as these.
    reader
        What read titles and texts: "tfidf", or the sentence encoder's name and version; "off" if there was nothing.
    new_items
        Rows that nobody has had, because the run tests new items; whom they were taken from is in `arrivals`.
    ties
        How often the time does not say which of a person's items is the newest.
    """

    interactions: Interactions
    split: Split
    protocol: str
    content: Content
    data_hash: str = field(repr=False)
    reader: str = NO_TEXT
    new_items: Int64Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    arrivals: Arrivals | None = field(default=None, repr=False)
    ties: Ties = field(default_factory=lambda: Ties(0, 0))

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of the item table's fixed columns."""
        return ("popularity", *self.content.names)

    @property
    def public_columns(self) -> Float32Array | None:
        """Public content columns, float32 [num_items, k]; None where there are none."""
        return self.content.columns if self.content.columns.shape[1] else None

    @property
    def catalogue_hash(self) -> str:
        """SHA-256 of the item ids in table order."""
        return catalogue_hash(self.interactions.catalogue)


def prepare(config: SimulationConfig, phase: Callable[[str], None] | None = None) -> Prepared:
    """Load, split and describe the data of a run; the last two are remembered in this process.

    Parameters
    ----------
    config
        The run.
    phase
        Called with a line of text before slow steps.

    Raises
    ------
    DataError
        If the data cannot be read, or holds nothing to learn from.
    EnvironmentProblem
        If the run asks for a sentence encoder that is not installed.
    """
    content = config.content.model_copy(update={"text": way_to_read(config.content)})
    source, listener = _Source.of(config.data), _Listener(phase)
    return _prepare(source, config.read, content, config.new_items, config.split_version, listener)


def way_to_read(content: ContentOptions) -> str:
    """Decide how titles and texts are read: by default with the sentence encoder, if it is installed."""
    if not content.use or content.text_dim == 0:
        return NO_TEXT
    if content.text == "auto":
        return EMBEDDING if text.is_installed() else TFIDF
    return content.text


@dataclass(frozen=True)
class _Listener:
    """Hears of slow steps. All are equal, so that what is remembered does not depend on the listener."""

    phase: Callable[[str], None] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class _Source:
    """Identity of the data behind a name at this moment: another folder or changed files are other data.

    Attributes
    ----------
    name
        The name of a preset, or the absolute path of a file or folder.
    stamp
        Name, time of change and size of each file; empty for a preset.
    """

    name: str
    stamp: tuple[tuple[str, int, int], ...]

    @staticmethod
    def of(data: str) -> _Source:
        """Look at what a run's `data` names."""
        path = Path(data)
        try:
            if data in PRESETS or not path.exists():  # as the reader does: a folder of that name is not the preset
                return _Source(data, ())
            files = sorted(path.iterdir()) if path.is_dir() else [path]
            stats = [(file.name, file.stat()) for file in files]
        except OSError:  # the reader will report what is wrong
            return _Source(data, ())
        return _Source(str(path.resolve()), tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats))


_held: WeakValueDictionary[tuple[str, ReadOptions], Interactions] = WeakValueDictionary()


def hold(data: str, read: ReadOptions, interactions: Interactions) -> None:
    """Let this process's runs use a loaded dataset for as long as somebody keeps a reference to it.

    A file that has changed is read again by loading it again: what was prepared from its old content is forgotten.
    """
    key = (_Source.of(data).name, read)
    if _held.get(key) is not interactions:
        _held[key] = interactions
        _prepare.cache_clear()


@lru_cache(maxsize=2)
def _prepare(
    source: _Source,
    read: ReadOptions,
    content: ContentOptions,
    new_items: float,
    split_version: int,
    listener: _Listener,
) -> Prepared:
    interactions = _held.get((source.name, read)) or load(source.name, options=read)
    ties = ties_of(interactions)
    if split_version > 1:
        interactions = break_ties(interactions, seed=EVALUATION_SEED)
    arrivals = None
    if new_items:
        interactions, arrivals = hold_out_items(interactions, new_items, seed=EVALUATION_SEED)
    split, protocol = split_for(interactions, seed=EVALUATION_SEED)
    data_hash = _hash_of(split)
    place = places_by_id(interactions.catalogue)
    interactions, split = renumbered(interactions, split, place)
    arrivals = arrivals.renumbered(place) if arrivals is not None else None
    features, reader = _content(interactions.catalogue, content, listener.phase)
    fresh = np.zeros(0, dtype=np.int64) if arrivals is None else arrivals.items
    if arrivals is not None:
        protocol = f"{protocol}; {len(fresh)} new items are in nobody's history"
    if ties.newest:
        protocol = f"{protocol}; {ties}, {'drawn by a seed' if split_version > 1 else 'kept in the order of the file'}"
    return Prepared(interactions, split, protocol, features, data_hash, reader, fresh, arrivals, ties)


def _content(catalogue: Catalogue, content: ContentOptions, phase: Callable[[str], None] | None) -> tuple[Content, str]:
    """Public columns of the items, and what read their texts."""
    if not content.use:
        return Content(np.zeros((catalogue.num_items, 0), dtype=np.float32), ()), NO_TEXT
    version, embeddings = TFIDF, None
    if content.text == EMBEDDING:
        version = f"{text.ENCODER} {text.VERSION}"
        # An id used in place of a missing title carries no meaning, even if it looks like a word.
        titles = [title if title != item else "" for title, item in zip(catalogue.titles, catalogue.ids, strict=True)]
        embeddings = embeddings_of(text.sentences(titles, catalogue.texts), phase=phase, version=version)
    features = content_features(
        genres=catalogue.genres,
        years=catalogue.years,
        texts=catalogue.texts,
        titles=catalogue.titles,
        embeddings=embeddings,
        text_dim=0 if content.text == NO_TEXT else content.text_dim,
    )
    return features, version if features.num_text else NO_TEXT


def _hash_of(split: Split) -> str:
    digest = hashlib.sha256(b"palate histories v1")
    for array in (split.train.indptr, split.train.items, split.validation.item, split.test.item):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def places_by_id(catalogue: Catalogue) -> Int32Array:
    """Position of each item in the order of ids, int32 [num_items + 1]; the last is -1, for no item.

    The order in which a private file first names its items would reveal its first histories.
    """
    order = np.array(sorted(range(catalogue.num_items), key=catalogue.ids.__getitem__), dtype=np.int64)
    place = np.empty(len(order) + 1, dtype=np.int32)
    place[order], place[-1] = np.arange(len(order), dtype=np.int32), -1
    return place


def renumbered(interactions: Interactions, split: Split, place: Int32Array) -> tuple[Interactions, Split]:
    """Give every item the number that `places_by_id` says."""
    ordered = interactions.catalogue.take(np.argsort(place[:-1]).tolist())
    return (
        replace(interactions, item=place[interactions.item], catalogue=ordered),
        Split(
            train=Histories(split.train.indptr, place[split.train.items]),
            validation=HeldOut(place[split.validation.item], place[split.validation.negatives]),
            test=HeldOut(place[split.test.item], place[split.test.negatives]),
            num_items=split.num_items,
        ),
    )


def coordinator_of(config: SimulationConfig, prepared: Prepared, *, run: str, nodes: int = 1) -> Coordinator:
    """Return the server of a run as it starts."""
    num_users, num_items, schedule = prepared.interactions.num_users, prepared.interactions.num_items, config.schedule
    start = initial_embeddings(num_items, schedule.dim, scale=schedule.initial_scale, rng=table_rng(config.seed))
    settings = config.server_settings(run=run, population=num_users, nodes=nodes)
    return Coordinator(settings, prepared.content.columns, start)


def shard_users(num_users: int, shard: int, shards: int) -> Int64Array:
    """Users of one shard: every `shards`-th, so that shards are alike."""
    return np.arange(shard, num_users, shards, dtype=np.int64)


def catalogue_hash(catalogue: Catalogue) -> str:
    """SHA-256 of the item ids in table order."""
    digest = hashlib.sha256(b"palate catalogue v1")
    for item in catalogue.ids:
        encoded = item.encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()
