"""The device's table and catalogue, ready to recommend from, whatever the last round brought.

Reading the catalogue's Parquet and naming the table's columns takes a second and large libraries. It is done once; what
comes of it is kept in the vault, where nobody without the key can change it, for as long as both files stay the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import numpy as np

from palate.client.fleet.folder import NEW_WELCOME, DeviceFolder
from palate.client.fleet.tables import read_table
from palate.client.owner.training import read_training
from palate.client.recommending.recommender import Recommender
from palate.client.vault import TABLES, Vault
from palate.client.vault.errors import NotInVault
from palate.client.vault.heads import read_head
from palate.data import text
from palate.data.catalogue import Catalogue
from palate.errors import RunError
from palate.models.arrays import Float32Array
from palate.models.table import ItemTable
from palate.models.training import LocalTraining

FORMAT: Final = "palate-shelf/1"
_SHELF = "shelf"

NO_TABLE = "no table has come yet: these go by genres and years alone; take part in rounds with palate client join"
NO_TRAINING = "the parameters of the run that made the table are not on this device: the usual ones are used"
OTHER_COLUMNS = "the table's columns are none that this catalogue explains: lists may be poor until another table comes"

Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, eq=False)
class Shelf:
    """What a device recommends from.

    Attributes
    ----------
    recommender
        The table, ready.
    table_hash
        Content hash of the table; empty before one has come.
    notes
        What the owner should know of it.
    """

    recommender: Recommender
    table_hash: str
    notes: tuple[str, ...]

    @property
    def catalogue(self) -> Catalogue:
        """Public facts about the items."""
        return self.recommender.catalogue

    @property
    def rows(self) -> Mapping[str, int]:
        """Row of every item by its key; by ``title:`` and its title too, where only one item has it."""
        return self.catalogue.rows


def stamp(folder: DeviceFolder) -> Stamp:
    """Return what changes when a new table or catalogue comes."""
    found: list[tuple[int, int, int] | None] = []
    for path in (folder.table, folder.catalogue):
        try:
            about = path.stat()
        except OSError:
            found.append(None)
        else:
            found.append((about.st_ino, about.st_mtime_ns, about.st_size))
    return tuple(found)


def open_shelf(folder: DeviceFolder, vault: Vault) -> Shelf:
    """Make a device's table ready.

    Raises
    ------
    RunError
        If there is no catalogue, it is not the fleet's, or the table is not of its items.
    DataError
        If the catalogue cannot be read.
    """
    try:
        data = folder.catalogue.read_bytes()
    except FileNotFoundError:
        raise RunError(
            f"{folder.home} has no catalogue yet, so there is nothing to recommend",
            hint="join a fleet (palate client enrol), or look around first: palate client try",
        ) from None
    except OSError as error:
        raise RunError(f"{folder.catalogue} cannot be read: {error.strerror}", hint="check its permissions") from None
    table = read_table(folder.table)
    made_from = {
        "format": FORMAT,
        "catalogue": sha256(data).hexdigest(),
        "content": "" if table is None else _content_hash(table),
    }
    kept = _kept(vault, made_from)
    if kept is None:
        kept = _prepared(vault, data, table, made_from)
    catalogue, names = kept
    if table is None:
        table, notes = _content_alone(catalogue), [NO_TABLE]
        training: LocalTraining | None = LocalTraining(model="gmf")
        table_hash = ""
    else:
        table_hash, notes, training = table.content_hash, [], read_training(vault)
        if training is None:
            training, notes = LocalTraining(), [NO_TRAINING]
        if table.fixed_dim > 1 and any(catalogue.genres) and not any(": " in name for name in names):
            notes.append(OTHER_COLUMNS)
    if table.num_items != catalogue.num_items:
        raise _another(table, catalogue)
    assert training is not None
    head = read_head(vault, training, table)
    encoder = _encode if text.is_installed() else None
    return Shelf(Recommender(table, catalogue, names, training, head=head, encoder=encoder), table_hash, tuple(notes))


def _encode(texts: Sequence[str]) -> Float32Array:
    """Read words that no list knows, with the encoder's own weights; it is loaded for the first of them."""
    return text.open_encoder().encode(texts)


def _content_hash(table: ItemTable) -> str:
    """Hash the columns that are named by what they hold: they stay, whatever rounds change."""
    content = np.ascontiguousarray(table.fixed[:, 1:])
    return sha256(repr(table.fixed.shape).encode() + content.tobytes()).hexdigest()


def _kept(vault: Vault, made_from: dict[str, str]) -> tuple[Catalogue, tuple[str, ...]] | None:
    """Catalogue and column names as they were kept; None if they were made from other files."""
    try:
        values = json.loads(vault.get(TABLES, _SHELF))
    except NotInVault:
        return None
    if any(values.get(name) != value for name, value in made_from.items()):
        return None
    catalogue = Catalogue(
        ids=tuple(values["ids"]),
        titles=tuple(values["titles"]),
        genres=tuple(map(tuple, values["genres"])),
        years=np.array(values["years"], dtype=np.int32),
        texts=tuple(values["texts"]),
    )
    return catalogue, tuple(values["columns"])


def _prepared(
    vault: Vault, data: bytes, table: ItemTable | None, made_from: dict[str, str]
) -> tuple[Catalogue, tuple[str, ...]]:
    """Read the catalogue and name the columns, once they are known to be the fleet's, and keep both."""
    from palate.client.fleet.profile import FleetProfile
    from palate.client.owner.columns import column_names, indicators

    profile = FleetProfile.load(vault)
    if profile is not None and profile.welcome.catalogue_sha256 != made_from["catalogue"]:
        raise RunError(
            "the catalogue on disk is not the fleet's", hint="take the welcome in again: palate client enrol --welcome"
        )
    catalogue = Catalogue.from_parquet(data, hint=NEW_WELCOME)
    if table is None:
        names = indicators(catalogue).names
    elif table.num_items != catalogue.num_items:
        raise _another(table, catalogue)
    else:
        names = column_names(table, catalogue)
    values: dict[str, Any] = {
        **made_from,
        "columns": names,
        "ids": catalogue.ids,
        "titles": catalogue.titles,
        "genres": catalogue.genres,
        "years": catalogue.years.tolist(),
        "texts": catalogue.texts,
    }
    vault.put(TABLES, _SHELF, json.dumps(values, separators=(",", ":")).encode("ascii"))
    return catalogue, names


def _content_alone(catalogue: Catalogue) -> ItemTable:
    """Return a table of genres and years, of which nobody has learned anything."""
    from palate.client.owner.columns import indicators

    columns = indicators(catalogue).columns
    if not columns.shape[1]:
        raise RunError(
            "no table has come yet, and the catalogue has neither genres nor years to go by",
            hint="take part in rounds: palate client join",
        )
    return ItemTable(columns, np.zeros((catalogue.num_items, 0), dtype=np.float32))


def _another(table: ItemTable, catalogue: Catalogue) -> RunError:
    return RunError(
        f"the table has {table.num_items} items, the catalogue {catalogue.num_items}",
        hint="the next round brings a table of this catalogue: palate client join",
    )
