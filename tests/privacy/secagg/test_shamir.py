"""Shamir's sharing: any t shares give the secret back, fewer say nothing, wrong ones are found."""

from __future__ import annotations

import math
import os
import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.privacy.secagg.errors import MessageError, SharesRefused
from palate.privacy.secagg.shamir import PRIME, SHARE_SIZE, combine, decode, parse_share, split, weights_at_zero

SECRETS = st.binary(min_size=32, max_size=32)


def _slow_secret(points: list[int], shares: list[bytes]) -> int:
    """Lagrange at zero with exact fractions, reduced only at the end: another way to the same number."""
    total = Fraction(0)
    for i, x in enumerate(points):
        weight = math.prod((Fraction(-other, x - other) for other in points if other != x), start=Fraction(1))
        total += weight * int.from_bytes(shares[i], "big")
    return total.numerator * pow(total.denominator, -1, PRIME) % PRIME


def _is_prime(n: int) -> bool:
    """Pocklington-free: 64 rounds of Miller-Rabin with fixed random bases, wrong less than once in 2^128."""
    d, s = n - 1, 0
    while d % 2 == 0:
        d, s = d // 2, s + 1
    bases = random.Random(7)
    for _ in range(64):
        x = pow(bases.randrange(2, n - 1), d, n)
        if x in (1, n - 1):
            continue
        for _ in range(s - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True


def test_the_modulus_is_the_smallest_prime_above_2_to_the_256():
    assert _is_prime(PRIME)
    assert not any(_is_prime(n) for n in range((1 << 256) + 1, PRIME, 2))


@given(SECRETS, st.integers(1, 20), st.data())
@settings(max_examples=60)
def test_any_threshold_of_shares_gives_the_secret_back(secret, threshold, data):
    points = data.draw(st.lists(st.integers(1, 1 << 16), min_size=threshold, max_size=25, unique=True))
    shares = split(secret, threshold, points, os.urandom)
    chosen = data.draw(st.permutations(range(len(points))))[:threshold]
    picked = [points[i] for i in chosen]
    assert {len(share) for share in shares} == {SHARE_SIZE}
    assert combine(tuple(picked), [parse_share(shares[i]) for i in chosen]) == secret
    assert _slow_secret(picked, [shares[i] for i in chosen]) == int.from_bytes(secret, "big")


@given(SECRETS, SECRETS, st.integers(2, 8))
@settings(max_examples=40)
def test_fewer_shares_fit_every_secret(secret, other, threshold):
    # For any other secret there is a polynomial through the same t - 1 shares: they say nothing.
    points = list(range(1, threshold))
    shares = split(secret, threshold, list(range(1, threshold + 1)), os.urandom)[: threshold - 1]
    last = threshold
    weights = weights_at_zero((*points, last))
    rest = int.from_bytes(other, "big") - sum(w * parse_share(s) for w, s in zip(weights, shares, strict=False))
    invented = rest * pow(weights[-1], -1, PRIME) % PRIME
    assert combine((*points, last), [*map(parse_share, shares), invented]) == other


def test_shares_are_the_polynomial_of_the_random_bytes():
    secret, wide = bytes(range(32)), bytes((7 * i + 3) % 256 for i in range(49 * 4))
    shares = split(secret, 5, [1, 2, 300, 4, 5], lambda size: wide[:size])
    coefficients = [int.from_bytes(secret, "big")]
    coefficients += [int.from_bytes(wide[49 * i : 49 * i + 49], "big") % PRIME for i in range(4)]
    for point, share in zip([1, 2, 300, 4, 5], shares, strict=True):
        assert int.from_bytes(share, "big") == sum(c * point**i for i, c in enumerate(coefficients)) % PRIME


def test_long_polynomials_agree_with_the_slow_evaluation():
    secret = os.urandom(32)
    taken: list[bytes] = []

    def remembered(size: int) -> bytes:
        taken.append(os.urandom(size))
        return taken[-1]

    points = [1, 37, 1000, 4096]
    shares = split(secret, 70, [*points, *range(5000, 5070)], remembered)
    coefficients = [int.from_bytes(secret, "big")]
    coefficients += [int.from_bytes(taken[0][49 * i : 49 * i + 49], "big") % PRIME for i in range(69)]
    for point, share in zip(points, shares, strict=False):
        assert int.from_bytes(share, "big") == sum(c * pow(point, i, PRIME) for i, c in enumerate(coefficients)) % PRIME


@given(SECRETS, st.integers(1, 8), st.integers(0, 8), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_wrong_shares_are_found_up_to_half_of_what_is_beyond_the_threshold(secret, threshold, spare, rng):
    points = rng.sample(range(1, 500), threshold + spare)
    shares = [parse_share(share) for share in split(secret, threshold, points, os.urandom)]
    wrong = rng.sample(range(len(points)), spare // 2)
    for place in wrong:
        shares[place] = (shares[place] + rng.randrange(1, PRIME)) % PRIME
    assert decode(points, shares, threshold) == (
        secret,
        tuple(point for place, point in enumerate(points) if place in wrong),
    )


def test_more_wrong_shares_than_that_are_not_passed_off_as_a_secret():
    points = list(range(1, 12))
    shares = [parse_share(share) for share in split(os.urandom(32), 5, points, os.urandom)]
    for place in range(4):
        shares[place] = (shares[place] + 1 + place) % PRIME
    assert decode(points, shares, 5) is None
    assert decode(points[:4], shares[:4], 5) is None


def test_what_is_no_secret_is_not_combined():
    # The constant polynomial 2^256 is in the field, but is no 32 bytes.
    assert combine((1, 2), [1 << 256, 1 << 256]) is None


@pytest.mark.parametrize("share", [b"", bytes(32), bytes(34), PRIME.to_bytes(33, "big"), b"\xff" * 33])
def test_what_is_no_share_is_refused(share):
    with pytest.raises(MessageError, match="below p"):
        parse_share(share)


@pytest.mark.parametrize(
    ("secret", "threshold", "points"),
    [(bytes(31), 1, [1]), (bytes(32), 0, [1]), (bytes(32), 3, [1, 2]), (bytes(32), 1, [0]), (bytes(32), 1, [2, 2]),
     (bytes(32), 1, []), (bytes(32), 1, [(1 << 16) + 1])],
)  # fmt: skip
def test_sharings_that_cannot_be_are_refused(secret, threshold, points):
    with pytest.raises(SharesRefused):
        split(secret, threshold, points, os.urandom)
