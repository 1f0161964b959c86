"""Joining by a link over TLS on loopback: one device a code, at once or after a separate authority has signed."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from palate.cli.authority import authority_app
from palate.cli.client import client_app
from palate.cli.server import server_app
from palate.client.fleet import enrolling, joining
from palate.client.fleet.folder import DeviceFolder
from palate.client.fleet.joining import StillWaiting
from palate.client.fleet.profile import FleetProfile
from palate.client.fleet.transport.link import Refused, ServerNotTrusted
from palate.client.vault import Vault
from palate.errors import ConfigError
from palate.privacy.aggregators.admission import key_number
from palate.privacy.aggregators.claim import trust_of
from palate.privacy.enrolment import EnrolmentFileRefused, EnrolmentRequest
from palate.privacy.invitation import Invitation
from palate.privacy.ledger.framing import framed
from palate.privacy.secagg.keys import EnrolmentAuthority, EnrolmentCertificate
from palate.server.fleet.certifying import certify, make_authority_key, propose
from palate.server.fleet.claims import parties_of
from palate.server.fleet.config import load_config
from palate.server.fleet.folder import FleetFolder, read_key
from palate.server.fleet.inviting import Doorkeeper, Invitations, admit, card_of, invite, requests_of, waiting
from palate.server.fleet.registering import RegisterKeeper
from palate.server.fleet.setup import make_fleet, tls_server
from palate.server.fleet.state import FleetState
from palate.server.fleet.transport.server import FleetServer
from palate.server.helper.config import checked_config
from palate.server.helper.folder import HelperFolder, make_helper, trust
from palate.server.helper.folder import opened as open_helper
from palate.server.helper.link import HelperUnreachable
from palate.server.helper.queries import parts_of


@pytest.fixture(autouse=True)
def _key_files(monkeypatch):
    monkeypatch.setenv("PALATE_KEYRING", "file")


class Running:
    """A fleet whose server takes devices in, without rounds."""

    def __init__(self, path, *, separate=False, helper=None):
        self.path, self.folder = path, FleetFolder(path / "fleet")
        items = path / "items.csv"
        items.write_text("item\n" + "".join(f"i{row}\n" for row in range(12)))
        given = {
            "name": "books",
            "run": "books-1",
            "listen": {"address": "localhost:1", "bind": "127.0.0.1", "port": 0},
            "cohort": {"devices": 4, "smallest": 3, "authority_is_separate": separate},
            "schedule": {"rounds": 1, "dim": 2},
        }
        self.authority = path / "elsewhere" / "authority.key"
        make_authority_key(self.authority)
        public = self.authority.with_suffix(".pub") if separate else None
        make_fleet(self.folder, items, given, authority=public, helper=helper)
        tls = tls_server(self.folder)
        self.server = FleetServer(
            self.folder.nodes, certificate=tls.certificate, key=tls.key, open_calls=Doorkeeper(self.folder).calls
        )

    def links(self, count=1, days=1.0, now=None):
        made = invite(self.folder, count, days=days, now=now)
        return [type(each)(f"localhost:{self.server.port}", each.card_fingerprint, each.code) for each in made]

    def device(self, name):
        folder = DeviceFolder(self.path / name)
        enrolling.begin(folder)
        return folder

    def ask(self, folder, link, **more):
        card = joining.card_of(link)
        return joining.ask(folder, link, card, **{"wait_seconds": 0.0} | more)


@pytest.fixture
def running(tmp_path):
    fleet = Running(tmp_path)
    with fleet.server:
        yield fleet


@pytest.fixture
def separate(tmp_path):
    fleet = Running(tmp_path, separate=True)
    with fleet.server:
        yield fleet


def test_a_link_takes_in_one_device_and_gives_it_the_same_welcome_again(running):
    link, other_link = running.links(2)
    one, other = running.device("one"), running.device("other")
    welcome, catalogue = running.ask(one, link)
    again, _ = running.ask(one, link)
    assert (again, welcome.num_items) == (welcome, 12)
    limits = enrolling.limits_for(welcome, smallest_cohort=3)
    assert enrolling.accept(one, welcome, catalogue, limits).welcome == welcome
    with pytest.raises(EnrolmentFileRefused, match="does not take this invitation"):
        running.ask(other, link)
    running.ask(other, other_link)
    assert len(running.server.enrolment.nodes()) == 2


def test_an_invitation_ends_and_one_of_another_fleet_is_none(running):
    device = running.device("one")
    (ended,) = running.links(days=1.0, now=time.time() - 2 * 86_400)
    with pytest.raises(EnrolmentFileRefused, match="does not take this invitation"):
        running.ask(device, ended)
    (link,) = running.links()
    unknown = type(link)(link.address, link.card_fingerprint, bytes(16))
    with pytest.raises(EnrolmentFileRefused, match="does not take this invitation"):
        running.ask(device, unknown)
    assert not running.server.enrolment.nodes()


def test_a_server_with_other_keys_than_the_links_is_never_asked(running):
    (link,) = running.links()
    with pytest.raises(EnrolmentFileRefused, match="another fleet's card"):
        joining.card_of(type(link)(link.address, bytes(32), link.code))


def test_a_server_that_shows_the_card_without_its_tls_key_gets_no_request(running, tmp_path):
    """Whoever copies the public card must still hold a certificate of its authority."""
    (tmp_path / "false").mkdir()
    other = Running(tmp_path / "false")
    calls = Doorkeeper(running.folder).calls
    tls = tls_server(other.folder)
    (link,) = running.links()
    with FleetServer(other.folder.nodes, certificate=tls.certificate, key=tls.key, open_calls=calls) as false:
        at = type(link)(f"localhost:{false.port}", link.card_fingerprint, link.code)
        card = joining.card_of(at)
        assert card == card_of(running.folder)
        with pytest.raises(ServerNotTrusted):
            joining.ask(running.device("one"), at, card, wait_seconds=0.0)


def test_a_welcome_with_other_keys_than_the_card_is_refused(running):
    (link,) = running.links()
    forged = replace(card_of(running.folder), server_key="33" * 32)
    with pytest.raises(EnrolmentFileRefused, match="server_key differ"):
        joining.ask(running.device("one"), link, forged, wait_seconds=0.0)


def test_the_list_of_invitations_invites_nobody(running):
    """What the server keeps of a code is the public half of its key."""
    links = running.links(3)
    kept = running.folder.invitations.read_bytes()
    for link in links:
        assert link.public_key in kept
        assert link.code not in kept
        assert link.key.private_bytes_raw() not in kept
    with Invitations(running.folder.invitations) as invitations:
        assert invitations.open() == 3


def test_a_device_waits_for_a_separate_authority_and_is_then_taken_in(separate):
    link, other_link = separate.links(2)
    one, other = separate.device("one"), separate.device("other")
    said = []
    for folder, each in ((one, link), (other, other_link)):
        with pytest.raises(StillWaiting):
            separate.ask(folder, each, waits=said.append)
    assert sorted(said) == sorted(each.request.fingerprint for each in waiting(separate.folder))
    assert not separate.server.enrolment.nodes()
    found = waiting(separate.folder)
    assert len(found) == 2
    asked = [type(found[0].request).open(each) for each in parts_of(requests_of(separate.folder, found))]
    stranger = EnrolmentAuthority.generate("books")._key
    false = framed(*(certify(each, "books", stranger).to_bytes() for each in asked))
    with pytest.raises(ConfigError, match="not this fleet's"):
        admit(separate.folder, false)
    signed = [certify(each, "books", read_key(separate.authority)).to_bytes() for each in asked]
    assert admit(separate.folder, signed[0]) == [found[0].device]
    assert admit(separate.folder, framed(*signed)) == [found[1].device]
    assert waiting(separate.folder) == []
    for folder, each in ((one, link), (other, other_link)):
        welcome, _ = separate.ask(folder, each)
        assert welcome.authority_is_separate


def test_a_device_that_waits_is_taken_in_while_it_asks(separate):
    (link,) = separate.links()

    def sleep(_):
        found = waiting(separate.folder)
        admit(separate.folder, certify(found[0].request, "books", read_key(separate.authority)).to_bytes())

    welcome, _ = separate.ask(separate.device("one"), link, wait_seconds=10.0, sleep=sleep)
    assert welcome.fleet == "books"


def test_a_removed_device_is_told_so(running):
    (link,) = running.links()
    device = running.device("one")
    running.ask(device, link)
    (node,) = running.server.enrolment.nodes()
    running.server.enrolment.remove(node.node_id)
    with pytest.raises(Refused) as error:
        running.ask(device, link)
    assert error.value.status == 410


def test_a_damaged_list_is_named(running):
    running.folder.invitations.unlink(missing_ok=True)
    db = sqlite3.connect(running.folder.invitations)
    db.execute("pragma user_version = 9")
    db.close()
    with pytest.raises(Exception, match="has format 9"):
        Invitations(running.folder.invitations)


def test_one_command_makes_the_device_shows_its_limits_and_joins(running, tmp_path, monkeypatch):
    (link,) = running.links()
    monkeypatch.setattr("palate.client.fleet.member.take_part", lambda member, **_: None)
    home = DeviceFolder(tmp_path / "home")

    def join(*more):
        return CliRunner().invoke(client_app, ["join", link.link, "--folder", str(home.home), *more])

    asked = join("--smallest-cohort", "3")
    assert "there is nobody to agree" in str(asked.exception)
    assert "epsilon 8 at delta 1e-05" in asked.output
    assert "rounds of at least 3 devices" in asked.output
    assert "Against that server you are protected if" in asked.output
    with Vault.open(home.vault) as vault:
        assert FleetProfile.load(vault) is None, "what was shown was not agreed to"
    joined = join("--smallest-cohort", "3", "--epsilon", "2", "--yes")
    assert joined.exception is None, joined.output
    assert "joined fleet books" in joined.output
    with Vault.open(home.vault) as vault:
        limits = FleetProfile.require(vault).limits
    assert (limits.epsilon, limits.smallest_cohort) == (2.0, 3)
    again = join("--yes")
    assert "belongs to fleet books already" in again.output
    wrong = CliRunner().invoke(client_app, ["join", link.link[:-3], "--folder", str(home.home)])
    assert "not a whole invitation" in str(wrong.exception)


def test_links_are_made_on_the_command_line_and_never_over_others(running, monkeypatch):
    monkeypatch.chdir(running.path)
    made = CliRunner().invoke(authority_app, ["invite", "--count", "3", "-o", "links.txt", "--json"])
    assert made.exception is None, made.output
    links = (running.path / "links.txt").read_text().split()
    assert len({Invitation.parse(each).public_key for each in links}) == 3
    assert (running.path / "links.txt").stat().st_mode & 0o077 == 0
    again = CliRunner().invoke(authority_app, ["invite", "--count", "1", "-o", "links.txt"])
    assert "may hold links" in str(again.exception)


def test_a_separate_authority_signs_a_file_of_requests(separate, monkeypatch):
    monkeypatch.chdir(separate.path)
    for name, link in zip(("one", "other"), separate.links(2), strict=True):
        with pytest.raises(StillWaiting):
            separate.ask(separate.device(name), link)

    def run(app, *arguments):
        result = CliRunner().invoke(app, list(arguments))
        assert result.exception is None, result.output
        return result.output

    assert "2 devices wait" in run(server_app, "waiting", "-o", "requests")
    key = str(separate.authority)
    signed = run(authority_app, "certify", "requests", "--fleet", "books", "--key", key, "-o", "signed", "--days", "90")
    assert signed.count("request ") == 2
    assert "0 devices wait" in run(server_app, "admit", "signed")
    ends = {EnrolmentCertificate.from_bytes(node.certificate).not_after for node in separate.server.enrolment.nodes()}
    assert all(89 * 86_400 < end - time.time() < 91 * 86_400 for end in ends)


def test_a_third_party_admits_to_a_fleet_with_a_helper_and_signs_its_register(tmp_path, monkeypatch):
    """By files: requests and certificates to the authority, certificates and register back; the helper checks them."""
    place = HelperFolder(tmp_path / "helper")
    make_helper(place, checked_config({"fleet": "books", "address": "localhost:1", "port": 1}))
    fleet = Running(tmp_path, separate=True, helper=place.card.read_bytes())
    trust(place, fleet.folder.leader_card.read_bytes())
    monkeypatch.chdir(tmp_path)
    config = load_config(fleet.folder.config)
    parties = parties_of(fleet.folder, config)
    assert parties.authority == read_key(fleet.authority).public_key().public_bytes_raw()
    now = int(time.time())

    def run(app, *arguments):
        result = CliRunner().invoke(app, list(arguments))
        assert result.exception is None, result.output
        return result.output

    def certify(*more):
        run(server_app, "waiting", "-o", "requests")
        key = ["--key", str(fleet.authority), "--fleet", "books", "--helper"]
        return run(authority_app, "certify", "requests", *key, "-o", "signed", *more)

    with fleet.server, open_helper(place) as service, closing(FleetState(fleet.folder.state)) as state:
        keeper = RegisterKeeper(
            "books", parties, read_key(fleet.folder.server_key), state, fleet.server.enrolment, service
        )
        with pytest.raises(HelperUnreachable, match="has signed no register"):
            keeper.current(now=now, until=now + 60)
        for count, name in enumerate(("one", "other"), start=1):
            (link,) = fleet.links()
            device = fleet.device(name)
            with pytest.raises(StillWaiting):
                fleet.ask(device, link)
            assert f"the register names {count} devices" in certify()
            run(server_app, "admit", "signed")
            welcome, _ = fleet.ask(device, link)
            assert "two of the three" in trust_of(welcome.parties).sentence
            membership = keeper.current(now=now, until=now + 60)
            assert membership.size == count
            assert service.most_registered() == count
            time.sleep(1.0)  # the next register's epoch is a later second
        stale = (tmp_path / "signed").read_bytes()
        fleet.server.enrolment.remove(fleet.server.enrolment.nodes()[0].node_id)
        with pytest.raises(ConfigError, match="not of those who are enrolled"):
            admit(fleet.folder, stale)
        with pytest.raises(ConfigError, match="a third party admits"):
            propose(fleet.folder, EnrolmentRequest.open(parts_of((tmp_path / "requests").read_bytes())[-1]))


def test_a_third_party_replaces_and_revokes_keys_on_the_command_line(tmp_path, monkeypatch):
    """By files, as its operator types it: the next key of a person, then the end of it."""
    place = HelperFolder(tmp_path / "helper")
    make_helper(place, checked_config({"fleet": "books", "address": "localhost:1", "port": 1}))
    fleet = Running(tmp_path, separate=True, helper=place.card.read_bytes())
    trust(place, fleet.folder.leader_card.read_bytes())
    monkeypatch.chdir(tmp_path)
    key = ["--key", str(fleet.authority), "--fleet", "books"]

    def run(app, *arguments, fails=False):
        result = CliRunner().invoke(app, list(arguments))
        assert (result.exception is not None) is fails, result.output
        return result.output + str(result.exception)

    def join(name, *more):
        device, (link,) = fleet.device(name), fleet.links()
        with pytest.raises(StillWaiting):
            fleet.ask(device, link)
        run(server_app, "waiting", "-o", "requests")
        text = run(authority_app, "certify", "requests", "--helper", *key, "-o", "signed", *more)
        run(server_app, "admit", "signed")
        time.sleep(1.0)  # the next register's epoch is a later second
        return text, fleet.ask(device, link)[0]

    with fleet.server, open_helper(place) as service, closing(FleetState(fleet.folder.state)) as state:
        parties, server_key = parties_of(fleet.folder, load_config(fleet.folder.config)), fleet.folder.server_key
        keeper = RegisterKeeper("books", parties, read_key(server_key), state, fleet.server.enrolment, service)
        _, first = join("first")
        name = f"{first.device:016x}"
        text, second = join("second", "--replaces", name)
        assert f"it goes on as device {name}" in text
        assert "the register names 1 devices" in text
        assert (second.device, second.admission.generation) == (first.device, 2)
        now = int(time.time())
        found = keeper.current(now=now, until=now + 60)
        assert found.entries[first.device].identity_key == second.admission.identity_key
        assert service.book.revoked() == {key_number(first.admission.identity_key)}
        run(server_app, "waiting", "-o", "known")
        assert "--known and -o" in run(authority_app, "revoke", name, *key, fails=True)
        assert "no name of a device" in run(authority_app, "revoke", "xyz", fails=True)
        assert "a third party admits" in run(authority_app, "revoke", name, fails=True)
        assert "not among those" in run(
            authority_app, "revoke", "0" * 16, *key, "--known", "known", "-o", "gone", fails=True
        )
        assert f"device {name} is revoked" in run(authority_app, "revoke", name, *key, "--known", "known", "-o", "gone")
        run(server_app, "admit", "gone")
        assert "2 keys revoked, which the helper learns" in " ".join(run(server_app, "status").split())
        assert not fleet.server.enrolment.nodes()
        assert keeper.current(now=now, until=now + 60).size == 0
        assert len(service.book.revoked()) == 2
        _, third = join("third", "--replaces", name)
        assert (third.device, third.admission.generation) == (first.device, 3)
