"""HTTPS under one pinned authority: how devices reach their fleet, and a fleet its helper.

Settings of the surroundings do not reach it: no proxies, no certificate bundles, no redirects.
"""

from __future__ import annotations

import ssl
from functools import lru_cache
from typing import Final

import httpx

CONNECT_SECONDS: Final = 5.0
TRY_LATER: Final = frozenset({408, 425, 429})
"""Answers below 500 that are worth another attempt."""


@lru_cache(maxsize=8)  # a context is not changed once it is made; thousands of devices of one process share it
def trusting(certificates: str | None) -> ssl.SSLContext:
    """Return a TLS 1.3 context that trusts these authorities and nobody else.

    Parameters
    ----------
    certificates
        As PEM. None checks nobody: for a public answer that is compared with a fingerprint.

    Raises
    ------
    ValueError, ssl.SSLError
        If they cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if certificates is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(cadata=certificates)
    return context


def caller(address: str, context: ssl.SSLContext, *, answer_seconds: float) -> httpx.Client:
    """Return a client for one server, "host:port", that waits so long for an answer."""
    return httpx.Client(
        base_url=f"https://{address}",
        verify=context,
        trust_env=False,
        follow_redirects=False,
        timeout=httpx.Timeout(answer_seconds, connect=CONNECT_SECONDS),
        limits=httpx.Limits(max_connections=4, keepalive_expiry=20.0),
    )


def is_certificate_error(error: BaseException | None) -> bool:
    """Tell whether a failure comes from a certificate that is not trusted."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
