"""What a device has seen of leader and helper, so that it notices when one of them goes back.

The helper's newest signed head, the leader's log, and the newest register; and of its own reports the newest, by which
leader and helper notice when the device goes back. All of it is about one set of keys: a fleet
with other keys begins anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from palate.client.vault import ROUNDS, Vault
from palate.client.vault.records import Record
from palate.privacy.aggregators.admission import Parties
from palate.privacy.aggregators.messages import CHAIN_LENGTH, Head, chain_of
from palate.privacy.ledger.checkpoint import TreeHead

_SEEN: Final = Record[dict[str, Any]](ROUNDS, "aggregators")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What this device has seen under some keys.

    Attributes
    ----------
    head
        The helper's newest, as it signed it; None before the first receipt.
    log
        Size and root of the leader's log; None before the first call.
    epoch
        Of the newest register.
    receipted
        Commitment in this device's newest report of a round whose receipt came; empty before the first.
    made
        Those in the reports that it made last, newest first.
    """

    head: Head | None = None
    log: TreeHead | None = None
    epoch: int = 0
    receipted: bytes = b""
    made: tuple[bytes, ...] = ()

    def chain(self, own: bytes) -> bytes:
        """Return the marks for the report with this commitment: those of the reports before it."""
        return chain_of(self.receipted, [each for each in self.made if each != own])

    def with_report(self, own: bytes) -> tuple[bytes, ...]:
        """Return the commitments of the reports made last, once this one is."""
        return (own, *(each for each in self.made if each != own))[:CHAIN_LENGTH]


def read_seen(vault: Vault, parties: Parties) -> Seen:
    """Read what was seen under these keys."""
    values = _SEEN.read(vault)
    if values is None or values["parties"] != parties.content_hash.hex():
        return Seen()
    return Seen(
        head=Head.from_bytes(bytes.fromhex(values["head"])) if values["head"] else None,
        log=TreeHead.from_text(values["log"]) if values["log"] else None,
        epoch=values["epoch"],
        receipted=bytes.fromhex(values.get("receipted", "")),
        made=tuple(map(bytes.fromhex, values.get("made", ()))),
    )


def keep_seen(vault: Vault, parties: Parties, **news: Any) -> None:
    """Keep what is new: fields of `Seen`, each in place of what was there."""
    seen = replace(read_seen(vault, parties), **news)
    values = {
        "parties": parties.content_hash.hex(),
        "head": seen.head.to_bytes().hex() if seen.head else "",
        "log": seen.log.to_text() if seen.log else "",
        "epoch": seen.epoch,
        "receipted": seen.receipted.hex(),
        "made": [each.hex() for each in seen.made],
    }
    with vault.transaction():
        _SEEN.write(vault, values)
