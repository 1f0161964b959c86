"""`palate helper` on the command line: from its card to its answers, with and without a network, and how it refuses."""

from __future__ import annotations

import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from palate.cli.helper import helper_app
from palate.errors import ConfigError, RunError
from palate.privacy.aggregators.admission import Parties
from palate.privacy.aggregators.errors import (
    AlreadyCollected,
    RegisterRefused,
    RequestRefused,
    RoundKeyGone,
    TooFewReports,
)
from palate.privacy.aggregators.messages import Answer
from palate.privacy.enrolment import EnrolmentRequest, spaced
from palate.privacy.ledger.errors import LedgerUnreadable, Rollback
from palate.privacy.ledger.framing import framed
from palate.server.fleet.certificates import check_accepted
from palate.server.helper.admitting import certificates_in
from palate.server.helper.cards import HelperCard, LeaderCard
from palate.server.helper.folder import HelperFolder, opened
from palate.server.helper.link import HelperUnreachable
from palate.server.helper.remote import FileLink, HttpsLink

from .conftest import FLEET, RUN, Leader, key_of, raw

ADDRESS = "127.0.0.1:9443"


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stick").mkdir()

    def run(*arguments, fails=None, typed=None):
        result = CliRunner().invoke(helper_app, [str(each) for each in arguments], input=typed)
        if fails is None:
            assert result.exception is None, result.exception
        else:
            assert isinstance(result.exception, fails), (result.exception, result.output)
            assert result.exception.hint
            return str(result.exception)
        return result

    return run


class Today(Leader):
    """A leader in our time, for a helper that looks at the clock."""

    def __init__(self, **how):
        super().__init__(time=int(time.time()), **how)

    def pinning(self, card: HelperCard) -> None:
        self.parties = Parties(
            leader=raw(self.key), helper=card.key, authority=None if self.together else raw(self.authority)
        )

    def card(self) -> bytes:
        return LeaderCard(fleet=FLEET, parties=self.parties).sign(self.key)


@pytest.fixture
def met(call, tmp_path):
    """A helper and a leader that know each other."""

    def make(*, together=False, address=ADDRESS) -> Today:
        call("init", "--fleet", FLEET, "--address", address, "--anchor", "stick/anchor")
        leader = Today(together=together)
        leader.pinning(HelperCard.open((tmp_path / "helper" / "helper.card").read_bytes()))
        (tmp_path / "leader.card").write_bytes(leader.card())
        call("trust", "leader.card")
        return leader

    return make


def status(call, **how):
    return json.loads(call("status", "--json", **how).stdout)


def test_a_new_helper_keeps_its_secrets_to_itself_and_is_never_overwritten(call, tmp_path):
    shown = call("init", "--fleet", FLEET, "--address", ADDRESS, "--json")
    values, folder = json.loads(shown.stdout), HelperFolder(tmp_path / "helper")
    card = HelperCard.open(folder.card.read_bytes())
    assert (card.key.hex(), card.fingerprint) == (values["key"], values["card_fingerprint"])
    for path in (folder.key, folder.tls.key, folder.tls_root.key, folder.ledger):
        assert path.stat().st_mode & 0o077 == 0, path
    assert "holds a helper already" in call("init", "--fleet", FLEET, "--address", ADDRESS, fails=ConfigError)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--address", "nonsense"], "'nonsense' is not host:port"),
        (["--address", "a:99999"], "is not host:port"),
        (["--address", ADDRESS, "--anchor", "nowhere/anchor"], "the anchor cannot be"),
        (["--address", ADDRESS, "--fleet", "a b"], "is not a name"),
    ],
)
def test_what_cannot_be_a_helper_leaves_nothing_behind(call, options, said, tmp_path):
    assert said in call("init", "--fleet", FLEET, *options, fails=ConfigError)
    call("init", "--fleet", FLEET, "--address", ADDRESS)


