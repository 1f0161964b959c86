"""The server's signed notice of a run: what it plans to spend, and the catalogue that it is about.

A welcome says this of the run in which a device was enrolled. Later runs of the fleet have a notice, which devices
fetch from the server and check with the key that they pinned. It changes nothing that a device trusts: no key and no
certificate is in it. docs/formats/enrolment.md has the bytes.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from palate.privacy.enrolment import EnrolmentFileRefused, Welcome
from palate.privacy.ledger.framing import framed

FORMAT: Final = "palate-run-notice/1"
RUN_PATH: Final = "/v1/palate/run"
"""Where an enrolled device fetches the notice of the current run."""
CATALOGUE_PATH: Final = "/v1/palate/catalogue"
"""Where an enrolled device fetches the catalogue of the current run."""
MAX_NOTICE_BYTES: Final = 1 << 13

_TAG = b"palate/run-notice/1"
_HINT = "do not trust this server"
_OF_WELCOME = (
    "epsilon", "delta", "rounds", "smallest_roster", "tau_thousandths", "gamma_thousandths", "num_items",
    "catalogue_sha256",
)  # fmt: skip
"""Fields of a welcome that a run may change."""


@dataclass(frozen=True, kw_only=True)
class RunNotice:
    """What a fleet's server says about a run; the same for all devices.

    Attributes
    ----------
    fleet, run
        Names of the fleet and of the run.
    epsilon, delta, rounds
        What the run plans to spend in total, and the number of training rounds.
    smallest_roster, tau_thousandths, gamma_thousandths
        As in a welcome.
    num_items, catalogue_sha256
        Rows and hash of the run's catalogue.
    table_hash
        Of the table from which the run starts; empty where it starts from nothing.
    """

    fleet: str
    run: str
    epsilon: float
    delta: float
    rounds: int
    smallest_roster: int
    tau_thousandths: int
    gamma_thousandths: int
    num_items: int
    catalogue_sha256: str
    table_hash: str = ""

    def sign(self, key: Ed25519PrivateKey) -> bytes:
        """Write the notice as JSON in one spelling, with the server's signature."""
        return _spelt({**self._values(), "signature": key.sign(self._signed()).hex()})

    @staticmethod
    def open(data: bytes, key: Ed25519PublicKey) -> RunNotice:
        """Read a notice, and check that the holder of a key signed it.

        Raises
        ------
        EnrolmentFileRefused
            If the bytes are not exactly what `sign` writes.
        """
        try:
            if len(data) > MAX_NOTICE_BYTES:
                raise ValueError(f"it has {len(data)} bytes")
            values = json.loads(data)
            if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
                raise ValueError(f"it is not of format {FORMAT}")
            signature = bytes.fromhex(values.pop("signature"))
            notice = RunNotice(**values)
            wrong = [each.name for each in fields(RunNotice) if type(values.get(each.name)).__name__ != each.type]
            if wrong:
                raise ValueError(f"{wrong[0]} is of another type")
            if notice.sign_with(signature) != data:
                raise ValueError("it is not in its one spelling")
            key.verify(signature, notice._signed())
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise EnrolmentFileRefused(f"the notice of the run is not accepted: {error}", hint=_HINT) from None
        except InvalidSignature:
            raise EnrolmentFileRefused("the notice of the run is not signed by the server's key", hint=_HINT) from None
        return notice

    def sign_with(self, signature: bytes) -> bytes:
        """Write the notice with a signature that was made before."""
        return _spelt({**self._values(), "signature": signature.hex()})

    def applied_to(self, welcome: Welcome) -> Welcome:
        """Return a welcome of the same fleet as it stands in this run; keys and certificate stay as they were pinned.

        Raises
        ------
        EnrolmentFileRefused
            If it is of another fleet, or a number is out of range.
        """
        if self.fleet != welcome.fleet:
            raise EnrolmentFileRefused(f"the notice is of fleet {self.fleet!r}, not {welcome.fleet!r}", hint=_HINT)
        changes = {name: getattr(self, name) for name in _OF_WELCOME}
        if welcome.helper_key:
            del changes["tau_thousandths"]  # for peers alone
        return replace(welcome, **changes)

    def _values(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}

    def _signed(self) -> bytes:
        return framed(_TAG, _spelt(self._values()))


def _spelt(values: dict[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":")).encode("ascii")
