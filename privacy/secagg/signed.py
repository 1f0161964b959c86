"""What all messages of a round have in common: a body, and the Ed25519 signature of its sender behind it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from palate.privacy.secagg.encoding import SIGNATURE_SIZE, Reader
from palate.privacy.secagg.errors import SecureAggregationError
from palate.privacy.secagg.keys import check_size, verify_signature

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Signed(ABC):
    """A message.

    Attributes
    ----------
    signature
        Of the sender over the body, 64 bytes; empty until `signed`.
    """

    signature: bytes = b""

    @property
    @abstractmethod
    def body(self) -> bytes:
        """What the sender signs."""

    def signed(self, sign: Callable[[bytes], bytes]) -> Self:
        """Return the message with the signature that `sign` makes of the body."""
        return replace(self, signature=sign(self.body))

    def verify(self, key: Ed25519PublicKey | bytes, error: Callable[..., SecureAggregationError], message: str) -> None:
        """Check the signature under the sender's key.

        Raises
        ------
        SecureAggregationError
            Made by `error` from `message`, if it does not verify.
        """
        verify_signature(key, self.signature, self.body, error, message)

    def to_bytes(self) -> bytes:
        """Encode the message.

        Raises
        ------
        MessageError
            If a field has the wrong size or range, or the message is not signed.
        """
        return self.body + check_size(self.signature, SIGNATURE_SIZE)


def ended(reader: Reader, message: _T) -> _T:
    """Return what was read from a message, unless bytes are left.

    Raises
    ------
    MessageError
        If there are.
    """
    reader.end()
    return message
