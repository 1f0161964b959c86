"""Forget me: destroy the keys, then everything they sealed, and leave only what was spent of the privacy budget.

Crypto-shredding comes first, for it is the one step that a copy of the files cannot undo, given that the key lay in a
keyring or was overwritten in place. Then rows are overwritten (secure_delete), the file is rebuilt (VACUUM), the log is
cut, and all files are overwritten and removed. Stopped anywhere, `finish` goes on: the tombstone is written first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.client.vault import files, keeper, schema, tombstone
from palate.client.vault.errors import EntryRefused, NoVault, OtherVersion, VaultError, VaultLocked, VaultTampered
from palate.client.vault.rows import named
from palate.client.vault.sealing import ID_SIZE
from palate.privacy import files as whole


def forget(
    folder: Path,
    *,
    spent: Mapping[tuple[str, str], int],
    signer: Ed25519PrivateKey | None,
    further: Callable[[], None] = lambda: None,
) -> tombstone.Tombstone:
    """Destroy the vault of a folder for good; no key is needed for it, so that a lost one is no obstacle.

    Close the vault first, in all programs: one that still has it open finds it empty.

    Parameters
    ----------
    folder
        The vault's folder.
    spent
        Charges to the device's ledgers since this vault was made, in 1e-9 of 2 rho, by (unit, adjacency).
    signer
        The key that signed them, taken out of the vault before; None if it is lost.
    further
        Destroys what else there is, as the ledger's file; called once the keys are gone.

    Returns
    -------
    Tombstone
        As it now lies in the folder.

    Raises
    ------
    NoVault
        If there is no vault.
    EntryRefused
        If a charge is negative.
    LooseFile, NoKeyring, VaultLocked
        If something of the vault cannot be destroyed; call `finish` when it can.
    """
    if any(nano < 0 for nano in spent.values()):
        raise EntryRefused(
            f"a charge of {min(spent.values())}, at least 0", hint="give the sums of the ledgers' charges"
        )
    files.own_folder(folder)
    identity = _identity(folder)
    if identity is None:
        raise NoVault(f"{folder} has no vault", hint="name the folder of this device")
    before = tombstone.read(folder)
    if before is None or before.vault != identity[0]:
        tombstone.write(folder, tombstone.engrave(identity[0], spent, signer, before))
    return finish(folder, further=further)


def finish(folder: Path, *, further: Callable[[], None] = lambda: None) -> tombstone.Tombstone:
    """Go on with a `forget` that something stopped; raises as it. Nothing happens if it was finished."""
    stone = tombstone.read(folder)
    if stone is None:
        raise NoVault(f"nothing was begun to be forgotten in {folder}", hint="call forget first")
    identity = _identity(folder)
    if identity is not None and identity[0] != stone.vault:
        return stone  # a new vault, begun after this tombstone
    keeper.FileKeeper(folder).shred(stone.vault)
    refusal = None
    if identity is not None and identity[1] == keeper.KeyringKeeper.kind:
        try:
            keeper.KeyringKeeper().shred(stone.vault)
        except VaultError as error:
            refusal = error
    for path in sorted(folder.glob(".vault.*.tmp")):  # what a crash left of files that were being made
        files.shred(path)
    further()
    if refusal is not None:  # what the key opens goes; the row that says where the key lies stays, for the next try
        _empty(folder, ("keys", "entries"))
        raise refusal
    _empty(folder, tuple(schema.SCHEMA))
    for suffix in (*schema.SIDE_FILES, ""):
        (folder / f"{schema.FILE}{suffix}").unlink(missing_ok=True)
    whole.sync_folder(folder)
    return stone


def _identity(folder: Path) -> tuple[bytes, str] | None:
    """Id and keeper as the file says in clear; None if there is no file, or it is empty already.

    A file too damaged to say goes by a hash of its bytes, so that a second one is not taken for the first.
    """
    path = folder / schema.FILE
    if not path.is_file():
        return None
    try:
        with closing(schema.connect(path)) as connection, named():
            connection.execute("BEGIN IMMEDIATE")  # wait for a program that is just making a vault here
            if schema.is_empty(connection):
                return None
            if connection.execute("PRAGMA application_id").fetchone()[0] != schema.APPLICATION_ID:
                raise OtherVersion(f"{path} is not a vault", hint="name the folder of this device")
            row = connection.execute("SELECT id, keeper FROM vault").fetchone()
    except VaultTampered:
        return sha256(path.read_bytes()).digest()[:ID_SIZE], keeper.FileKeeper.kind
    return None if row is None else (row[0], row[1])


def _empty(folder: Path, tables: Sequence[str]) -> None:
    path = folder / schema.FILE
    if not path.is_file():
        return
    try:
        _overwrite_rows(path, tables)
    except VaultTampered:  # SQLite cannot read it: overwrite the files as they are
        for suffix in (*schema.SIDE_FILES, ""):
            files.shred(folder / f"{schema.FILE}{suffix}")


def _overwrite_rows(path: Path, tables: Sequence[str]) -> None:
    with closing(schema.connect(path)) as connection, named():
        if not schema.is_empty(connection):
            connection.execute("BEGIN IMMEDIATE")
            for table in tables:
                connection.execute(f"DELETE FROM {table}")
            connection.execute("COMMIT")
        # Once so that overwritten pages reach the file, once for what VACUUM wrote.
        for statement in ("PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
            row = connection.execute(statement).fetchone()
            if row is not None and row[0]:
                raise VaultLocked(
                    "the keys are destroyed, but another program still reads the vault's file",
                    hint="close it, then go on with: palate client forget --yes",
                )
