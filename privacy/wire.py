"""Everything that crosses between server and device, in one file.

Down: a `RoundPlan` with the public item table, the public parameters of local training and the terms of protection.
Up: an `ItemUpdate`, one vector over the whole catalogue, or over the rows that the plan names for everybody, and
nothing else: no example count, no loss, no list of items. Under a protected unit it holds integers modulo 2^b, noise
included, and the few coordinates at its end that carry a device's metrics are noised with the rest
(`palate.privacy.mechanisms.evaluation`). Unit "none" hides nothing.

A device that fails answers with an error code (below) in place of an update, and refuses the simulation's questions
about ranks (`palate.client.app`). What a device says of itself to be taken into a fleet, its public keys, is in
`palate.privacy.enrolment`; with an invitation that request is signed by the code, which does not travel
(`palate.privacy.invitation`). Later it asks for its renewed certificate, for the notice of a next run and for its
catalogue (`palate.privacy.run_notice`), with nothing in the question. That it is there, and that it asks for messages,
Flower's Fleet API says.

Between real devices the update is never sent as it is. Among peers a round is then six `FleetMessage`s down and five
up, which carry the bytes of secure aggregation (`palate.privacy.secagg`). Under two aggregators it is one report up
(`palate.privacy.aggregators`): REPORT goes down with a `CollectionCall` and comes back as an `Upload`, RECEIPT brings a
`CollectionReceipt`. An upload is the masked vector, its salt, and a signed report: device, tag of the words, the sealed
seed of the mask, the helper's newest head that was seen, a salted commitment to the head of the own ledger, and marks:
the first 8 bytes of such commitments in at most eight earlier reports of the device. The helper gets the report, never
salt or words. To a device whose marks lack its newest report, REPORT brings a `LedgerNotice` in place of the call, and
it answers with a code. The first step of a round also carries the plan, the last receipt of a run
its final table.

Messages are plain arrays and scalars here; `palate.server` and `palate.client` put them into Flower messages.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from functools import cached_property
from typing import Any, Final, Literal, cast, get_args

import numpy as np

from palate.models.arrays import AnyArray, BoolArray, Float32Array
from palate.privacy.errors import PrivacyError
from palate.privacy.integer.ring import Ring, RingArray
from palate.privacy.mechanisms.terms import ReleaseTerms

Scalar = str | int | float
Purpose = Literal["popularity", "train"]

PLAN_VERSION = 2
FLEET_VERSION = 1
MAX_COLUMN_NAME = 200
NUM_METRICS = 3
"""Coordinates at the end of an update that carry a device's metrics, where the plan asks for them."""
MAX_VALUES = 1 << 28  # 1 GiB of float32: more than any catalogue needs, and still safe for a device


_PLAN_SCALARS: Final[Mapping[str, type]] = {
    **dict.fromkeys(("run", "purpose", "unit", "training"), str),
    **dict.fromkeys(("server_round", "interactions_per_round"), int),
    **dict.fromkeys(("participation", "evaluation_share"), float),
}
"""Fields of a plan that are sent as they are."""

BAD_PLAN: Final = 100
"""Code of a device's error: a plan, a message or a question that is not understood. Codes, and in simulations the name
of the error's type, are all that a server learns about what went wrong: texts may quote private data."""
FAILED: Final = 101
"""Code of any other failure."""
REFUSED: Final = 102
"""Code where the device's ledger or its owner's limits refuse the round."""
ROUND_GONE: Final = 103
"""Code where the device has no keys for the round: it was restarted, or left the round before. Nobody is to blame."""
TAMPERED: Final = 104
"""Code where a check of secure aggregation fails: somebody sent what an honest device or server does not send."""

WHOLE_PULL_PATH: Final = "/v1/fleet/pull-whole"
"""Call that answers with a message and its objects, framed (`palate.privacy.ledger.framing`)."""
WHOLE_PUSH_PATH: Final = "/v1/fleet/push-whole"
"""Call that takes a reply and its objects, framed."""
MAX_WHOLE_BYTES: Final = 4 << 20
"""Objects in one such call, together; Flower's own calls carry the larger ones one by one."""


class WireError(ValueError):
    """A message that does not say what this version understands."""


