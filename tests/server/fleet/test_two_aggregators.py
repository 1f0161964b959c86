"""A fleet with a helper over TLS on this machine: leader and helper each with a folder, a port and keys."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import closing
from itertools import count

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from palate.client.fleet.identity import NodeKey
from palate.client.fleet.transport.agent import FleetAgent
from palate.client.fleet.transport.pacing import Pace
from palate.errors import ConfigError
from palate.privacy.aggregators.admission import Certificate, key_number
from palate.privacy.aggregators.errors import RegisterRefused
from palate.privacy.enrolment import EnrolmentRequest, Welcome, device_name
from palate.privacy.spoken import spoken
from palate.server.fleet.certifying import make_authority_key, propose
from palate.server.fleet.claims import claim_of, parties_of
from palate.server.fleet.config import load_config
from palate.server.fleet.folder import FleetFolder, read_key
from palate.server.fleet.operation import FINISHED
from palate.server.fleet.registering import RegisterKeeper, revoked_in
from palate.server.fleet.revoking import revoke
from palate.server.fleet.serving import opened
from palate.server.fleet.setup import make_fleet as make_folder
from palate.server.fleet.setup import welcome
from palate.server.fleet.state import FleetState
from palate.server.fleet.summary import rounds_of, status_of
from palate.server.fleet.transport.enrolment import Enrolment
from palate.server.helper.admitting import asked_in
from palate.server.helper.config import checked_config
from palate.server.helper.folder import HelperFolder, make_helper, trust
from palate.server.helper.folder import opened as open_helper
from palate.server.helper.http import HelperServer
from palate.server.helper.status import status_of as helper_status

FAST = Pace(busy_poll_seconds=0.02, idle_poll_seconds=0.1, first_retry_seconds=0.05, max_retry_seconds=0.2)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def helper(tmp_path):
    """A helper's folder, which does not know its leader yet."""
    made = HelperFolder(tmp_path / "helper")
    port = free_port()
    make_helper(made, checked_config({"fleet": "books", "address": f"localhost:{port}", "port": port}))
    return made


@pytest.fixture
def folder(tmp_path, helper):
    """The fleet's folder, made with the helper's card; both know each other."""
    (tmp_path / "items.csv").write_text("item\n" + "".join(f"i{row}\n" for row in range(12)))
    port = free_port()
    given = {
        "name": "books",
        "run": "books-1",
        "listen": {"address": f"localhost:{port}", "bind": "127.0.0.1", "port": port},
        "cohort": {"devices": 4},
        "schedule": {"rounds": 1, "dim": 2},
        "deadlines": {"receipt_seconds": 5.0},
    }
    made = FleetFolder(tmp_path / "fleet")
    make_folder(made, tmp_path / "items.csv", given, helper=helper.card.read_bytes())
    trust(helper, made.leader_card.read_bytes())
    return made


class Enrolling:
    """A device that asks to be taken in."""

    def __init__(self) -> None:
        self.node_key, self.key = NodeKey.make(), Ed25519PrivateKey.generate()
        asked = EnrolmentRequest(self.key.public_key(), load_pem_public_key(self.node_key.public_pem))
        self.request = EnrolmentRequest.open(asked.sign(self.key))

    def admitted(self, folder, helper) -> Certificate:
        with open_helper(helper) as service:
            return service.admit([propose(folder, self.request)])[0]


@pytest.fixture
def people(folder, helper, tmp_path, reporting_kind):
    """Four devices with agents in threads."""
    agents, devices = [], []
    for seed in range(4):
        asking = Enrolling()
        certificate = asking.admitted(folder, helper)
        told, _ = Welcome.unpack(welcome(folder, asking.request, certificate=certificate.to_bytes()).archive)
        told.check_for(asking.key.public_key())
        authority = tmp_path / f"authority{seed}.crt"
        authority.write_text(told.ca_certificate)
        device = reporting_kind(asking.key, told.admission, told.parties, seed)
        device.clock = time.time
        agent = FleetAgent(f"localhost:{told.port}", asking.node_key, device.answer, authority=authority, pace=FAST)
        thread = threading.Thread(target=agent.run, daemon=True)
        thread.start()
        agents.append((agent, thread))
        devices.append(device)
    yield devices
    for agent, thread in agents:
        agent.stop()
        thread.join(10)


