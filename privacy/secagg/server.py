"""The server in one round: relays messages, adds masked vectors up and unmasks the sum, never a single vector.

Bonawitz et al. 2017, figure 4. The round is a function of the messages that were accepted, in their order, and of the
moments at which stages were closed. To survive a crash, store both and replay them into a new `ServerRound`: every
message for which `receive` returned, or raised `Equivocation`, and every `close` that returned. Masked vectors are
added up as they come; only their hashes are kept. One caller at a time: a `ServerRound` has no locks.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum
from hashlib import sha256
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from palate.privacy.integer.ring import Ring, RingArray
from palate.privacy.secagg.encoding import HASH_SIZE, Message, to_sign
from palate.privacy.secagg.errors import Equivocation, QuorumLost, ReceiptRefused, StageClosed
from palate.privacy.secagg.masks import pack, unpack
from palate.privacy.secagg.messages import (
    Advert,
    Consistency,
    Inbox,
    MaskedVector,
    Receipt,
    Reveal,
    Roster,
    SealedShares,
    Signatures,
    SurvivorSets,
)
from palate.privacy.secagg.offer import Offer, share_threshold
from palate.privacy.secagg.screening import check_advert, check_message
from palate.privacy.secagg.unmasking import Unmasking

_Upward = Advert | SealedShares | MaskedVector | Consistency | Reveal


class Stage(IntEnum):
    """What the server collects, in order."""

    ADVERTISE = 0
    SHARE = 1
    MASK = 2
    CONFIRM = 3
    REVEAL = 4


_KINDS: dict[Stage, type[SealedShares | MaskedVector | Consistency | Reveal]] = {
    Stage.SHARE: SealedShares,
    Stage.MASK: MaskedVector,
    Stage.CONFIRM: Consistency,
    Stage.REVEAL: Reveal,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class RoundSum:
    """What a round reveals.

    Attributes
    ----------
    vector
        Sum of the survivors' vectors mod 2^ring_bits, uint32 or uint64 [vector_length].
    survivors
        Numbers of the devices in the sum, ascending.
    liars
        Numbers of devices that revealed wrong shares, found and corrected.
    """

    vector: RingArray = field(repr=False)
    survivors: tuple[int, ...]
    liars: tuple[int, ...]


class ServerRound:
    """The server's side of one round.

    Parameters
    ----------
    offer
        What the round is about.
    server_key
        The Ed25519 key that devices pin; signs every message down. Signing is deterministic, so that a rebuilt round
        sends the same bytes.
    authority_key
        Public key of the enrolment authority.
    """

    def __init__(self, offer: Offer, *, server_key: Ed25519PrivateKey, authority_key: Ed25519PublicKey) -> None:
        self.offer: Final = offer
        self.offer_bytes: Final = offer.sign(server_key)
        self._server_key = server_key
        self._authority_key = authority_key
        self._stage = 0
        self._accepted: dict[Stage, dict[int, bytes]] = {stage: {} for stage in Stage}  # device -> hash of its message
        self._expected: dict[Stage, frozenset[int] | None] = {Stage.ADVERTISE: None}
        self._excluded: set[int] = set()
        self._adverts: dict[int, Advert] = {}
        self._signatures: dict[int, bytes] = {}  # device -> over its Consistency
        self._sealed: dict[int, tuple[bytes, ...]] = {}
        self._reveals: dict[int, tuple[bytes, ...]] = {}
        self._sum = Ring(bits=offer.ring_bits).zeros(offer.vector_length)
        self._roster: Roster  # once ADVERTISE is closed
        self._root = b""
        self._ranks: dict[int, int] = {}
        self._shared: tuple[int, ...] = ()
        self._sets: SurvivorSets  # once MASK is closed
        self._result: RoundSum | None = None

    def __repr__(self) -> str:
        return f"ServerRound(round {self.offer.server_round}, {'done' if self.stage is None else self.stage.name})"

    @property
    def stage(self) -> Stage | None:
        """What is being collected; None when the sum is known."""
        return Stage(self._stage) if self._stage < len(Stage) else None

    @property
    def excluded(self) -> frozenset[int]:
        """Devices that contradicted themselves."""
        return frozenset(self._excluded)

    def expected(self, stage: Stage) -> frozenset[int] | None:
        """Devices whose message of a stage counts; None in ADVERTISE, where everyone who is enrolled may come.

        Raises
        ------
        StageClosed
            If the stage is not open yet.
        """
        if stage > self._stage:
            raise StageClosed(f"stage {stage.name} is not open yet", hint="close the stages before it")
        return self._expected[stage]

    def arrived(self, stage: Stage) -> frozenset[int]:
        """Devices whose message of a stage was accepted, without those excluded before it closed."""
        return frozenset(self._accepted[stage])

    def receive(self, stage: Stage, device: int, data: bytes) -> None:
        """Accept a device's message; the same one again changes nothing.

        Parameters
        ----------
        stage
            Which answer it is.
        device
            Whom the transport knows as its sender.
        data
            The message.

        Raises
        ------
        MessageError
            If the bytes cannot be decoded. This and every error below leave the round as it was.
        AdvertRefused, EnrolmentRefused, SharesRefused, MaskedRefused, ConsistencyRefused, RevealRefused
            If the message of that stage is not what it has to be.
        StageClosed
            If the stage is not open, or does not wait for this device.
        Equivocation
            If the device has signed another message for the stage before. It is excluded from the stage and what
            follows; only a masked vector that is already in the sum stays there, because it cannot be separated from
            the sum any more, and the second one is dropped.
        """
        digest = sha256(data).digest()
        if self._accepted[stage].get(device) == digest:
            return
        if stage != self._stage:
            raise StageClosed(f"stage {stage.name} is not open", hint="the round continues without this message")
        expected = self.expected(stage)
        if device in self._excluded or (expected is not None and device not in expected):
            raise StageClosed(f"stage {stage.name} does not wait for device {device}", hint="it has left the round")
        checked = self._checked(stage, device, data)
        if device in self._accepted[stage]:
            self._excluded.add(device)
            if stage is not Stage.MASK:
                del self._accepted[stage][device]
            raise Equivocation(
                f"device {device} signed two messages for stage {stage.name}", hint="keep both, and ask its owner"
            )
        self._keep(device, checked)
        self._accepted[stage][device] = digest

    def close(self, stage: Stage) -> dict[int, bytes]:
        """End a stage and return the next message for every device that continues; again, the same for the last ones.

        Parameters
        ----------
        stage
            The open stage, or the one before it to get its messages again.

        Raises
        ------
        QuorumLost
            If too few devices have answered; the stage stays open for more.
        ReconstructionFailed
            If a secret cannot be reconstructed from what was revealed; the stage stays open for more.
        StageClosed
            If it is another stage's turn.
        """
        if stage == self._stage:
            {
                Stage.ADVERTISE: self._close_advertise,
                Stage.SHARE: self._close_share,
                Stage.MASK: self._close_mask,
                Stage.CONFIRM: self._close_confirm,
                Stage.REVEAL: self._close_reveal,
            }[stage]()
            self._stage += 1
        elif stage + 1 != self._stage:
            raise StageClosed(f"stage {stage.name} cannot be closed now", hint="close the stages in order")
        if stage is Stage.ADVERTISE:
            certificates = tuple(self._adverts[entry.device].certificate for entry in self._roster.entries)
            roster = self._signed(replace(self._roster, certificates=certificates))
            return dict.fromkeys((certificate.device for certificate in certificates), roster)
        if stage is Stage.SHARE:
            return {self._device(rank): self._inbox(rank) for rank in self._shared}
        if stage is Stage.MASK:
            return dict.fromkeys(sorted(self._devices(self._sets.survivors)), self._signed(self._sets))
        if stage is Stage.CONFIRM:
            return dict.fromkeys(sorted(self.expected(Stage.REVEAL) or ()), self._signed(self._confirmation()))
        return {}

    def result(self) -> RoundSum:
        """Return the sum.

        Raises
        ------
        StageClosed
            If it is not known yet.
        """
        if self._result is None:
            raise StageClosed("the sum is not known yet", hint="close every stage first")
        return self._result

    def receipt(self, *, model_hash: str, log_index: int) -> bytes:
        """R5: sign the outcome of the round, for every device on the roster.

        Parameters
        ----------
        model_hash
            Hash of the new item table, 64 hexadecimal digits.
        log_index
            Where the server's log has the round.

        Raises
        ------
        StageClosed
            If the sum is not known yet.
        ReceiptRefused
            If the hash is malformed.
        """
        packed = pack(self.result().vector, self.offer.word_bytes)
        if len(model_hash) != 2 * HASH_SIZE or model_hash.strip("0123456789abcdef"):
            raise ReceiptRefused("the model's hash is not 64 hexadecimal digits", hint="use ItemTable.content_hash")
        sets = self._sets
        receipt = Receipt(
            context=sets.context,
            root=sets.root,
            sets_hash=sets.sets_hash,
            sum_hash=sha256(packed).digest(),
            model_hash=bytes.fromhex(model_hash),
            log_index=log_index,
        )
        return self._signed(receipt)

    def _checked(self, stage: Stage, device: int, data: bytes) -> _Upward:
        if stage is Stage.ADVERTISE:
            advert = Advert.from_bytes(data)
            check_advert(advert, self.offer, self._authority_key, device, self._adverts)
            return advert
        message = _KINDS[stage].from_bytes(data)
        check_message(
            message,
            self.offer,
            self._root,
            self._adverts[device].certificate,
            shares=len(self._ranks) - 1 if stage is Stage.SHARE else len(self._shared),
            sets_hash=self._sets.sets_hash if stage > Stage.MASK else b"",
        )
        return message

    def _keep(self, device: int, message: _Upward) -> None:
        match message:
            case Advert():
                self._adverts[device] = message
            case SealedShares():
                self._sealed[device] = message.sealed
            case MaskedVector():
                np.add(self._sum, unpack(message.words, self.offer), out=self._sum)
            case Consistency():
                self._signatures[device] = message.signature
            case Reveal():
                self._reveals[device] = message.shares

    def _close_advertise(self) -> None:
        entries = tuple(self._adverts[device].entry for device in sorted(self._accepted[Stage.ADVERTISE]))
        self._require(len(entries), self.offer.fewest_survivors(len(entries)), "enrolled devices came")
        self._roster = Roster(context=self.offer.context, fleet=self.offer.fleet, entries=entries, certificates=())
        self._root = self._roster.root
        self._ranks = {entry.device: rank for rank, entry in enumerate(entries)}
        self._expected[Stage.SHARE] = frozenset(self._ranks)

    def _close_share(self) -> None:
        shared = tuple(sorted(self._rank(device) for device in self._accepted[Stage.SHARE]))
        self._require(len(shared), self._fewest, "devices shared")
        self._shared = shared
        self._expected[Stage.MASK] = self._devices(shared)

    def _close_mask(self) -> None:
        survivors = tuple(sorted(self._rank(device) for device in self._accepted[Stage.MASK]))
        self._require(len(survivors), self._fewest, "devices sent masked vectors")
        self._sets = SurvivorSets(
            context=self.offer.context,
            root=self._root,
            roster_size=len(self._ranks),
            shared=self._shared,
            survivors=survivors,
        )
        self._expected[Stage.CONFIRM] = self._devices(survivors)
        self._sealed = {}

    def _close_confirm(self) -> None:
        quorum = self.offer.quorum(len(self._ranks))
        self._require(len(self._accepted[Stage.CONFIRM]), quorum, "devices signed the survivor sets")
        self._expected[Stage.REVEAL] = frozenset(self._accepted[Stage.CONFIRM])

    def _close_reveal(self) -> None:
        threshold = share_threshold(len(self._ranks))
        self._require(len(self._accepted[Stage.REVEAL]), threshold, "devices revealed shares")
        unmasking = Unmasking(self.offer, self._root, self._roster.entries)
        for device in sorted(self._accepted[Stage.REVEAL]):
            unmasking.add(self._rank(device), self._shared, self._reveals[device])
        survivors = self._sets.survivors
        vector = unmasking.unmask(self._sum, self._shared, survivors)
        self._result = RoundSum(
            vector=vector,
            survivors=tuple(self._device(rank) for rank in survivors),
            liars=tuple(sorted(self._device(rank) for rank in unmasking.liars)),
        )

    def _inbox(self, rank: int) -> bytes:
        senders = tuple(other for other in self._shared if other != rank)
        # Place of this device among the receivers of another: the sender itself is skipped.
        places = (rank if rank < other else rank - 1 for other in senders)
        return self._signed(
            Inbox(
                context=self.offer.context,
                root=self._root,
                device=self._device(rank),
                roster_size=len(self._ranks),
                senders=senders,
                sealed=tuple(
                    self._sealed[self._device(other)][place] for other, place in zip(senders, places, strict=True)
                ),
            )
        )

    def _confirmation(self) -> Signatures:
        # The quorum's worth of signatures; devices check no more.
        ranks = sorted(self._rank(device) for device in self._accepted[Stage.CONFIRM])
        signers = tuple(ranks[: self.offer.quorum(len(self._ranks))])
        return Signatures(
            context=self.offer.context,
            root=self._root,
            roster_size=len(self._ranks),
            signers=signers,
            signatures=tuple(self._signatures[self._device(rank)] for rank in signers),
        )

    def _require(self, count: int, needed: int, what: str) -> None:
        if count < needed:
            raise QuorumLost(f"{count} {what}, {needed} are needed", hint="wait for more, or give the round up")

    def _signed(self, message: Message) -> bytes:
        return message.signed(lambda body: self._server_key.sign(to_sign(body))).to_bytes()

    @property
    def _fewest(self) -> int:
        return self.offer.fewest_survivors(len(self._ranks))

    def _rank(self, device: int) -> int:
        return self._ranks[device]

    def _device(self, rank: int) -> int:
        return self._roster.entries[rank].device

    def _devices(self, ranks: tuple[int, ...]) -> frozenset[int]:
        return frozenset(self._device(rank) for rank in ranks)
