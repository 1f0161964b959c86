"""One round on a device: whatever happens in between, one charge, one set of bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from palate.privacy.ledger.body import WITHHELD, Outcome, hash_text
from palate.privacy.ledger.errors import BudgetExceeded, RoundRefused
from palate.privacy.ledger.rounds import RoundKeeper
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


@pytest.fixture
def keeper(book):
    return RoundKeeper(book, "device")


def test_a_round_is_charged_before_and_closed_after(book, keeper, intent):
    assert keeper.begin(intent(1)) is None
    assert book.state("device").spent_nano == CHARGE
    keeper.persist("run-1", 1, b"masked")
    outcome = keeper.finish("run-1", 1, receipt=b"receipt")
    assert (outcome.payload, outcome.receipt) == (hash_text(b"masked"), hash_text(b"receipt"))
    assert not book.state("device").open


def test_a_retry_gets_the_identical_bytes(path, signer, keeper, intent):
    keeper.begin(intent(1))
    keeper.persist("run-1", 1, b"masked")
    with LedgerBook(path, signer) as after_a_crash:
        assert RoundKeeper(after_a_crash, "device").begin(intent(1)) == b"masked"
    assert keeper.begin(intent(1)) == b"masked"


def test_other_bytes_for_a_round_are_refused(keeper, intent):
    keeper.begin(intent(1))
    keeper.persist("run-1", 1, b"masked")
    keeper.persist("run-1", 1, b"masked")
    with pytest.raises(RoundRefused, match="other bytes"):
        keeper.persist("run-1", 1, b"masked anew")
    assert keeper.begin(intent(1)) == b"masked"


def test_a_retry_with_other_parameters_is_refused(keeper, intent):
    keeper.begin(intent(1))
    with pytest.raises(RoundRefused, match="other parameters"):
        keeper.begin(intent(1, n1=101))


def test_a_crash_before_the_bytes_costs_the_round_once(book, path, signer, keeper, intent):
    keeper.begin(intent(1))
    with LedgerBook(path, signer) as after_a_crash:
        assert RoundKeeper(after_a_crash, "device").begin(intent(1)) is None
        assert after_a_crash.state("device").spent_nano == CHARGE


def test_a_closed_round_stays_closed(keeper, intent):
    keeper.begin(intent(1))
    keeper.persist("run-1", 1, b"masked")
    keeper.finish("run-1", 1)
    for again in (
        lambda: keeper.begin(intent(1)),
        lambda: keeper.persist("run-1", 1, b"masked"),
        lambda: keeper.finish("run-1", 1),
        lambda: keeper.write_off("run-1", 1),
    ):
        with pytest.raises(RoundRefused):
            again()


def test_nothing_is_kept_or_sent_without_a_charge(keeper):
    for early in (
        lambda: keeper.persist("run-1", 1, b"masked"),
        lambda: keeper.finish("run-1", 1),
        lambda: keeper.write_off("run-1", 1),
    ):
        with pytest.raises(RoundRefused, match="was not charged"):
            early()


def test_a_round_without_bytes_cannot_be_finished(keeper, intent):
    keeper.begin(intent(1))
    with pytest.raises(RoundRefused, match="no bytes"):
        keeper.finish("run-1", 1)


def test_the_charge_of_a_withheld_round_comes_back_and_of_one_whose_bytes_may_have_left_never(book, keeper, intent):
    keeper.begin(intent(1))
    book.append("device", Outcome(run="run-1", round=1, status=WITHHELD, payload="", receipt=""))
    assert book.state("device").spent_nano == 0
    keeper.begin(intent(2))
    keeper.persist("run-1", 2, b"masked")
    with pytest.raises(RoundRefused, match="its charge stands"):
        keeper.write_off("run-1", 2)
    assert book.state("device").spent_nano == CHARGE


def test_a_round_that_is_written_off_is_closed_and_stays_charged(book, path, signer, keeper, intent):
    keeper.begin(intent(1))
    outcome = keeper.write_off("run-1", 1)
    assert (outcome.status, outcome.payload, outcome.receipt) == ("written-off", "", "")
    with pytest.raises(RoundRefused, match="charged already"):
        keeper.begin(intent(1))
    verified = verify_ledger(path, "device", signer.public_key(), allow_open=False)
    assert verified.state.spent_nano == book.state("device").spent_nano == CHARGE


def test_a_round_with_bytes_is_not_written_off(keeper, intent):
    keeper.begin(intent(1))
    keeper.persist("run-1", 1, b"masked")
    with pytest.raises(RoundRefused, match="its charge stands"):
        keeper.write_off("run-1", 1)
    assert keeper.begin(intent(1)) == b"masked"


def test_the_devices_budget_holds_whatever_the_server_asks(book, keeper, intent):
    for number in range(4):
        keeper.begin(intent(number))
    with pytest.raises(BudgetExceeded):
        keeper.begin(intent(4))
    assert book.state("device").spent_nano == 4 * CHARGE


WORKER = """
import sys
from pathlib import Path
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from palate.privacy.ledger.body import Intent, Policy, hash_text
from palate.privacy.ledger.rounds import RoundKeeper
from palate.privacy.ledger.store import LedgerBook

book = LedgerBook(Path(sys.argv[1]), Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
if not book.names:
    book.create(["device"], Policy(unit="user", adjacency="zero-out", delta="1e-5", budget_nano=10**15, n_min=1))
keeper = RoundKeeper(book, "device")
number = 0
while True:
    number += 1
    if ("run-1", number) in book.state("device").closed:
        continue
    intent = Intent(run="run-1", round=number, mechanism="user", unit="user", adjacency="zero-out", clip_int=4096,
        sum_var_int=8192**2, m_honest=60, n1=100, sampling="none-claimed", model=hash_text(b""),
        transcript=hash_text(b""))
    if keeper.begin(intent) is None:
        keeper.persist("run-1", number, b"masked %d" % number * 1000)
    print("sent", number, flush=True)
    keeper.finish("run-1", number)
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
