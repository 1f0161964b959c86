"""Errors that a person can act on: what is wrong, a hint, and a documented exit code (docs/cli.md)."""

from __future__ import annotations

from typing import ClassVar


class PalateError(Exception):
    """An error that the user can fix.

    Parameters
    ----------
    message
        One line with the value and the bound that it broke.
    hint
        One line with the next step.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(PalateError):
    """An option or a configuration file that cannot be used."""

    exit_code = 2


class DataError(PalateError):
    """Data that cannot be read, or that holds nothing to learn from."""

    exit_code = 10


class RunError(PalateError):
    """A run folder that is missing, damaged, locked, or of another catalogue."""

    exit_code = 11


class EnvironmentProblem(PalateError):
    """The machine prevents it: no write access, a missing optional package, an unreachable download."""

    exit_code = 12


class FederationError(PalateError):
    """Nodes failed or too few answered; the round was not applied."""

    exit_code = 13
