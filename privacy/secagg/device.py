"""One device in one round: answers the server step by step, without trusting it (Bonawitz et al. 2017, figure 4).

Every step has one answer. The same input again gets the same bytes; other input, a step out of order or a failed check
ends the round: all secrets are dropped and every further call is refused. Private keys are dropped before the masked
vector leaves, shares of peers after one reveal. (Python cannot overwrite memory; dropped means no longer reachable.)

Nothing is stored: a device that restarts in the middle has dropped out of the round, and its ledger keeps it from
joining again (`palate.client.fleet.rounds`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from hashlib import sha256
from threading import Lock
from typing import Any, Final, NoReturn, TypeVar, cast

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from palate.privacy.integer.ring import RingArray
from palate.privacy.secagg.encoding import KEY_SIZE
from palate.privacy.secagg.errors import (
    InboxRefused,
    MessageError,
    OfferRefused,
    ReceiptRefused,
    RosterRefused,
    RoundAborted,
    SecureAggregationError,
    SharesRefused,
    SignaturesRefused,
    SurvivorsRefused,
)
from palate.privacy.secagg.keys import DeviceIdentity, EnrolmentCertificate
from palate.privacy.secagg.masks import PairKeys, add_mask, check_vector, commitment, pack, reduced, seal, unseal
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
from palate.privacy.secagg.offer import DevicePolicy, Offer, share_threshold
from palate.privacy.secagg.peers import Peers
from palate.privacy.secagg.shamir import SHARE_SIZE, parse_share, split

_T = TypeVar("_T")


class _Step(IntEnum):
    """The calls of a round, in order."""

    ADVERTISE = 0
    SHARE = 1
    MASK = 2
    CONFIRM = 3
    REVEAL = 4
    ACCEPT = 5


@dataclass(frozen=True, eq=False, repr=False)
class _Secrets:
    """Secrets that a device must drop once its masked vector is made."""

    cipher: X25519PrivateKey
    mask: X25519PrivateKey
    seed: bytes


class DeviceRound:
    """A device's side of one round.

    Parameters
    ----------
    offer
        The signed offer, as it arrived.
    plan_hash
        `RoundPlan.content_hash`, computed by this device from the plan that it received.
    identity
        The device's certificate and signing key.
    server_key, authority_key
        Pinned public keys of the server and of the enrolment authority.
    policy
        What the device asks of every offer.
    known
        Certificates of peers, by device number, that this device verified in earlier rounds (`verified`).
    _random
        For test vectors only: gives that many bytes. Anything but the operating system's generator gives the device's
        vector away.

    Raises
    ------
    MessageError
        If the offer cannot be decoded.
    OfferRefused
        If it is not the server's, not for this plan, or below the policy.
    EnrolmentRefused
        If the device itself is not enrolled in the offer's fleet.
    """

    def __init__(
        self,
        offer: bytes,
        *,
        plan_hash: str,
        identity: DeviceIdentity,
        server_key: Ed25519PublicKey,
        authority_key: Ed25519PublicKey,
        policy: DevicePolicy,
        known: Mapping[int, EnrolmentCertificate] | None = None,
        _random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.offer: Final = Offer.open(offer, server_key)
        if self.offer.plan_hash != plan_hash:
            raise OfferRefused(
                f"the offer is for plan {self.offer.plan_hash[:16]}, this device has {plan_hash[:16]}",
                hint="the server may be sending different plans to different devices",
            )
        policy.check(self.offer)
        identity.certificate.check(authority_key, fleet=self.offer.fleet, issued_at=self.offer.issued_at)
        self._identity = identity
        self._server_key = server_key
        self._authority_key = authority_key
        self._known = {**(known or {}), identity.device: identity.certificate}
        self._random = _random
        self._lock = Lock()
        self._answers: dict[_Step, tuple[bytes, object]] = {}
        self._failure: str | None = None
        self._secrets: _Secrets | None = None
        self._peers: Peers | None = None
        self._sealing: dict[int, bytes] = {}  # rank -> key of the pair
        self._held: dict[int, bytes] = {}  # rank -> both shares, 66 bytes
        self._sets: SurvivorSets | None = None

    def __repr__(self) -> str:
        return "DeviceRound(<sealed>)"

    def __reduce__(self) -> NoReturn:
        # A copy could sign a second pair of survivor sets.
        raise TypeError("a DeviceRound cannot be copied or pickled")

    @property
    def aborted(self) -> bool:
        """Whether the round has ended here without a reveal."""
        return self._failure is not None

    @property
    def verified(self) -> Mapping[int, EnrolmentCertificate]:
        """Certificates by device number that are known to be the authority's; to keep for later rounds."""
        return dict(self._peers.verified if self._peers else self._known)

    def advertise(self) -> bytes:
        """R0: draw this round's keys and return the advert."""
        return self._once(_Step.ADVERTISE, b"", self._advertise)

    def share(self, roster: bytes) -> bytes:
        """R1: check the roster and return both secrets, split and sealed for the peers.

        Raises
        ------
        RosterRefused
            If it is too small or too large, altered, or a peer's signature is not valid.
        EnrolmentRefused
            If a peer's certificate is not valid.
        MessageError, RoundAborted
            As in every step: bytes that cannot be decoded; the round is over here.
        """
        return self._once(_Step.SHARE, roster, lambda: self._share(roster))

    def mask(self, inbox: bytes, vector: RingArray) -> bytes:
        """R2: store the peers' shares and return the masked vector; the private keys are dropped then.

        Parameters
        ----------
        inbox
            What the server sent.
        vector
            Clipped, quantised and noised: uint32 (up to 32 bits) or uint64 [vector_length], below 2^ring_bits.

        Raises
        ------
        InboxRefused
            If there are too few shares, or one was tampered with or is for somebody else.
        VectorRefused
            If the vector is not what the offer asks for.
        MessageError, RoundAborted
            As in every step.
        """
        values = np.ascontiguousarray(vector).tobytes() if isinstance(vector, np.ndarray) else b""
        given = inbox + sha256(values).digest()
        return self._once(_Step.MASK, given, lambda: self._mask(inbox, vector))

    def confirm(self, sets: bytes) -> bytes:
        """R3: check the survivor sets and sign them, once.

        Raises
        ------
        SurvivorsRefused
            If they are too small, leave this device out or contradict its inbox.
        MessageError, RoundAborted
            As in every step.
        """
        return self._once(_Step.CONFIRM, sets, lambda: self._confirm(sets))

    def reveal(self, signatures: bytes) -> bytes:
        """R4: check that a quorum signed the same sets and return one share a peer, once.

        Raises
        ------
        SignaturesRefused
            If there are too few, or one is not valid.
        MessageError, RoundAborted
            As in every step.
        """
        return self._once(_Step.REVEAL, signatures, lambda: self._reveal(signatures))

    def accept(self, receipt: bytes) -> dict[str, Any]:
        """R5: check the receipt and return its facts.

        A device that sent a masked vector may do so, even if it missed R3 and R4.

        Raises
        ------
        ReceiptRefused
            If it is not the server's, or for another round or other survivor sets.
        MessageError, RoundAborted
            As in every step.
        """
        return self._once(_Step.ACCEPT, receipt, lambda: self._accept(receipt))

    def abandon(self) -> None:
        """Drop all secrets and take no further part."""
        with self._lock:
            self._end("it was abandoned")

    def _once(self, step: _Step, given: bytes, make: Callable[[], _T]) -> _T:
        with self._lock:
            if self._failure is not None:
                raise RoundAborted(
                    f"{step.name.lower()} comes after the round ended here: {self._failure}",
                    hint="wait for the next round",
                )
            try:
                digest = sha256(given).digest()
                if step in self._answers:
                    before, answer = self._answers[step]
                    if before != digest:
                        raise RoundAborted(
                            f"{step.name.lower()} was asked for twice, with different input", hint="do not trust it"
                        )
                    return cast("_T", answer)  # what `make` of this step returned
                self._check_order(step)
                made = make()
                self._answers[step] = digest, made
            except BaseException as error:
                self._end(error.message if isinstance(error, SecureAggregationError) else type(error).__name__)
                raise
            return made

    def _check_order(self, step: _Step) -> None:
        last = max(self._answers, default=-1)
        early_leave = step is _Step.ACCEPT and last >= _Step.MASK
        if step != last + 1 and not early_leave:
            raise RoundAborted(f"{step.name.lower()} is not the step that comes next", hint="follow the order")

    def _end(self, why: str) -> None:
        self._failure = self._failure or why
        self._secrets = None
        self._sealing = {}
        self._held = {}
        self._answers = {}

    def _advertise(self) -> bytes:
        self._secrets = _Secrets(
            X25519PrivateKey.from_private_bytes(self._random(KEY_SIZE)),
            X25519PrivateKey.from_private_bytes(self._random(KEY_SIZE)),
            self._random(KEY_SIZE),
        )
        self._advert = Advert(
            context=self.offer.context,
            certificate=self._identity.certificate,
            cipher_key=self._secrets.cipher.public_key().public_bytes_raw(),
            mask_key=self._secrets.mask.public_key().public_bytes_raw(),
            commitment=commitment(self.offer.context, self._secrets.seed),
        ).signed(self._identity.sign)
        return self._advert.to_bytes()

    def _share(self, data: bytes) -> bytes:
        roster = Roster.from_bytes(data)
        if roster.context != self.offer.context:
            raise RosterRefused("the roster is for another offer", hint="it may be a replay")
        roster.verify(self._server_key, RosterRefused, "the roster is not signed by this server")
        peers = Peers(self.offer, roster, self._advert.entry, self._authority_key, self._known)
        for rank in peers.others:
            peers.verify_entry(rank)
        secrets = self._kept_secrets()
        points, threshold = range(1, peers.roster_size + 1), share_threshold(peers.roster_size)
        parts = [
            dict(zip(points, split(secret, threshold, points, self._random), strict=True))
            for secret in (secrets.seed, secrets.mask.private_bytes_raw())
        ]
        self._held = {peers.own_rank: parts[0][peers.own_rank + 1] + parts[1][peers.own_rank + 1]}
        self._sealing = {rank: self._sealing_key(peers, rank) for rank in peers.others}
        sealed = tuple(
            seal(key, self._identity.device, peers.device(rank), parts[0][rank + 1] + parts[1][rank + 1])
            for rank, key in self._sealing.items()
        )
        self._peers = peers
        message = SealedShares(context=self.offer.context, root=peers.root, device=self._identity.device, sealed=sealed)
        return message.signed(self._identity.sign).to_bytes()

    def _sealing_key(self, peers: Peers, rank: int) -> bytes:
        keys = PairKeys(self.offer.context, peers.root)
        device, theirs = peers.device(rank), peers.entry(rank).cipher_key
        try:
            return keys.sealing(self._kept_secrets().cipher, theirs, (self._identity.device, device))
        except ValueError:
            raise RosterRefused(f"the key of device {device} is of low order", hint="it is not an honest key") from None

    def _mask(self, data: bytes, vector: RingArray) -> bytes:
        peers, secrets = self._kept_peers(), self._kept_secrets()
        check_vector(vector, self.offer)
        inbox = Inbox.from_bytes(data)
        peers.check_round(inbox.context, inbox.root, inbox.roster_size, InboxRefused)
        inbox.verify(self._server_key, InboxRefused, "the inbox is not signed by this server")
        if inbox.device != self._identity.device or not set(inbox.senders) <= set(peers.others):
            raise InboxRefused("the inbox is for another device, or from others than its peers", hint="do not trust it")
        shared, needed = 1 + len(inbox.senders), self.offer.fewest_survivors(peers.roster_size)
        if shared < needed:
            raise InboxRefused(f"{shared} devices have shared, {needed} are needed", hint="wait for the next round")
        for rank, sealed in zip(inbox.senders, inbox.sealed, strict=True):
            self._held[rank] = self._unsealed(peers, rank, sealed)
        masked = vector.copy()
        keys = PairKeys(self.offer.context, peers.root)
        add_mask(masked, keys.self_mask(secrets.seed))
        for rank in inbox.senders:
            pair = self._identity.device, peers.device(rank)
            try:
                key = keys.pair_mask(secrets.mask, peers.entry(rank).mask_key, pair)
            except ValueError:
                raise InboxRefused(f"the key of device {pair[1]} is of low order", hint="it is not honest") from None
            add_mask(masked, key, subtract=pair[0] > pair[1])
        del secrets, keys
        self._secrets = None  # dropped before anything leaves the device
        self._sealing = {}
        message = MaskedVector(
            context=self.offer.context,
            root=peers.root,
            device=self._identity.device,
            word_bytes=self.offer.word_bytes,
            words=pack(reduced(masked, self.offer.ring_bits), self.offer.word_bytes),
        )
        return message.signed(self._identity.sign).to_bytes()

    def _unsealed(self, peers: Peers, rank: int, sealed: bytes) -> bytes:
        device = peers.device(rank)
        shares = unseal(self._sealing[rank], device, self._identity.device, sealed)
        if shares is None:
            raise InboxRefused(f"the shares of device {device} were tampered with", hint="do not trust this round")
        try:
            for start in (0, SHARE_SIZE):
                parse_share(shares[start : start + SHARE_SIZE])
        except MessageError as error:
            raise InboxRefused(f"device {device} sealed what is no share: {error.message}", hint=error.hint) from None
        return shares

    def _confirm(self, data: bytes) -> bytes:
        peers = self._kept_peers()
        sets = SurvivorSets.from_bytes(data)
        peers.check_round(sets.context, sets.root, sets.roster_size, SurvivorsRefused)
        sets.verify(self._server_key, SurvivorsRefused, "the survivor sets are not signed by this server")
        if peers.own_rank not in sets.survivors:
            raise SurvivorsRefused("this device is declared dropped, but it answered", hint="do not trust this round")
        if set(sets.shared) != set(self._held):
            raise SurvivorsRefused(
                f"{len(sets.shared)} are said to have shared, {len(self._held)} shares arrived here",
                hint="the server may be showing different sets to different devices",
            )
        needed = self.offer.fewest_survivors(peers.roster_size)
        if len(sets.survivors) < needed:
            raise SurvivorsRefused(
                f"{len(sets.survivors)} devices survive, {needed} are needed", hint="wait for the next round"
            )
        self._sets = sets
        return self._consistency(self._identity.device).signed(self._identity.sign).to_bytes()

    def _consistency(self, device: int) -> Consistency:
        sets = self._kept_sets()
        return Consistency(context=sets.context, root=sets.root, device=device, sets_hash=sets.sets_hash)

    def _reveal(self, data: bytes) -> bytes:
        peers, sets = self._kept_peers(), self._kept_sets()
        shares, self._held = self._held, {}  # only one attempt, whatever its outcome
        message = Signatures.from_bytes(data)
        peers.check_round(message.context, message.root, message.roster_size, SignaturesRefused)
        message.verify(self._server_key, SignaturesRefused, "the list of signatures is not signed by this server")
        needed = self.offer.quorum(peers.roster_size)
        if not set(message.signers) <= set(sets.survivors) or len(message.signers) < needed:
            raise SignaturesRefused(
                f"{len(message.signers)} devices signed the survivor sets, {needed} survivors must have",
                hint="wait for the next round",
            )
        # Signatures beyond the quorum are not needed.
        for rank, signature in list(zip(message.signers, message.signatures, strict=True))[:needed]:
            peers.verify_identity(rank)
            replace(self._consistency(peers.device(rank)), signature=signature).verify(
                peers.identity_key(rank),
                SignaturesRefused,
                f"device {peers.device(rank)} did not sign these survivor sets",
            )
        answer = Reveal(
            context=self.offer.context,
            root=peers.root,
            device=self._identity.device,
            sets_hash=sets.sets_hash,
            shares=tuple(_one_share(shares[rank], rank in sets.survivors) for rank in sorted(shares)),
        )
        return answer.signed(self._identity.sign).to_bytes()

    def _accept(self, data: bytes) -> dict[str, Any]:
        peers = self._kept_peers()
        receipt = Receipt.from_bytes(data)
        peers.check_round(receipt.context, receipt.root, peers.roster_size, ReceiptRefused)
        receipt.verify(self._server_key, ReceiptRefused, "the receipt is not signed by this server")
        if self._sets is not None and receipt.sets_hash != self._sets.sets_hash:
            raise ReceiptRefused("the receipt is for other survivor sets than this device signed", hint="report it")
        self._held = {}
        return receipt.facts(confirmed=self._sets is not None)

    # What an earlier step has left; `_check_order` has made sure that it ran.

    def _kept_secrets(self) -> _Secrets:
        if self._secrets is None:
            raise SharesRefused("the round's keys are gone", hint="wait for the next round")
        return self._secrets

    def _kept_peers(self) -> Peers:
        if self._peers is None:
            raise RosterRefused("there is no roster yet", hint="share first")
        return self._peers

    def _kept_sets(self) -> SurvivorSets:
        if self._sets is None:
            raise SurvivorsRefused("there are no survivor sets yet", hint="confirm first")
        return self._sets


def _one_share(shares: bytes, alive: bool) -> bytes:
    """Of the self mask's seed if the peer survived, else of its mask key; never both."""
    return shares[:SHARE_SIZE] if alive else shares[SHARE_SIZE:]
