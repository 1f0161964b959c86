"""How a helper is, read beside a running one: counts, times and keys; no name of a device."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from palate.errors import PalateError
from palate.privacy.aggregators.admission import Revocation
from palate.privacy.aggregators.claim import trust_of
from palate.privacy.aggregators.messages import Answer, Exclusion
from palate.privacy.ledger.errors import Rollback
from palate.privacy.ledger.schema import open_to_read
from palate.privacy.spoken import spoken
from palate.server.helper.cards import HelperCard
from palate.server.helper.folder import HelperFolder


@dataclass(frozen=True)
class HelperStatus:
    """What `palate helper status` shows.

    Attributes
    ----------
    values
        For programs.
    problem
        What is wrong with the anchor, if anything.
    """

    values: dict[str, Any]
    problem: PalateError | None


def status_of(folder: HelperFolder) -> HelperStatus:
    """Read a helper's folder.

    Raises
    ------
    ConfigError, LedgerUnreadable
        If it is none, or its ledger is missing.
    """
    config = folder.load_config()
    card = HelperCard.open(folder.card.read_bytes())
    leader = folder.leader() if folder.leader_card.exists() else None
    trust = None if leader is None else trust_of(leader.parties)
    excluded: Counter[Exclusion] = Counter()
    reports = accepted = answered = 0
    last = None
    with closing(open_to_read(folder.ledger)) as connection:
        for data, time in connection.execute("SELECT answer, time FROM answers ORDER BY sequence"):
            answer = Answer.from_bytes(data)
            answered, last = answer.sequence, time
            reports, accepted = reports + answer.reports, accepted + answer.accepted
            excluded.update(reason for _, reason in answer.excluded)
        keys = connection.execute("SELECT hash FROM round_keys").fetchall()
        register = connection.execute(
            "SELECT epoch, length(entries) / 48 FROM lists ORDER BY epoch DESC LIMIT 1"
        ).fetchone()
        (admitted,) = connection.execute("SELECT count(DISTINCT device) FROM certificates").fetchone()
        newest = connection.execute("SELECT revocation FROM revocations ORDER BY number DESC LIMIT 1").fetchone()
        (log_size,) = connection.execute("SELECT coalesce(max(size), 0) FROM checkpoints").fetchone()
    anchor, anchored = folder.anchor(config), None
    problem: PalateError | None = None
    try:
        anchored = anchor.read().sequence
        if anchored > answered:
            raise Rollback(
                f"the ledger has {answered} answers, the anchor has seen {anchored}: an old ledger was put back",
                hint="restore the newest ledger; palate helper start refuses this one",
            )
    except PalateError as error:
        problem = error
    held = {path.stem for path in folder.round_keys.glob("*.key")}
    return HelperStatus(
        {
            "fleet": config.fleet,
            "address": config.address,
            "running": folder.is_locked(),
            "helper_key": card.key.hex(),
            "tls_fingerprint": card.tls_fingerprint,
            "leader_key": None if leader is None else leader.parties.leader.hex(),
            "authority_key": None
            if leader is None or leader.parties.authority is None
            else leader.parties.authority.hex(),
            "trust": None if trust is None else f"{trust.sentence} {trust.assumption}".rstrip(),
            "words": spoken(card.key),
            "rounds_answered": answered,
            "last_answered_at": None if last is None else _moment(last),
            "reports": reports,
            "reports_in_sums": accepted,
            "left_out": {reason.name.lower(): count for reason, count in sorted(excluded.items())},
            "keys_issued": len(keys),
            "keys_open": sum(found.hex() in held for (found,) in keys),
            "register_epoch": None if register is None else register[0],
            "devices_registered": None if register is None else register[1],
            "devices_admitted_here": admitted,
            "keys_revoked": 0 if newest is None else len(Revocation.from_bytes(newest[0]).keys),
            "log_leaves_cosigned": log_size,
            "anchor": str(anchor.path),
            "anchor_sequence": anchored,
        },
        problem,
    )


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
