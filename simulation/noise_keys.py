"""Noise keys of a simulated federation: they come from a secret of the run, never from its seed.

Whoever knows the random words of the noise can subtract it. So a run takes 32 secret bytes from the operating
system, derives every virtual device's key from them, and destroys them when it has finished: until then a run that
was stopped goes on with the same noise. For experiments that must repeat to the last bit the secret can be made from
the seed; what such a run releases is not private, and its outputs say so.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from palate.errors import RunError
from palate.privacy import files
from palate.privacy.integer.csprng import KEY_BYTES

FILE = "noise.key"


@dataclass(frozen=True)
class NoiseKeys:
    """Keys for the rounding and the noise of a run; never printed."""

    secret: bytes = field(repr=False)

    def device(self, rules_hash: str, user: int) -> bytes:
        """Return the key of one virtual device for one round, 32 bytes; the hash is `RoundPlan.rules_hash`."""
        return self._derive(b"device", rules_hash, user)

    def shard(self, rules_hash: str, shard: int) -> bytes:
        """Return the key from which a shard draws the noise of all its devices at once, 32 bytes."""
        return self._derive(b"shard", rules_hash, shard)

    def _derive(self, purpose: bytes, rules_hash: str, number: int) -> bytes:
        # Derived from the rules, not only from the round's number: other rules must never get the same noise.
        message = purpose + bytes.fromhex(rules_hash) + number.to_bytes(8, "big")
        return hashlib.blake2b(message, key=self.secret, digest_size=KEY_BYTES).digest()


def make_noise_key(folder: Path, *, seed: int | None) -> None:
    """Put a run's secret into its folder, unless it is there: from the operating system, or from a seed."""
    path = folder / FILE
    if path.exists():
        return
    secret = os.urandom(KEY_BYTES) if seed is None else hashlib.blake2b(b"%d" % seed, digest_size=KEY_BYTES).digest()
    files.create(path, f"{secret.hex()}\n".encode("ascii"))


def read_noise_key(folder: Path) -> NoiseKeys:
    """Read a run's secret; raises RunError where it is missing or damaged."""
    return NoiseKeys(read_secret(folder / FILE))


def read_secret(path: Path) -> bytes:
    """Read 32 secret bytes in hexadecimal; raises RunError where the file is missing or damaged."""
    try:
        secret = bytes.fromhex(path.read_text(encoding="ascii").strip())
        if len(secret) != KEY_BYTES:
            raise ValueError(f"{len(secret)} bytes")
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path} is missing or damaged, so this run cannot continue", hint="run it again with --fresh"
        ) from error
    return secret


def destroy_noise_key(folder: Path) -> None:
    """Delete a finished run's secret: after that nobody can subtract the noise."""
    (folder / FILE).unlink(missing_ok=True)
