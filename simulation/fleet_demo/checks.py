"""Checks after the run: every record is intact, all budgets agree, and everybody has the same table."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from palate.client.fleet.status import status_of
from palate.errors import PalateError
from palate.privacy.accounting.events import Unit
from palate.privacy.aggregators.call import witness_key
from palate.privacy.charging import ledger_name
from palate.privacy.ledger.checkpoint import open_checkpoint
from palate.privacy.ledger.note import Note, NoteKey
from palate.privacy.ledger.verify import verify_book
from palate.server.fleet.claims import parties_of
from palate.server.fleet.config import load_config
from palate.server.fleet.folder import FleetFolder, read_public_key
from palate.server.fleet.summary import rounds_of
from palate.server.helper.folder import HelperFolder
from palate.server.helper.status import status_of as helper_status
from palate.server.ledger import SERVER
from palate.simulation.fleet_demo.folders import DemoFleet


@dataclass(frozen=True)
class Check:
    """One check and its result."""

    what: str
    held: bool
    words: str


def examine(demo: DemoFleet) -> list[Check]:
    """Check every ledger, every budget and every table of a fleet whose run is over."""
    rounds = rounds_of(demo.fleet)
    applied = {each["round"]: each for each in rounds if each["status"] in ("applied", "done")}
    checks = []
    server = verify_book(demo.fleet.ledger, read_public_key(demo.fleet.ledger_key), allow_open=True)
    server_spent = server[ledger_name(SERVER, Unit.USER)].spent_nano
    still_open = sum(len(state.open) for state in server.values())
    checks.append(Check("server's ledger", still_open == 0, f"intact, {len(rounds)} rounds charged, {still_open} open"))
    intact = equal = within = cut_off = 0
    receipts = wrong_tables = last = 0
    for folder in demo.devices.values():
        try:
            status = status_of(folder)
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(status.ledger_key))
            book = verify_book(folder.ledger, key, allow_open=True)
        except PalateError:
            continue
        intact += 1
        cut_off += any(state.open for state in book.values())
        spent = sum(state.spent_nano for state in book.values())
        within += spent <= server_spent
        equal += spent == server_spent
        for record in status.rounds:
            if record.receipt:
                receipts += 1
                wrong_tables += record.receipt["model_hash"] != applied[record.server_round]["table"]
        last += bool(applied) and status.table_hash == applied[max(applied)]["table"]
    total = len(demo.devices)
    checks.append(
        Check(
            "devices' ledgers",
            intact == total,
            f"{intact} of {total} intact, {cut_off} end in a round that a kill cut off",
        )
    )
    checks.append(
        Check("budgets", within == total, f"{equal} devices have spent what the server has, {total - equal} less")
    )
    checks.append(
        Check("receipts", wrong_tables == 0, f"{receipts} signed receipts, each for the table that the server made")
    )
    checks.append(Check("last table", last > 0, f"{last} of {total} devices have verified and kept it"))
    if demo.helper is not None:
        checks += _of_two_aggregators(demo.fleet, demo.helper, len(applied))
    return checks


def _of_two_aggregators(fleet: FleetFolder, helper: HelperFolder, applied: int) -> list[Check]:
    """Check that the helper answered once for every sum, and that it has cosigned the public log to its end."""
    found = helper_status(helper)
    answered, config = found.values["rounds_answered"], load_config(fleet.config)
    server = NoteKey(config.name, read_public_key(fleet.ledger_key))
    witness = witness_key(config.name, parties_of(fleet, config).helper)
    note = (fleet.log / "checkpoint").read_bytes()
    size = open_checkpoint(note, server, witnesses=[witness]).size
    cosigned = len(Note.decode(note).signatures) == 2
    return [
        Check(
            "helper's ledger",
            found.problem is None and answered == applied,
            f"{answered} rounds answered, {applied} sums in the table; its anchor agrees",
        ),
        Check("public log", size == applied and cosigned, f"{size} rounds, signed by the server and by the helper"),
    ]