@dataclass(frozen=True, eq=False)
class RoundPlan:
    """What the server asks of every device in a round; public.

    Attributes
    ----------
    run
        Name of the run.
    server_round
        Number of the round, from 0; a round that failed keeps its number. Popularity comes first.
    purpose
        "popularity" asks for the device's part of the popularity sum, "train" for an update of the learned columns.
    unit
        Unit of protection; names the mechanism that the update must pass.
    terms
        How much noise covers how much of a unit; None for unit "none", and for no other.
    evaluation_share
        Part of the clip norm that carries the device's metrics on this table, in [0, 1); 0 asks for none.
    interactions_per_round
        Most interactions of a device that enter a round; 0 for all.
    participation
        Share of devices that take part; decides in simulations, where a node hosts many.
    training
        Parameters of local training, as JSON text.
    fixed, learned
        The item table's blocks, float32 [num_items, fixed_dim] and [num_items, dim].
    active
        Which items are learned: the update has rows for only these, in their order; bool [num_items]. None for all.
    columns
        Names of the fixed columns, [fixed_dim]; none where nobody reads them, in simulations.
    """

    run: str
    server_round: int
    purpose: Purpose
    unit: str
    participation: float
    training: str
    fixed: Float32Array
    learned: Float32Array
    terms: ReleaseTerms | None = None
    evaluation_share: float = 0.0
    interactions_per_round: int = 0
    active: BoolArray | None = None
    columns: tuple[str, ...] = ()

    @property
    def asks_for_metrics(self) -> bool:
        """Whether the update carries the device's metrics."""
        return self.purpose == "train" and self.evaluation_share > 0

    @property
    def update_size(self) -> int:
        """Length of the vector that answers this plan."""
        if self.purpose == "popularity":
            return len(self.learned)
        rows = len(self.learned) if self.active is None else int(self.active.sum())
        return rows * int(self.learned.shape[1]) + NUM_METRICS * self.asks_for_metrics

    @cached_property
    def table_hash(self) -> str:
        """SHA-256 of the item table, in hexadecimal; the same as `palate.models.table.ItemTable.content_hash`."""
        digest = hashlib.sha256(b"palate item table v1")
        for block in (self.fixed, self.learned):
            digest.update(np.array(block.shape, dtype="<i8").tobytes())
            digest.update(np.ascontiguousarray(block, dtype="<f4").tobytes())
        return digest.hexdigest()

    @property
    def rules_hash(self) -> str:
        """SHA-256 over all but the run's name and the table, in hexadecimal: what is asked for, under which noise."""
        _, scalars = self.to_parts()
        rules = {name: value for name, value in scalars.items() if name != "run"}
        return hashlib.sha256(b"palate round rules v2" + json.dumps(rules, sort_keys=True).encode()).hexdigest()

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over every field, in hexadecimal; names the plan in ledgers."""
        arrays, scalars = self.to_parts()
        digest = hashlib.sha256(b"palate round plan v2")
        digest.update(json.dumps(scalars, sort_keys=True).encode())
        for name in sorted(arrays):
            digest.update(np.array(arrays[name].shape, dtype="<i8").tobytes())
            digest.update(np.ascontiguousarray(arrays[name], dtype="<f4").tobytes())
        return digest.hexdigest()

    def to_parts(self) -> tuple[dict[str, Float32Array], dict[str, Scalar]]:
        """Split into named arrays and scalars."""
        scalars: dict[str, Scalar] = {name: getattr(self, name) for name in _PLAN_SCALARS}
        scalars["version"] = PLAN_VERSION
        if self.active is not None:
            scalars["active"] = np.packbits(self.active).tobytes().hex()
        if self.columns:
            scalars["columns"] = json.dumps(self.columns)
        if self.terms is not None:
            scalars |= {f"terms.{name}": value for name, value in asdict(self.terms).items()}
        return {"fixed": self.fixed, "learned": self.learned}, scalars

    @staticmethod
    def from_parts(arrays: Mapping[str, AnyArray], scalars: Mapping[str, object]) -> RoundPlan:
        """Check and rebuild a plan.

        Raises
        ------
        WireError
            If a field is missing, unknown, of the wrong type or shape, not finite, or too large.
        """
        given_terms = {name: value for name, value in scalars.items() if name.startswith("terms.")}
        scalars = {name: value for name, value in scalars.items() if name not in given_terms}
        expected: dict[str, type] = {"version": int, **_PLAN_SCALARS}
        expected |= {name: str for name in ("active", "columns") if name in scalars}
        given = _typed("plan", scalars, expected, version=PLAN_VERSION)
        _same_names("plan arrays", set(arrays), {"fixed", "learned"})
        if given["purpose"] not in get_args(Purpose):
            raise WireError(f"unknown purpose {given['purpose']!r}")
        fixed, learned = _checked("fixed", arrays["fixed"], 2), _checked("learned", arrays["learned"], 2)
        if len(fixed) != len(learned):
            raise WireError(f"{len(fixed)} fixed rows but {len(learned)} learned rows")
        if given["server_round"] < 0 or (given["server_round"] == 0 and given["purpose"] != "popularity"):
            raise WireError(f"round {given['server_round']} is not for {given['purpose']}: popularity comes first")
        if not 0.0 < given["participation"] <= 1.0:
            raise WireError(f"participation {given['participation']} is not in (0, 1]")
        if not 0.0 <= given["evaluation_share"] < 1.0:
            raise WireError(f"evaluation_share {given['evaluation_share']} is not in [0, 1)")
        if given["interactions_per_round"] < 0:
            raise WireError(f"interactions_per_round {given['interactions_per_round']} is below 0")
        if "active" in given:
            given["active"] = _active(given["active"], len(learned))
            if given["purpose"] != "train" or given["unit"] != "user":
                raise WireError(f"no choice of rows in {given['purpose']} at unit {given['unit']!r}")
        if "columns" in given:
            given["columns"] = _columns(given["columns"], fixed.shape[1])
        return RoundPlan(**given, fixed=fixed, learned=learned, terms=_terms(given["unit"], given_terms))


def _columns(text: str, count: int) -> tuple[str, ...]:
    """Read names of columns: a JSON list of `count` distinct names of 1 to `MAX_COLUMN_NAME` printable characters."""
    try:
        names = json.loads(text) if len(text) <= count * (12 * MAX_COLUMN_NAME + 4) + 2 else None
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or len(names) != count or not all(isinstance(name, str) for name in names):
        raise WireError(f"plan field columns is not a list of {count} names")
    if len(set(names)) != count or not all(1 <= len(name) <= MAX_COLUMN_NAME and name.isprintable() for name in names):
        raise WireError(f"names of columns are not distinct, or not of 1 to {MAX_COLUMN_NAME} printable characters")
    return tuple(names)


class FleetStep(StrEnum):
    """Steps of a round of real devices; each is a request and its answer.

    Among peers a round takes the first six, in their order. Under two aggregators it takes REPORT, then RECEIPT.
    """

    ADVERTISE = "advertise"
    SHARE = "share"
    MASK = "mask"
    CONFIRM = "confirm"
    REVEAL = "reveal"
    RECEIPT = "receipt"
    REPORT = "report"

    @property
    def opens_a_round(self) -> bool:
        """Whether the plan comes with this step, and with no other of its round."""
        return self in (FleetStep.ADVERTISE, FleetStep.REPORT)


@dataclass(frozen=True)
class FleetMessage:
    """One step of a round between the server and one device, in either direction.

    Attributes
    ----------
    step
        Which step this is.
    run, server_round
        The round it belongs to.
    body
        What `palate.privacy.secagg` or `palate.privacy.aggregators` makes of the step; the answer to a receipt is
        empty.
    """

    step: FleetStep
    run: str
    server_round: int
    body: bytes = field(repr=False)

    def to_scalars(self) -> dict[str, str | int | bytes]:
        """Return the fields by name."""
        return {"version": FLEET_VERSION, **asdict(self), "step": str(self.step)}

    @staticmethod
    def from_scalars(values: Mapping[str, object]) -> FleetMessage:
        """Check and rebuild a message.

        Raises
        ------
        WireError
            If a field is missing, unknown, of another type, or out of range.
        """
        expected = {"version": int, "step": str, "run": str, "server_round": int, "body": bytes}
        given = _typed("fleet message", values, expected, version=FLEET_VERSION)
        if given["step"] not in set(FleetStep):
            raise WireError(f"fleet message: unknown step {given['step']!r}")
        if given["server_round"] < 0:
            raise WireError(f"fleet message: round {given['server_round']} is below 0")
        return FleetMessage(**(given | {"step": FleetStep(given["step"])}))


@dataclass(frozen=True, eq=False)
class ItemUpdate:
    """What a device answers: one dense vector, of the same length for all. Its values are never printed.

    Attributes
    ----------
    vector
        The update dimension by dimension, ``update.T.reshape(-1)`` of [rows, dim], then the metrics if the plan asks
        for them; rows are those of the plan's active items, or all. [num_items] in the popularity round. Integers
        modulo 2^b, uint32 or uint64 [update_size], under a protected unit; float32 under unit "none".
    """

    vector: Float32Array | RingArray = field(repr=False)

    @staticmethod
    def of_nobody(plan: RoundPlan) -> ItemUpdate:
        """Return the answer of a node that has nobody in the round: zeros, without noise."""
        if plan.terms is None:
            return ItemUpdate(np.zeros(plan.update_size, dtype=np.float32))
        return ItemUpdate(Ring(bits=plan.terms.ring_bits).zeros(plan.update_size))

    def to_parts(self) -> dict[str, Float32Array | RingArray]:
        """Split into named arrays."""
        return {"update": self.vector}

    @staticmethod
    def from_parts(arrays: Mapping[str, AnyArray], plan: RoundPlan) -> ItemUpdate:
        """Check and rebuild the answer to a plan.

        Raises
        ------
        WireError
            If anything but the one vector that the plan asks for arrived: integers in range, or finite float32.
        """
        _same_names("update", set(arrays), {"update"})
        vector = arrays["update"]
        if plan.terms is None:
            checked: Float32Array | RingArray = _checked("update", vector, 1)
        else:
            checked = _checked_ring(vector, plan.terms.ring_bits)
        if len(checked) != plan.update_size:
            raise WireError(f"update has {len(checked)} values, the plan asks for {plan.update_size}")
        return ItemUpdate(checked)


_READING = threading.Lock()
"""Python 3.11 fails where two threads parse a literal at once, and an array's header is one (cpython gh-106905)."""