def test_leader_helper_and_devices_run_rounds_over_tls(folder, helper, people):
    with open_helper(helper) as service:
        config = helper.load_config()
        with HelperServer(service, helper.tls, host="127.0.0.1", port=config.port), opened(folder) as fleet:
            assert fleet.claim.against == "malicious"
            assert "the leader and the helper would have to work together" in fleet.claim.meaning
            assert fleet.operation.run() == FINISHED
        assert service.book.head()[0] == 2
    found = status_of(folder)
    assert (found["rounds_applied"], found["rounds_planned"], found["helper"]) == (2, 2, True)
    assert found["guarantee"] == {
        "against": "malicious",
        "meaning": claim_of(folder, load_config(folder.config)).meaning,
    }
    colluding = found["if_colluding"]
    assert found["words"]["helper"] == helper_status(helper).values["words"] == people_hear(people, "helper")
    assert found["words"]["server"] == people_hear(people, "leader")
    assert "which no program can check" in found["guarantee"]["meaning"]
    assert "which no program can check" in helper_status(helper).values["trust"]
    assert [each["share"] for each in colluding] == [0.01, 0.05, 0.1]
    assert colluding[0]["epsilon"] == pytest.approx(8.0, abs=1e-3), "no device of 4 is 1%: the plan's own figure"
    assert found["if_colluding_in_words"].startswith("if more of the enrolled devices")
    for each in rounds_of(folder):
        assert (each["status"], each["survivors"], each["failed"]) == ("done", 4, 0)
        assert 350 < each["bytes_up_per_device"] < 600
    assert all(device.table_hash == found["table"] for device in people)
    events = [json.loads(line)["event"] for line in folder.events.read_text().splitlines()]
    assert events.count("helper-answered") == 2


def test_a_round_waits_for_a_helper_that_is_not_there_yet(folder, helper, people):
    waited = []

    def watch(happening):
        waited.append(type(happening).__name__)

    def later():
        with open_helper(helper) as service:
            server = HelperServer(service, helper.tls, host="127.0.0.1", port=helper.load_config().port)
            while "HelperAway" not in waited:
                time.sleep(0.05)
            with server:
                over.wait(60)

    over = threading.Event()
    thread = threading.Thread(target=later)
    thread.start()
    try:
        with opened(folder, watchers=[watch]) as fleet:
            assert fleet.operation.run() == FINISHED
    finally:
        over.set()
        thread.join(10)
    assert [each["survivors"] for each in rounds_of(folder)] == [4, 4]


def test_a_device_that_the_helper_has_not_admitted_is_not_enrolled(folder, helper):
    asking, other = Enrolling(), Enrolling()
    proposed = propose(folder, asking.request)
    for certificate, words in (
        (None, "the helper must admit the device"),
        (proposed.to_bytes(), "1 signatures where 2 must admit"),
        (other.admitted(folder, helper).to_bytes(), "for another device"),
    ):
        with pytest.raises(ConfigError, match=words):
            welcome(folder, asking.request, certificate=certificate)
    assert status_of(folder)["devices_enrolled"] == 0
    first = welcome(folder, asking.request, certificate=asking.admitted(folder, helper).to_bytes())
    again = welcome(folder, asking.request)
    assert (first.archive, again.again) == (again.archive, True)


def test_a_card_of_another_helper_or_of_another_fleet_is_refused(tmp_path, folder, helper):
    other, number = HelperFolder(tmp_path / "other"), count()
    make_helper(other, checked_config({"fleet": "books", "address": "localhost:1"}))
    folder.helper_card.write_bytes(other.card.read_bytes())
    with pytest.raises(ConfigError, match="of another helper than"), opened(folder):
        pass
    given = {"name": "films", "run": "films-1", "listen": {"address": "localhost:1"}}
    for card, words in (
        (helper.card.read_bytes(), "of a helper of fleet 'books', not 'films'"),
        (b"{}", "not a helper's card"),
    ):
        made = FleetFolder(tmp_path / f"no{next(number)}")
        with pytest.raises(ConfigError, match=words):
            make_folder(made, tmp_path / "items.csv", given, helper=card)
        assert not made.config.exists()


def test_a_server_that_holds_the_authoritys_key_admits_alone_whatever_the_keys_say(tmp_path, helper):
    (tmp_path / "items.csv").write_text("item\ni1\ni2\n")
    key = tmp_path / "elsewhere" / "authority.key"
    make_authority_key(key)
    given = {"name": "books", "run": "books-1", "listen": {"address": "localhost:1"}}
    folder, card = FleetFolder(tmp_path / "third"), helper.card.read_bytes()
    make_folder(folder, tmp_path / "items.csv", given, helper=card, authority=key.with_suffix(".pub"))
    config = load_config(folder.config)
    assert claim_of(folder, config).against == "malicious"
    folder.authority_key.write_bytes(key.read_bytes())
    claim = claim_of(folder, config)
    assert claim.against == "semi-honest"
    assert "The leader admits devices alone" in claim.meaning


