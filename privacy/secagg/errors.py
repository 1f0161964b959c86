"""Errors of secure aggregation. Checks raise them and never return a flag."""

from __future__ import annotations

from palate.privacy.errors import PrivacyError


class SecureAggregationError(PrivacyError):
    """Base of this package's errors."""


class MessageError(SecureAggregationError):
    """Bytes that are not the canonical encoding of any message of this version."""


class OfferRefused(SecureAggregationError):
    """An offer that is not the server's, is for another plan, or asks for less protection than the device accepts."""


class EnrolmentRefused(SecureAggregationError):
    """A certificate that the enrolment authority did not sign, for another fleet, or out of date."""


class AdvertRefused(SecureAggregationError):
    """An advert that is for another round, wrongly signed, holds unusable keys, or finds the roster full."""


class RosterRefused(SecureAggregationError):
    """A roster that is too small, altered, or names a device that did not sign its keys."""


class SharesRefused(SecureAggregationError):
    """Sealed shares for another round or roster, wrongly signed, or of the wrong number."""


class InboxRefused(SecureAggregationError):
    """An inbox with too few shares, with shares that were tampered with, or meant for another device."""


class VectorRefused(SecureAggregationError):
    """A vector that is not what the offer asks for: other length, type or range."""


class MaskedRefused(SecureAggregationError):
    """A masked vector for another round or roster, wrongly signed, or of another shape."""


class SurvivorsRefused(SecureAggregationError):
    """Survivor sets that are too small, leave this device out, or contradict its inbox."""


class ConsistencyRefused(SecureAggregationError):
    """A signature over other survivor sets than the round's."""


class SignaturesRefused(SecureAggregationError):
    """Too few valid signatures over the survivor sets that this device signed."""


class RevealRefused(SecureAggregationError):
    """Revealed shares for another round or other survivor sets, wrongly signed, or of the wrong number."""


class ReceiptRefused(SecureAggregationError):
    """A receipt that is not the server's, or for another round or other survivor sets."""


class RoundAborted(SecureAggregationError):
    """A step of a round that already failed on this device, out of order, or with other input than before."""


class StageClosed(SecureAggregationError):
    """A message for a stage that the server has closed, or has not yet opened."""


class Equivocation(SecureAggregationError):
    """A device signed two different messages for one stage."""


class QuorumLost(SecureAggregationError):
    """Too few devices are left to continue the round; nothing is revealed."""


class ReconstructionFailed(SecureAggregationError):
    """The shares of one device's secret do not give the secret that it committed to.

    Attributes
    ----------
    device
        Whose secret it is.
    """

    def __init__(self, message: str, *, device: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.device = device
