"""The device's keys: one signs its part of rounds, one its ledger, and one logs its node in. All are in the vault.

Three, for they are shown to different people: a peer checks the first, an auditor the second, the server the third.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.client.vault import IDENTITY, Vault
from palate.client.vault.errors import NotInVault, VaultTampered
from palate.errors import ConfigError
from palate.privacy.enrolment import EnrolmentRequest, device_name, device_number

_SIGNING, _LEDGER, _NODE = "signing-key", "ledger-key", "node-key"


class NodeKey:
    """A P-384 key that signs requests to the server; never shows itself.

    Parameters
    ----------
    private
        The key.
    """

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        self.private = private
        self.public_pem = private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @staticmethod
    def make() -> NodeKey:
        """Draw a new key."""
        return NodeKey(ec.generate_private_key(ec.SECP384R1()))

    def __repr__(self) -> str:
        return f"NodeKey(<sealed>, fingerprint={self.fingerprint[:16]})"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the public key as PEM, lower-case hex: the server's list of nodes shows the same."""
        return hashlib.sha256(self.public_pem).hexdigest()

    def sign(self, message: bytes) -> bytes:
        """Sign with ECDSA and SHA-256; DER."""
        return self.private.sign(message, ec.ECDSA(hashes.SHA256()))


@dataclass(frozen=True, eq=False)
class DeviceKeys:
    """A device's secret keys; they never print.

    Attributes
    ----------
    signing
        Ed25519: enrolment and secure aggregation.
    ledger
        Ed25519: entries of the ledger.
    node
        P-384: log-in to the server.
    """

    signing: Ed25519PrivateKey = field(repr=False)
    ledger: Ed25519PrivateKey = field(repr=False)
    node: NodeKey = field(repr=False)

    @property
    def number(self) -> int:
        """The device's number in a fleet."""
        return device_number(self.signing.public_key())

    @property
    def name(self) -> str:
        """The number as ledgers and people have it, 16 hexadecimal digits."""
        return device_name(self.number)

    @property
    def request(self) -> EnrolmentRequest:
        """What an operator is asked to enrol."""
        return EnrolmentRequest(self.signing.public_key(), self.node.private.public_key())

    @staticmethod
    def make(vault: Vault) -> DeviceKeys:
        """Draw keys and keep them.

        Raises
        ------
        ConfigError
            If there are some: replacing them would lock the device out of its fleet and its ledger.
        """
        with vault.transaction():
            if vault.has(IDENTITY, _SIGNING):
                raise ConfigError("this device has keys already", hint="see palate client status")
            keys = DeviceKeys(Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate(), NodeKey.make())
            keys._keep(vault)
        return keys

    @staticmethod
    def load(vault: Vault) -> DeviceKeys:
        """Read the keys.

        Raises
        ------
        ConfigError
            If there are none.
        VaultTampered
            If they cannot be read.
        """
        try:
            signing, ledger, node = (vault.get(IDENTITY, name) for name in (_SIGNING, _LEDGER, _NODE))
        except NotInVault:
            raise ConfigError("this device has no keys yet", hint="begin with: palate client init") from None
        try:
            private = serialization.load_der_private_key(node, None)
            if not isinstance(private, ec.EllipticCurvePrivateKey):
                raise ValueError("another kind of key")
            return DeviceKeys(
                Ed25519PrivateKey.from_private_bytes(signing),
                Ed25519PrivateKey.from_private_bytes(ledger),
                NodeKey(private),
            )
        except (ValueError, TypeError):
            raise VaultTampered(
                "what the vault keeps as the device's keys are none", hint="restore the vault from a backup"
            ) from None

    def renewed(self, vault: Vault) -> DeviceKeys:
        """Draw new keys for a next fleet: they do not tell that it is the same device. The ledger's key stays."""
        keys = DeviceKeys(Ed25519PrivateKey.generate(), self.ledger, NodeKey.make())
        with vault.transaction():
            keys._keep(vault)
            vault.rotate(IDENTITY)  # the old ones are sealed under a key that is gone
        return keys

    def _keep(self, vault: Vault) -> None:
        node = self.node.private.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        vault.put(IDENTITY, _SIGNING, self.signing.private_bytes_raw())
        vault.put(IDENTITY, _LEDGER, self.ledger.private_bytes_raw())
        vault.put(IDENTITY, _NODE, node)