def array_of_npy(data: bytes) -> AnyArray:
    """Read an array from the bytes of an .npy file, without allocating more than arrived.

    `numpy.load` allocates what the header claims before it looks for the values: a hundred bytes could ask for all
    memory.

    Raises
    ------
    WireError
        If the bytes are not exactly one array of plain numbers.
    """
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        with _READING:
            shape, in_columns, dtype = read_header[version](stream)
        kept = memoryview(data)[stream.tell() :]
        if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(kept):
            raise WireError(f"an array of {dtype} {shape} does not come in {len(kept)} bytes")
        return np.frombuffer(kept, dtype=dtype).reshape(shape, order="F" if in_columns else "C").copy()
    except WireError:
        raise
    except Exception as error:  # a header is parsed as Python's literals, and fails in as many ways
        raise WireError(f"the bytes are not an array: {type(error).__name__}") from None


def _terms(unit: str, given: Mapping[str, object]) -> ReleaseTerms | None:
    if (unit == "none") != (not given):
        raise WireError(f"unit {unit!r} {'takes no' if given else 'needs'} terms of protection")
    if not given:
        return None
    expected = {each.name: float if each.name == "clip_norm" else int for each in fields(ReleaseTerms)}
    values = {name.removeprefix("terms."): value for name, value in given.items()}
    try:
        return ReleaseTerms(**_typed("plan terms", values, expected))
    except PrivacyError as error:
        raise WireError(f"plan: {error.message}") from error


