"""Checks after the run: every record is intact, all budgets agree, and everybody has the same table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from palate.client.fleet.folder import DeviceFolder
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


@dataclass(frozen=True)
class DeviceFindings:
    """What was found on devices; findings of several processes add up.

    Attributes
    ----------
    devices, intact
        How many were looked at, and how many have a ledger that verifies.
    cut_off
        Ledgers that end in an open round, where a kill cut it off.
    within, equal
        Devices that have spent no more than the server has charged, and just as much.
    receipts, wrong_tables
        Signed receipts, and those that name another table than the server made.
    last
        Devices that have the last table.
    """

    devices: int = 0
    intact: int = 0
    cut_off: int = 0
    within: int = 0
    equal: int = 0
    receipts: int = 0
    wrong_tables: int = 0
    last: int = 0

    def __add__(self, other: DeviceFindings) -> DeviceFindings:
        """Add what was found elsewhere."""
        return DeviceFindings(*(left + right for left, right in zip(astuple(self), astuple(other), strict=True)))


def examine(demo: DemoFleet) -> list[Check]:
    """Check every ledger, every budget and every table of a fleet whose run is over."""
    server = examine_server(demo.fleet)
    return checks_of(demo, server, examine_devices(demo.devices.values(), server.tables, server.spent))


@dataclass(frozen=True)
class ServerFindings:
    """What the server's books say: rounds, open ones in its ledger, what it charged, and its tables by round."""

    rounds: int
    still_open: int
    spent: int
    tables: dict[int, str]


def examine_server(fleet: FleetFolder) -> ServerFindings:
    """Verify the server's ledger, and read what it made; raises LedgerError where it does not verify."""
    rounds = rounds_of(fleet)
    book = verify_book(fleet.ledger, read_public_key(fleet.ledger_key), allow_open=True)
    return ServerFindings(
        len(rounds),
        sum(len(state.open) for state in book.values()),
        book[ledger_name(SERVER, Unit.USER)].spent_nano,
        {each["round"]: each["table"] for each in rounds if each["status"] in ("applied", "done")},
    )


def examine_devices(folders: Iterable[DeviceFolder], tables: Mapping[int, str], server_spent: int) -> DeviceFindings:
    """Verify the ledgers of devices, and compare what they say with the server's.

    Parameters
    ----------
    folders
        Theirs.
    tables
        Hashes of the tables that the server made, by round.
    server_spent
        What it has charged, in 1e-9 of 2 rho.
    """
    found = DeviceFindings()
    for folder in folders:
        try:
            status = status_of(folder)
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(status.ledger_key))
            book = verify_book(folder.ledger, key, allow_open=True)
        except PalateError:
            found += DeviceFindings(devices=1)
            continue
        spent = sum(state.spent_nano for state in book.values())
        signed = [record for record in status.rounds if record.receipt]
        found += DeviceFindings(
            devices=1,
            intact=1,
            cut_off=int(any(state.open for state in book.values())),
            within=int(spent <= server_spent),
            equal=int(spent == server_spent),
            receipts=len(signed),
            wrong_tables=sum(each.receipt["model_hash"] != tables[each.server_round] for each in signed),
            last=int(bool(tables) and status.table_hash == tables[max(tables)]),
        )
    return found


def checks_of(demo: DemoFleet, server: ServerFindings, devices: DeviceFindings) -> list[Check]:
    """Say what holds of a fleet whose run is over."""
    total = devices.devices
    checks = [
        Check(
            "server's ledger",
            server.still_open == 0,
            f"intact, {server.rounds} rounds charged, {server.still_open} open",
        ),
        Check(
            "devices' ledgers",
            devices.intact == total,
            f"{devices.intact} of {total} intact, {devices.cut_off} end in a round that a kill cut off",
        ),
        Check(
            "budgets",
            devices.within == total,
            f"{devices.equal} devices have spent what the server has, {total - devices.equal} less",
        ),
        Check(
            "receipts",
            devices.wrong_tables == 0,
            f"{devices.receipts} signed receipts, each for the table that the server made",
        ),
        Check("last table", devices.last > 0, f"{devices.last} of {total} devices have verified and kept it"),
    ]
    if demo.helper is not None:
        checks += _of_two_aggregators(demo.fleet, demo.helper, len(server.tables))
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
