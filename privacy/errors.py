"""Errors of the privacy layer: the value, the bound that it broke, and the next step."""

from __future__ import annotations

from palate.errors import PalateError


class PrivacyError(PalateError, ValueError):
    """A parameter, a budget or a check that the privacy layer refuses."""

    exit_code = 2
