"""What the columns of a table say, found out on the device: the catalogue is public, so they can be made again.

A table comes without names, and a device need not believe any. Genres and years of the catalogue give the same centred
columns everywhere (`palate.data.content`); a column of the table that equals one of them has its name, the first is
popularity, and whatever is left was made from words.
"""

from __future__ import annotations

import numpy as np

from palate.client.recommending.facets import POPULARITY
from palate.data.catalogue import Catalogue
from palate.data.content import Content, ContentConfig, content_features
from palate.models.arrays import Float32Array
from palate.models.table import ItemTable

_TOLERANCE = 1e-4  # columns of 0 and 1 that differ anywhere differ by more
_USUAL = ContentConfig(text_dim=0)
_EVERY = ContentConfig(text_dim=0, min_items=0, min_share=0.0, recent_years=10_000)


def indicators(catalogue: Catalogue, config: ContentConfig = _USUAL) -> Content:
    """Make the columns of genres and years, as a run does that reads no text; float32 [num_items, k]."""
    return content_features(
        genres=catalogue.genres, years=catalogue.years, texts=("",) * catalogue.num_items, config=config
    )


def column_names(table: ItemTable, catalogue: Catalogue) -> tuple[str, ...]:
    """Name a table's fixed columns, [fixed_dim].

    Parameters
    ----------
    table
        The first of its fixed columns, if there are any, is popularity.
    catalogue
        Of the same items.
    """
    if table.fixed_dim == 0:
        return ()
    content = table.fixed[:, 1:]  # [num_items, c]
    names = _matched(content, indicators(catalogue))
    if any(name == "" for name in names[: _indicators_end(names)]):  # a run with thresholds of its own
        names = _matched(content, indicators(catalogue, _EVERY))
    unnamed = iter(range(1, len(names) + 1))
    return (POPULARITY, *(name or f"text {next(unnamed)}" for name in names))


def _indicators_end(names: list[str]) -> int:
    """Where the columns of words begin, which come last: behind the last one with a name, all of them if none has."""
    named = [place for place, name in enumerate(names) if name]
    return named[-1] + 1 if named else len(names)


def _matched(columns: Float32Array, known: Content) -> list[str]:
    """Names of the known columns that equal these, "" where none does."""
    free = dict(enumerate(known.names))
    sizes = known.columns.std(axis=0) if known.names else np.zeros(0)
    found = []
    for column in columns.T:
        near = np.flatnonzero(np.abs(sizes - column.std()) <= _TOLERANCE)
        place = next(
            (
                int(at)
                for at in near
                if int(at) in free and np.allclose(known.columns[:, at], column, rtol=0.0, atol=_TOLERANCE)
            ),
            None,
        )
        found.append("" if place is None else free.pop(place))
    return found
