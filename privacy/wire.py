"""Everything that crosses between server and device, in one file.

Down: a `RoundPlan` with the public item table and the public parameters of local training. Up: an `ItemUpdate`,
one vector of the catalogue's full length and nothing else: no example count, no loss, no metric, no list of items.
What its values give away is for the mechanism to hide; unit "none" hides nothing.

A device that fails answers with an error code in place of an update, and refuses the simulation's questions about
ranks (`palate.client.app`).

Messages are plain arrays and scalars here; `palate.server` and `palate.client` put them into Flower messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast, get_args

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Scalar = str | int | float
Purpose = Literal["popularity", "train"]

PLAN_VERSION = 1
MAX_VALUES = 1 << 28  # 1 GiB of float32: more than any catalogue needs, less than a device must fear


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
        0 for the popularity round, 1... for training.
    purpose
        "popularity" asks for the device's part of the popularity sum, "train" for an update of the learned columns.
    unit
        Unit of protection; names the mechanism that the update must pass.
    participation
        Share of devices that take part; decides in simulations, where a node hosts many.
    training
        Parameters of local training, as JSON text.
    fixed, learned
        The item table's blocks, float32 [num_items, fixed_dim] and [num_items, dim].
    """

    run: str
    server_round: int
    purpose: Purpose
    unit: str
    participation: float
    training: str
    fixed: FloatArray
    learned: FloatArray

    @property
    def update_size(self) -> int:
        """Length of the vector that answers this plan."""
        return len(self.learned) if self.purpose == "popularity" else self.learned.size

    def to_parts(self) -> tuple[dict[str, FloatArray], dict[str, Scalar]]:
        """Split into named arrays and scalars."""
        scalars: dict[str, Scalar] = {
            "version": PLAN_VERSION,
            "run": self.run,
            "server_round": self.server_round,
            "purpose": self.purpose,
            "unit": self.unit,
            "participation": self.participation,
            "training": self.training,
        }
        return {"fixed": self.fixed, "learned": self.learned}, scalars

    @staticmethod
    def from_parts(arrays: Mapping[str, npt.NDArray[np.generic]], scalars: Mapping[str, object]) -> RoundPlan:
        """Check and rebuild a plan.

        Raises
        ------
        WireError
            If a field is missing, unknown, of the wrong type or shape, not finite, or too large.
        """
        expected = {
            "version": int, "run": str, "server_round": int, "purpose": str, "unit": str,
            "participation": float, "training": str,
        }  # fmt: skip
        _same_names("plan", set(scalars), set(expected))
        _same_names("plan arrays", set(arrays), {"fixed", "learned"})
        for name, kind in expected.items():
            if type(scalars[name]) is not kind:
                raise WireError(f"plan field {name} must be {kind.__name__}, not {type(scalars[name]).__name__}")
        if scalars["version"] != PLAN_VERSION:
            raise WireError(f"plan version {scalars['version']} is not {PLAN_VERSION}")
        if scalars["purpose"] not in get_args(Purpose):
            raise WireError(f"unknown purpose {scalars['purpose']!r}")
        fixed, learned = _checked("fixed", arrays["fixed"], 2), _checked("learned", arrays["learned"], 2)
        if len(fixed) != len(learned):
            raise WireError(f"{len(fixed)} fixed rows but {len(learned)} learned rows")
        server_round = cast("int", scalars["server_round"])
        if server_round < 0 or (server_round == 0) != (scalars["purpose"] == "popularity"):
            raise WireError(
                f"round {server_round} is not for {scalars['purpose']}: popularity is round 0, and no other"
            )
        participation = cast("float", scalars["participation"])
        if not 0.0 < participation <= 1.0:
            raise WireError(f"participation {participation} is not in (0, 1]")
        return RoundPlan(
            run=cast("str", scalars["run"]),
            server_round=server_round,
            purpose=cast("Purpose", scalars["purpose"]),
            unit=cast("str", scalars["unit"]),
            participation=participation,
            training=cast("str", scalars["training"]),
            fixed=fixed,
            learned=learned,
        )


@dataclass(frozen=True, eq=False)
class ItemUpdate:
    """What a device answers: one dense vector over the whole catalogue. Its values are never printed.

    Attributes
    ----------
    vector
        float32 [num_items * dim] in row order, or [num_items] in the popularity round.
    """

    vector: FloatArray = field(repr=False)

    def to_parts(self) -> dict[str, FloatArray]:
        """Split into named arrays."""
        return {"update": self.vector}

    @staticmethod
    def from_parts(arrays: Mapping[str, npt.NDArray[np.generic]], *, size: int) -> ItemUpdate:
        """Check and rebuild an update of a known size.

        Raises
        ------
        WireError
            If anything but the one finite float32 vector of this size arrived.
        """
        _same_names("update", set(arrays), {"update"})
        vector = _checked("update", arrays["update"], 1)
        if len(vector) != size:
            raise WireError(f"update has {len(vector)} values, the plan asks for {size}")
        return ItemUpdate(vector)


def _same_names(what: str, given: set[str], expected: set[str]) -> None:
    if given != expected:
        raise WireError(f"{what}: fields {sorted(given ^ expected)} are missing or not known")


def _checked(name: str, array: npt.NDArray[np.generic], ndim: int) -> FloatArray:
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
