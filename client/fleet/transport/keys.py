"""The device's node key: made here, used here, never sent; the operator gets its public half (NIST P-384, OpenSSH).

The format is that of `ssh-keygen -t ecdsa -b 384`, so that a stock SuperNode can use the same key.
"""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from palate.errors import ConfigError, EnvironmentProblem
from palate.privacy import files


class NodeKey:
    """A P-384 key that signs requests; never shows itself.

    Parameters
    ----------
    private
        The key.
    """

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        self._private = private
        self.public_pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def __repr__(self) -> str:
        return f"NodeKey(<sealed>, fingerprint={self.fingerprint[:16]})"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the public key as PEM, lower-case hex: the server's list of nodes shows the same."""
        return hashlib.sha256(self.public_pem).hexdigest()

    def sign(self, message: bytes) -> bytes:
        """Sign with ECDSA and SHA-256; DER."""
        return self._private.sign(message, ec.ECDSA(hashes.SHA256()))


def make_node_key(path: Path) -> NodeKey:
    """Make a key at `path` (mode 0600), and its public half at `path`.pub for the operator.

    Raises
    ------
    ConfigError
        If there is one already: replacing it would lock the device out.
    EnvironmentProblem
        If the folder cannot be written.
    """
    public = path.with_name(path.name + ".pub")
    for existing in (path, public):
        if existing.exists():
            raise ConfigError(f"{existing} exists, and is not replaced", hint="move it away first")
    private = ec.generate_private_key(ec.SECP384R1())
    line = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    _write_new(path, private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()), 0o600)
    _write_new(public, line + b"\n", 0o644)
    return NodeKey(private)


def read_node_key(path: Path) -> NodeKey:
    """Read a node key.

    Raises
    ------
    ConfigError
        If it is missing, damaged, not on P-384, or readable by others.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise ConfigError(f"{path} has mode {mode:04o}, others can use it", hint=f"chmod 600 {path}")
        private = load_ssh_private_key(path.read_bytes(), None)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path} is missing", hint="make a node key first, and send its .pub to the operator"
        ) from error
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path} cannot be read as a node key", hint="make a new one, and enrol it") from error
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP384R1):
        raise ConfigError(f"{path} is not a P-384 key", hint="make a new one, and enrol it")
    return NodeKey(private)


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.create(path, content, mode=mode)
    except OSError as error:
        raise EnvironmentProblem(f"{path} cannot be written: {error.strerror}", hint="check the folder") from error
