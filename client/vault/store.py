"""The vault: everything secret that a device keeps, sealed, in one file that several programs may use at once.

Values are sealed under one key a purpose, those keys under a master key that lies elsewhere (envelope encryption, as in
age and in key management services), and every change is on disk, whole, before it returns. docs/formats/vault.md gives
the bytes.
"""

from __future__ import annotations

import base64
import json
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palate.client.vault import files, keeper, schema, tombstone
from palate.client.vault.errors import Forgotten, NotInVault, NoVault, VaultExists, WrongKey
from palate.client.vault.purposes import PURPOSES, RESERVED, Purpose
from palate.client.vault.rows import SealedRows, named
from palate.client.vault.sealing import ID_SIZE, DataKey, State, check_value
from palate.privacy import files as whole

EXPORT_FORMAT = "palate-vault-export/1"


class Vault(SealedRows):
    """An open vault; made by `create` or `open`, and closed as a context manager or by `close`.

    One object may be used by several threads, one file by several programs; no object across a fork.

    Attributes
    ----------
    folder
        Its folder.
    vault_id
        Its id, 16 random bytes.
    keeper
        Where its master key lies, "keyring" or "file".
    """

    def __init__(self, folder: Path, connection: sqlite3.Connection, vault_id: bytes, kind: str, master: bytes) -> None:
        self.folder = folder
        self.vault_id = vault_id
        self.keeper = kind
        super().__init__(connection, vault_id, master)

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        keyring: keeper.Choice = "auto",
        carrying: tombstone.Tombstone | None = None,
    ) -> Vault:
        """Make a vault in a folder, which is made too if need be.

        Parameters
        ----------
        folder
            The folder: the user's own, and not writable for others.
        keyring
            Where the master key goes: "os", "file", or "auto" for the best there is.
        carrying
            What a vault that was forgotten had spent. The caller takes it off the new budget; it is asked for where
            the folder has a tombstone, and written where it has none.

        Raises
        ------
        Forgotten
            If a vault was forgotten here and `carrying` is not its tombstone, or its forgetting is not finished.
        VaultExists, LooseFile, NoKeyring, VaultLocked
            If there is a vault already, others have rights here, or the keyring does not serve.
        """
        files.own_folder(folder, make=True)
        left = tombstone.read(folder)
        if left is not None and left != carrying:
            raise Forgotten(
                f"a vault was forgotten in {folder} after spending {left.in_words()}; a new one does not begin from 0",
                hint="begin with what is left of the budget, by carrying the tombstone over",
            )
        if left is None and carrying is not None:
            tombstone.write(folder, carrying)
        place = keeper.choose(folder, keyring)
        vault_id = os.urandom(ID_SIZE)
        connection = schema.connect(folder / schema.FILE)
        try:
            with named():
                connection.execute("BEGIN IMMEDIATE")
                if not schema.is_empty(connection):
                    if left is not None:
                        _refuse_half_forgotten(folder, connection.execute("SELECT id FROM vault").fetchone(), left)
                    raise VaultExists(f"{folder} has a vault already", hint="open it, or choose another folder")
                schema.create(connection)
                master = place.make(vault_id)  # before the commit: a vault without its key would be lost
                own = DataKey.fresh(vault_id, RESERVED, 0)
                state = State(0, 0, own.key_term(RESERVED, own.key_id, 0))
                row = (vault_id, place.kind, check_value(master, vault_id), own.seal_state(state))
                connection.execute("INSERT INTO vault VALUES (1, ?, ?, ?, ?)", row)
                key_row = (RESERVED, own.key_id, own.born, own.wrapped(master))
                connection.execute("INSERT INTO keys VALUES (?, ?, ?, ?)", key_row)
                connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        whole.sync_folder(folder)
        return cls(folder, connection, vault_id, place.kind, master)

    @classmethod
    def open(cls, folder: Path) -> Vault:
        """Open the vault of a folder, and check that its rows are those that it was left with.

        Raises
        ------
        NoVault, OtherVersion, LooseFile
            If there is none, it is of another version, or others have rights to it.
        WrongKey, NoKeyring, VaultLocked
            If its master key cannot be had, or another program holds the file for too long.
        VaultTampered
            If rows were removed, invented or put back.
        Forgotten
            If its forgetting was begun and not finished.
        """
        path = folder / schema.FILE
        if not os.path.lexists(path):
            raise _no_vault(folder)
        files.own_folder(folder)
        connection = schema.connect(path)
        try:
            vault_id, kind, check = _identity(folder, connection)
            master = keeper.choose(folder, "file" if kind == keeper.FileKeeper.kind else "os").load(vault_id)
            if check_value(master, vault_id) != check:
                raise WrongKey(
                    f"the key in the {kind} is not the one that vault {vault_id.hex()} was made with",
                    hint="restore the key that belongs to it, or forget this vault and begin a new one",
                )
            vault = cls(folder, connection, vault_id, kind, master)
            vault.check()
        except BaseException:
            connection.close()
            raise
        return vault

    def __enter__(self) -> Vault:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def has(self, purpose: Purpose, name: str) -> bool:
        """Whether there is an entry of that name; raises `VaultTampered` as `get`."""
        try:
            self.get(purpose, name)
        except NotInVault:
            return False
        return True

    def export(self) -> dict[str, Any]:
        """Return the owner's data and public keys in clear, as plain JSON values; secret keys stay sealed.

        Returns
        -------
        dict
            `format`, `vault` (its id), and `purposes`: for each one that may be exported, names and values. A value is
            the JSON that it holds, or `{"base64": ...}`.
        """
        with self.reading():
            found = {
                purpose.name: {label: _plain(value) for label, value in self.entries(purpose).items()}
                for name, purpose in sorted(PURPOSES.items())
                if purpose.exported and self.key(name) is not None
            }
        return {"format": EXPORT_FORMAT, "purposes": found, "vault": self.vault_id.hex()}


def _identity(folder: Path, connection: sqlite3.Connection) -> tuple[bytes, str, bytes]:
    """Id, keeper and check value of the master key."""
    with named():
        if schema.is_empty(connection):  # a start that was cut off
            raise _no_vault(folder)
        schema.check(connection)
        row = connection.execute("SELECT id, keeper, master FROM vault").fetchone()
    _refuse_half_forgotten(folder, row, tombstone.read(folder))
    return row[0], row[1], row[2]


def _refuse_half_forgotten(folder: Path, row: Sequence[bytes] | None, left: tombstone.Tombstone | None) -> None:
    if row is None or (left is not None and left.vault == row[0]):
        raise Forgotten(
            f"the vault in {folder} was being forgotten when something stopped it",
            hint="go on with: palate client forget --yes",
        )


def _no_vault(folder: Path) -> NoVault:
    return NoVault(f"{folder} has no vault", hint="make one with palate client init, or name its folder with --folder")


def _plain(value: bytes) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return {"base64": base64.b64encode(value).decode("ascii")}
