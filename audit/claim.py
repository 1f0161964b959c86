"""What a run says about itself in result.json: the claim that its ledgers must support."""

from __future__ import annotations

import json
import math
import tomllib
from dataclasses import dataclass
from typing import Any

from palate.audit.opening import Source
from palate.simulation.report.files import damaged, file_bytes, is_file

RESULT, RESOLVED = "result.json", "resolved.toml"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A run's own statement.

    Attributes
    ----------
    epsilon, delta
        What it says was spent.
    target_epsilon
        The epsilon that it was asked to keep; None where it does not say.
    """

    epsilon: float
    delta: float
    target_epsilon: float | None


def read_claim(source: Source, unit: str) -> Claim | None:
    """Read the claim about one unit; None where the run has not finished, or claims nothing about it.

    Raises
    ------
    RunError
        If result.json is damaged.
    """
    if source.run is None or not is_file(source.run / RESULT):
        return None
    try:
        guarantee = json.loads(file_bytes(source.run, RESULT))["guarantee"]
        if guarantee is None:
            return None
        for claim in (guarantee, *guarantee.get("further", ())):  # one release may protect two units
            if claim["unit"] == unit:
                target = claim.get("target_epsilon")
                return Claim(
                    epsilon=_number(claim["epsilon"]),
                    delta=_number(claim["delta"]),
                    target_epsilon=None if target is None else _number(target),
                )
        return None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise damaged(source.run, RESULT, f"its guarantee cannot be read: {error}") from error


def read_disclaimer(source: Source) -> str:
    """Say why a run with ledgers protects nobody all the same; empty where nothing says so.

    An experiment may make its noise from the seed: the record is then right about how wide the noise was, and wrong
    about who can take it off.

    Raises
    ------
    RunError
        If result.json or resolved.toml is damaged.
    """
    if source.run is None:
        return ""
    if is_file(source.run / RESULT):
        try:
            result = json.loads(file_bytes(source.run, RESULT))
            return "" if result["guarantee"] is not None else f"The run itself claims nothing: {result['protection']}."
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(source.run, RESULT, f"it does not say what protects the run: {error}") from error
    if is_file(source.run / RESOLVED):
        try:
            config = tomllib.loads(file_bytes(source.run, RESOLVED).decode("utf-8"))
            seeded = config.get("privacy", {}).get("noise") == "seeded"
        except (AttributeError, ValueError) as error:
            raise damaged(source.run, RESOLVED, str(error)) from error
        return "The noise of this run is made from its seed: whoever knows the seed can take it off." if seeded else ""
    return ""


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a number")
    return float(value)
