"""The fleet's catalogue: the public list of items, and the content columns that follow from it.

It is the operator's own list and has nothing to do with what anybody consumed; devices get the same file and find
their items in it by key. Rows are ordered by key, so that the order says nothing either.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from palate.data.catalogue import Catalogue
from palate.data.content import Content, content_features
from palate.data.files import Limits
from palate.data.items import read_items
from palate.data.options import ReadOptions
from palate.errors import DataError
from palate.privacy import files
from palate.server.fleet import config as fleet_config

MAX_ITEMS = 2_000_000
_HINT = "restore it from a backup"


def make_catalogue(source: Path, target: Path, options: ReadOptions | None = None) -> tuple[Catalogue, tuple[str, ...]]:
    """Read a file of items as every other (`palate.data.items`), and write the fleet's own copy.

    Parameters
    ----------
    source
        Any file that `read_items` reads; a key is enough of each item.
    target
        The fleet's catalogue.parquet.
    options
        Column names; what is None is guessed.

    Returns
    -------
    tuple
        The catalogue, and notes on what was guessed or passed over.

    Raises
    ------
    DataError
        If the file cannot be read, or has no or too many items.
    """
    read, notes = read_items(source, options, keys_alone=True, limits=Limits(max_rows=MAX_ITEMS))
    catalogue = read.take(sorted(range(read.num_items), key=read.ids.__getitem__))
    files.replace(target, catalogue.to_parquet())
    return catalogue, notes


def read_catalogue(path: Path) -> tuple[Catalogue, str]:
    """Read the fleet's own copy, and the SHA-256 of the file in hexadecimal.

    Raises
    ------
    DataError
        If it is missing or damaged.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing", hint="make the fleet with palate server init --catalogue FILE") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", hint=_HINT) from error
    return Catalogue.from_parquet(data, hint=_HINT), sha256(data).hexdigest()


def counted_content(catalogue: Catalogue, options: fleet_config.Content) -> dict[str, Any]:
    """Return what a run is planned for: the settings `content.items` and `content.described`."""
    return {"items": catalogue.num_items, "described": bool(content_of(catalogue, options).names)}


def content_of(catalogue: Catalogue, options: fleet_config.Content) -> Content:
    """Return the item table's content columns, float32 [num_items, k]."""
    if not options.use:
        return Content(np.zeros((catalogue.num_items, 0), dtype=np.float32), ())
    return content_features(
        genres=catalogue.genres,
        years=catalogue.years,
        texts=catalogue.texts,
        titles=catalogue.titles,
        text_dim=options.text_dim,
    )
