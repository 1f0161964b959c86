"""Who is calling: Flower's node authentication (flwr 1.41), checked more strictly.

A node signs the time with its P-384 key (ECDSA, SHA-256) and sends key, time and signature as headers. Stock servers
read the whole body first and accept a signature as often as it comes within five minutes. Here unknown keys are
refused before anything costs much, before the body is read, and a signature is good for one request. It still does
not cover the body: that is what TLS is for.
"""

from __future__ import annotations

import base64
import binascii
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from palate.server.fleet.transport.enrolment import EnrolledNode, Enrolment

PUBLIC_KEY_HEADER = "flwr-public-key"
TIMESTAMP_HEADER = "flwr-timestamp"
SIGNATURE_HEADER = "flwr-signature"
MAX_AGE_SECONDS = 300.0
"""As Flower's clients expect; a device's clock may be off by that much."""
MAX_AHEAD_SECONDS = 5.0
_MAX_HEADER = 1_024


class Unauthenticated(Exception):
    """A request without a valid signature of an enrolled node; the text stays in the server's log."""


class Removed(Exception):
    """A request that is signed, in time, with the key of a node that was removed."""


class Authenticator:
    """Checks the headers of requests against the enrolment.

    Parameters
    ----------
    enrolment
        Whose keys are known.
    clock
        Tells the time in UTC.
    """

    def __init__(self, enrolment: Enrolment, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._enrolment = enrolment
        self._clock = clock
        self._seen = _Seen(MAX_AGE_SECONDS + MAX_AHEAD_SECONDS)

    def check(self, headers: Mapping[str, str]) -> EnrolledNode:
        """Return the node that signed this request.

        Raises
        ------
        Unauthenticated
            If the key is not enrolled, the time is off, or the signature is wrong or was used before.
        Removed
            If whoever holds the key belonged to the fleet, and no longer does.
        """
        try:
            texts = [headers[name] for name in (PUBLIC_KEY_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER)]
            if max(map(len, texts)) > _MAX_HEADER:
                raise Unauthenticated("a header is too long")
            public_key = base64.b64decode(texts[0], validate=True)
            signature = base64.b64decode(texts[2], validate=True)
            signed_at = datetime.fromisoformat(texts[1])
            signed_text = texts[1].encode("ascii")
        except KeyError as error:
            raise Unauthenticated(f"no header {error}") from error
        except (ValueError, binascii.Error) as error:
            raise Unauthenticated("a header cannot be read") from error
        node = self._enrolment.find(public_key)
        if node is None:
            raise Unauthenticated("the key is not enrolled")
        self._check_time(signed_at)
        try:
            _key(public_key).verify(signature, signed_text, ec.ECDSA(hashes.SHA256()))
            # (r, n - s) is as valid as (r, s), so that only r tells whether a signature was used before
            nonce, _ = decode_dss_signature(signature)
        except (InvalidSignature, ValueError) as error:
            raise Unauthenticated("the signature is not valid") from error
        if node.removed_at is not None:  # said only now: nobody else shall learn who was in the fleet
            raise Removed
        if not self._seen.add((node.node_id, nonce), signed_at.timestamp(), self._clock().timestamp()):
            raise Unauthenticated("the signature was used before")
        return node

    def _check_time(self, signed_at: datetime) -> None:
        if signed_at.tzinfo is None:
            raise Unauthenticated("the time has no zone")
        age = (self._clock() - signed_at).total_seconds()
        if not -MAX_AHEAD_SECONDS < age < MAX_AGE_SECONDS:
            raise Unauthenticated(f"signed {age:.0f} s ago, {MAX_AGE_SECONDS:.0f} are allowed")


def _key(public_key: bytes) -> ec.EllipticCurvePublicKey:
    key = load_pem_public_key(public_key)  # a fortieth of the check; kept, keys would be most of a device's memory here
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise Unauthenticated("not an elliptic-curve key")
    return key


class _Seen:
    """Signatures of the last minutes, in two generations: each is dropped once all of it is too old to be accepted."""

    def __init__(self, window_seconds: float) -> None:
        self._window = window_seconds
        self._lock = threading.Lock()
        self._young: set[int] = set()
        self._old: set[int] = set()
        self._turned_at = float("-inf")

    def add(self, what: tuple[int, int], signed_at: float, now: float) -> bool:
        """Remember one; False if it was there. `signed_at` is within the window around `now`."""
        mark = hash((*what, signed_at))
        with self._lock:
            if now - self._turned_at >= self._window:
                # what is thrown away was added a full window ago, or more, and would fail the check of its time
                expired = now - self._turned_at >= 2 * self._window
                self._old, self._young = (set() if expired else self._young), set()
                self._turned_at = now
            if mark in self._young or mark in self._old:
                return False
            self._young.add(mark)
            return True
