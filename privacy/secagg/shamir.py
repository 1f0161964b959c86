"""Shamir's secret sharing of 32-byte secrets (Shamir 1979) over the prime field of p = 2^256 + 297.

A secret is the constant term of a random polynomial of degree t - 1; a share is its value at a holder's point, which is
the holder's rank plus one. Any t shares give the secret back by Lagrange's formula at zero; t - 1 say nothing. Wrong
shares are found by `decode` (Gao 2003) as long as no more than half of what is beyond t are wrong.

Every secret fits because p is above 2^256; a share needs 33 bytes.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate

from palate.privacy.secagg.errors import MessageError, SharesRefused

PRIME = (1 << 256) + 297
"""The smallest prime above 2^256."""
SECRET_SIZE = 32
SHARE_SIZE = 33
MAX_POINT = 1 << 16

_WIDE = 49  # bytes reduced modulo p: ceil((257 + 128) / 8), a bias below 2^-128 (RFC 9380, section 5)
_BLOCK = 16  # coefficients between two reductions: products stay small and the loop stays inside C


def split(secret: bytes, threshold: int, points: Sequence[int], random: Callable[[int], bytes]) -> list[bytes]:
    """Split a secret so that any `threshold` shares give it back.

    Parameters
    ----------
    secret
        32 bytes.
    threshold
        t, at least 1.
    points
        Distinct points in 1 ... 2^16, one a share.
    random
        Gives that many unpredictable bytes.

    Returns
    -------
    Shares of 33 bytes, in the order of the points.

    Raises
    ------
    SharesRefused
        If the numbers contradict each other.
    """
    _check_points(points)
    if len(secret) != SECRET_SIZE:
        raise SharesRefused(f"a secret has {SECRET_SIZE} bytes, not {len(secret)}", hint="share a key")
    if not 1 <= threshold <= len(points):
        raise SharesRefused(f"threshold {threshold} is not between 1 and {len(points)} shares", hint="lower it")
    wide = random(_WIDE * (threshold - 1))
    coefficients = [int.from_bytes(secret, "big")]
    coefficients += [int.from_bytes(wide[start : start + _WIDE], "big") % PRIME for start in range(0, len(wide), _WIDE)]
    blocks = [coefficients[start : start + _BLOCK] for start in range(0, threshold, _BLOCK)]
    return [_evaluate(blocks, point).to_bytes(SHARE_SIZE, "big") for point in points]


def parse_share(share: bytes) -> int:
    """Read a share as an element of the field.

    Raises
    ------
    MessageError
        If it is not 33 bytes below p.
    """
    value = int.from_bytes(share, "big")
    if len(share) != SHARE_SIZE or value >= PRIME:
        raise MessageError(f"a share is {SHARE_SIZE} bytes below p, not {len(share)}", hint="check what the peer sent")
    return value


@lru_cache(maxsize=64)
def weights_at_zero(points: tuple[int, ...]) -> tuple[int, ...]:
    """Lagrange's weights w_i = prod_{j != i} x_j / (x_j - x_i) mod p, so that the secret is sum w_i y_i."""
    _check_points(points)
    # w_i = N / (x_i D_i) with N = prod x_j and D_i = prod_{j != i} (x_j - x_i); one inversion for all (Montgomery).
    divisors = [point * math.prod(other - point for other in points if other != point) % PRIME for point in points]
    before = list(accumulate(divisors, lambda a, b: a * b % PRIME, initial=1))
    inverse = pow(before[-1], -1, PRIME)
    numerator = math.prod(points) % PRIME
    weights = [0] * len(points)
    for place in range(len(points) - 1, -1, -1):
        weights[place] = numerator * inverse * before[place] % PRIME
        inverse = inverse * divisors[place] % PRIME
    return tuple(weights)


def combine(points: tuple[int, ...], shares: Sequence[int]) -> bytes | None:
    """Give the secret back from exactly t shares, field elements; None if they are of no 32-byte secret."""
    secret = sum(map(operator.mul, weights_at_zero(points), shares)) % PRIME
    return secret.to_bytes(SECRET_SIZE, "big") if secret >> (8 * SECRET_SIZE) == 0 else None


