"""All that can go wrong between device, leader and helper, by name: checks raise and never return a flag."""

from __future__ import annotations

from palate.privacy.secagg.errors import SecureAggregationError


class CollectionError(SecureAggregationError):
    """Base of this package's errors: the round was not applied."""

    exit_code = 13


class RegisterRefused(CollectionError):
    """A register of devices that is not signed by all who admit, is out of date, or does not match its list."""


class RoundKeyRefused(CollectionError):
    """A round key that the helper did not sign, of an unknown suite, or past its end."""


class OfferRefused(CollectionError):
    """An offer that the leader did not sign, that names other parties or keys, or that protects too little."""


class ReportRefused(CollectionError):
    """A report for another round, from a device that is not registered, wrongly signed, or of another shape."""


class LedgerWentBack(ReportRefused):
    """A report of a device that does not know its newest one: it was put back from a copy, or runs beside one."""


class TooLate(CollectionError):
    """A report behind the end of its round, or after the leader has frozen the request."""


class TwoReports(CollectionError):
    """A second, different report of one device for one round."""


class RequestRefused(CollectionError):
    """A request that the leader did not sign, for another helper, or out of order."""


class TooFewReports(CollectionError):
    """Fewer valid reports than the least batch; nothing was unmasked and the round is not used up.

    Attributes
    ----------
    valid, least
        Reports that are valid, and those that are needed.
    """

    def __init__(self, message: str, *, valid: int, least: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.valid = valid
        self.least = least


class AlreadyCollected(CollectionError):
    """A second, different request for a round that was answered."""


class RoundKeyGone(CollectionError):
    """The private key of this round was destroyed, has expired, or was never here."""


class HelperRestored(CollectionError):
    """A device holds a head of this helper that is newer than the helper's own: an old state was put back."""

    exit_code = 6


class AnswerRefused(CollectionError):
    """An answer that the helper did not sign, or that is for another request."""


class SumImplausible(CollectionError):
    """A sum outside what clipped vectors and their noise can reach: sets or masks do not match."""


class ReceiptRefused(CollectionError):
    """A receipt that the leader did not sign, or for another round."""
