"""What can go wrong between a device and its server; texts name no data of the person."""

from __future__ import annotations

from palate.errors import FederationError


class FleetError(FederationError):
    """The device's agent cannot go on."""


class Unreachable(FleetError):
    """No answer, or one that says try later: worth another attempt."""


class ServerNotTrusted(FleetError):
    """The server's certificate is not one of the pinned authority's, or not for this host."""


class Refused(FleetError):
    """The server understood, and said no.

    Parameters
    ----------
    message, hint
        As in PalateError.
    status
        HTTP status, 4xx.
    """

    def __init__(self, message: str, *, hint: str = "", status: int) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class Removed(Refused):
    """The server knew this device, and takes it no more."""

    exit_code = 9


class BadAnswer(FleetError):
    """An answer that is not what was asked for: too large, cut short, or with contents of another hash."""
