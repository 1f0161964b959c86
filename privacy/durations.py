"""Lengths of time as people write them: 36h, 30d, 4w; and `life` for no end."""

from __future__ import annotations

import re

from palate.errors import ConfigError

DAY_SECONDS = 86_400
LIFE = "life"

_UNITS = {"h": 3600, "d": DAY_SECONDS, "w": 7 * DAY_SECONDS}
_WRITTEN = re.compile(rf"([1-9][0-9]{{0,5}})([{''.join(_UNITS)}])")


def parse_duration(text: str) -> int:
    """Read a length of time; whole seconds, and 0 for life.

    Raises
    ------
    ConfigError
        If it is not a whole number with one of the units.
    """
    text = text.strip().lower()
    if text == LIFE:
        return 0
    found = _WRITTEN.fullmatch(text)
    if found is None:
        raise ConfigError(f"{text[:40]!r} is no length of time", hint=f"write for example 36h, 30d, 4w or {LIFE}")
    return int(found[1]) * _UNITS[found[2]]


def write_duration(seconds: int) -> str:
    """Write what `parse_duration` reads; days where they are whole, else hours."""
    if not seconds:
        return LIFE
    unit = "d" if seconds % DAY_SECONDS == 0 else "h"
    return f"{seconds // _UNITS[unit]}{unit}"


def duration_words(seconds: int) -> str:
    """Write a length of time for a sentence: 30 days, 1 day, 36 hours."""
    number, unit = write_duration(seconds)[:-1], "day" if seconds % DAY_SECONDS == 0 else "hour"
    return f"{number} {unit}{'' if number == '1' else 's'}"
