"""An owner's limits as people write them, for the command and for the page alike: names, words, shares as decimals.

Ranges are checked by `palate.client.fleet.limits.OwnerLimits` alone; nothing large is loaded here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from palate.errors import ConfigError
from palate.privacy.durations import parse_duration, write_duration

if TYPE_CHECKING:
    from palate.client.fleet.limits import OwnerLimits

KINDS = {"number": float, "whole": int, "share": float, "duration": str}
"""Types of the options, by kind."""

_LONGEST = 40


@dataclass(frozen=True)
class LimitField:
    """One limit, for its owner.

    Attributes
    ----------
    name
        Of the option, without its dashes, and of the field.
    limit
        Of the field of `OwnerLimits`.
    about
        What it is.
    kind
        A number, a whole one, a share of at most three decimals, or a length of time.
    """

    name: str
    limit: str
    about: str
    kind: Literal["number", "whole", "share", "duration"]

    @property
    def option(self) -> str:
        """The option of `palate client limits`."""
        return f"--{self.name.replace('_', '-')}"


FIELDS = (
    LimitField("epsilon", "epsilon", "Budget of this device, for life or for each window.", "number"),
    LimitField(
        "every", "every_seconds", "Window after which the budget renews, such as 30d; life for none.", "duration"
    ),
    LimitField("delta", "delta", "Delta of the budget.", "number"),
    LimitField("smallest_cohort", "smallest_cohort", "Fewest devices in a round's sum.", "whole"),
    LimitField("least_tau", "least_tau_thousandths", "Least share of a roster that must survive.", "share"),
    LimitField(
        "least_gamma",
        "least_gamma_thousandths",
        "Least share of corrupt devices to allow for, of a roster or of all registered.",
        "share",
    ),
    LimitField("least_own_noise", "least_own_noise", "Least noise of this device over the sensitivity.", "number"),
    LimitField("most_rounds_a_day", "most_rounds_a_day", "Most rounds within 24 hours.", "whole"),
    LimitField(
        "least_parties", "least_parties", "Fewest parties that must work together to read a vector, 1 or 2.", "whole"
    ),
)


def as_text(limits: OwnerLimits) -> dict[str, str]:
    """Write limits as their owner would, by name of the field; reading them gives the same limits."""
    values = limits.to_values()
    return {field.name: _written(field, values[field.limit]) for field in FIELDS}


def from_text(texts: Mapping[str, str]) -> dict[str, float | int | str]:
    """Read what an owner wrote into fields; those that are not there are left out.

    Raises
    ------
    ConfigError
        If a text is not a number, or not a whole one where one is asked for.
    """
    return {
        field.name: _read(field, texts[field.name].strip()) for field in FIELDS if texts.get(field.name) is not None
    }


def changes_in(given: Mapping[str, float | int | str | None]) -> dict[str, float | int]:
    """Return what is given as changes of `OwnerLimits`; None changes nothing.

    Raises
    ------
    ConfigError
        If a share has more than three decimals, or a length of time is none.
    """
    changes: dict[str, float | int] = {}
    for field in FIELDS:
        value = given.get(field.name)
        if value is None:
            continue
        if isinstance(value, str):
            changes[field.limit] = parse_duration(value)
        else:
            changes[field.limit] = _thousandths(field, value) if field.kind == "share" else value
    return changes


def _read(field: LimitField, text: str) -> float | int | str:
    if field.kind == "duration":
        return text
    whole = field.kind == "whole"
    try:
        if len(text) > _LONGEST:
            raise ValueError
        return int(text) if whole else float(text)
    except ValueError:
        raise ConfigError(
            f"{field.option} {text[:_LONGEST]!r} is not a {'whole ' if whole else ''}number",
            hint=f"write for example {'20' if whole else '0.667' if field.kind == 'share' else '0.5'}",
        ) from None


def _written(field: LimitField, value: float) -> str:
    if field.kind == "duration":
        return write_duration(int(value))
    value = value / 1000 if field.kind == "share" else value
    if isinstance(value, int):
        return str(value)
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _thousandths(field: LimitField, share: float) -> int:
    if not math.isfinite(share) or abs(share * 1000 - round(share * 1000)) > 1e-9:
        raise ConfigError(
            f"{field.option} {share} is not a share of at most three decimals", hint="write for example 0.667"
        )
    return round(share * 1000)
