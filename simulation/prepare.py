"""From a configuration to everything that virtual devices need: data, split, public content.

Deterministic: every process that prepares the same configuration has the same people and the same items, so that
nodes on other machines need no data sent to them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from palate.models.content import Content, ContentConfig, content_features
from palate.simulation.config import ContentOptions, SimulationConfig
from palate.simulation.data.options import ReadOptions
from palate.simulation.data.presets import load
from palate.simulation.data.splits import split_for
from palate.simulation.data.types import Catalogue, HeldOut, Histories, Interactions, LongArray, Split

EVALUATION_SEED = 20_170_403
"""Draws the evaluation negatives; part of the protocol, so the same whatever the seed of a run."""


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
        SHA-256 of everybody's history and held-out items, in the order of the data; as private as they are.
    """

    interactions: Interactions
    split: Split
    protocol: str
    content: Content
    data_hash: str = field(repr=False)

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of the item table's fixed columns."""
        return ("popularity", *self.content.names)

    @property
    def catalogue_hash(self) -> str:
        """SHA-256 of the item ids in table order."""
        return catalogue_hash(self.interactions.catalogue)


def prepare(config: SimulationConfig) -> Prepared:
    """Load, split and describe the data of a run; the last two are remembered in this process.

    Raises
    ------
    DataError
        If the data cannot be read, or holds nothing to learn from.
    """
    return _prepare(config.data, config.read, config.content)


@lru_cache(maxsize=2)
def _prepare(data: str, read: ReadOptions, content: ContentOptions) -> Prepared:
    interactions = load(data, options=read)
    split, protocol = split_for(interactions, seed=EVALUATION_SEED)
    data_hash = _hash_of(split)
    interactions, split = ordered_by_id(interactions, split)
    catalogue = interactions.catalogue
    features = Content(np.zeros((catalogue.num_items, 0), dtype=np.float32), ())
    if content.use:
        features = content_features(
            genres=catalogue.genres,
            years=catalogue.years,
            texts=catalogue.texts,
            titles=catalogue.titles,
            config=ContentConfig(text_dim=content.text_dim),
        )
    return Prepared(interactions, split, protocol, features, data_hash)


def _hash_of(split: Split) -> str:
    digest = hashlib.sha256(b"palate histories v1")
    for array in (split.train.indptr, split.train.items, split.validation.item, split.test.item):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def ordered_by_id(interactions: Interactions, split: Split) -> tuple[Interactions, Split]:
    """Sort items by their ids: the order in which a private file first names them tells its first histories."""
    ids = interactions.catalogue.ids
    order = np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)
    place = np.empty(len(order) + 1, dtype=np.int32)  # -1, no item, stays -1
    place[order], place[-1] = np.arange(len(order), dtype=np.int32), -1
    catalogue = interactions.catalogue
    ordered = Catalogue(
        ids=tuple(ids[row] for row in order),
        titles=tuple(catalogue.titles[row] for row in order),
        genres=tuple(catalogue.genres[row] for row in order),
        years=catalogue.years[order],
        texts=tuple(catalogue.texts[row] for row in order),
    )
    return (
        replace(interactions, item=place[interactions.item], catalogue=ordered),
        Split(
            train=Histories(split.train.indptr, place[split.train.items]),
            validation=HeldOut(place[split.validation.item], place[split.validation.negatives]),
            test=HeldOut(place[split.test.item], place[split.test.negatives]),
            num_items=split.num_items,
        ),
    )


def shard_users(num_users: int, shard: int, shards: int) -> LongArray:
    """Users of one shard: every `shards`-th, so that shards are alike."""
    return np.arange(shard, num_users, shards, dtype=np.int64)


def catalogue_hash(catalogue: Catalogue) -> str:
    """SHA-256 of the item ids in table order."""
    digest = hashlib.sha256(b"palate catalogue v1")
    for item in catalogue.ids:
        encoded = item.encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()
