"""A device's part: check the offer, mask the vector, seal the seed to the helper, and be done with one report.

    v       integer vector, its share of noise included
    seed    32 fresh bytes; mask = AES-256-CTR keystream under HKDF(seed, label, ctx, device), as words mod 2^b
    m       v + mask mod 2^b, to the leader alone
    c       seed, sealed to the helper under the round's key

The report is made once and kept; a retry sends the same bytes. Seed and vector are dropped as soon as it is made.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from palate.privacy.aggregators.admission import Parties, Register
from palate.privacy.aggregators.errors import OfferRefused, ReceiptRefused
from palate.privacy.aggregators.messages import (
    CHAIN_SIZE,
    NO_SIGNATURE,
    SALT_SIZE,
    CollectionReceipt,
    Head,
    LedgerNotice,
    Report,
    Upload,
    tag_of,
)
from palate.privacy.aggregators.offer import CollectionOffer
from palate.privacy.aggregators.planes import pack, unpack
from palate.privacy.aggregators.sealing import SEED_SIZE, RoundKey
from palate.privacy.integer.ring import Ring, RingArray
from palate.privacy.ledger.framing import framed, number
from palate.privacy.secagg.encoding import HASH_SIZE, to_sign
from palate.privacy.secagg.errors import VectorRefused

_MASK = b"palate two aggregators mask v1"


def mask_bytes(seed: bytes, offer: CollectionOffer, device: int) -> bytes:
    """Expand a seed to the packed mask of one report, `offer.words_size` bytes; uniform words modulo 2^b."""
    key = HKDF(algorithm=SHA256(), length=32, salt=offer.context, info=framed(_MASK, number(device))).derive(seed)
    stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
    return stream.update(_zeros(offer.words_size))


@lru_cache(maxsize=1)
def _zeros(size: int) -> bytes:
    return bytes(size)


@dataclass(frozen=True, kw_only=True)
class Offered:
    """An offer with all that it names, checked by one device.

    Attributes
    ----------
    offer
        The leader's.
    register, round_key
        What it names.
    """

    offer: CollectionOffer
    register: Register
    round_key: RoundKey

    @staticmethod
    def checked(
        offer: bytes,
        register: bytes,
        round_key: bytes,
        *,
        parties: Parties,
        fleet: str,
        gamma_thousandths: int,
        least_epoch: int,
        now: int,
    ) -> Offered:
        """Check signatures, names, ends and the share of corrupt devices that the owner wants allowed for.

        Parameters
        ----------
        offer, register, round_key
            As they arrived.
        parties
            The keys of the invitation.
        fleet
            The device's fleet.
        gamma_thousandths
            Share of the registered devices that the owner wants allowed for as corrupt.
        least_epoch
            Epoch of the newest register that this device has seen.
        now
            The device's clock, seconds since 1970.

        Raises
        ------
        CollectionError, MessageError
            If anything is not as it must be.
        """
        opened = CollectionOffer.open(offer, parties.leader)
        named, key = Register.from_bytes(register), RoundKey.open(round_key, parties.helper)
        named.verify(parties)
        opened.check_names(register=named, round_key=key, parties=parties)
        opened.check_gamma(named, gamma_thousandths)
        if opened.fleet != fleet:
            raise OfferRefused(f"the offer is for fleet {opened.fleet!r}, not {fleet!r}", hint="check the server")
        if named.epoch < least_epoch:
            raise OfferRefused(
                f"the register is of epoch {named.epoch}, this device has seen {least_epoch}",
                hint="ask for a new offer",
            )
        if not opened.issued_at <= now < opened.report_before:
            raise OfferRefused(
                f"the offer is not open at {now}", hint="check this device's clock, or wait for the next"
            )
        return Offered(offer=opened, register=named, round_key=key)


def make_report(
    offered: Offered,
    vector: RingArray,
    *,
    device: int,
    identity: Ed25519PrivateKey,
    ledger_head: bytes,
    seen: Head | None,
    chain: bytes = bytes(CHAIN_SIZE),
) -> bytes:
    """Mask a vector and seal its seed: the bytes that go to the leader.

    Parameters
    ----------
    offered
        The checked offer.
    vector
        The device's noised words, uint32 [d] (uint64 above 32 bits), below 2^b.
    device, identity
        Number and signing key of the device.
    ledger_head
        Salted commitment to the head of its own ledger, 32 bytes.
    seen
        Newest head of the helper that it has seen.
    chain
        Marks of the device's earlier reports (`palate.privacy.aggregators.messages.chain_of`); zeros before the first.

    Raises
    ------
    VectorRefused
        If the vector is not what the offer asks for.
    """
    offer = offered.offer
    dtype = np.dtype(np.uint32 if offer.ring_bits <= 32 else np.uint64)
    if vector.dtype != dtype or vector.shape != (offer.vector_length,):
        raise VectorRefused(
            f"the vector is {vector.dtype} {vector.shape}, not {dtype} ({offer.vector_length},)", hint="encode it first"
        )
    if int(vector.max()) >> offer.ring_bits:
        raise VectorRefused(f"the vector holds values of more than {offer.ring_bits} bits", hint="reduce it first")
    seed, salt = secrets.token_bytes(SEED_SIZE), secrets.token_bytes(SALT_SIZE)
    mask = unpack_mask(mask_bytes(seed, offer, device), offer)
    words = pack(Ring(bits=offer.ring_bits).add(vector, mask), offer.ring_bits)
    report = Report(
        context=offer.context,
        device=device,
        tag=tag_of(offer.context, device, salt, words),
        ledger_head=ledger_head,
        chain=chain,
        sequence=seen.sequence if seen else 0,
        answer_hash=seen.answer_hash if seen else bytes(HASH_SIZE),
        head_signature=seen.signature if seen else NO_SIGNATURE,
        sealed=offered.round_key.seal(seed, context=offer.context, device=device),
    ).signed(lambda body: identity.sign(to_sign(body)))
    return Upload(report=report, salt=salt, words=words).to_bytes()


def unpack_mask(mask: bytes, offer: CollectionOffer) -> RingArray:
    """Read a packed mask as words; bits behind the last word are not looked at."""
    return unpack(mask, offer.vector_length, offer.ring_bits, strict=False)


def check_notice(data: bytes, parties: Parties, *, fleet: str, device: int, identity: bytes) -> Report:
    """Check a leader's notice that a device went back, and return the report that it shows.

    Parameters
    ----------
    data
        The notice as it arrived.
    parties
        The keys of the invitation.
    fleet, device, identity
        The device's fleet, its number, and its public key.

    Raises
    ------
    OfferRefused
        If the leader did not sign it, or the report is not one that this device's key signed.
    """
    notice = LedgerNotice.from_bytes(data)
    notice.verify(parties.leader, OfferRefused, "the notice is not signed by this leader")
    report = Report.from_bytes(notice.report)
    report.verify(identity, OfferRefused, "the report in the notice is not signed by this device's key")
    if notice.fleet != fleet or report.device != device:
        raise OfferRefused("the notice is about another device, or of another fleet", hint="do not trust this server")
    return report


def check_receipt(data: bytes, offer: CollectionOffer, parties: Parties, seen: Head | None) -> CollectionReceipt:
    """Check the leader's receipt for the round of an offer, and the helper's head in it.

    Raises
    ------
    ReceiptRefused
        If it is not signed, is for another round, or its head does not follow the one that was seen.
    """
    receipt = CollectionReceipt.from_bytes(data)
    receipt.verify(parties.leader, ReceiptRefused, "the receipt is not signed by this leader")
    receipt.head.verify(parties.helper, ReceiptRefused, "the head in the receipt is not signed by this helper")
    if receipt.context != offer.context or receipt.head.fleet != offer.fleet:
        raise ReceiptRefused("the receipt is for another round", hint="wait for this round's")
    if receipt.head.answer_hash != receipt.answer_hash:
        raise ReceiptRefused("the head in the receipt is of another answer", hint="tell the operators of both")
    if seen is not None and receipt.head.sequence <= seen.sequence and receipt.head != seen:
        raise ReceiptRefused(
            f"the helper's head went back from {seen.sequence} to {receipt.head.sequence}",
            hint="an old state of the helper was put back: tell its operators",
        )
    return receipt
