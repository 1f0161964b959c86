"""Errors of ledgers, proofs and notes. Verification raises them and never returns a flag."""

from __future__ import annotations

from palate.privacy.errors import PrivacyError


class LedgerError(PrivacyError):
    """Base of this package's errors."""


class MalformedBody(LedgerError):
    """A body that is not canonical, or that holds a field or a value that its kind does not have."""


class LedgerUnreadable(LedgerError):
    """A file that cannot be read as a ledger of this version, or written to."""

    exit_code = 11


class Tampered(LedgerError):
    """An entry was edited, reordered, removed or invented, or the wrong key signed it."""

    exit_code = 1


class Contradiction(Tampered):
    """Two ledgers, each of them intact, say different things about one round."""


class Rollback(LedgerError):
    """The ledger is shorter than an anchor that was countersigned earlier."""

    exit_code = 6


class Fork(LedgerError):
    """Two histories of one ledger differ at the same entry."""

    exit_code = 6


class OpenIntent(LedgerError):
    """A round was charged and has no recorded outcome."""

    exit_code = 5


class PolicyRefused(LedgerError):
    """A round that the device's own policy does not allow."""


class RoundRefused(LedgerError):
    """A round that is already charged, closed, or would leave with other bytes than before."""


class BudgetExceeded(LedgerError):
    """A round that would spend more than is left.

    Attributes
    ----------
    needed_nano, left_nano, budget_nano
        What the round costs, what is left and the whole budget, in 1e-9 of 2 rho.
    """

    exit_code = 3

    def __init__(self, message: str, *, needed_nano: int, left_nano: int, budget_nano: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.needed_nano = needed_nano
        self.left_nano = left_nano
        self.budget_nano = budget_nano


class BadProof(LedgerError):
    """An inclusion or consistency proof that does not connect what it claims to connect."""

    exit_code = 1


class BadNote(LedgerError):
    """A signed note, checkpoint or cosignature that is malformed, unsigned or wrongly signed."""

    exit_code = 1


class BadReceipt(LedgerError):
    """A receipt that is malformed, wrongly signed, or for another head."""

    exit_code = 1
