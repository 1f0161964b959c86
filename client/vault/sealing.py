"""Sealed boxes: AES-256-GCM (NIST SP 800-38D) bound to where they belong, and a keyed sum over all that there is.

A box opens only as the entry, and as the version of it, that it was sealed as. What a box cannot show is that another
one is missing or older than it should be. For that the vault keeps a multiset hash (Clarke et al. 2003, MSet-Add-Hash):
the sum modulo 2^256 of a keyed hash of every row. It is updated by one addition a change and is itself sealed, so that
nobody without the key sees even a single term of it.
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from palate.client.vault.errors import VaultTampered
from palate.privacy.ledger.framing import framed, number

KEY_SIZE = 32
ID_SIZE = 16
NONCE_SIZE = 12
TAG_SIZE = 16
SUM_SIZE = 32
PAD = 256

# Nonces are random, not counted: a vault put back from a backup would count again from an older number, and one
# repeated nonce gives GCM away. SP 800-38D (8.3) allows one key 2^32 random 96-bit nonces, which keeps the chance
# of any repetition below 2^-32. Each entry that is sealed raises the vault's version by one, and the state is sealed
# at most once a version, so versions since a key's birth bound its seals. Half of what is allowed is left for seals
# that no version counts: of transactions that were rolled back, and of histories that a restored backup cut off.
SEALS_PER_KEY: Final = 1 << 31

_KEY = b"palate/vault/key/1"
_ENTRY = b"palate/vault/entry/1"
_STATE = b"palate/vault/state/1"
_NAME = b"palate/vault/name/1"
_ENTRY_ROW = b"palate/vault/entry-row/1"
_KEY_ROW = b"palate/vault/key-row/1"
_SEAL = b"palate/vault/seal/1"
_HASH = b"palate/vault/hash/1"
_CHECK = b"palate/vault/check/1"

_MODULUS = 1 << (8 * SUM_SIZE)
_HINT = "if the disk is sound somebody changed the file: restore a backup, or forget this vault and begin a new one"


@dataclass(frozen=True)
class State:
    """What a vault holds, in one line.

    Attributes
    ----------
    version
        Number of the latest change; never used twice within one history of a vault.
    entries
        Rows of entries.
    total
        Sum of the terms of all rows, of entries and of keys, modulo 2^256.
    """

    version: int
    entries: int
    total: int

    def changed(self, *, version: int, entries: int = 0, added: int = 0, removed: int = 0) -> State:
        """Return the state after a change: its version, rows more or less, and the terms that came and went."""
        return State(version, self.entries + entries, (self.total + added - removed) % _MODULUS)


class DataKey:
    """The key of one purpose, in one vault.

    Parameters
    ----------
    vault
        The vault's id, 16 bytes.
    purpose
        Name of the purpose.
    key_id
        Random id of this key, 16 bytes.
    born
        The vault's version when the key was made.
    secret
        32 random bytes.
    """

    def __init__(self, vault: bytes, purpose: str, key_id: bytes, born: int, secret: bytes) -> None:
        self.vault = vault
        self.purpose = purpose
        self.key_id = key_id
        self.born = born
        self._secret = secret
        self._box = AESGCM(derive(secret, _SEAL))
        self._hash_key = derive(secret, _HASH)

    def __repr__(self) -> str:
        return "DataKey(<sealed>)"

    @classmethod
    def fresh(cls, vault: bytes, purpose: str, born: int) -> DataKey:
        """Make a new key."""
        return cls(vault, purpose, os.urandom(ID_SIZE), born, os.urandom(KEY_SIZE))

    def wrapped(self, master: bytes) -> bytes:
        """Seal this key under the master key, 60 bytes."""
        return _seal(AESGCM(master), self._secret, self._associated(_KEY, number(self.born)))

    @classmethod
    def unwrapped(cls, master: bytes, vault: bytes, purpose: str, key_id: bytes, born: int, wrapped: bytes) -> DataKey:
        """Open what `wrapped` made.

        Raises
        ------
        VaultTampered
            If it was made for another purpose or vault, or was changed.
        """
        what = framed(_KEY, vault, purpose.encode("ascii"), key_id, number(born))
        return cls(vault, purpose, key_id, born, _unseal(AESGCM(master), wrapped, what, f"the key of {purpose}"))

    def name_tag(self, name: str) -> bytes:
        """Keyed hash under which an entry is found, 32 bytes: names can say as much as values."""
        return self._hash(_NAME, name.encode("utf-8"))

    def seal(self, name: str, version: int, value: bytes) -> bytes:
        """Seal an entry, padded so that its size tells the value's to 256 bytes only."""
        label = name.encode("utf-8")
        plain = framed(label, value)
        plain += bytes(-len(plain) % PAD)
        return _seal(self._box, plain, self._associated(_ENTRY, self._hash(_NAME, label), number(version)))

    def open(self, tag: bytes, version: int, sealed: bytes) -> tuple[str, bytes]:
        """Open an entry: its name and its value.

        Raises
        ------
        VaultTampered
            If it is not what `seal` made for this place and version.
        """
        plain = _unseal(
            self._box, sealed, self._associated(_ENTRY, tag, number(version)), f"an entry of {self.purpose}"
        )
        start = 4 + int.from_bytes(plain[:4], "big")
        end = start + 4 + int.from_bytes(plain[start : start + 4], "big")
        return plain[4:start].decode("utf-8"), plain[start + 4 : end]

    def seal_state(self, state: State) -> bytes:
        """Seal the vault's state, 76 bytes; for the vault's own key."""
        plain = number(state.version) + number(state.entries) + state.total.to_bytes(SUM_SIZE, "big")
        return _seal(self._box, plain, self._associated(_STATE))

    def open_state(self, sealed: bytes) -> State:
        """Open what `seal_state` made; raises as `open`."""
        plain = _unseal(self._box, sealed, self._associated(_STATE), "the record of what the vault holds")
        version, entries = int.from_bytes(plain[:8], "big"), int.from_bytes(plain[8:16], "big")
        return State(version, entries, int.from_bytes(plain[16:], "big"))

    def entry_term(self, purpose: str, tag: bytes, version: int) -> int:
        """Term of an entry's row in the sum; for the vault's own key."""
        return int.from_bytes(self._hash(_ENTRY_ROW, purpose.encode("ascii"), tag, number(version)), "big")

    def key_term(self, purpose: str, key_id: bytes, born: int) -> int:
        """Term of a key's row in the sum; for the vault's own key."""
        return int.from_bytes(self._hash(_KEY_ROW, purpose.encode("ascii"), key_id, number(born)), "big")

    def _hash(self, tag: bytes, *parts: bytes) -> bytes:
        return hmac.digest(self._hash_key, framed(tag, *parts), "sha256")

    def _associated(self, tag: bytes, *parts: bytes) -> bytes:
        return framed(tag, self.vault, self.purpose.encode("ascii"), self.key_id, *parts)


def derive(secret: bytes, purpose: bytes) -> bytes:
    """HKDF-SHA256 without salt (RFC 5869), 32 bytes."""
    return HKDF(SHA256(), KEY_SIZE, salt=None, info=purpose).derive(secret)


def check_value(master: bytes, vault: bytes) -> bytes:
    """Tell a master key from another without opening anything, 16 bytes; nothing about the key follows from it."""
    return hmac.digest(derive(master, _CHECK), vault, "sha256")[:16]


def _seal(box: AESGCM, plain: bytes, associated: bytes) -> bytes:
    nonce = os.urandom(NONCE_SIZE)
    return nonce + box.encrypt(nonce, plain, associated)


def _unseal(box: AESGCM, sealed: bytes, associated: bytes, what: str) -> bytes:
    if len(sealed) < NONCE_SIZE + TAG_SIZE:
        raise VaultTampered(f"{what} has {len(sealed)} bytes, at least {NONCE_SIZE + TAG_SIZE} make a box", hint=_HINT)
    try:
        return box.decrypt(sealed[:NONCE_SIZE], sealed[NONCE_SIZE:], associated)
    except InvalidTag:
        raise VaultTampered(f"{what} is not what was sealed there", hint=_HINT) from None