def test_a_person_with_a_new_key_goes_on_under_the_old_number_and_the_old_key_is_refused(folder, helper):
    """Leader and helper sign generation 2; two live keys of one person would be twice their share."""
    old, new, other = Enrolling(), Enrolling(), Enrolling()
    for each in (old, other):
        welcome(folder, each.request, certificate=each.admitted(folder, helper).to_bytes())
    with pytest.raises(ConfigError, match="has this key already"):
        propose(folder, old.request, replaces=old.request.device)
    with pytest.raises(ConfigError, match="not among those that are enrolled"):
        propose(folder, new.request, replaces=7)
    proposed = propose(folder, new.request, replaces=old.request.device)
    assert (proposed.device, proposed.generation) == (old.request.device, 2)
    (asked,) = asked_in([proposed.to_bytes(), new.request.sign(new.key)])
    assert (asked.certificate, asked.request.device) == (proposed, new.request.device)
    with open_helper(helper) as service:
        (signed,) = service.admit([proposed])
        with pytest.raises(RegisterRefused, match="generation 1 of device"):
            service.admit([propose(folder, old.request)])
    made = welcome(folder, new.request, certificate=signed.to_bytes())
    assert made.device == device_name(old.request.device)
    told, _ = Welcome.unpack(made.archive)
    told.check_for(new.key.public_key())
    assert (told.admission.generation, told.device) == (2, old.request.device)
    assert welcome(folder, new.request).again
    with pytest.raises(ConfigError, match="was removed"):
        welcome(folder, old.request)
    with pytest.raises(ConfigError, match="revoked for good"):
        welcome(folder, old.request, readmit=True)
    with closing(Enrolment(folder.enrolment)) as enrolment, closing(FleetState(folder.state)) as state:
        live = {node.label for node in enrolment.nodes()}
        assert live == {made.device, device_name(other.request.device)}
        assert revoked_in(state) == {key_number(raw_key(old))}
        with open_helper(helper) as service:
            parties = parties_of(folder, load_config(folder.config))
            keeper = RegisterKeeper("books", parties, read_key(folder.server_key), state, enrolment, service)
            now = int(time.time())
            membership = keeper.current(now=now, until=now + 60)
            assert membership.size == 2
            assert membership.entries[old.request.device].identity_key == raw_key(new)
            assert service.book.revoked() == {key_number(raw_key(old))}
            third = Enrolling()
            service.admit([propose(folder, third.request, replaces=old.request.device)])
            found = service.book.membership(membership.register.content_hash)
            assert not found.admits(old.request.device), "the helper knows the newer key before the leader says so"
            assert found.admits(other.request.device)
    assert status_of(folder)["keys_revoked"] == 1
    assert helper_status(helper).values["keys_revoked"] == 1


def test_a_leader_revokes_keys_by_name_and_they_never_come_back(folder, helper):
    lost, stays, new = Enrolling(), Enrolling(), Enrolling()
    for each in (lost, stays):
        welcome(folder, each.request, certificate=each.admitted(folder, helper).to_bytes())
    with pytest.raises(ConfigError, match="no device of this fleet"):
        revoke(folder, [device_name(lost.request.device), "0" * 16])
    assert status_of(folder)["keys_revoked"] == 0
    done = revoke(folder, [device_name(lost.request.device).upper()])
    assert (done.removed, done.left) == ((device_name(lost.request.device),), 1)
    assert revoke(folder, [device_name(lost.request.device)]).before
    found = status_of(folder)
    assert (found["keys_revoked"], found["revocation_at_helper"], found["devices_removed"]) == (1, False, 1)
    with pytest.raises(ConfigError, match="revoked for good"):
        welcome(folder, lost.request, readmit=True)
    proposed = propose(folder, new.request, replaces=lost.request.device)
    with open_helper(helper) as service:
        (signed,) = service.admit([proposed])
    assert welcome(folder, new.request, certificate=signed.to_bytes()).device == device_name(lost.request.device)


def test_a_next_key_carries_what_rounds_before_it_were_charged(folder, helper, people):
    """By the leader's own ledger, and not more when the welcome is asked for again after further rounds."""
    old = people[0].number
    with open_helper(helper) as service:
        port = helper.load_config().port
        with HelperServer(service, helper.tls, host="127.0.0.1", port=port), opened(folder) as fleet:
            assert fleet.operation.run() == FINISHED
    new, stranger = Enrolling(), Enrolling()
    with open_helper(helper) as service:
        (signed,) = service.admit([propose(folder, new.request, replaces=old)])
    first = Welcome.unpack(welcome(folder, new.request, certificate=signed.to_bytes()).archive)[0]
    assert first.carried_nano == sum(people[0].charged.values()) > 0
    with closing(FleetState(folder.state)) as state:
        last = state.rounds()[-1].number
        state.update_round(last, started_at=time.time() + 1)  # as a round that was asked of the new key
    again = Welcome.unpack(welcome(folder, new.request).archive)[0]
    assert again.carried_nano == first.carried_nano - people[0].charged[last]
    plain = stranger.admitted(folder, helper).to_bytes()
    assert Welcome.unpack(welcome(folder, stranger.request, certificate=plain).archive)[0].carried_nano == 0


def people_hear(people, name: str) -> str:
    """Words of the key that a device got with its welcome."""
    return spoken(getattr(people[0].parties, name))


def raw_key(asking: Enrolling) -> bytes:
    return asking.key.public_key().public_bytes_raw()
