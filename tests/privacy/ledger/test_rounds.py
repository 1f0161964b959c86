"""One round on a device: whatever happens in between, one charge, one set of bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from palate.privacy.ledger.body import RELEASED, WITHHELD, Outcome, hash_text
from palate.privacy.ledger.errors import BudgetExceeded, RoundRefused
from palate.privacy.ledger.store import LedgerBook
from palate.privacy.ledger.verify import verify_ledger

CHARGE = 250_000_010  # of `intent`


@pytest.fixture
def path(tmp_path):
    return tmp_path / "device.db"


@pytest.fixture
def book(path, signer, policy):
    with LedgerBook(path, signer) as book:
        book.create(["device"], policy())
        yield book


def test_a_round_is_charged_before_and_closed_after(book, intent):
    assert book.begin("device", intent(1)) is None
    assert book.state("device").spent_nano == CHARGE
    book.persist("device", "run-1", 1, b"masked")
    outcome = book.close_round("device", "run-1", 1, receipt=b"receipt")
    assert (outcome.payload, outcome.receipt) == (hash_text(b"masked"), hash_text(b"receipt"))
    assert not book.state("device").open


def test_a_retry_gets_the_identical_bytes(path, signer, book, intent):
    book.begin("device", intent(1))
    book.persist("device", "run-1", 1, b"masked")
    with LedgerBook(path, signer) as after_a_crash:
        assert after_a_crash.begin("device", intent(1)) == b"masked"
    assert book.begin("device", intent(1)) == b"masked"


def test_other_bytes_for_a_round_are_refused(book, intent):
    book.begin("device", intent(1))
    book.persist("device", "run-1", 1, b"masked")
    book.persist("device", "run-1", 1, b"masked")
    with pytest.raises(RoundRefused, match="other bytes"):
        book.persist("device", "run-1", 1, b"masked anew")
    assert book.begin("device", intent(1)) == b"masked"


def test_a_retry_with_other_parameters_is_refused(book, intent):
    book.begin("device", intent(1))
    with pytest.raises(RoundRefused, match="other parameters"):
        book.begin("device", intent(1, n1=101))


def test_a_crash_before_the_bytes_costs_the_round_once(book, path, signer, intent):
    book.begin("device", intent(1))
    with LedgerBook(path, signer) as after_a_crash:
        assert after_a_crash.begin("device", intent(1)) is None
        assert after_a_crash.state("device").spent_nano == CHARGE


def test_a_closed_round_stays_closed(book, intent):
    book.begin("device", intent(1))
    book.persist("device", "run-1", 1, b"masked")
    book.close_round("device", "run-1", 1)
    for again in (
        lambda: book.begin("device", intent(1)),
        lambda: book.persist("device", "run-1", 1, b"masked"),
        lambda: book.close_round("device", "run-1", 1),
    ):
        with pytest.raises(RoundRefused):
            again()


def test_nothing_is_kept_or_sent_without_a_charge(book):
    for early in (
        lambda: book.persist("device", "run-1", 1, b"masked"),
        lambda: book.close_round("device", "run-1", 1),
    ):
        with pytest.raises(RoundRefused, match="was not charged"):
            early()


def test_the_charge_of_a_withheld_round_comes_back_and_of_one_whose_bytes_may_have_left_never(book, intent):
    book.begin("device", intent(1))
    book.append("device", Outcome(run="run-1", round=1, status=WITHHELD, payload="", receipt=""))
    assert book.state("device").spent_nano == 0
    book.begin("device", intent(2))
    book.persist("device", "run-1", 2, b"masked")
    assert book.close_round("device", "run-1", 2).status == RELEASED
    assert book.state("device").spent_nano == CHARGE


def test_a_round_that_is_written_off_is_closed_and_stays_charged(book, path, signer, intent):
    book.begin("device", intent(1))
    outcome = book.close_round("device", "run-1", 1)
    assert (outcome.status, outcome.payload, outcome.receipt) == ("written-off", "", "")
    with pytest.raises(RoundRefused, match="charged already"):
        book.begin("device", intent(1))
    verified = verify_ledger(path, "device", signer.public_key(), allow_open=False)
    assert verified.state.spent_nano == book.state("device").spent_nano == CHARGE


def test_a_round_with_bytes_is_never_written_off(book, intent):
    book.begin("device", intent(1))
    book.persist("device", "run-1", 1, b"masked")
    outcome = book.close_round("device", "run-1", 1)
    assert (outcome.status, outcome.payload, outcome.receipt) == (RELEASED, hash_text(b"masked"), "")


def test_the_devices_budget_holds_whatever_the_server_asks(book, intent):
    for number in range(4):
        book.begin("device", intent(number))
    with pytest.raises(BudgetExceeded):
        book.begin("device", intent(4))
    assert book.state("device").spent_nano == 4 * CHARGE


WORKER = """
import sys
from pathlib import Path
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from palate.privacy.ledger.body import Intent, Policy, hash_text
from palate.privacy.ledger.store import LedgerBook

book = LedgerBook(Path(sys.argv[1]), Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
if not book.names:
    book.create(["device"], Policy(unit="user", adjacency="zero-out", delta="1e-5", budget_nano=10**15, n_min=1))
number = 0
while True:
    number += 1
    if ("run-1", number) in book.state("device").closed:
        continue
    intent = Intent(run="run-1", round=number, mechanism="user", unit="user", adjacency="zero-out", clip_int=4096,
        sum_var_int=8192**2, m_honest=60, n1=100, sampling="none-claimed", model=hash_text(b""),
        transcript=hash_text(b""))
    if book.begin("device", intent) is None:
        book.persist("device", "run-1", number, b"masked %d" % number * 1000)
    print("sent", number, flush=True)
    book.close_round("device", "run-1", number)
    print("done", number, flush=True)
"""


def test_a_kill_at_any_moment_leaves_a_ledger_that_verifies_and_goes_on(path, signer):
    done = 0
    for lines in (1, 6, 11, 16):
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(path)], stdout=subprocess.PIPE, text=True, env=os.environ
        )
        said = [worker.stdout.readline().split() for _ in range(lines)]
        os.kill(worker.pid, signal.SIGKILL)
        said += [line.split() for line in worker.stdout.read().splitlines()]
        worker.wait()
        worker.stdout.close()
        assert all(len(line) == 2 for line in said), "the worker failed"
        verified = verify_ledger(path, "device", signer.public_key(), allow_open=True)
        closed, charged = verified.state.closed, verified.state.closed | set(verified.state.open)
        # Whatever was announced is on disk: a charge before bytes are sent, an outcome before the next round.
        assert {("run-1", int(number)) for what, number in said if what == "sent"} <= charged
        assert {("run-1", int(number)) for what, number in said if what == "done"} <= closed
        assert len(closed) > done or lines == 1
        assert len(verified.state.open) <= 1
        done = len(closed)
