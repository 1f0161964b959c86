"""A signed offer of secure aggregation for one round: everything that all devices must agree on (Bonawitz et al. 2017).

The hash of the offer, *ctx*, enters every key and every signature of the round. It holds the hash of the plan, so that
a server that sends different plans to different devices learns no sum at all.

Why one quorum q = floor(tau n1) + 1 of a roster of n1 is enough: an honest device signs one pair of survivor sets and
the c <= floor(gamma n1) corrupt ones sign what they like, so two different pairs with q signatures each need
2 q <= (n1 - c) + 2 c <= n1 + floor(gamma n1). But q > tau n1, so tau >= (1 + gamma) / 2 gives
2 q > (1 + gamma) n1 >= n1 + floor(gamma n1). Hence at most one pair is confirmed, and with it at most one sum is
revealed; it holds at least q - floor(gamma n1) honest vectors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Annotated, ClassVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from palate.privacy.errors import PrivacyError
from palate.privacy.integer.ring import Ring
from palate.privacy.ledger.framing import digest
from palate.privacy.secagg.encoding import (
    HASH,
    HASH_SIZE,
    MAX_NUMBER,
    MAX_ROSTER,
    Field,
    Kind,
    Message,
    Number,
    Text,
    check_text,
    to_sign,
    unsigned,
)
from palate.privacy.secagg.errors import OfferRefused
from palate.privacy.wire import MAX_VALUES, RoundPlan

_CONTEXT = b"palate secagg context v1"
_THOUSAND = 1000


_HASH = Field(lambda digits: HASH.write(bytes.fromhex(digits)), lambda reader: HASH.read(reader).hex())


@dataclass(frozen=True, kw_only=True)
class Offer(Message):
    """The public numbers of one round of secure aggregation.

    Attributes
    ----------
    fleet
        Name of the fleet, printable ASCII.
    run
        Name of the run, printable ASCII.
    server_round
        Number of the round, as in the plan.
    plan_hash
        `RoundPlan.content_hash`, 64 hexadecimal digits.
    vector_length
        d, values in every device's vector.
    ring_bits
        b; sums are taken modulo 2^b.
    sensitivity
        S, bound on the L2 norm of a vector before noise, in integer steps.
    share_variance
        Variance of one device's noise per value, in steps squared.
    honest_shares
        m, honest shares of noise that a revealed sum must hold.
    max_roster
        n, most devices on the roster; the ring holds a sum of so many.
    gamma_thousandths
        Corrupt devices that are allowed for, in thousandths of the roster; below 500.
    tau_thousandths
        Survivor quorum in thousandths of the roster; at least (1000 + gamma) / 2.
    n_min
        Fewest devices on the roster, and fewest survivors.
    graph, degree
        0: every device shares masks with every other. Nothing else is accepted.
    issued_at
        Seconds since 1970 at which the server made the offer.

    Raises
    ------
    OfferRefused
        If a number is out of range or they contradict each other.
    """

    kind: ClassVar[Kind] = Kind.OFFER
    fleet: Text
    run: Text
    server_round: Number
    plan_hash: Annotated[str, _HASH]
    vector_length: Annotated[int, unsigned(4)]
    ring_bits: Annotated[int, unsigned(1)]
    sensitivity: Number
    share_variance: Number
    honest_shares: Annotated[int, unsigned(4)]
    max_roster: Annotated[int, unsigned(4)]
    gamma_thousandths: Annotated[int, unsigned(2)]
    tau_thousandths: Annotated[int, unsigned(2)]
    n_min: Annotated[int, unsigned(4)]
    graph: Annotated[int, unsigned(1)] = 0
    degree: Annotated[int, unsigned(4)] = 0
    issued_at: Number = 0

    def __post_init__(self) -> None:
        for text in (self.fleet, self.run):
            check_text(text)
        if len(self.plan_hash) != 2 * HASH_SIZE or self.plan_hash.strip("0123456789abcdef"):
            raise OfferRefused("the plan's hash is not 64 hexadecimal digits", hint="use RoundPlan.content_hash")
        self._check_range("server_round", 0, MAX_NUMBER)
        self._check_range("vector_length", 1, MAX_VALUES)
        self._check_range("sensitivity", 1, MAX_NUMBER)
        self._check_range("share_variance", 1, MAX_NUMBER)
        self._check_range("max_roster", 2, MAX_ROSTER)
        self._check_range("n_min", 2, self.max_roster)
        # Below one half, so that colluders hold fewer shares than reconstruct a secret: `share_threshold`.
        self._check_range("gamma_thousandths", 0, _THOUSAND // 2 - 1)
        self._check_range("tau_thousandths", -(-(_THOUSAND + self.gamma_thousandths) // 2), _THOUSAND - 1)
        self._check_range("issued_at", 0, MAX_NUMBER)
        surely_honest = self.quorum(self.max_roster) - self.corrupt(self.max_roster)
        self._check_range("honest_shares", 1, surely_honest)
        self._check_range("graph", 0, 0)
        self._check_range("degree", 0, 0)
        try:
            Ring(bits=self.ring_bits).require_room(
                devices=self.max_roster,
                sensitivity=self.sensitivity,
                sum_variance=self.max_roster * self.share_variance,
            )
        except PrivacyError as error:
            raise OfferRefused(f"the offer's ring does not hold its sum: {error.message}", hint=error.hint) from None

    @staticmethod
    def of_plan(
        plan: RoundPlan,
        *,
        fleet: str,
        gamma_thousandths: int,
        tau_thousandths: int,
        n_min: int,
        issued_at: int,
    ) -> Offer:
        """Make the offer for a plan.

        Raises
        ------
        OfferRefused
            If the plan has no terms of protection, or they do not go with the other numbers.
        """
        if plan.terms is None:
            raise OfferRefused(f"unit {plan.unit!r} sends no integers that could be masked", hint="use another unit")
        return Offer(
            fleet=fleet,
            run=plan.run,
            server_round=plan.server_round,
            plan_hash=plan.content_hash,
            vector_length=plan.update_size,
            ring_bits=plan.terms.ring_bits,
            sensitivity=plan.terms.sensitivity,
            share_variance=plan.terms.share_variance,
            honest_shares=plan.terms.honest_shares,
            max_roster=plan.terms.roster_size,
            gamma_thousandths=gamma_thousandths,
            tau_thousandths=tau_thousandths,
            n_min=n_min,
            issued_at=issued_at,
        )

    def check_plan(self, plan: RoundPlan) -> None:
        """Check that the offer is for exactly this plan.

        Raises
        ------
        OfferRefused
            If anything differs.
        """
        expected = Offer.of_plan(
            plan,
            fleet=self.fleet,
            gamma_thousandths=self.gamma_thousandths,
            tau_thousandths=self.tau_thousandths,
            n_min=self.n_min,
            issued_at=self.issued_at,
        )
        other = [f.name for f in fields(Offer) if getattr(self, f.name) != getattr(expected, f.name)]
        if other:
            raise OfferRefused(
                f"the offer is not for this plan: {', '.join(other)} differ", hint="ask the server for both anew"
            )

    def corrupt(self, roster_size: int) -> int:
        """Corrupt devices that are allowed for on a roster of n1: floor(gamma n1)."""
        return self.gamma_thousandths * roster_size // _THOUSAND

    def quorum(self, roster_size: int) -> int:
        """Signatures that confirm survivor sets on a roster of n1: floor(tau n1) + 1."""
        return self.tau_thousandths * roster_size // _THOUSAND + 1

    def fewest_survivors(self, roster_size: int) -> int:
        """Fewest survivors with which a device continues: quorum, n_min, and m honest ones besides all corrupt ones."""
        return max(self.n_min, self.quorum(roster_size), self.honest_shares + self.corrupt(roster_size))

    @property
    def word_bytes(self) -> int:
        """Bytes of one masked value on the wire: ceil(b / 8)."""
        return -(-self.ring_bits // 8)

    @cached_property
    def context(self) -> bytes:
        """ctx, the hash of the signed bytes that enters every key and signature of the round, 32 bytes."""
        return digest(_CONTEXT, self.body)

    def sign(self, server_key: Ed25519PrivateKey) -> bytes:
        """Encode the offer with the server's signature; the same bytes every time."""
        return self.signed(lambda body: server_key.sign(to_sign(body))).to_bytes()

    @staticmethod
    def open(data: bytes, server_key: Ed25519PublicKey) -> Offer:
        """Decode an offer and check that the server signed it.

        Raises
        ------
        MessageError
            If the bytes are not exactly what `sign` writes.
        OfferRefused
            If the signature is not the server's, or the numbers contradict each other.
        """
        offer = Offer.from_bytes(data)
        offer.verify(server_key, OfferRefused, "the offer is not signed by this server")
        return replace(offer, signature=b"")

    def _check_range(self, name: str, least: int, most: int) -> None:
        value = getattr(self, name)
        if not least <= value <= most:
            raise OfferRefused(
                f"{name} is {value}, it must be between {least} and {most}", hint="ask for an offer with other numbers"
            )


