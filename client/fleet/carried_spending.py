"""What an earlier device had spent, taken over by the next one: in its folder, or in its place in a fleet.

Forgetting destroys everything but a tombstone of the spent budget (docs/formats/vault.md). Whoever begins anew in the
same folder begins with it: its charges come off every budget that the new device is given, in any fleet, for the ledger
of a device is about the person and not about a fleet. The new vault seals a copy, so that a file that is lost later
takes nothing with it. Nobody can keep an owner from deleting the tombstone before they begin.

A fleet that admits a person's next key says in the welcome what earlier keys were charged there. It is added to the
tombstone's sum: whether both count the same device is not known, and too much is on the safe side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from palate.client.fleet.folder import DeviceFolder
from palate.client.vault import SERVERS, Tombstone, Vault, tombstone
from palate.client.vault.errors import OtherVersion, VaultTampered
from palate.client.vault.records import Record
from palate.privacy.accounting.events import Unit
from palate.privacy.budget import ADJACENCY

FORMAT = "palate-carried/1"
_CARRIED: Final = Record[Any](SERVERS, "carried")
_OF_EARLIER_KEYS: Final = Record[dict[str, int]](SERVERS, "carried-by-welcomes")


def left_behind(folder: DeviceFolder) -> Tombstone | None:
    """Read what a forgotten device left in a folder; None if nothing was forgotten there.

    Raises
    ------
    VaultTampered, LooseFile
        If the tombstone is damaged, or others have rights to it.
    OtherVersion
        If it counts something that a budget of this version does not.
    """
    stone = tombstone.read(folder.vault)
    if stone is not None:
        _by_unit(stone)
    return stone


def keep(vault: Vault, stone: Tombstone) -> None:
    """Seal a copy of the tombstone that a vault was begun with."""
    _CARRIED.write(vault, {"format": FORMAT, "tombstone": stone.to_bytes().decode("ascii")})


def kept(vault: Vault) -> Tombstone | None:
    """Return the tombstone that a vault was begun with; None if nothing was forgotten before.

    Raises
    ------
    VaultTampered
        If what is kept is none.
    """
    values = _CARRIED.read(vault)
    if values is None:
        return tombstone.read(vault.folder)
    try:
        if values["format"] != FORMAT:
            raise ValueError("another format")
        return tombstone.parse(values["tombstone"].encode("ascii"))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise VaultTampered(
            "what the vault keeps about a forgotten device is not of this version",
            hint="restore the vault from a backup; what was spent must not be lost",
        ) from None


def carried_nano(vault: Vault) -> Mapping[Unit, int]:
    """Return what earlier devices had spent before this one, by unit, in 1e-9 of 2 rho; raises as `kept`."""
    stone = kept(vault)
    spent = {} if stone is None else _by_unit(stone)
    of_keys = of_earlier_keys(vault)
    return spent | {Unit.USER: spent.get(Unit.USER, 0) + of_keys} if of_keys else spent


def keep_of_earlier_keys(vault: Vault, fleet_key: str, nano: int) -> None:
    """Keep what a fleet says that earlier keys were charged, at unit user; the most that it ever said counts."""
    known = _OF_EARLIER_KEYS.read(vault) or {}
    if nano > known.get(fleet_key, 0):
        _OF_EARLIER_KEYS.write(vault, {**known, fleet_key: nano})


def of_earlier_keys(vault: Vault) -> int:
    """Return what earlier keys were charged in all fleets, in 1e-9 of 2 rho at unit user."""
    return sum((_OF_EARLIER_KEYS.read(vault) or {}).values())


def put_back(vault: Vault) -> None:
    """Write the tombstone again where its file was lost or exchanged: the next one adds to it."""
    stone = kept(vault)
    if stone is not None and tombstone.read(vault.folder) != stone:
        tombstone.write(vault.folder, stone)


def _by_unit(stone: Tombstone) -> dict[Unit, int]:
    """Return the sums by unit; what cannot be taken off a budget is refused and not passed over."""
    for unit, adjacency in stone.spent:
        if unit not in set(Unit) or adjacency != ADJACENCY:
            raise OtherVersion(
                f"the tombstone counts what was spent per {unit!r} under {adjacency!r}; budgets of this "
                f"version are about {', '.join(Unit)} under {ADJACENCY}",
                hint="begin with the version of palate that wrote it",
            )
    return {Unit(unit): nano for (unit, _), nano in stone.spent.items()}
