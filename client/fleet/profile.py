"""What a device keeps about the fleet that it belongs to: the welcome it pinned, its owner's limits, and two marks.

All of it is in the vault, so that nobody without the vault's key can put other keys or weaker limits in its place.

`PAUSED` says that the owner wants no new rounds and stays a member. A round that has begun is finished, for its noised
vector may have left already; the server learns of a refusal, as for any other limit. `REMOVED_AT` says when the server
last said that it has removed this device. It changes nothing else on the device, and goes when the server takes the
device again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from palate.client.fleet.limits import OwnerLimits
from palate.client.vault import SERVERS, Vault
from palate.client.vault.errors import VaultTampered
from palate.client.vault.records import Record
from palate.errors import ConfigError
from palate.privacy.aggregators.claim import Trust, trust_of
from palate.privacy.enrolment import EnrolmentFileRefused, Welcome
from palate.privacy.run_notice import RunNotice
from palate.privacy.secagg.keys import Guarantee, claimed_guarantee
from palate.privacy.secagg.offer import DevicePolicy
from palate.privacy.spoken import spoken

FORMAT = "palate-fleet/1"
PAUSED: Final = Record[bool](SERVERS, "pause")
REMOVED_AT: Final = Record[int](SERVERS, "removed")
_LIMITS_BEFORE: Final = Record[dict[str, Any]](SERVERS, "limits-before")


def set_paused(vault: Vault, paused: bool) -> None:
    """Take part in no new round, or go on."""
    with vault.transaction():
        if paused:
            PAUSED.write(vault, True)
        else:
            PAUSED.drop(vault)


@dataclass(frozen=True)
class FleetProfile:
    """One fleet, as this device sees it.

    Attributes
    ----------
    welcome
        Pinned keys, address, certificate and catalogue.
    limits
        What the owner allows.
    notice
        What the server said last of its current run; None before the first notice.
    compared
        Keys whose words the owner has compared with those who hold them, hexadecimal.
    """

    welcome: Welcome
    limits: OwnerLimits
    notice: RunNotice | None = None
    compared: frozenset[str] = frozenset()

    @property
    def keys(self) -> dict[str, str]:
        """Keys of server, helper and authority, hexadecimal, as far as the fleet has them."""
        found = {each: str(getattr(self.welcome, f"{each}_key")) for each in ("server", "helper", "authority")}
        return {name: key for name, key in found.items() if key}

    @property
    def words(self) -> dict[str, str]:
        """The words of these keys, which those who hold them print too."""
        return {name: spoken(bytes.fromhex(key)) for name, key in self.keys.items()}

    @property
    def uncompared(self) -> list[str]:
        """Who of those beside the server holds a key that the owner has not compared."""
        return [name for name, key in self.keys.items() if name != "server" and key not in self.compared]

    @property
    def server_key(self) -> Ed25519PublicKey:
        """Signs offers and receipts."""
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.welcome.server_key))

    @property
    def authority_key(self) -> Ed25519PublicKey:
        """Signs enrolments among peers."""
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.welcome.authority_key))

    @property
    def policy(self) -> DevicePolicy:
        """What secure aggregation among peers asks of every offer."""
        return DevicePolicy(
            smallest_cohort=self.limits.smallest_cohort, gamma_thousandths=self.limits.least_gamma_thousandths
        )

    @property
    def guarantee(self) -> Guarantee:
        """Against which server the fleet's rounds protect, by its keys or by what it states about its authority."""
        if self.trust is not None:
            return "malicious" if self.trust.against_lies else "semi-honest"
        return claimed_guarantee(
            server_key=self.server_key,
            authority_key=self.authority_key,
            authority_is_separate=self.welcome.authority_is_separate,
        )

    @property
    def trust(self) -> Trust | None:
        """What the keys of two aggregators allow to claim; None in a fleet of peers."""
        parties = self.welcome.parties
        return None if parties is None else trust_of(parties)

    @property
    def parties(self) -> int:
        """How many would have to work together to read what this device sends: 1 or 2."""
        return 2 if self.guarantee == "malicious" else 1

    def with_limits(self, limits: OwnerLimits) -> FleetProfile:
        """Return the profile under other limits."""
        return replace(self, limits=limits)

    def save(self, vault: Vault) -> None:
        """Keep the profile, in place of the last one."""
        _PROFILE.write(vault, self)

    @staticmethod
    def load(vault: Vault) -> FleetProfile | None:
        """Read the profile; None if the device belongs to no fleet.

        Raises
        ------
        VaultTampered
            If what is kept is no profile of this version.
        """
        return _PROFILE.read(vault)

    @staticmethod
    def require(vault: Vault) -> FleetProfile:
        """Read the profile.

        Raises
        ------
        ConfigError
            If the device belongs to no fleet.
        """
        profile = FleetProfile.load(vault)
        if profile is None:
            raise ConfigError(
                "this device belongs to no fleet", hint="ask one to take you in: palate client enrol --request FILE"
            )
        return profile

    @staticmethod
    def drop(vault: Vault) -> None:
        """Forget the fleet, but not what its owner allowed; nothing happens if there is none."""
        profile = FleetProfile.load(vault)
        if profile is not None:
            _LIMITS_BEFORE.write(vault, profile.limits.to_values())
            _PROFILE.drop(vault)

    @staticmethod
    def limits_before(vault: Vault) -> OwnerLimits | None:
        """Return what the owner allowed in the fleet that the device left last; None if it left none.

        Raises
        ------
        ConfigError
            If what is kept is not of this version.
        """
        values = _LIMITS_BEFORE.read(vault)
        return None if values is None else OwnerLimits.from_values(values)


def _encode(profile: FleetProfile) -> bytes:
    welcome = profile.welcome.to_json().decode("ascii")
    values: dict[str, Any] = {"format": FORMAT, "welcome": welcome, "limits": profile.limits.to_values()}
    if profile.notice is not None:
        values["run"] = asdict(profile.notice)
    if profile.compared:
        values["compared"] = sorted(profile.compared)
    return json.dumps(values).encode("ascii")


def _decode(data: bytes) -> FleetProfile:
    try:
        values = json.loads(data)
        if values["format"] != FORMAT:
            raise ValueError("another format")
        welcome = Welcome.from_json(values["welcome"].encode("ascii"))
        notice = RunNotice(**values["run"]) if "run" in values else None
        compared = frozenset(map(str, values.get("compared", ())))
        return FleetProfile(welcome, OwnerLimits.from_values(values["limits"]), notice, compared)
    except (ValueError, TypeError, KeyError, AttributeError, EnrolmentFileRefused, ConfigError):
        raise VaultTampered(
            "what the vault keeps about the fleet is not of this version", hint="enrol again with the operator"
        ) from None


_PROFILE: Final = Record(SERVERS, "fleet", _encode, _decode)
