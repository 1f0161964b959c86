"""Masks, seals and whole messages against a second implementation, written from the format's page alone."""

from __future__ import annotations

import hmac
import os
import struct
from collections import deque
from hashlib import sha256

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from scipy import stats

from palate.privacy.secagg.server import Stage

FALSE_ALARM = 1e-9


def frame(*parts: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """RFC 5869 for 32 bytes: extract, then one block of expand."""
    return hmac.digest(hmac.digest(salt, secret, "sha256"), info + b"\x01", "sha256")


def x25519(private: bytes, public: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))


def keystream(key: bytes, size: int) -> bytes:
    """AES-256-CTR by hand: every counter block encrypted on its own."""
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return b"".join(encryptor.update(struct.pack(">QQ", 0, block)) for block in range(-(-size // 16)))[:size]


def root_of(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, as it is written there."""
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return sha256(b"\x01" + root_of(leaves[:k]) + root_of(leaves[k:])).digest()


def test_hkdf_here_is_that_of_the_rfc():
    # RFC 5869, test case 1, cut to 32 bytes.
    made = hkdf(b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)))
    assert made.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"


@pytest.mark.parametrize("bits", [24, 32, 40])
def test_a_round_is_what_the_format_says(secagg, bits):
    fleet = secagg.fleet(5, ring_bits=bits, honest_shares=1)
    drawn: dict[int, deque[bytes]] = {device: deque() for device in fleet.ids}

    def recorder(device):
        def random(size: int) -> bytes:
            drawn[device].append(os.urandom(size))
            return drawn[device][-1]

        return random

    fleet.devices = {device: fleet.device(device, _random=recorder(device)) for device in fleet.ids}
    body = fleet.server.offer_bytes[:-64]
    ctx = sha256(frame(b"palate secagg context v1", body)).digest()
    rosters = fleet.play(until=Stage.SHARE)
    secrets = {device: list(drawn[device])[:3] for device in fleet.ids}  # c_sk, s_sk, b

    raw = rosters[fleet.ids[0]]
    at = 6 + 32 + 1 + len("test fleet")
    assert raw[:4] == b"PSAG"
    assert raw[6:38] == ctx
    assert struct.unpack(">I", raw[at : at + 4]) == (5,)
    entries = [raw[at + 4 + 168 * i : at + 4 + 168 * (i + 1)] for i in range(5)]
    c_pk, s_pk = ({int.from_bytes(e[:8], "big"): e[8 + o : 40 + o] for e in entries} for o in (0, 32))
    for entry in entries:
        device = int.from_bytes(entry[:8], "big")
        assert entry[72:104] == sha256(frame(b"palate secagg commitment v1", ctx, secrets[device][2])).digest()
        identity = fleet.identities[device].certificate.identity_key
        advert = b"PSAG\x01\x03" + ctx + entry[:8] + identity + entry[8:104]
        Ed25519PublicKey.from_public_bytes(identity).verify(
            entry[104:], sha256(frame(b"palate secagg signature v1", advert)).digest()
        )
    root = root_of(entries)

    sealed = {device: fleet.devices[device].share(rosters[device]) for device in fleet.ids}
    for device, message in sealed.items():
        assert message[:6] == b"PSAG\x01\x05"
        assert message[6:78] == ctx + root + struct.pack(">Q", device)
        others = [other for other in fleet.ids if other != device]
        for place, other in enumerate(others):
            low, high = sorted((device, other))
            info = frame(b"palate secagg seal v1", struct.pack(">Q", low), struct.pack(">Q", high))
            key = hkdf(x25519(secrets[device][0], c_pk[other]), ctx + root, info)
            names = frame(b"palate secagg seal v1", struct.pack(">Q", device), struct.pack(">Q", other))
            record = message[82 + 82 * place : 82 + 82 * (place + 1)]
            plain = AESGCM(key).decrypt(bytes(4) + struct.pack(">Q", device), record, names)
            # Threshold 3 of 5: the polynomials of b and s_sk, two random coefficients each.
            point, prime = fleet.ids.index(other) + 1, 2**256 + 297
            for secret, wide, share in (
                (secrets[device][2], list(drawn[device])[3], plain[:33]),
                (secrets[device][1], list(drawn[device])[4], plain[33:]),
            ):
                first, second = (int.from_bytes(wide[start : start + 49], "big") for start in (0, 49))
                expected = (int.from_bytes(secret, "big") + first * point + second * point**2) % prime
                assert int.from_bytes(share, "big") == expected
        fleet.server.receive(Stage.SHARE, device, message)

    size = 4 if bits <= 32 else 8
    for device, inbox in fleet.server.close(Stage.SHARE).items():
        x = [int(value) for value in fleet.vectors[device]]

        def words(key: bytes) -> list[int]:
            stream = keystream(key, size * 50)
            return [int.from_bytes(stream[i : i + size], "little") for i in range(0, len(stream), size)]

        y = [
            a + b
            for a, b in zip(
                x, words(hkdf(secrets[device][2], ctx + root, frame(b"palate secagg self mask v1"))), strict=True
            )
        ]
        for other in fleet.ids:
            if other != device:
                low, high = sorted((device, other))
                info = frame(b"palate secagg pair mask v1", struct.pack(">Q", low), struct.pack(">Q", high))
                mask = words(hkdf(x25519(secrets[device][1], s_pk[other]), ctx + root, info))
                y = [a + b if device < other else a - b for a, b in zip(y, mask, strict=True)]
        message = fleet.devices[device].mask(inbox, fleet.vectors[device])
        width = -(-bits // 8)
        assert message[78] == width
        assert message[79:83] == struct.pack(">I", 50)
        found = [int.from_bytes(message[83 + width * i : 83 + width * (i + 1)], "little") for i in range(50)]
        assert found == [value % 2**bits for value in y]


def _looks_uniform(data: bytes) -> bool:
    """Byte histogram and serial correlation, each wrong about uniform bytes less than once in 10^9."""
    values = np.frombuffer(data, np.uint8)
    counts = np.bincount(values, minlength=256)
    statistic = ((counts - len(values) / 256) ** 2).sum() / (len(values) / 256)
    histogram = stats.chi2.isf(FALSE_ALARM / 2, 255) > statistic > stats.chi2.ppf(FALSE_ALARM / 2, 255)
    centred = values - 127.5
    limit = stats.norm.isf(FALSE_ALARM / 2)
    # Lags of one byte, one word and one row: each about normal with variance (255 * 257 / 12)^2 a pair.
    correlations = [
        abs((centred[:-lag] * centred[lag:]).sum()) / ((256**2 - 1) / 12 * (len(values) - lag) ** 0.5) < limit
        for lag in (1, 2, 4, 8, 200)
    ]
    return bool(histogram and all(correlations))


@pytest.mark.parametrize("filling", ["zeros", "most"])
@pytest.mark.parametrize("bits", [24, 32])
def test_all_that_the_server_sees_of_a_vector_looks_uniform(secagg, filling, bits):
    fleet = secagg.fleet(6, ring_bits=bits, vector_length=20_000)
    value = 0 if filling == "zeros" else (1 << bits) - 1
    fleet.vectors = {device: np.full(20_000, value, np.uint32) for device in fleet.ids}
    fleet.play()
    # A new round of the same vectors, of which the server keeps every message.
    again = secagg.fleet(6, ring_bits=bits, vector_length=20_000)
    again.vectors = fleet.vectors
    seen: dict[tuple[Stage, int], bytes] = {}

    def keep(stage: Stage, device: int, data: bytes) -> bytes:
        seen[stage, device] = data
        return data

    again.play(tamper=keep)
    masked = seen[Stage.MASK, again.ids[2]][83:-64]
    assert _looks_uniform(masked)
    assert _looks_uniform(seen[Stage.SHARE, again.ids[2]][82:-64] + masked)
    # Differences between devices show no more than each alone.
    other = np.frombuffer(seen[Stage.MASK, again.ids[3]][83:-64], np.uint8)
    assert _looks_uniform((np.frombuffer(masked, np.uint8) - other).tobytes())


def test_the_test_of_uniformity_finds_what_is_not():
    noise = np.frombuffer(os.urandom(80_000), np.uint8)
    assert not _looks_uniform(bytes(80_000))
    assert not _looks_uniform((noise & 0xFE).tobytes())
    assert not _looks_uniform(np.repeat(noise[:40_000], 2).tobytes())
    assert not _looks_uniform(np.where(np.arange(80_000) % 4 == 3, 0, noise).astype(np.uint8).tobytes())
    assert not _looks_uniform((np.arange(80_000) % 256).astype(np.uint8).tobytes())
    assert _looks_uniform(noise.tobytes())