def _active(digits: str, num_items: int) -> BoolArray:
    """Read which rows are learned, bool [num_items]: one bit an item, the first the highest of its byte."""
    size = -(-num_items // 8)
    if len(digits) != 2 * size or digits.strip("0123456789abcdef"):
        raise WireError(f"active must be {2 * size} hexadecimal digits for {num_items} items")
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(digits), dtype=np.uint8)).astype(np.bool_)
    if bits[num_items:].any() or not bits.any():
        raise WireError(f"active must name some of {num_items} items and no others")
    return bits[:num_items]


def _checked_ring(array: AnyArray, bits: int) -> RingArray:
    dtype = Ring(bits=bits).dtype
    if not isinstance(array, np.ndarray):
        raise WireError(f"update must be an array, not {type(array).__name__}")
    if array.dtype != dtype or array.ndim != 1:
        raise WireError(f"update must be {np.dtype(dtype)} with 1 dimension, not {array.dtype} {array.shape}")
    elements = cast("RingArray", array)
    if len(elements) and int(elements.max()) >> bits:
        raise WireError(f"update holds values of more than {bits} bits")
    return elements


def _same_names(what: str, given: set[str], expected: set[str]) -> None:
    if given != expected:
        raise WireError(f"{what}: fields {sorted(given ^ expected)} are missing or not known")


def _typed(
    what: str, values: Mapping[str, object], expected: Mapping[str, type], *, version: int | None = None
) -> dict[str, Any]:
    """Return the values without their version, if names, types and version are as expected."""
    _same_names(what, set(values), set(expected))
    for name, kind in expected.items():
        if type(values[name]) is not kind:
            raise WireError(f"{what}: {name} must be {kind.__name__}, not {type(values[name]).__name__}")
    if values.get("version") != version:
        raise WireError(f"{what}: version {values['version']} is not {version}")
    return {name: value for name, value in values.items() if name != "version"}


def _checked(name: str, array: AnyArray, ndim: int) -> Float32Array:
    if not isinstance(array, np.ndarray):
        raise WireError(f"{name} must be an array, not {type(array).__name__}")
    if array.dtype != np.float32 or array.ndim != ndim:
        raise WireError(f"{name} must be float32 with {ndim} dimensions, not {array.dtype} {array.shape}")
    if array.size > MAX_VALUES:
        raise WireError(f"{name} has {array.size} values, at most {MAX_VALUES} are accepted")
    values = array.astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        raise WireError(f"{name} holds values that are not finite")
    return values
