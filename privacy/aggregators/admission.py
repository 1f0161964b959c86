"""Who takes part: certificates, the register of all enrolled devices, and revocations, signed by whoever admits.

Whoever could enrol devices alone could fill a batch with its own and read the one that is left. So either a third party
admits, or leader and helper admit together and every statement carries both signatures. With less, no guarantee against
an aggregator that breaks the protocol may be claimed (`claim.py`).

The share gamma of corrupt devices is one of all that are *registered*, never of a batch: who is in a batch is the
leader's choice.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from itertools import pairwise
from typing import Annotated, ClassVar, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.privacy.aggregators.errors import RegisterRefused
from palate.privacy.ledger.framing import digest, framed
from palate.privacy.ledger.merkle import MerkleTree
from palate.privacy.secagg.encoding import (
    DEVICE,
    HASH,
    NUMBER,
    SIGNATURE,
    SIGNATURE_SIZE,
    DeviceNumber,
    Field,
    Hash,
    Kind,
    Number,
    PublicKey,
    Reader,
    Text,
    header,
    read_fields,
    to_sign,
    unsigned,
    verify_signature,
    write_fields,
)

MAX_REGISTERED = 1 << 24
_LEAF_SIZE = 48
ADMISSION_SECONDS = 730 * 86_400
"""How long an admission by leader and helper lasts."""
RENEW_SECONDS = ADMISSION_SECONDS // 4
"""With less of its life left, an admission is renewed."""

_KEY_NUMBER = b"palate/enrolment/device/1"
_PARTIES = b"palate two aggregators parties v1"
_REGISTER = b"palate two aggregators register v1"


def key_number(identity_key: bytes) -> int:
    """Return the number of a signing key of 32 bytes: the first eight bytes of a hash of it.

    A device has the number of its first key, and keeps it when its person gets a new key.
    """
    return int.from_bytes(sha256(framed(_KEY_NUMBER, identity_key)).digest()[:8], "big")


def _write_numbers(numbers: tuple[int, ...]) -> bytes:
    return len(numbers).to_bytes(4, "big") + b"".join(each.to_bytes(8, "big") for each in numbers)


def _read_numbers(reader: Reader) -> tuple[int, ...]:
    block = reader.raw(8 * reader.number(4, most=MAX_REGISTERED))
    numbers = tuple(int.from_bytes(block[at : at + 8], "big") for at in range(0, len(block), 8))
    if any(right <= left for left, right in pairwise(numbers)):
        raise RegisterRefused("the numbers do not ascend", hint="check what the peer sent")
    return numbers


@dataclass(frozen=True, kw_only=True)
class Parties:
    """The Ed25519 keys of one fleet, 32 bytes each. Devices take them from the invitation, never from the leader.

    Attributes
    ----------
    leader, helper
        The two aggregators.
    authority
        A third party that admits devices; None where leader and helper admit them together.
    """

    leader: bytes
    helper: bytes
    authority: bytes | None = None

    @property
    def admitting(self) -> tuple[bytes, ...]:
        """Keys that must all have signed what admits a device, in the order of the signatures."""
        return (self.leader, self.helper) if self.authority is None else (self.authority,)

    @property
    def content_hash(self) -> bytes:
        """Hash that an offer names, 32 bytes."""
        return digest(_PARTIES, self.leader, self.helper, self.authority or b"")


@dataclass(frozen=True, kw_only=True)
class _Admitted:
    """A statement that all admitting parties sign."""

    kind: ClassVar[Kind]
    signatures: tuple[bytes, ...] = ()

    @property
    def body(self) -> bytes:
        """What they sign."""
        return header(self.kind) + write_fields(self)

    def signed(self, *keys: Ed25519PrivateKey) -> Self:
        """Return the statement with the signatures of these keys, in the order of `Parties.admitting`."""
        return replace(self, signatures=tuple(key.sign(to_sign(self.body)) for key in keys))

    def countersigned(self, key: Ed25519PrivateKey) -> Self:
        """Return the statement with one more signature behind those that it has."""
        return replace(self, signatures=(*self.signatures, key.sign(to_sign(self.body))))

    def verify(self, parties: Parties) -> None:
        """Check that everybody who must admit has signed.

        Raises
        ------
        RegisterRefused
            If a signature is missing or wrong.
        """
        if len(self.signatures) != len(parties.admitting):
            raise RegisterRefused(
                f"{len(self.signatures)} signatures where {len(parties.admitting)} must admit", hint="ask for both"
            )
        for key, signature in zip(parties.admitting, self.signatures, strict=True):
            verify_signature(key, signature, self.body, RegisterRefused, "an admitting party did not sign this")

    def to_bytes(self) -> bytes:
        """Encode the statement with its signatures."""
        return self.body + bytes([len(self.signatures)]) + b"".join(map(SIGNATURE.write, self.signatures))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode the statement; MessageError if `to_bytes` would write other bytes. Signatures are not checked."""
        reader = Reader(data, cls.kind)
        values = read_fields(cls, reader)
        signatures = tuple(reader.raw(SIGNATURE_SIZE) for _ in range(reader.number(1, most=2)))
        reader.end()
        return cls(**values, signatures=signatures)


