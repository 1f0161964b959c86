"""Bounds that every parameter of the accounting keeps, with one message for each way to break them."""

from __future__ import annotations

import math

from palate.privacy.errors import PrivacyError

MIN_DELTA = 1e-100
"""Smaller deltas mean nothing, and leave the range in which the formulas were checked."""


def require_positive(name: str, value: float) -> float:
    """Return value if it is a finite number above 0, or raise PrivacyError."""
    if not (math.isfinite(value) and value > 0):
        raise PrivacyError(f"{name} is {value}, it must be a finite number above 0", hint=f"give a positive {name}")
    return value


def require_count(name: str, value: int, *, least: int = 1) -> int:
    """Return value if it is a whole number of at least `least`, or raise PrivacyError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise PrivacyError(
            f"{name} is {value!r}, it must be a whole number of at least {least}", hint=f"give {name} >= {least}"
        )
    return value


def require_delta(delta: float) -> float:
    """Return delta if it is a probability that the formulas cover, or raise PrivacyError."""
    if not MIN_DELTA <= delta < 1:
        raise PrivacyError(
            f"delta is {delta}, it must be at least {MIN_DELTA} and below 1",
            hint="choose delta well below one over the number of people, such as 1e-5",
        )
    return delta


def require_share(name: str, value: float, *, zero: bool) -> float:
    """Return value if it lies in (0, 1], or in [0, 1) where zero is allowed, or raise PrivacyError."""
    inside = 0 <= value < 1 if zero else 0 < value <= 1
    if not inside:
        raise PrivacyError(
            f"{name} is {value}, it must be in {'[0, 1)' if zero else '(0, 1]'}", hint=f"give {name} as a fraction"
        )
    return value
