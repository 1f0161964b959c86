"""The device's table and catalogue, ready to recommend from, whatever the last round brought.

Reading the catalogue's Parquet takes a second and large libraries. It is done once; what comes of it is kept in the
vault, where nobody without the key can change it, for as long as the file stays the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from palate.client.fleet.folder import NEW_WELCOME, DeviceFolder
from palate.client.fleet.tables import COLUMNS, TRAINING, read_fitting, read_table
from palate.client.recommending.facets import POPULARITY
from palate.client.recommending.recommender import Recommender
from palate.client.vault import TABLES, Vault
from palate.client.vault.heads import read_head
from palate.client.vault.records import Record
from palate.client.vault.rows import MAX_VALUE_BYTES
from palate.data import text
from palate.data.catalogue import Catalogue
from palate.errors import RunError
from palate.models.arrays import Float32Array
from palate.models.table import ItemTable

if TYPE_CHECKING:
    from palate.data.form_index import FormIndex

FORMAT: Final = "palate-shelf/2"
_CATALOGUE: Final = Record[dict[str, Any]](TABLES, "shelf")
_FORMS: Final = Record[bytes](TABLES, "forms of titles", bytes, bytes)

NO_TABLE = (
    "no table has arrived yet: these lists use only genres and years; take part in rounds with palate client join"
)
NO_TRAINING = "the parameters of the run that made the table are not on this device: the usual ones are used"
NO_NAMES = "what the table's columns say is not known: reasons are less exact until another table comes"

_CONTENT_ALONE: Final = '{"model":"gmf"}'
_USUAL: Final = "{}"
"""Parameters of training where no table has come, and where those of its run are not known."""

Stamp = tuple[tuple[int, int, int] | None, ...]


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


class NothingToGoBy(RunError):
    """There is neither a table nor public content, so nothing can be said of a taste yet."""


def open_catalogue(folder: DeviceFolder, vault: Vault) -> Catalogue:
    """Read a device's catalogue, which needs no table; it is empty where none has come yet.

    Raises
    ------
    RunError
        If it is not the fleet's.
    DataError
        If it cannot be read.
    """
    try:
        data = folder.catalogue.read_bytes()
    except FileNotFoundError:
        return Catalogue((), (), (), np.zeros(0, dtype=np.int32), ())
    except OSError as error:
        raise RunError(f"{folder.catalogue} cannot be read: {error.strerror}", hint="check its permissions") from None
    return _catalogue(vault, data)


def open_recommender(folder: DeviceFolder, vault: Vault, catalogue: Catalogue | None = None) -> Recommender:
    """Prepare a device's table; the notes of the result are for its owner.

    Raises
    ------
    NothingToGoBy
        If there is no catalogue, or no table and nothing public about its items.
    RunError
        If the table is not of the catalogue's items; and as `open_catalogue`, unless a catalogue is given.
    """
    catalogue = open_catalogue(folder, vault) if catalogue is None else catalogue
    if not catalogue.num_items:
        raise NothingToGoBy(
            f"{folder.home} has no catalogue yet, so there is nothing to recommend",
            hint="join a fleet (palate client enrol), or look around first: palate client try",
        )
    table = read_table(folder.table)
    if table is None:
        table, names = content_alone(catalogue)
        notes, table_hash = [NO_TABLE], ""
        fitting = read_fitting(vault, _CONTENT_ALONE)
    else:
        names = tuple(COLUMNS.read(vault) or ())
        table_hash, notes = table.content_hash, []
        try:
            fitting = read_fitting(vault, TRAINING.read(vault) or "")
        except ValueError:
            notes.append(NO_TRAINING)
            fitting = read_fitting(vault, _USUAL)
        if len(names) != table.fixed_dim:
            names = (POPULARITY, *(f"column {at}" for at in range(2, table.fixed_dim + 1)))[: table.fixed_dim]
            notes.append(NO_NAMES)
    if table.num_items != catalogue.num_items:
        raise RunError(
            f"the table has {table.num_items} items, the catalogue {catalogue.num_items}",
            hint="the next round brings a table of this catalogue: palate client join",
        )
    head = read_head(vault, fitting, table)
    encoder = _encode if text.is_installed() else None
    return Recommender(
        table, catalogue, names, fitting, head=head, encoder=encoder, table_hash=table_hash, notes=tuple(notes)
    )


def _encode(texts: Sequence[str]) -> Float32Array:
    """Read words that no list knows, with the encoder's own weights; it is loaded for the first of them."""
    return text.open_encoder().encode(texts)


def _catalogue(vault: Vault, data: bytes) -> Catalogue:
    """Return the catalogue of a file: as it was kept, or read once it is known to be the fleet's, and kept."""
    digest = sha256(data).hexdigest()
    made_from = {"format": FORMAT, "catalogue": digest}
    kept = _CATALOGUE.read(vault) or {}
    if all(kept.get(name) == value for name, value in made_from.items()):
        genres, years = tuple(map(tuple, kept["genres"])), np.array(kept["years"], dtype=np.int32)
        catalogue = Catalogue(tuple(kept["ids"]), tuple(kept["titles"]), genres, years, tuple(kept["texts"]))
        return catalogue.with_forms(lambda: _forms(vault, catalogue, digest))
    from palate.client.fleet.profile import FleetProfile  # what a fleet needs takes a third of a second to import

    profile = FleetProfile.load(vault)
    if profile is not None and profile.welcome.catalogue_sha256 != made_from["catalogue"]:
        raise RunError(
            "the catalogue on disk is not the fleet's", hint="take the welcome in again: palate client enrol --welcome"
        )
    catalogue = Catalogue.from_parquet(data, hint=NEW_WELCOME)
    values = {name: getattr(catalogue, name) for name in ("ids", "titles", "genres", "texts")}
    _CATALOGUE.write(vault, {**made_from, **values, "years": catalogue.years.tolist()})
    return catalogue.with_forms(lambda: _forms(vault, catalogue, digest))


def _forms(vault: Vault, catalogue: Catalogue, digest: str) -> FormIndex:
    """Return the forms of a catalogue's titles: as they were kept for it, or made now, and kept."""
    from palate.data.form_index import VERSION, FormIndex

    made_from = f"{VERSION} {digest}\n".encode("ascii")
    if not vault.is_open:  # a catalogue may outlive it
        return FormIndex.of(catalogue.titles, catalogue.years)
    kept = _FORMS.read(vault) or b""
    if kept.startswith(made_from):
        return FormIndex.from_bytes(kept.removeprefix(made_from))
    made = FormIndex.of(catalogue.titles, catalogue.years)
    data = made_from + made.to_bytes()
    if len(data) <= MAX_VALUE_BYTES:  # else it is made anew each time
        _FORMS.write(vault, data)
    return made


def content_alone(catalogue: Catalogue) -> tuple[ItemTable, tuple[str, ...]]:
    """Return a table of genres and years, of which nobody has learned anything, and the names of its columns.

    Raises
    ------
    NothingToGoBy
        If the catalogue has neither.
    """
    from palate.data.content import content_features

    content = content_features(
        genres=catalogue.genres,
        years=catalogue.years,
        texts=("",) * catalogue.num_items,
        text_dim=0,
    )
    if not content.names:
        raise NothingToGoBy(
            "no table has come yet, and the catalogue has neither genres nor years to go by",
            hint="take part in rounds: palate client join",
        )
    return ItemTable(content.columns, np.zeros((catalogue.num_items, 0), dtype=np.float32)), content.names
