"""What all parts of the conformance suite share: checks are methods, and a broken promise is a named error."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np

from palate.errors import PalateError
from palate.models.arrays import FloatingArray


class ConformanceError(PalateError, AssertionError):
    """A part that does not keep what parts of its kind promise."""

    exit_code: ClassVar[int] = 2


class Conformance:
    """Checks of one part; a subclass says which.

    Attributes
    ----------
    part
        The part, or the name that it is installed under.
    """

    part: ClassVar[object]

    @classmethod
    def checks(cls) -> dict[str, Callable[[], None]]:
        """All checks by name, in the order of their definition."""
        names = [name for base in reversed(cls.__mro__) for name in vars(base) if name.startswith("test_")]
        return {name: getattr(cls(), name) for name in dict.fromkeys(names)}

    @classmethod
    def run(cls) -> None:
        """Run all checks.

        Raises
        ------
        ConformanceError
            At the first promise that is not kept.
        """
        for check in cls.checks().values():
            check()

    def expect(self, kept: object, broken: str) -> None:
        """Raise ConformanceError with the part's name and a text unless something is so."""
        if not kept:
            name = getattr(self.part, "name", self.part)
            raise ConformanceError(f"{name}: {broken}", hint="docs/extending.md says what is promised")

    def expect_close(self, found: FloatingArray, expected: FloatingArray, what: str, tolerance: float = 1e-5) -> None:
        """Refuse arrays that differ by more than `tolerance`, relative to the largest value or to 1."""
        self.expect(found.shape == expected.shape, f"{what}: shape {list(found.shape)}, not {list(expected.shape)}")
        off = float(np.abs(found - expected).max(initial=0.0)) / max(1.0, float(np.abs(expected).max(initial=0.0)))
        self.expect(off <= tolerance, f"{what}: they differ by {off:.2g}, at most {tolerance:g} is rounding")  # or NaN