def share_threshold(roster_size: int) -> int:
    """t, shares that give a secret back: floor((n1 - 1) / 2) + 1.

    More than floor(gamma n1) for every gamma below one half, so that colluders alone reconstruct nothing.
    """
    return (roster_size - 1) // 2 + 1


@dataclass(frozen=True, kw_only=True)
class DevicePolicy:
    """What a device asks of every offer, whatever the server says.

    Attributes
    ----------
    smallest_cohort
        Least n_min, at least 2.
    gamma_thousandths
        Corrupt devices that every offer must allow for at least, in thousandths of the roster: the most that the owner
        believes may collude. It holds for every roster that the server may choose, not for the fleet's average.
    largest_roster
        Most devices that this one is willing to share with.

    Raises
    ------
    OfferRefused
        If a number is out of range.
    """

    smallest_cohort: int
    gamma_thousandths: int
    largest_roster: int = 1000

    def __post_init__(self) -> None:
        if self.smallest_cohort < 2 or not 0 <= self.gamma_thousandths < 500:
            raise OfferRefused(
                f"a policy with cohorts of {self.smallest_cohort} and gamma {self.gamma_thousandths}/1000 protects"
                " nobody: at least 2, and below 500",
                hint="choose larger cohorts",
            )

    def check(self, offer: Offer) -> None:
        """Check an offer.

        Raises
        ------
        OfferRefused
            If it asks for less than the policy does.
        """
        for name, least, most in (
            ("n_min", self.smallest_cohort, math.inf),
            ("gamma_thousandths", self.gamma_thousandths, math.inf),
            ("max_roster", 0, self.largest_roster),
        ):
            value = getattr(offer, name)
            if not least <= value <= most:
                bound = f"at least {least}" if value < least else f"at most {most}"
                raise OfferRefused(
                    f"{name} is {value}, this device's policy asks for {bound}", hint="decline, or change the policy"
                )
