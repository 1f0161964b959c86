"""Tombstone: what a vault that was forgotten had spent, and nothing else about it.

Without it, forgetting would reset the privacy budget, though what was released stays released. It is signed by the key
that signed the ledger, just before that key is destroyed: nobody can make another one for the same device afterwards.
Its owner can still delete it, as they can delete the whole device. Only those who keep receipts, the server or an
enrolment authority, can know that a device of that key ever was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from palate.client.vault import files
from palate.client.vault.errors import VaultTampered
from palate.privacy import files as whole
from palate.privacy.ledger import canonical
from palate.privacy.ledger.errors import MalformedBody
from palate.privacy.ledger.framing import framed

FILE = "vault.tombstone"
FORMAT = "palate-tombstone/1"

_TAG: Final = b"palate/vault/tombstone/1"
_MAX_BYTES = 1 << 16
_HEAD = {"format", "key", "previous", "vault"}
_LINE = {"adjacency", "spent_nano", "unit"}


@dataclass(frozen=True)
class Tombstone:
    """What is left of a vault.

    Attributes
    ----------
    vault
        Its id, 16 bytes.
    spent
        What was ever charged, here and in vaults that were forgotten before, in 1e-9 of 2 rho by (unit, adjacency).
    previous
        SHA-256 of the tombstone before this one, or empty.
    key
        The device's Ed25519 public key, or empty if the key was lost before the vault was forgotten.
    signature
        64 bytes, or empty with `key`.
    """

    vault: bytes
    spent: Mapping[tuple[str, str], int]
    previous: bytes
    key: bytes
    signature: bytes

    def spent_nano(self, unit: str, adjacency: str) -> int:
        """Look up what was charged for a unit, in 1e-9 of 2 rho; take it off any new budget."""
        return self.spent.get((unit, adjacency), 0)

    def in_words(self) -> str:
        """Say what was spent, for messages."""
        return (
            ", ".join(f"{nano / 1e9:.9g} (2 rho) of unit {unit}" for (unit, _), nano in sorted(self.spent.items()))
            or "nothing"
        )

    def to_bytes(self) -> bytes:
        """Write as lines of canonical JSON."""
        return self._signed_part() + _line({"signature": self.signature.hex()})

    def _signed_part(self) -> bytes:
        head: dict[str, canonical.Value] = {
            "format": FORMAT,
            "key": self.key.hex(),
            "previous": self.previous.hex(),
            "vault": self.vault.hex(),
        }
        lines: list[dict[str, canonical.Value]] = [
            {"adjacency": adjacency, "spent_nano": nano, "unit": unit}
            for (unit, adjacency), nano in sorted(self.spent.items())
        ]
        return b"".join(_line(values) for values in (head, *lines))


def engrave(
    vault: bytes, spent: Mapping[tuple[str, str], int], signer: Ed25519PrivateKey | None, before: Tombstone | None
) -> Tombstone:
    """Make the tombstone of a vault; what an earlier one says is added.

    Parameters
    ----------
    vault
        Id of the vault that is forgotten.
    spent
        Charges since that vault was made, in 1e-9 of 2 rho, by (unit, adjacency).
    signer
        The key that signed the device's ledger; None if it is lost.
    before
        The tombstone that the vault was begun with.
    """
    totals = dict(spent)
    for place, nano in ({} if before is None else before.spent).items():
        totals[place] = totals.get(place, 0) + nano
    stone = Tombstone(
        vault=vault,
        spent=totals,
        previous=b"" if before is None else sha256(before.to_bytes()).digest(),
        key=b"" if signer is None else signer.public_key().public_bytes_raw(),
        signature=b"",
    )
    if signer is None:
        return stone
    return replace(stone, signature=signer.sign(framed(_TAG, stone._signed_part())))


def parse(data: bytes) -> Tombstone:
    """Read what `to_bytes` wrote, and check its signature.

    Raises
    ------
    VaultTampered
        If it is not exactly that, or the signature does not fit.
    """
    try:
        head, *middle, last = [canonical.decode(line) for line in data.removesuffix(b"\n").split(b"\n")]
        if head.keys() != _HEAD or head["format"] != FORMAT or last.keys() != {"signature"}:
            raise ValueError("its fields are not those of a tombstone")
        if any(line.keys() != _LINE for line in middle):
            raise ValueError("its fields are not those of a tombstone")
        stone = Tombstone(
            vault=bytes.fromhex(str(head["vault"])),
            spent={(str(line["unit"]), str(line["adjacency"])): int(line["spent_nano"]) for line in middle},
            previous=bytes.fromhex(str(head["previous"])),
            key=bytes.fromhex(str(head["key"])),
            signature=bytes.fromhex(str(last["signature"])),
        )
        if stone.to_bytes() != data:  # also where a line is there twice, or out of order
            raise ValueError("it is not spelt as palate spells it")
        sizes = (len(stone.vault), len(stone.previous), len(stone.key), len(stone.signature))
        if sizes not in {(16, previous, *signed) for previous in (0, 32) for signed in ((0, 0), (32, 64))}:
            raise ValueError("an id, a key or a signature has the wrong length")
        if stone.key:
            Ed25519PublicKey.from_public_bytes(stone.key).verify(stone.signature, framed(_TAG, stone._signed_part()))
    except (ValueError, MalformedBody, InvalidSignature) as error:
        why = "its signature does not fit" if isinstance(error, InvalidSignature) else str(error)
        raise VaultTampered(
            f"the tombstone of a forgotten vault was changed: {' '.join(why.split())[:120]}",
            hint="restore it from a backup; what was spent must not be lost",
        ) from None
    return stone


def read(folder: Path) -> Tombstone | None:
    """Read the tombstone of a folder; None if there is none. Raises as `parse` and `files.read_private`."""
    try:
        return parse(files.read_private(folder / FILE, _MAX_BYTES))
    except FileNotFoundError:
        return None


def write(folder: Path, stone: Tombstone) -> None:
    """Put a tombstone into a folder, in the place of an earlier one."""
    whole.replace(folder / FILE, stone.to_bytes())


def _line(values: Mapping[str, canonical.Value]) -> bytes:
    return canonical.encode(values) + b"\n"