@dataclass(frozen=True, kw_only=True)
class Certificate(_Admitted):
    """A device of a fleet, its signing key, and until when it is admitted.

    Attributes
    ----------
    fleet
        Name of the fleet, printable ASCII.
    device
        Number of the device, any 64 bits.
    identity_key
        Ed25519 public key, 32 bytes.
    generation
        Counts the keys of one person: the highest is live, earlier ones are revoked.
    not_after
        Last second, since 1970, at which it admits.
    """

    kind: ClassVar[Kind] = Kind.ADMISSION
    fleet: Text
    device: DeviceNumber
    identity_key: PublicKey
    generation: Annotated[int, unsigned(4)]
    not_after: Number


@dataclass(frozen=True, slots=True)
class Entry:
    """One registered device: its live key, 32 bytes, and the last second at which it admits."""

    identity_key: bytes
    not_after: int


class Entries(Mapping[int, Entry]):
    """The devices of a register as the leaves of its tree, by ascending device: 48 bytes each in memory.

    Parameters
    ----------
    leaves
        `entry_leaf` of every device, joined.
    """

    def __init__(self, leaves: bytes) -> None:
        self.leaves = leaves

    @staticmethod
    def of(entries: Mapping[int, Entry]) -> Entries:
        """Return a list of devices in this form."""
        if isinstance(entries, Entries):
            return entries
        return Entries(b"".join(entry_leaf(device, entries[device]) for device in sorted(entries)))

    def each_leaf(self) -> Iterator[bytes]:
        """Yield the leaves, 48 bytes each."""
        return (self.leaves[at : at + _LEAF_SIZE] for at in range(0, len(self.leaves), _LEAF_SIZE))

    def __getitem__(self, device: int) -> Entry:
        rank = bisect_left(range(len(self)), device, key=self._device)
        if rank == len(self) or self._device(rank) != device:
            raise KeyError(device)
        leaf = self.leaves[rank * _LEAF_SIZE : (rank + 1) * _LEAF_SIZE]
        return Entry(leaf[8:-8], int.from_bytes(leaf[-8:], "big"))

    def __iter__(self) -> Iterator[int]:
        return map(self._device, range(len(self)))

    def __len__(self) -> int:
        return len(self.leaves) // _LEAF_SIZE

    def __eq__(self, other: object) -> bool:
        return self.leaves == other.leaves if isinstance(other, Entries) else super().__eq__(other)

    def __hash__(self) -> int:
        return hash(self.leaves)

    def _device(self, rank: int) -> int:
        start = rank * _LEAF_SIZE
        return int.from_bytes(self.leaves[start : start + 8], "big")


@dataclass(frozen=True, kw_only=True)
class Register(_Admitted):
    """How many devices are enrolled, and the root of the list of them.

    Attributes
    ----------
    fleet
        Name of the fleet.
    epoch
        Counts up with every change.
    size
        E, enrolled devices.
    root
        RFC 6962 root of the entries, by ascending device, 32 bytes.
    not_after
        Last second, since 1970, at which offers may name it.
    """

    kind: ClassVar[Kind] = Kind.REGISTER
    fleet: Text
    epoch: Number
    size: Annotated[int, unsigned(4, MAX_REGISTERED)]
    root: Hash
    not_after: Number

    @property
    def content_hash(self) -> bytes:
        """Hash that an offer names, 32 bytes."""
        return digest(_REGISTER, self.body)


