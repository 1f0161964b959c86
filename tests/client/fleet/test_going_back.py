"""A home that was put back, or runs twice, is noticed; an honest device never is (docs/adr/0017)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from palate.client.fleet.folder import DeviceFolder
from palate.client.fleet.limits import RoundUnwelcome
from palate.client.fleet.reports import OldCopy
from palate.privacy.aggregators.errors import OfferRefused
from palate.privacy.aggregators.messages import LedgerNotice, Report, Upload, mark_of
from palate.privacy.aggregators.sealing import Suite
from palate.privacy.secagg.encoding import to_sign
from palate.privacy.wire import FleetStep


def report_of(fleet, device, number: int) -> Report:
    plan = fleet.plan(number)
    return Upload.from_bytes(fleet.answer_of(device, plan, fleet.collection(plan)), Suite.X25519).report


def copied(device, home: Path):
    """Another device with the same home, as it is now."""
    device.kill()
    shutil.copytree(device.folder.home, home)
    device.start()
    other = type(device)(DeviceFolder(home), type(device.trainer)(7, largest=500), device.number)
    other.start()
    return other


def notice_of(devices, signed: Report, **changes: object) -> bytes:
    values = {"fleet": "films", "report": signed.to_bytes()} | changes
    return LedgerNotice(**values).signed(lambda body: devices.server_key.sign(to_sign(body))).to_bytes()


def told(fleet, device, notice: bytes, number: int = 2) -> None:
    plan = fleet.plan(number)
    device.rounds.handle(fleet.message(FleetStep.REPORT, plan, notice), plan=plan)


def test_a_device_whose_receipts_are_lost_knows_its_reports_all_the_same(reporting):
    device = reporting.devices[0]
    made = []
    for number in range(3):
        made.append(report_of(reporting, device, number))
        device.restart()
    for at, report in enumerate(made):
        assert all(report.follows(mark_of(earlier.ledger_head)) for earlier in made[:at])
    assert not made[0].follows(mark_of(made[1].ledger_head))


def test_a_report_says_nothing_that_repeats_but_its_marks(reporting):
    device = reporting.devices[0]
    first, second = report_of(reporting, device, 0), report_of(reporting, device, 1)
    assert first.ledger_head != second.ledger_head
    assert first.chain == bytes(64)
    assert second.chain == bytes(8) + mark_of(first.ledger_head) + bytes(48)


def test_a_home_that_was_put_back_does_not_know_its_newest_report(reporting, tmp_path):
    device = reporting.devices[0]
    report_of(reporting, device, 0)
    old = copied(device, tmp_path / "old")
    newest = report_of(reporting, device, 1)
    assert not report_of(reporting, old, 2).follows(mark_of(newest.ledger_head))
    assert report_of(reporting, device, 2).follows(mark_of(newest.ledger_head))


def test_of_two_copies_that_run_at_once_the_second_is_noticed(reporting, tmp_path):
    device = reporting.devices[0]
    report_of(reporting, device, 0)
    clone = copied(device, tmp_path / "clone")
    first, second = report_of(reporting, device, 1), report_of(reporting, clone, 1)
    assert first.ledger_head != second.ledger_head
    assert not second.follows(mark_of(first.ledger_head))
    assert not report_of(reporting, clone, 2).follows(mark_of(first.ledger_head))


def test_a_device_that_was_put_back_charges_nothing_once_it_is_told_and_its_owner_reads_what_to_do(reporting, tmp_path):
    device = reporting.devices[0]
    report_of(reporting, device, 0)
    old = copied(device, tmp_path / "old")
    newest = report_of(reporting, device, 1)
    spent = old.spent
    with pytest.raises(OldCopy, match="another copy of this device") as caught:
        told(reporting, old, notice_of(reporting, newest))
    assert "--replaces" in caught.value.hint
    assert old.spent == spent
    assert "put back from a backup" in old.rounds._round_log.refusals()[-1]["why"]


def test_a_server_that_says_so_of_an_honest_device_is_found_out(reporting):
    device = reporting.devices[0]
    newest = report_of(reporting, device, 0)
    with pytest.raises(RoundUnwelcome, match="a report that this device knows"):
        told(reporting, device, notice_of(reporting, newest), 1)


@pytest.mark.parametrize("change", ["another device's", "another fleet", "unsigned report", "another leader"])
def test_a_notice_that_is_made_up_says_nothing(reporting, change):
    device, other = reporting.devices[:2]
    own, foreign = report_of(reporting, device, 0), report_of(reporting, other, 0)
    forged = own.to_bytes()[:-1] + bytes([own.signature[-1] ^ 1])
    notice = {
        "another device's": lambda: notice_of(reporting, foreign),
        "another fleet": lambda: notice_of(reporting, own, fleet="books"),
        "unsigned report": lambda: notice_of(reporting, own, report=forged),
        "another leader": lambda: notice_of(reporting, own)[:-1] + b"\0",
    }[change]()
    with pytest.raises(OfferRefused):
        told(reporting, device, notice, 1)


def test_leader_and_helper_take_the_reports_of_devices_that_saw_no_receipt(reporting):
    for number in range(3):
        _, collected, _ = reporting.round(reporting.plan(number), table_hash="00" * 32)
        assert collected.accepted == 3


def test_the_helper_leaves_out_a_device_that_was_put_back(reporting, tmp_path):
    reporting.round(reporting.plan(0), table_hash="00" * 32)
    old = copied(reporting.devices[0], tmp_path / "old")
    reporting.round(reporting.plan(1), table_hash="00" * 32)
    reporting.devices[0] = old
    _, collected, _ = reporting.round(reporting.plan(2), table_hash="00" * 32)
    assert {device: reason.name for device, reason in collected.excluded.items()} == {old.number: "LEDGER_WENT_BACK"}