def test_a_helper_serves_one_leader_that_names_it(call, met, tmp_path):
    leader = met()
    call("trust", "leader.card")
    other = Today(together=True)
    other.parties = Parties(leader=other.parties.leader, helper=leader.parties.helper)
    cards = {
        "another leader": other.card(),
        "another helper": Today().card(),
        "of fleet 'books'": LeaderCard(fleet="books", parties=leader.parties).sign(leader.key),
        "one key": LeaderCard(
            fleet=FLEET, parties=Parties(leader=leader.parties.helper, helper=leader.parties.helper)
        ).sign(HelperFolder(tmp_path / "helper").anchor(HelperFolder(tmp_path / "helper").load_config()).key),
        "not a leader's card": leader.card()[:-3] + b'0"}',
    }
    for said, data in cards.items():
        (tmp_path / "other.card").write_bytes(data)
        assert said in call("trust", "other.card", fails=ConfigError)


def test_what_is_missing_is_named(call, tmp_path):
    for command in ("status", "start"):
        assert "not the folder of a helper" in call(command, fails=ConfigError)
    call("init", "--fleet", FLEET, "--address", ADDRESS)
    assert "does not know its leader" in call("start", fails=ConfigError)
    assert "cannot be read" in call("trust", "nothing.card", fails=ConfigError)
    assert status(call)["trust"] is None


def test_a_round_without_a_network(call, met, tmp_path):
    leader, folder = met(), tmp_path / "carried"

    def carry():
        (asked,) = folder.glob("*.query")
        call("answer", asked, "-o", asked.with_suffix(".reply"))
        asked.unlink()

    link = FileLink(folder, leader.parties, leader.key)
    call("keys", "--run", RUN, "--rounds", "2", "-o", folder / "films.keys")
    with pytest.raises(HelperUnreachable):
        leader.registered(link)
    carry()
    leader.epoch = 0  # asked again, with the same bytes
    made = leader.round(link, leader.registered(link))
    collection = made.collection()
    with pytest.raises(HelperUnreachable):
        link.answer(collection.freeze())
    carry()
    answered = link.answer(collection.freeze())
    assert np.array_equal(collection.finish(answered.answer).integers, made.signed_sum())
    values = status(call)
    assert (values["rounds_answered"], values["reports_in_sums"], values["keys_open"]) == (1, 6, 1)
    assert (values["devices_registered"], values["anchor_sequence"]) == (6, 1)
    first = call("status").stdout.splitlines()[0]
    assert first.startswith("1 round answered, the last on 20")
    assert first.endswith("; 1 key open; the anchor agrees")
    assert not any(f"{device:016x}" in call("status").output for device in leader.identities)


def test_a_refusal_is_written_for_the_server_and_ends_the_command(call, met, tmp_path):
    leader, folder = met(), tmp_path / "carried"
    with opened(HelperFolder(tmp_path / "helper")) as service:
        made = leader.round(service, leader.registered(service))
        service.answer(made.collection().freeze())
    link, second = FileLink(folder, leader.parties, leader.key), made.collection(100, 101, 102).freeze()
    with pytest.raises(HelperUnreachable):
        link.answer(second)
    (asked,) = folder.glob("*.query")
    assert "was answered to another request" in call(
        "answer", asked, "-o", asked.with_suffix(".reply"), fails=AlreadyCollected
    )
    with pytest.raises(AlreadyCollected):
        link.answer(second)
    (tmp_path / "junk").write_bytes(b"junk")
    call("answer", "junk", "-o", "out", fails=RequestRefused)
    assert not (tmp_path / "out").exists()
    assert TooFewReports.exit_code == 13
    assert "does not end in .keys" in call("keys", "--run", RUN, "--rounds", 1, "-o", "x", fails=ConfigError)


def test_a_helper_admits_whom_its_operator_names(call, met, tmp_path):
    leader = met(together=True)
    certificates = [leader.certificate(device) for device in leader.identities]
    (tmp_path / "one").write_bytes(certificates[0].to_bytes())
    (tmp_path / "more").write_bytes(framed(*(each.to_bytes() for each in certificates[1:])))
    assert "nobody to compare" in call("admit", "one", "-o", "signed", fails=ConfigError)
    assert not (tmp_path / "signed").exists()
    call("admit", "one", "more", "-o", "signed", "--yes")
    signed = certificates_in((tmp_path / "signed").read_bytes())
    assert [each.body for each in signed] == [each.body for each in certificates]
    for each in signed:
        each.verify(leader.parties)
    (tmp_path / "foreign").write_bytes(certificates[0].signed(key_of(55)).to_bytes())
    call("admit", "foreign", "-o", "out", "--yes", fails=RegisterRefused)
    assert status(call)["devices_admitted_here"] == 6


