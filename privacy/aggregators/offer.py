"""A leader's signed offer of one collection: all that device, leader and helper must agree on.

Its hash, *ctx*, enters every key, tag and signature of the round, and it names the hashes of everything else: the plan,
the register, the round key, and the keys of all parties. Names of fleets collide; hashes do not.

With E devices registered and k = floor(gamma E) of them corrupt, a batch of B holds at least B - k honest shares of
noise, whoever chose the batch. The noise is sized for m of them, so m + k <= B must hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from palate.privacy.aggregators.admission import MAX_REGISTERED, Parties, Register
from palate.privacy.aggregators.errors import OfferRefused
from palate.privacy.aggregators.planes import packed_size
from palate.privacy.aggregators.sealing import RoundKey
from palate.privacy.errors import PrivacyError
from palate.privacy.integer.ring import Ring
from palate.privacy.ledger.framing import digest
from palate.privacy.secagg.encoding import (
    HASH_SIZE,
    SIGNATURE_SIZE,
    Field,
    Hash,
    Kind,
    Number,
    Reader,
    Text,
    check_text,
    header,
    read_fields,
    to_sign,
    unsigned,
    verify_signature,
    write_fields,
)
from palate.privacy.wire import MAX_VALUES, RoundPlan

_CONTEXT = b"palate two aggregators context v1"
_MAX_BITS = 63

HEXADECIMAL: Final = Field(bytes.fromhex, lambda reader: reader.raw(HASH_SIZE).hex())
"""A hash of 32 bytes, kept as 64 hexadecimal digits."""


@dataclass(frozen=True, kw_only=True)
class CollectionOffer:
    """The public numbers of one collection.

    Attributes
    ----------
    fleet, run
        Names, printable ASCII.
    server_round
        Number of the round, as in the plan.
    plan_hash
        `RoundPlan.content_hash`, 64 hexadecimal digits.
    vector_length
        d, words in every vector.
    ring_bits
        b; sums are taken modulo 2^b.
    sensitivity
        S, L2 bound of a device's integer vector.
    share_variance
        Variance of one device's share of noise, in every coordinate.
    honest_shares
        m, shares that the noise is sized for.
    corrupt
        k, registered devices that may collude and leave out their noise.
    least_batch, most_reports
        B and n_max: reports in the sum, at least and at most.
    register_hash, round_key_hash, parties_hash
        Of `Register`, `RoundKey` and `Parties`, 32 bytes each.
    issued_at, report_before, answer_before
        Seconds since 1970: when it was made, the end for reports (the leader's clock), the end for the answer (the
        helper's clock).

    Raises
    ------
    OfferRefused
        If a number is out of range or they contradict each other.
    """

    fleet: Text
    run: Text
    server_round: Number
    plan_hash: Annotated[str, HEXADECIMAL]
    vector_length: Annotated[int, unsigned(4)]
    ring_bits: Annotated[int, unsigned(1)]
    sensitivity: Number
    share_variance: Number
    honest_shares: Annotated[int, unsigned(4)]
    corrupt: Annotated[int, unsigned(4)]
    least_batch: Annotated[int, unsigned(4)]
    most_reports: Annotated[int, unsigned(4)]
    register_hash: Hash
    round_key_hash: Hash
    parties_hash: Hash
    issued_at: Number
    report_before: Number
    answer_before: Number

    def __post_init__(self) -> None:
        check_text(self.fleet)
        check_text(self.run)
        for name, least, most in (
            ("vector_length", 1, MAX_VALUES),
            ("ring_bits", 2, _MAX_BITS),
            ("sensitivity", 1, 1 << 40),
            ("share_variance", 1, 1 << 60),
            ("most_reports", 2, MAX_REGISTERED),
            ("least_batch", 2, self.most_reports),
            ("honest_shares", 1, self.least_batch),
            ("corrupt", 0, self.least_batch - 1),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                raise OfferRefused(f"{name} is {value}, it must be between {least} and {most}", hint="ask for another")
        if self.honest_shares + self.corrupt > self.least_batch:
            raise OfferRefused(
                f"{self.honest_shares} honest and {self.corrupt} corrupt devices do not fit into a batch of "
                f"{self.least_batch}",
                hint="size the noise for fewer honest devices, or ask for a larger batch",
            )
        if not self.issued_at < self.report_before < self.answer_before:
            raise OfferRefused("the ends of the offer are not in order", hint="ask for another")
        try:
            Ring(bits=self.ring_bits).require_room(
                devices=self.most_reports,
                sensitivity=self.sensitivity,
                sum_variance=self.most_reports * self.share_variance,
            )
        except PrivacyError as error:
            raise OfferRefused(f"the offer's ring does not hold its sum: {error.message}", hint=error.hint) from None

    @staticmethod
    def of_plan(
        plan: RoundPlan,
        *,
        fleet: str,
        register: Register,
        round_key: RoundKey,
        parties: Parties,
        ring_bits: int,
        corrupt: int,
        least_batch: int,
        issued_at: int,
        report_before: int,
        answer_before: int,
    ) -> CollectionOffer:
        """Make the offer for a plan.

        Raises
        ------
        OfferRefused
            If the plan has no terms of protection, or they do not go with the other numbers.
        """
        if plan.terms is None:
            raise OfferRefused(f"unit {plan.unit!r} sends no integers that could be masked", hint="use another unit")
        return CollectionOffer(
            fleet=fleet,
            run=plan.run,
            server_round=plan.server_round,
            plan_hash=plan.content_hash,
            vector_length=plan.update_size,
            ring_bits=ring_bits,
            sensitivity=plan.terms.sensitivity,
            share_variance=plan.terms.share_variance,
            honest_shares=plan.terms.honest_shares,
            corrupt=corrupt,
            least_batch=least_batch,
            most_reports=plan.terms.roster_size,
            register_hash=register.content_hash,
            round_key_hash=round_key.content_hash,
            parties_hash=parties.content_hash,
            issued_at=issued_at,
            report_before=report_before,
            answer_before=answer_before,
        )

    def check_plan(self, plan: RoundPlan) -> None:
        """Check that the offer is for exactly this plan; its ring may be narrower than the plan's.

        Raises
        ------
        OfferRefused
            If anything differs.
        """
        if plan.terms is None:
            raise OfferRefused(f"unit {plan.unit!r} sends no integers that could be masked", hint="use another unit")
        expected = {
            "run": plan.run,
            "server_round": plan.server_round,
            "plan_hash": plan.content_hash,
            "vector_length": plan.update_size,
            "sensitivity": plan.terms.sensitivity,
            "share_variance": plan.terms.share_variance,
            "honest_shares": plan.terms.honest_shares,
            "most_reports": plan.terms.roster_size,
        }
        other = [name for name, value in expected.items() if getattr(self, name) != value]
        other += ["ring_bits"] if self.ring_bits > plan.terms.ring_bits else []
        if other:
            raise OfferRefused(
                f"the offer is not for this plan: {', '.join(other)} differ", hint="ask the leader for both anew"
            )

    def check_names(self, *, register: Register, round_key: RoundKey, parties: Parties) -> None:
        """Check that the offer names this register, this round key and these parties, and that they hold until its end.

        Raises
        ------
        OfferRefused
            If one is another, is for another fleet, or ends before the answer.
        """
        for name, named, found in (
            ("register", self.register_hash, register.content_hash),
            ("round key", self.round_key_hash, round_key.content_hash),
            ("parties", self.parties_hash, parties.content_hash),
        ):
            if named != found:
                raise OfferRefused(f"the offer names another {name}", hint="ask the leader for both anew")
        if not self.fleet == register.fleet == round_key.fleet:
            raise OfferRefused("the offer's register or round key is of another fleet", hint="ask for another offer")
        if self.most_reports > register.size:
            raise OfferRefused(
                f"an offer for {self.most_reports} reports where {register.size} devices are registered",
                hint="ask for an offer of at most as many",
            )
        for name, end in (("register", register.not_after), ("round key", round_key.not_after)):
            if end < self.answer_before:
                raise OfferRefused(f"the {name} ends at {end}, before the answer is due", hint="renew it first")

    def check_gamma(self, register: Register, gamma_thousandths: int) -> None:
        """Check that the offer allows for a share gamma of corrupt devices, of all that are registered.

        Raises
        ------
        OfferRefused
            If k is below floor(gamma E).
        """
        needed = gamma_thousandths * register.size // 1000
        if self.corrupt < needed:
            raise OfferRefused(
                f"the offer allows for {self.corrupt} corrupt devices of {register.size} registered, "
                f"this device wants {needed}",
                hint="the operator must size the noise for more, or the owner accept a smaller gamma",
            )

    @property
    def words_size(self) -> int:
        """Bytes of one packed vector."""
        return packed_size(self.vector_length, self.ring_bits)

    @property
    def body(self) -> bytes:
        """What the leader signs."""
        return header(Kind.COLLECTION_OFFER) + write_fields(self)

    @cached_property
    def context(self) -> bytes:
        """ctx, the hash of the signed bytes, 32 bytes."""
        return digest(_CONTEXT, self.body)

    def sign(self, leader: Ed25519PrivateKey) -> bytes:
        """Encode the offer with the leader's signature; the same bytes every time."""
        return self.body + leader.sign(to_sign(self.body))

    @staticmethod
    def open(data: bytes, leader_key: Ed25519PublicKey | bytes) -> CollectionOffer:
        """Decode an offer and check that the leader signed it.

        Raises
        ------
        MessageError
            If the bytes are not exactly what `sign` writes.
        OfferRefused
            If the signature is not the leader's, or the numbers contradict each other.
        """
        reader = Reader(data, Kind.COLLECTION_OFFER)
        values = read_fields(CollectionOffer, reader)
        body = reader.signed_so_far
        signature = reader.raw(SIGNATURE_SIZE)
        reader.end()
        verify_signature(leader_key, signature, body, OfferRefused, "the offer is not signed by this leader")
        return CollectionOffer(**values)
