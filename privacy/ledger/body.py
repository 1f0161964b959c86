"""Bodies of entries: five kinds of event as canonical JSON, and the charge of a round in integers.

A charge is 2 rho of zero-concentrated privacy (Bun & Steinke 2016) for the mechanism with sensitivity S and variance V
of the sum, in units of 1e-9 and rounded up, so that a sum of charges is exact and never too small. It is what is proven
for Skellam noise and vectors of any length, and covers Gaussian noise as wide. docs/formats/ledger.md has the fields.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from decimal import Decimal
from functools import cached_property, lru_cache
from hashlib import sha256
from typing import ClassVar

from palate.privacy.ledger import canonical
from palate.privacy.ledger.errors import MalformedBody

NANO = 10**9
MAX_TEXT = 200
RELEASED, WITHHELD, WRITTEN_OFF = "released", "withheld", "written-off"
NO_HASH = ""

_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_DELTA = re.compile(r"[1-9](\.[0-9]*[1-9])?e-[1-9][0-9]*")


def charge_nano(clip_int: int, sum_var_int: int) -> int:
    """Charge of one round: ceil(1e9 S^2 (2V + 5) / (2 V^2)).

    S^2 / V is 2 rho of Gaussian noise; the rest is the price of whole numbers, with the L1 norm of a vector of any
    length bounded by S^2 (Agarwal, Kairouz & Liu 2021, Corollary 3.6, at its supremum over whole orders).

    Parameters
    ----------
    clip_int
        S, sensitivity of one contribution in quantisation steps.
    sum_var_int
        V, variance of the noise that the honest survivors put into the sum, in steps squared.

    Raises
    ------
    MalformedBody
        If either is not positive, or the charge is beyond 2^53-1: there is then next to no noise.
    """
    if clip_int < 1 or sum_var_int < 1:
        raise MalformedBody(f"clip_int {clip_int} and sum_var_int {sum_var_int} must be at least 1")
    charge = -(-NANO * clip_int**2 * (2 * sum_var_int + 5) // (2 * sum_var_int**2))
    if charge > canonical.MAX_INT:
        raise MalformedBody(f"charge {charge} is above {canonical.MAX_INT}: the noise is negligible")
    return charge


def hash_text(data: bytes) -> str:
    """Name bytes by their SHA-256, as bodies do."""
    return "sha256:" + sha256(data).hexdigest()


def delta_text(delta: float) -> str:
    """Write a probability in its canonical form: 0.00001 is "1e-5".

    Raises
    ------
    MalformedBody
        If delta is not within (0, 1).
    """
    if not 0.0 < delta < 1.0:
        raise MalformedBody(f"delta {delta} is not within (0, 1)")
    digits, exponent = f"{Decimal(repr(delta)).normalize():e}".lower().split("e")
    return f"{digits}e{int(exponent)}"


class _Event:
    """Checks every field of a kind by its declared type when an event is made."""

    kind: ClassVar[str]
    hashes: ClassVar[tuple[str, ...]] = ()
    optional_hashes: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for name, declared in _DECLARED[type(self)]:
            value = getattr(self, name)
            if type(value).__name__ != declared:
                raise MalformedBody(f"{name} must be {declared}, not {type(value).__name__}")
            canonical.check_value(name, value)
            if isinstance(value, str) and len(value) > MAX_TEXT:
                raise MalformedBody(f"{name} has {len(value)} characters, at most {MAX_TEXT} are accepted")
            if name in self.hashes and not _HASH.fullmatch(value):
                raise MalformedBody(f"{name} is not sha256: and 64 hexadecimal digits")
            if name in self.optional_hashes and value != NO_HASH and not _HASH.fullmatch(value):
                raise MalformedBody(f"{name} is neither empty nor sha256: and 64 hexadecimal digits")

    def to_fields(self) -> dict[str, canonical.Value]:
        """Field values by name, without `seq`."""
        values: dict[str, canonical.Value] = {name: getattr(self, name) for name, _ in _DECLARED[type(self)]}
        return {"kind": self.kind, **values}


@dataclass(frozen=True, kw_only=True)
class Policy(_Event):
    """What the owner of the ledger allows from this entry on.

    Attributes
    ----------
    unit, adjacency
        What every round must protect, and against which change: ("user", "zero-out").
    delta
        Of the budget's (epsilon, delta), as `delta_text` writes it.
    budget_nano
        The most that all rounds together may be charged, or those of each window (`Window`).
    n_min
        The smallest cohort in which the device takes part.
    """

    kind: ClassVar[str] = "POLICY"
    unit: str
    adjacency: str
    delta: str
    budget_nano: int
    n_min: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _DELTA.fullmatch(self.delta):
            raise MalformedBody(f"delta {self.delta!r} is not spelt like 1e-5")


@dataclass(frozen=True, kw_only=True)
class Window(_Event):
    """The owner's budget covers the rounds of a window of time, and not those of all time; or it does so no more.

    Attributes
    ----------
    begins
        First moment of the window by the device's clock, in seconds since 1970.
    lasts
        Its length in seconds; 0, with `begins` 0, says that the budget is for life from here on.
    """

    kind: ClassVar[str] = "WINDOW"
    begins: int
    lasts: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.lasts and self.begins:
            raise MalformedBody(f"a budget for life has no beginning, and begins is {self.begins}")
        canonical.check_value("the window's end", self.ends)

    @property
    def ends(self) -> int:
        """First moment after the window, in seconds since 1970."""
        return self.begins + self.lasts


@dataclass(frozen=True, kw_only=True)
class Intent(_Event):
    """A round is about to be computed; committed before anything private is touched.

    Attributes
    ----------
    run, round
        Name of the run and number of the round: at most one of each in a ledger.
    mechanism, unit, adjacency, sampling
        What the accountant needs to know; sampling is "none-claimed" without amplification.
    clip_int, sum_var_int
        S and V of `charge_nano`. Several noisy steps in one round are one invocation with V divided by their number,
        rounded down.
    m_honest, n1
        Honest survivors for which the noise is sized, and the size of the roster.
    model, transcript
        Hashes of the item table that came down and of the signed offer.
    """

    kind: ClassVar[str] = "INTENT"
    hashes: ClassVar[tuple[str, ...]] = ("model", "transcript")
    run: str
    round: int
    mechanism: str
    unit: str
    adjacency: str
    clip_int: int
    sum_var_int: int
    m_honest: int
    n1: int
    sampling: str
    model: str
    transcript: str

    def __post_init__(self) -> None:
        super().__post_init__()
        charge_nano(self.clip_int, self.sum_var_int)  # refuses what cannot be charged
        if not 1 <= self.m_honest <= self.n1:
            raise MalformedBody(f"m_honest {self.m_honest} is not within 1 ... n1 = {self.n1}")

    @cached_property
    def charge_nano(self) -> int:
        """What the round costs; follows from the mechanism, so nobody can state another figure."""
        return charge_nano(self.clip_int, self.sum_var_int)

    def to_fields(self) -> dict[str, canonical.Value]:
        """Field values by name, without `seq`."""
        return {**super().to_fields(), "charge_nano": self.charge_nano}


@dataclass(frozen=True, kw_only=True)
class Outcome(_Event):
    """How a charged round ended.

    Attributes
    ----------
    status
        "released" if bytes may have left; "withheld" if none could have and the charge is given back; "written-off" if
        none are known to have, but the charge stands.
    payload
        Hash of the exact bytes that may have left; empty unless released.
    receipt
        Hash of the server's receipt; empty if none came.
    """

    kind: ClassVar[str] = "OUTCOME"
    optional_hashes: ClassVar[tuple[str, ...]] = ("payload", "receipt")
    run: str
    round: int
    status: str
    payload: str
    receipt: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.status not in (RELEASED, WITHHELD, WRITTEN_OFF):
            raise MalformedBody(f"status {self.status!r} is none of {RELEASED}, {WITHHELD}, {WRITTEN_OFF}")
        if (self.status == RELEASED) != (self.payload != NO_HASH):
            raise MalformedBody(f"a round that was {self.status} names its payload if and only if it was {RELEASED}")


@dataclass(frozen=True, kw_only=True)
class Checkpoint(_Event):
    """The head of a transparency log that was seen, so that a later head must be consistent with it.

    Attributes
    ----------
    run, round
        When it was seen.
    origin, tree_size, root
        The log's name, number of leaves and Merkle root.
    receipt
        Hash of a receipt that came after the round's outcome; empty if none.
    """

    kind: ClassVar[str] = "CHECKPOINT"
    hashes: ClassVar[tuple[str, ...]] = ("root",)
    optional_hashes: ClassVar[tuple[str, ...]] = ("receipt",)
    run: str
    round: int
    origin: str
    tree_size: int
    root: str
    receipt: str


Event = Policy | Window | Intent | Outcome | Checkpoint
KINDS: dict[str, type[Event]] = {kind.kind: kind for kind in (Policy, Window, Intent, Outcome, Checkpoint)}
_DECLARED: dict[type[_Event], tuple[tuple[str, str], ...]] = {
    kind: tuple((field.name, str(field.type)) for field in fields(kind)) for kind in KINDS.values()
}


def encode(event: Event, seq: int) -> bytes:
    """Write the body of entry `seq` (1, 2 ...) as canonical JSON."""
    if seq < 1:
        raise MalformedBody(f"seq {seq} is below 1")
    return canonical.encode({**event.to_fields(), "seq": seq})


def split_at_seq(event: Event) -> tuple[bytes, bytes]:
    """Canonical JSON before and after the value of `seq`: the same event in many ledgers is written once."""
    before, _, after = encode(event, 1).rpartition(b'"seq":1')
    return before + b'"seq":', after


@lru_cache(maxsize=4096)  # virtual devices of one round write the same bytes
def decode(body: bytes) -> tuple[int, Event]:
    """Read a body.

    Returns
    -------
    seq, event
        The entry's number and what it says.

    Raises
    ------
    MalformedBody
        If the bytes are not canonical, or a field is missing, unknown, or out of bounds.
    """
    values = canonical.decode(body)
    kind = KINDS.get(str(values.pop("kind", "")))
    if kind is None:
        raise MalformedBody(f"kind is none of {', '.join(KINDS)}")
    seq = values.pop("seq", 0)
    if not isinstance(seq, int) or seq < 1:
        raise MalformedBody(f"seq {seq!r} is not a number from 1 on")
    charge = values.pop("charge_nano", None) if kind is Intent else None
    expected = {name for name, _ in _DECLARED[kind]}
    if set(values) != expected:
        raise MalformedBody(f"{kind.kind}: fields {sorted(set(values) ^ expected)} are missing or not known")
    build: Callable[..., Event] = kind  # checks the values' types itself
    event = build(**values)
    if isinstance(event, Intent) and charge != event.charge_nano:
        raise MalformedBody(f"charge_nano {charge!r} does not follow from the mechanism: {event.charge_nano}")
    return seq, event