def decode(points: Sequence[int], shares: Sequence[int], threshold: int) -> tuple[bytes, tuple[int, ...]] | None:
    """Give the secret back although some shares are wrong: Reed-Solomon decoding (Gao 2003).

    Parameters
    ----------
    points, shares
        All shares that there are, at least t; field elements.
    threshold
        t.

    Returns
    -------
    The secret and the points whose shares are wrong, or None if more than half of those beyond t are wrong.
    """
    _check_points(points)
    if len(points) < threshold:
        return None
    whole = [1]
    for point in points:
        whole = _times(whole, [-point % PRIME, 1])
    # Euclid on (prod (x - x_i), interpolation), stopped half-way: the quotient of what is left is the polynomial.
    older, newer = whole, _interpolate(points, shares, whole)
    older_factor, newer_factor = [0], [1]
    while 2 * (len(newer) - 1) >= len(points) + threshold:
        quotient, rest = _divide(older, newer)
        older, newer = newer, rest
        older_factor, newer_factor = newer_factor, _minus(older_factor, _times(quotient, newer_factor))
    found, rest = _divide(newer, newer_factor)
    if rest != [0] or len(found) > threshold or found[0] >> (8 * SECRET_SIZE):
        return None
    blocks = [found[start : start + _BLOCK] for start in range(0, len(found), _BLOCK)]
    wrong = tuple(x for x, y in zip(points, shares, strict=True) if _evaluate(blocks, x) != y)
    return found[0].to_bytes(SECRET_SIZE, "big"), wrong


def _evaluate(blocks: list[list[int]], point: int) -> int:
    """Horner's rule over blocks of coefficients, lowest first."""
    powers = list(accumulate([point] * (_BLOCK - 1), operator.mul, initial=1))
    step = powers[-1] * point
    value = 0
    for block in reversed(blocks):
        value = (value * step + sum(map(operator.mul, block, powers))) % PRIME
    return value


def _check_points(points: Sequence[int]) -> None:
    if not points or len(set(points)) != len(points) or not all(0 < point <= MAX_POINT for point in points):
        raise SharesRefused(f"{len(points)} points are not distinct ones in 1 ... {MAX_POINT}", hint="use ranks plus 1")


# Polynomials are lists of coefficients, lowest first, without leading zeros but for [0] itself.


def _trim(polynomial: list[int]) -> list[int]:
    while len(polynomial) > 1 and not polynomial[-1]:
        polynomial.pop()
    return polynomial


def _times(left: list[int], right: list[int]) -> list[int]:
    product = [0] * (len(left) + len(right) - 1)
    for shift, factor in enumerate(left):
        if factor:
            for place, value in enumerate(right, start=shift):
                product[place] += factor * value
    return _trim([value % PRIME for value in product])


def _minus(left: list[int], right: list[int]) -> list[int]:
    size = max(len(left), len(right))
    padded = zip(left + [0] * (size - len(left)), right + [0] * (size - len(right)), strict=True)
    return _trim([(a - b) % PRIME for a, b in padded])


def _divide(dividend: list[int], divisor: list[int]) -> tuple[list[int], list[int]]:
    rest, quotient = dividend[:], [0] * max(1, len(dividend) - len(divisor) + 1)
    inverse = pow(divisor[-1], -1, PRIME)
    for shift in range(len(dividend) - len(divisor), -1, -1):
        factor = rest[shift + len(divisor) - 1] * inverse % PRIME
        quotient[shift] = factor
        if factor:
            for place, value in enumerate(divisor, start=shift):
                rest[place] = (rest[place] - factor * value) % PRIME
    return _trim(quotient), _trim(rest[: max(1, len(divisor) - 1)])


def _interpolate(points: Sequence[int], shares: Sequence[int], whole: list[int]) -> list[int]:
    """Return the polynomial of least degree through all shares, by Lagrange's formula; `whole` is prod (x - x_i)."""
    total = [0] * len(points)
    for point, share in zip(points, shares, strict=True):
        basis = [0] * len(points)  # whole / (x - point), by synthetic division
        carry = 0
        for place in range(len(points), 0, -1):
            carry = (whole[place] + carry * point) % PRIME
            basis[place - 1] = carry
        at_point = 0
        for value in reversed(basis):
            at_point = (at_point * point + value) % PRIME
        factor = share * pow(at_point, -1, PRIME) % PRIME
        for place, value in enumerate(basis):
            total[place] += factor * value
    return _trim([value % PRIME for value in total])