def test_a_device_is_shown_by_the_fingerprint_that_its_owner_sees(call, met, tmp_path):
    leader, key = met(together=True), key_of(4711)
    request = EnrolmentRequest(key.public_key(), ec.generate_private_key(ec.SECP384R1()).public_key())
    (tmp_path / "request.json").write_bytes(request.sign(key))
    leader.identities = {request.device: key, 7: key_of(4712)}
    for name, device, identity in (("right", request.device, key), ("wrong", 7, key), ("other", 7, key_of(4712))):
        certificate = leader.certificate(device, identity_key=raw(identity))
        (tmp_path / name).write_bytes(certificate.to_bytes())
    shown = call("admit", "right", "request.json", "-o", "signed", "--yes").stderr
    assert f"device {request.device:016x}  request {spaced(request.fingerprint)}" in shown
    wrong = call("admit", "request.json", "wrong", "-o", "out", "--yes", fails=RegisterRefused)
    assert f"has the key of device {request.device:016x}" in wrong
    none = call("admit", "other", "request.json", "-o", "out", "--yes", fails=RegisterRefused)
    assert f"no certificate for {request.device:016x}" in none
    assert not (tmp_path / "out").exists()


def test_an_old_ledger_is_shown_and_refused(call, met, tmp_path):
    leader = met()
    shutil.copytree(tmp_path / "helper", tmp_path / "backup")
    with opened(HelperFolder(tmp_path / "helper")) as service:
        made = leader.round(service, leader.registered(service))
        service.answer(made.collection().freeze())
    shutil.rmtree(tmp_path / "helper")
    (tmp_path / "backup").rename(tmp_path / "helper")
    assert "an old ledger was put back" in call("start", fails=Rollback)
    assert "an old ledger was put back" in call("status", fails=Rollback)
    assert "an old ledger was put back" in call("anchor", "--yes", fails=Rollback)
    (tmp_path / "helper" / "ledger" / "helper.sqlite").unlink()
    call("start", fails=LedgerUnreadable)


def test_an_anchor_that_is_lost_is_written_anew_once_somebody_vouches(call, met, tmp_path):
    met()
    (tmp_path / "stick" / "anchor").unlink()
    assert "is missing" in call("start", fails=Rollback)
    assert "is missing" in call("status", fails=Rollback)
    assert "nobody to vouch" in call("anchor", fails=ConfigError)
    call("anchor", "--yes")
    assert status(call)["anchor_sequence"] == 0


def test_a_helper_that_moves_keeps_its_keys(call, met, tmp_path):
    met()
    folder = HelperFolder(tmp_path / "helper")
    before = HelperCard.open(folder.card.read_bytes())
    call("move", "--address", "localhost:7777")
    card = HelperCard.open(folder.card.read_bytes())
    assert (card.address, card.key, card.certificate) == ("localhost:7777", before.key, before.certificate)
    config = folder.load_config()
    assert (config.port, config.anchor) == (7777, str(tmp_path / "stick" / "anchor"))
    check_accepted(folder.tls, folder.tls_root.certificate, "localhost")
    assert "is not host:port" in call("move", "--address", "nonsense", fails=ConfigError)
    with folder.locked():
        assert "uses this folder" in call("move", "--address", "localhost:7778", fails=RunError)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Process:
    """`palate helper start` as a process of its own."""

    def __init__(self, folder):
        self._command = [sys.executable, "-m", "palate.cli.main", "helper", "start", "--folder", str(folder)]
        self.start()

    def start(self):
        self._process = subprocess.Popen(self._command, stderr=subprocess.PIPE, text=True)
        self.said = self._process.stderr.readline()

    def kill(self):
        self._process.kill()
        self._process.communicate(timeout=10)

    def end(self):
        self._process.send_signal(signal.SIGTERM)
        _, self.said = self._process.communicate(timeout=10)
        return self._process.returncode


