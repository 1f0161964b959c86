"""Errors of the privacy layer: the value, the bound that it broke, and the next step."""

from __future__ import annotations


class PrivacyError(ValueError):
    """A parameter, a budget or a check that the privacy layer refuses.

    Parameters
    ----------
    message
        One line with the value and the bound that it broke.
    hint
        One line with the next step.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
