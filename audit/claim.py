"""What a run says about itself in result.json: the claims that its ledgers must support."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palate.audit.opening import Source
from palate.simulation.report.files import damaged, file_bytes, is_file

RESULT, RESOLVED = "result.json", "resolved.toml"
_SEEDED = "The noise of this run is made from its seed: whoever knows the seed can take it off."


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A run's own statement about one unit.

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


def read_claims(source: Source) -> tuple[dict[str, Claim], str]:
    """Read what a run claims, by unit, and why it protects nobody all the same ("" where nothing says so).

    An experiment may make its noise from the seed: the record is then right about how wide the noise was, and wrong
    about who can take it off. A run that has not finished claims nothing.

    Raises
    ------
    RunError
        If result.json or resolved.toml is damaged.
    """
    if source.run is None:
        return {}, ""
    if is_file(source.run / RESULT):
        try:
            result = json.loads(file_bytes(source.run, RESULT))
            found = result["guarantee"]
            if found is None:
                return {}, f"The run itself claims nothing: {result['protection']}."
            # One release may protect two units.
            return {claim["unit"]: _claim(claim) for claim in (found, *found.get("further", ()))}, ""
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise damaged(source.run, RESULT, f"its guarantee cannot be read: {error}") from error
    if is_file(source.run / RESOLVED):
        try:
            config = tomllib.loads(file_bytes(source.run, RESOLVED).decode("utf-8"))
            return {}, _SEEDED if config.get("privacy", {}).get("noise") == "seeded" else ""
        except (AttributeError, ValueError) as error:
            raise damaged(source.run, RESOLVED, str(error)) from error
    return {}, ""


def _claim(found: Mapping[str, Any]) -> Claim:
    target = found.get("target_epsilon")
    return Claim(
        epsilon=_number(found["epsilon"]),
        delta=_number(found["delta"]),
        target_epsilon=None if target is None else _number(target),
    )


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a number")
    return float(value)
