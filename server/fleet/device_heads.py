"""The newest report of each device: what shows that a device, put back from a copy, has gone back.

A report names the device's reports before it (`palate.privacy.aggregators.messages.chain_of`). One that does not name
the newest that was counted here comes from an old copy. The file holds reports as devices signed them, for a device
that went back is shown its own.

The file belongs in no backup: without it, each device's next report is taken as it is. With an old one, devices that
sent more than a few reports since would be refused, until they get new keys.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from palate.privacy import files
from palate.privacy.aggregators.admission import Membership, key_number
from palate.privacy.aggregators.messages import Report, mark_of
from palate.privacy.secagg.encoding import HASH_SIZE
from palate.privacy.secagg.errors import SecureAggregationError

log = logging.getLogger(__name__)

_MARK = b"palate device heads 1\n"
_KEY_SIZE, _LENGTH_SIZE = 8, 4


@dataclass(eq=False)
class DeviceHeads:
    """The file, and which devices went back since the server started.

    Attributes
    ----------
    path
        Where it is; made with the first round that is frozen.
    went_back
        Devices whose reports were refused: they are sent a notice in place of a call.
    """

    path: Path
    went_back: set[int] = field(default_factory=set)
    _kept: dict[int, tuple[int, bytes]] | None = field(default=None, repr=False)

    def marks(self, membership: Membership) -> dict[int, bytes]:
        """Return the marks of the newest reports, of devices that still have the key of then."""
        return {
            device: mark_of(Report.from_bytes(report).ledger_head)
            for device, (key, report) in self._read().items()
            if _has_key(membership, device, key)
        }

    def shown(self, membership: Membership) -> dict[int, bytes]:
        """Return the newest reports of devices that went back; one with a new key has begun anew."""
        kept = self._read()
        self.went_back = {each for each in self.went_back if each in kept and _has_key(membership, each, kept[each][0])}
        return {device: kept[device][1] for device in sorted(self.went_back)}

    def keep(self, reports: Mapping[int, bytes], membership: Membership) -> None:
        """Put the reports of a round on disk, each in place of its device's last."""
        kept = self._read()
        for device, report in reports.items():
            kept[device] = key_number(membership.entries[device].identity_key), report
        content = _MARK + b"".join(
            key.to_bytes(_KEY_SIZE, "big") + len(report).to_bytes(_LENGTH_SIZE, "big") + report
            for _, (key, report) in sorted(kept.items())
        )
        files.replace(self.path, content + sha256(content).digest())

    def _read(self) -> dict[int, tuple[int, bytes]]:
        if self._kept is None:
            try:
                self._kept = _decoded(self.path.read_bytes())
            except FileNotFoundError:
                self._kept = {}
            except (OSError, ValueError, SecureAggregationError) as error:
                log.warning("%s cannot be used, and begins anew: %s", self.path.name, type(error).__name__)
                self._kept = {}
        return self._kept


def _has_key(membership: Membership, device: int, key: int) -> bool:
    entry = membership.entries.get(device)
    return entry is not None and key_number(entry.identity_key) == key


def _decoded(data: bytes) -> dict[int, tuple[int, bytes]]:
    """Read what `keep` wrote; raises ValueError or SecureAggregationError."""
    content = data[:-HASH_SIZE]
    if not data.startswith(_MARK) or sha256(content).digest() != data[-HASH_SIZE:]:
        raise ValueError("damaged")
    found: dict[int, tuple[int, bytes]] = {}
    at = len(_MARK)
    while at < len(content):
        key = int.from_bytes(content[at : at + _KEY_SIZE], "big")
        begins = at + _KEY_SIZE + _LENGTH_SIZE
        at = begins + int.from_bytes(content[at + _KEY_SIZE : begins], "big")
        report = content[begins:at]
        found[Report.from_bytes(report).device] = key, report
    return found