def test_a_helper_as_a_process_answers_and_stops(call, met, tmp_path):
    leader = met(together=True, address=f"127.0.0.1:{free_port()}")
    folder = HelperFolder(tmp_path / "helper")
    process = Process(folder.root)
    try:
        assert "helper of films on 0.0.0.0:" in process.said
        assert status(call)["running"]
        assert "another palate helper uses this folder" in call("start", fails=RunError)
        with HttpsLink(HelperCard.open(folder.card.read_bytes()), leader.parties, leader.key) as link:
            (tmp_path / "asked").write_bytes(framed(*(each.to_bytes() for each in leader.certificates())))
            call("admit", "asked", "-o", "signed", "--yes")  # beside the helper that runs
            made = leader.round(link, leader.registered(link, certificates_in((tmp_path / "signed").read_bytes())))
            collection = made.collection()
            answered = link.answer(collection.freeze())
        assert np.array_equal(collection.finish(answered.answer).integers, made.signed_sum())
    finally:
        code = process.end()
    assert code == 0
    assert "answer 1: 6 of 6 reports" in process.said
    assert "stopped" in process.said


@pytest.mark.campaign(short=3, long=60)
def test_kill_9_at_any_moment_loses_no_round_and_answers_no_second_set(met, tmp_path, repeats):
    leader = met(address=f"127.0.0.1:{free_port()}")
    folder, rng = HelperFolder(tmp_path / "helper"), random.Random(5)
    card, heads, process = HelperCard.open(folder.card.read_bytes()), [], Process(folder.root)
    try:
        with HttpsLink(card, leader.parties, leader.key, patience_seconds=0.0) as link:
            membership = leader.registered(link)
            for number in range(repeats):
                leader.time = int(time.time())  # a campaign lasts longer than an offer
                made = leader.round(link, membership, number)
                first, second = made.collection(), made.collection(100, 101, 102)
                requests = [first.freeze(), second.freeze()]
                killer = subprocess.Popen(
                    ["/bin/sh", "-c", f"sleep {rng.uniform(0.0, 0.03):.4f}; kill -9 {process._process.pid}"]
                )
                seen = {}
                for _ in range(3):
                    for which, request in enumerate(requests):
                        try:
                            answered = link.answer(request)
                            seen.setdefault(which, set()).add(answered)
                        except (HelperUnreachable, AlreadyCollected):
                            continue
                killer.wait()
                process.kill()
                process.start()
                final = []
                for which, request in enumerate(requests):
                    try:
                        final.append((which, link.answer(request)))
                    except AlreadyCollected:
                        continue
                ((which, answered),) = final  # one set, and no other
                assert all(it == {answered} for it in seen.values())
                assert not seen or set(seen) == {which}
                answer = Answer.from_bytes(answered.answer)
                assert (answer.sequence, answer.previous) == (number + 1, heads[-1] if heads else bytes(32))
                heads.append(answer.content_hash)
                collected = (first, second)[which].finish(answered.answer)
                assert np.array_equal(collected.integers, made.signed_sum(*((), (100, 101, 102))[which]))
                assert list(folder.round_keys.glob("*.key")) == []
    finally:
        assert process.end() == 0


def test_a_restored_helper_has_no_round_key_and_is_refused_by_a_newer_anchor(call, met, tmp_path):
    leader = met(together=True)
    place = HelperFolder(tmp_path / "helper")
    with opened(place) as service:
        made = leader.round(service, leader.registered(service))
        said = call("backup", "helper.backup")
        assert "secret key" in said.stderr
    said = call("restore", "helper.backup", "--folder", "again")
    assert "0 rounds answered" in said.stdout
    assert "agrees; next: palate helper start" in said.stderr
    other = HelperFolder(tmp_path / "again")
    assert place.key.read_bytes() == other.key.read_bytes()
    assert list(place.round_keys.glob("*.key"))
    assert not list(other.round_keys.glob("*.key"))
    request = made.collection().freeze()
    with opened(other) as service, pytest.raises(RoundKeyGone):
        service.answer(request)
    with opened(place) as service:
        service.answer(request)
    call("restore", "helper.backup", "--folder", "old", fails=Rollback)
    assert not (tmp_path / "old").exists()
    (tmp_path / "stick" / "anchor").unlink()
    assert "is not there: bring it" in call("restore", "helper.backup", "--folder", "old").stderr
    call("status", "--folder", "old", fails=Rollback)
    assert "is a backup of a server" not in call("restore", "again/helper.toml", "--folder", "no", fails=RunError)