@dataclass(frozen=True, kw_only=True)
class Revocation(_Admitted):
    """Keys that are out although a register still names them. A list only grows: a key that is out stays out.

    Attributes
    ----------
    fleet
        Name of the fleet.
    number
        Counts up; the highest counts.
    keys
        Numbers of the keys, ascending (`key_number`).
    """

    kind: ClassVar[Kind] = Kind.REVOCATION
    fleet: Text
    number: Number
    keys: Annotated[tuple[int, ...], Field(_write_numbers, _read_numbers)]

    def check_after(self, newest: Revocation | None) -> None:
        """Check that this list may follow another one, or is the same.

        Raises
        ------
        RegisterRefused
            If its number does not count up, or a key that was out is back.
        """
        if newest is None or newest.body == self.body:
            return
        if self.number <= newest.number:
            raise RegisterRefused(
                f"the revocation is number {self.number}, {newest.number} was checked before",
                hint="count the number up with every change",
            )
        back = set(newest.keys) - set(self.keys)
        if back:
            raise RegisterRefused(
                f"revocation {self.number} takes back {len(back)} keys that were out",
                hint="a person whose key is out gets a new key: palate authority certify --replaces",
            )


@dataclass(frozen=True, eq=False)
class Membership:
    """A verified register with the list behind it, and who of it is revoked: what leader and helper look devices up in.

    Attributes
    ----------
    register
        What the admitting parties signed.
    entries
        By device.
    revoked
        Numbers of the keys that are out.
    """

    register: Register
    entries: Entries = field(repr=False)
    revoked: frozenset[int] = frozenset()

    def admits(self, device: int) -> bool:
        """Whether a device is registered, and its key is not out."""
        entry = self.entries.get(device)
        return entry is not None and not self.is_revoked(entry)

    def is_revoked(self, entry: Entry) -> bool:
        """Whether the key of a registered device is out."""
        return bool(self.revoked) and key_number(entry.identity_key) in self.revoked

    @staticmethod
    def checked(
        register: Register, entries: Mapping[int, Entry], parties: Parties, revocation: Revocation | None = None
    ) -> Membership:
        """Check a register and its list.

        Raises
        ------
        RegisterRefused
            If a signature is wrong, the list is another, a key occurs twice, or the revocation is another fleet's.
        """
        register.verify(parties)
        entries = Entries.of(entries)
        found = list_of(entries, fleet=register.fleet, epoch=register.epoch, not_after=register.not_after)
        if (found.size, found.root) != (register.size, register.root):
            raise RegisterRefused(
                f"the list of {found.size} devices is not the register's of {register.size}", hint="fetch it again"
            )
        if len({entry.identity_key for entry in entries.values()}) != len(entries):
            raise RegisterRefused("two devices of the register share a key", hint="the authority must tell them apart")
        if revocation is not None:
            revocation.verify(parties)
            if revocation.fleet != register.fleet:
                raise RegisterRefused("the revocation is for another fleet", hint="fetch it again")
        return Membership(register, entries, frozenset(revocation.keys if revocation else ()))

    @cached_property
    def size(self) -> int:
        """E, enrolled devices."""
        return self.register.size


def list_of(entries: Mapping[int, Entry], *, fleet: str, epoch: int, not_after: int) -> Register:
    """Build the unsigned register of a list of devices."""
    tree = MerkleTree(Entries.of(entries).each_leaf())
    return Register(fleet=fleet, epoch=epoch, size=len(entries), root=tree.root(), not_after=not_after)


def entry_leaf(device: int, entry: Entry) -> bytes:
    """Return a device's leaf of the register's tree, 48 bytes."""
    return DEVICE.write(device) + HASH.write(entry.identity_key) + NUMBER.write(entry.not_after)


def entries_of(certificates: Iterable[Certificate]) -> Entries:
    """Return the list of a register: of each device the certificate of the highest generation."""
    live: dict[int, tuple[int, Entry]] = {}
    for each in certificates:
        if each.device not in live or live[each.device][0] < each.generation:
            live[each.device] = each.generation, Entry(each.identity_key, each.not_after)
    return Entries.of({device: entry for device, (_, entry) in live.items()})
