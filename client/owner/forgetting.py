"""Forget the whole device, except for a tombstone that says how much privacy was spent.

What was sent cannot be called back, so neither can what was spent: without the tombstone, forgetting would make the
budget begin anew (`palate.client.vault.tombstone`). Ledger, catalogue, table and log are overwritten with the vault.
Copies on backups, and sectors that a disk has put elsewhere, are out of reach.
"""

from __future__ import annotations

from contextlib import suppress

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from palate.client.fleet import carried_spending
from palate.client.fleet.folder import DeviceFolder
from palate.client.fleet.identity import DeviceKeys
from palate.client.fleet.round_log import RoundLog
from palate.client.vault import Tombstone, Vault, files, forget
from palate.client.vault.errors import Forgotten, NoVault, VaultLocked, VaultTampered, WrongKey
from palate.errors import ConfigError, RunError
from palate.privacy.accounting.events import Unit
from palate.privacy.budget import ADJACENCY
from palate.privacy.errors import PrivacyError
from palate.privacy.ledger.verify import verify_book

OUT_OF_REACH = (
    "backups, snapshots and sectors that a disk has moved may still hold sealed copies: their key is gone from here; "
    "what was added to sums in rounds stays in them; what was spent is counted for as long as you keep the file "
    "vault.tombstone: whoever deletes it begins from 0 here, and nobody can prevent that"
)


def forget_device(folder: DeviceFolder) -> Tombstone:
    """Destroy everything that a device keeps, or continue an interrupted destruction.

    Raises
    ------
    NoVault
        If there is no device.
    RunError
        If its agent takes part in rounds just now, or what it spent cannot be read any more.
    VaultError
        If something cannot be destroyed; call this again when it can.
    """
    if not folder.home.is_dir():
        raise NoVault(f"{folder.home} has no vault", hint="name the folder of this device with --folder")
    with folder.locked():
        if not folder.vault.is_dir():
            raise NoVault(f"{folder.vault} has no vault", hint="name the folder of this device with --folder")
        try:
            signer, of_earlier_keys = _signer(folder)
            if signer is not None and not folder.ledger.exists():
                _check_nothing_was_spent(folder)
            spent = _spent(folder, signer)
            if of_earlier_keys:
                place = (str(Unit.USER), ADJACENCY)
                spent[place] = spent.get(place, 0) + of_earlier_keys
        except Forgotten:
            return forget.finish(folder.vault, further=lambda: _shred_all(folder))
        return forget.forget(folder.vault, spent=spent, signer=signer, further=lambda: _shred_all(folder))


def _signer(folder: DeviceFolder) -> tuple[Ed25519PrivateKey | None, int]:
    """Return the ledger's key, and what earlier keys of the person were charged, in 1e-9 of 2 rho at unit user.

    None where the vault's own key is lost, which must not keep anybody from forgetting. Meanwhile an earlier tombstone
    is put back where its file was lost, for the next one adds to it.
    """
    try:
        with Vault.open(folder.vault) as vault:
            carried_spending.put_back(vault)
            return DeviceKeys.load(vault).ledger, carried_spending.of_earlier_keys(vault)
    except (Forgotten, NoVault, VaultLocked):
        raise
    except (WrongKey, VaultTampered, ConfigError):
        return None, 0


def _check_nothing_was_spent(folder: DeviceFolder) -> None:
    """Refuse if the vault knows of charges and their ledger is missing."""
    with Vault.open(folder.vault) as vault:
        if RoundLog(vault).heads():
            raise RunError(
                f"{folder.ledger} is missing, and rounds were charged to it",
                hint="restore the ledger from a backup; forgetting must not lose what was spent",
            )


def _spent(folder: DeviceFolder, signer: Ed25519PrivateKey | None) -> dict[tuple[str, str], int]:
    """Add up the ledger's charges, in 1e-9 of 2 rho, by unit and adjacency."""
    if not folder.ledger.exists():
        return {}
    try:
        public = (
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(folder.public_key.read_text("ascii").strip()))
            if signer is None
            else signer.public_key()
        )
        states = verify_book(folder.ledger, public, allow_open=True)
    except (PrivacyError, OSError, ValueError) as error:
        why = error.message if isinstance(error, PrivacyError) else type(error).__name__
        raise RunError(
            f"what was spent cannot be read from {folder.ledger}: {why}",
            hint="restore the ledger from a backup; forgetting must not lose what was spent",
        ) from None
    spent: dict[tuple[str, str], int] = {}
    for state in states.values():
        if state.policy is not None:
            place = (state.policy.unit, state.policy.adjacency)
            spent[place] = spent.get(place, 0) + state.spent_nano
    return spent


def _shred_all(folder: DeviceFolder) -> None:
    """Shred the files of the device other than its vault; the lock file is held, and has no content."""
    for path in (folder.ledger, folder.public_key, folder.catalogue, folder.table, folder.authority, folder.log):
        for found in (*path.parent.glob(f"{path.name}*"), *path.parent.glob(f".{path.name}.*.tmp")):  # drafts, too
            if found.is_symlink() or not found.is_dir():
                with suppress(FileNotFoundError):
                    files.shred(found)
