"""The helper over HTTPS and over files: what a leader gets, and what strangers, liars and forks get."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from hashlib import sha256

import httpx
import numpy as np
import pytest

from palate.privacy.aggregators.admission import Certificate, Register
from palate.privacy.aggregators.call import witness_key
from palate.privacy.aggregators.errors import (
    AlreadyCollected,
    RegisterRefused,
    RequestRefused,
    TooFewReports,
)
from palate.privacy.aggregators.messages import Head, Upload
from palate.privacy.aggregators.sealing import RoundKey, Suite
from palate.privacy.https import Caller, NoAnswer
from palate.privacy.ledger.checkpoint import TreeHead, open_checkpoint
from palate.privacy.ledger.errors import BadNote, BadProof, Fork, Rollback
from palate.privacy.ledger.merkle import MerkleTree
from palate.privacy.ledger.note import NoteKey
from palate.privacy.secagg.errors import MessageError
from palate.server.fleet.certificates import issue_server_certificate, make_authority
from palate.server.fleet.transport.http import HttpLimits
from palate.server.helper.cards import HelperCard
from palate.server.helper.http import LIMITS, HelperServer
from palate.server.helper.link import Countersigned, HelperNotTrusted, HelperUnreachable
from palate.server.helper.queries import Query, Question
from palate.server.helper.remote import ROOT, HttpsLink
from palate.server.helper.replies import REFUSALS, read_reply, reply_to

from .conftest import FLEET, NOW, RUN, key_of, log_of, raw


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    folder = tmp_path_factory.mktemp("helper-pki")
    root = make_authority(folder)
    return root, issue_server_certificate(root, folder, hosts=["127.0.0.1"])


class Served:
    """A helper behind HTTPS, and a leader's link to it."""

    def __init__(self, service, server, card, leader):
        self.service, self.server, self.card, self.leader = service, server, card, leader
        self.link = HttpsLink(card, leader.parties, leader.key, patience_seconds=0.0)

    def post(self, question, body=b"", **headers):
        context = ssl.create_default_context(cadata=self.card.certificate)
        with httpx.Client(base_url=f"https://{self.card.address}", verify=context) as client:
            return client.post(ROOT + question, content=body, headers=headers)

    def headers(self, question, body, signed_for=None):
        query = Query.signed(question, [], parties=self.leader.parties, key=self.leader.key)
        query = replace(query, body=body)
        from palate.server.helper.queries import statement

        digest = sha256(body if signed_for is None else signed_for).digest()
        signature = self.leader.key.sign(statement(question, digest, self.leader.parties))
        return {
            "content-type": "application/octet-stream",
            "palate-body": digest.hex(),
            "palate-signature": signature.hex(),
        }


@pytest.fixture
def serve(leader, place, pki):
    with ExitStack() as stack:

        def run(limits: HttpLimits = LIMITS, service=None) -> Served:
            root, tls = pki
            service = service or place.open()
            server = stack.enter_context(HelperServer(service, tls, host="127.0.0.1", port=0, limits=limits))
            card = HelperCard(
                fleet=FLEET, address=server.address, key=raw(key_of(2)), certificate=root.certificate.read_text()
            )
            served = Served(service, server, card, leader)
            stack.callback(served.link.close)
            return served

        yield run


@pytest.fixture(params=["in process", "https", "files"])
def linked(request, place, serve, carry):
    """The three ways to a helper: its service, and the leader's link."""
    if request.param == "https":
        served = serve()
        return served.service, served.link
    service = place.open()
    return service, service if request.param == "in process" else carry(service)


def test_a_whole_round_by_each_way(leader, linked):
    service, link = linked
    made = leader.round(link, leader.registered(link))
    few, collection = made.collection(100, 101, 102), made.collection()
    for device in (100, 101):  # two of three seeds do not open: too few are left, and nothing is used up
        few._spool[device] = _unsealable(few._spool[device], leader.identities[device])
    with pytest.raises(TooFewReports) as refused:
        link.answer(few.freeze())
    assert (refused.value.valid, refused.value.least) == (1, 3)
    answered = link.answer(collection.freeze())
    assert np.array_equal(collection.finish(answered.answer).integers, made.signed_sum())
    assert Head.from_bytes(answered.head).sequence == 1
    assert link.answer(collection.freeze()) == answered
    assert link.head() == service.head() == answered.head
    with pytest.raises(AlreadyCollected):
        link.answer(made.collection(100, 101, 102).freeze())
    tree, checkpoint = log_of(leader, 3)
    cosigned = link.cosign(checkpoint, tree.consistency_proof)
    keys = NoteKey(FLEET, leader.key.public_key()), witness_key(FLEET, raw(leader.helper))
    assert open_checkpoint(cosigned, keys[0], witnesses=keys[1:], quorum=1) == TreeHead.of(FLEET, tree)


def _unsealable(upload: bytes, identity) -> bytes:
    from palate.privacy.secagg.encoding import to_sign

    read = Upload.from_bytes(upload, Suite.X25519)
    report = replace(read.report, sealed=bytes(80)).signed(lambda body: identity.sign(to_sign(body)))
    return replace(read, report=report).to_bytes()


def test_hybrid_seals_go_the_same_way(leader, place, serve):
    served = serve(service=place.open(suite=Suite.X_WING))
    made = leader.round(served.link, leader.registered(served.link))
    assert made.round_key.key.suite is Suite.X_WING
    collection = made.collection()
    answered = served.link.answer(collection.freeze())
    assert np.array_equal(collection.finish(answered.answer).integers, made.signed_sum())


# The register.


@pytest.mark.parametrize("together", [False, True])
def test_a_register_is_signed_by_all_who_admit(make_leader, make_place, together):
    leader = make_leader(together=together)
    service = make_place(leader).open()
    register = leader.registered(service).register
    assert len(register.signatures) == (2 if together else 1)
    register.verify(leader.parties)


def test_where_both_admit_the_helper_signs_for_nobody_whom_its_operator_did_not_admit(make_leader, make_place):
    leader = make_leader(together=True)
    service = make_place(leader).open()
    alone = [leader.certificate(device) for device in leader.identities]
    register = leader.register(alone)
    with pytest.raises(RegisterRefused, match="1 signatures where 2 must admit"):
        service.countersign(register.to_bytes(), [each.to_bytes() for each in alone])
    leader.certificates(service)
    forged = [each.signed(leader.key, leader.key) for each in alone]
    with pytest.raises(RegisterRefused, match="did not sign"):
        service.countersign(register.to_bytes(), [each.to_bytes() for each in forged])


def test_one_live_key_a_device_and_one_device_a_key(make_leader, make_place):
    leader = make_leader(together=True)
    service = make_place(leader).open()

    def admit(device, **changes):
        (signed,) = service.admit([leader.certificate(device, **changes)])
        return signed

    first = admit(100)
    assert admit(100) == first
    other = raw(key_of(77))
    with pytest.raises(RegisterRefused, match="device 0000000000000064 has another key in generation 1"):
        admit(100, identity_key=other)
    with pytest.raises(RegisterRefused, match="device 0000000000000064 has this key"):
        admit(101, identity_key=first.identity_key)
    with pytest.raises(RegisterRefused, match="ended"):
        admit(101, not_after=NOW - 1)
    newer = admit(100, identity_key=other, generation=2)
    with pytest.raises(RegisterRefused, match="generation 1 of device 0000000000000064 is over"):
        admit(100)
    for listed, fine in ((first, False), (newer, True)):
        others = [admit(device) for device in list(leader.identities)[1:]]
        ask = leader.register([listed, *others]).to_bytes(), [each.to_bytes() for each in (listed, *others)]
        if fine:
            assert Register.from_bytes(service.countersign(*ask).register).size == 6
        else:
            with pytest.raises(RegisterRefused, match="not the newest"):
                service.countersign(*ask)


def test_where_a_third_party_admits_the_helper_signs_for_nobody(leader, place):
    with pytest.raises(RegisterRefused, match="third party"):
        place.open().admit([leader.certificate(100)])


def test_a_register_of_another_list_fleet_or_age_is_refused(leader, place):
    service = place.open()
    certificates = leader.certificates()
    data = [each.to_bytes() for each in certificates]
    with pytest.raises(RegisterRefused, match="is not the register's"):
        service.countersign(leader.register(certificates).to_bytes(), data[1:])
    with pytest.raises(RegisterRefused, match="is for fleet 'books'"):
        service.countersign(leader.register(certificates, fleet="books").to_bytes(), data)
    foreign = leader.certificate(100, fleet="books")
    with pytest.raises(RegisterRefused, match="a certificate is for fleet 'books'"):
        service.countersign(leader.register(certificates).to_bytes(), [foreign.to_bytes(), *data[1:]])
    twice = [*certificates, leader.certificate(100, generation=2)]
    with pytest.raises(RegisterRefused, match="two certificates"):
        service.countersign(leader.register(twice).to_bytes(), [each.to_bytes() for each in twice])
    newest = leader.register(certificates)
    service.countersign(newest.to_bytes(), data)
    service.countersign(newest.to_bytes(), data)
    with pytest.raises(RegisterRefused, match="of epoch 1, 5 was checked before"):
        service.countersign(leader.register(certificates, epoch=1).to_bytes(), data)
    service.most_devices = 5
    with pytest.raises(RegisterRefused, match="6 devices, this helper takes 5"):
        service.countersign(newest.to_bytes(), data)


def test_a_register_that_was_not_checked_answers_no_round(leader, place):
    service = place.open()
    membership = leader.registered(service)
    other = replace(membership, register=leader.register(leader.certificates()))
    made = leader.round(service, other)
    with pytest.raises(RegisterRefused, match="was not checked here"):
        service.answer(made.collection().freeze())


def test_revoked_devices_are_left_out_and_a_revocation_does_not_go_back(leader, place):
    service = place.open()
    made = leader.round(service, leader.registered(service))
    collection = made.collection()
    leader.registered(service, None, 101)
    answered = service.answer(collection.freeze())
    assert set(collection.finish(answered.answer).excluded) == {101}
    certificates = leader.certificates()
    ask = leader.register(certificates).to_bytes(), [each.to_bytes() for each in certificates]
    with pytest.raises(RegisterRefused, match="revocation is number 0"):
        service.countersign(*ask, leader.revocation(0).to_bytes())
    assert service.countersign(*ask).revocation == b""
    with pytest.raises(RegisterRefused, match="takes back 1 keys that were out"):
        service.countersign(b"", [], leader.revocation(2, 102).to_bytes())
    alone = leader.revocation(2, 101, 102).to_bytes()
    assert [service.countersign(b"", [], alone) for _ in range(2)] == [Countersigned(b"", alone)] * 2
    assert service.book.newest_revocation() == leader.revocation(2, 101, 102)


# The witness.


def test_a_log_that_grows_is_cosigned_and_one_that_does_not_is_refused(leader, place):
    service = place.open()
    for leaves in (0, 0, 2, 2, 5):
        tree, checkpoint = log_of(leader, leaves)
        service.cosign(checkpoint, tree.consistency_proof)
    shorter, forked = MerkleTree([b"a", b"b", b"c"]), MerkleTree(f"other {n}".encode() for n in range(5))
    longer = MerkleTree(f"other {n}".encode() for n in range(9))
    for tree, proof, refusal in (
        (MerkleTree(), [], Rollback),  # an empty log is cosigned only before any other
        (shorter, [], Rollback),
        (forked, [], Fork),
        (longer, longer.consistency_proof(5), BadProof),
    ):
        with pytest.raises(refusal):
            service.cosign_with(TreeHead.of(FLEET, tree).sign(leader.key).encode(), proof)
    _, foreign = log_of(leader, 7, signer=leader.authority)
    with pytest.raises(BadNote):
        service.cosign_with(foreign, [])
    service.book.close()
    assert place.open().log_size() == 5  # also after a restart
    assert place.anchor.read().log_size == 5


# Strangers at the port.


def test_only_the_leader_is_answered(serve, leader):
    served = serve()
    assert served.post("head").status_code == 401
    foreign = HttpsLink(served.card, leader.parties, leader.authority, patience_seconds=0.0)
    with foreign, pytest.raises(HelperNotTrusted, match="401"):
        foreign.head()
    other = replace(leader.parties, authority=None)
    with HttpsLink(served.card, other, leader.key, patience_seconds=0.0) as link, pytest.raises(HelperNotTrusted):
        link.head()
    for path in ("", "answers", "../head"):
        assert served.post(path).status_code == 404


def test_a_signature_is_good_for_its_question_and_body_alone(serve):
    served = serve()
    headers = served.headers(Question.HEAD, b"")
    assert served.post("head", **headers).status_code == 200
    assert served.post("log-size", **headers).status_code == 401
    assert served.post("head", b"more", **headers).status_code == 400
    assert served.post("head", **(headers | {"palate-signature": "zz"})).status_code == 401


def test_a_body_longer_than_expected_is_not_read(serve, leader):
    served = serve()
    leader.registered(served.link)
    expected = served.server._body_limit(ROOT + "answer")
    assert expected < 20_000  # six reports of at most 1.5 kB, and an offer
    for question, size in ((Question.ANSWER, expected), (Question.HEAD, 1024), (Question.COSIGN, 1 << 16)):
        body = bytes(size + 1)
        assert served.post(question, body, **served.headers(question, body)).status_code == 413
        assert served.post(question, body[1:], **served.headers(question, body[1:])).status_code == 200


def test_admissions_of_many_devices_are_renewed_in_one_question(make_leader, make_place, serve):
    leader = make_leader(together=True, devices=40)
    service = make_place(leader).open()
    leader.certificates(service)
    served = serve(service=service)
    with HttpsLink(served.card, leader.parties, leader.key, patience_seconds=0.0) as link:
        longer = [leader.certificate(device, not_after=NOW + 90_000) for device in leader.identities]
        renewed = [Certificate.from_bytes(each) for each in link.renew([each.to_bytes() for each in longer])]
    assert [each.body for each in renewed] == [each.body for each in longer]
    for each in renewed:
        each.verify(leader.parties)


def test_a_body_that_drips_is_given_up(serve, leader):
    served = serve(replace(LIMITS, body_timeout_seconds=0.2))
    headers = served.headers(Question.HEAD, b"", signed_for=b"12345")

    def dripping():
        for _ in range(5):
            yield b"1"
            time.sleep(0.2)

    context = ssl.create_default_context(cadata=served.card.certificate)
    with httpx.Client(base_url=f"https://{served.card.address}", verify=context) as client:
        assert client.post(ROOT + "head", content=dripping(), headers=headers).status_code == 408


def test_questions_that_are_none_are_refused_by_name(place, leader):
    service = place.open()
    parties, key = leader.parties, leader.key
    for question, parts in (
        (Question.ANSWER, []),
        (Question.ANSWER, [b"", b""]),
        (Question.REGISTER, [b"one"]),
        (Question.COSIGN, []),
        (Question.ROUND_KEY, [b"\xff", bytes(8)]),
        (Question.HEAD, [b""]),
    ):
        reply, refusal = reply_to(service, Query.signed(question, parts, parties=parties, key=key))
        assert isinstance(refusal, RequestRefused)
        with pytest.raises(RequestRefused):
            read_reply(reply)
    for question in (Question.ANSWER, Question.REGISTER):
        parts = [b"junk"] if question is Question.ANSWER else [b"junk", b""]
        _, refusal = reply_to(service, Query.signed(question, parts, parties=parties, key=key))
        assert isinstance(refusal, MessageError)


def test_every_refusal_keeps_its_name_and_hint(place, leader):
    for name, kind in REFUSALS.items():
        extra = {"valid": 1, "least": 3} if kind is TooFewReports else {}

        class Refusing:
            def head(self, kind=kind, extra=extra):
                raise kind("why", hint="then", **extra)

        reply, _ = reply_to(Refusing(), Query.signed(Question.HEAD, [], parties=leader.parties, key=leader.key))
        with pytest.raises(kind, match="why") as caught:
            read_reply(reply)
        assert type(caught.value).__name__ == name
        assert caught.value.hint == "then"


# The leader's side.


def test_another_certificate_is_refused_and_nothing_is_sent(serve, tmp_path):
    served = serve()
    impostor = make_authority(tmp_path / "impostor")
    card = replace(served.card, certificate=impostor.certificate.read_text())
    with (
        HttpsLink(card, served.leader.parties, served.leader.key) as link,
        pytest.raises(HelperNotTrusted, match="another certificate"),
    ):
        link.round_key(RUN, 1)
    assert list(served.service.book.open_keys()) == []


def test_a_helper_that_is_away_is_asked_again_with_the_same_bytes(serve, leader, monkeypatch):
    served = serve()
    waits, sent = [], []
    link = HttpsLink(served.card, leader.parties, leader.key, patience_seconds=60.0, sleep=waits.append)
    real = Caller.post

    def flaky(self, path, body, headers, **more):
        sent.append(body)
        if len(sent) < 4:
            raise NoAnswer("away")
        return real(self, path, body, headers, **more)

    monkeypatch.setattr(Caller, "post", flaky)
    assert RoundKey.from_bytes(link.round_key(RUN, 1)).index == 1
    assert len(waits) == 3
    assert len(set(sent)) == 1
    assert all(wait <= 2.0 for wait in waits)


def test_a_leader_gives_up_on_a_helper_that_does_not_answer(leader, serve):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    card = replace(serve().card, address=address)
    with (
        HttpsLink(card, leader.parties, leader.key, patience_seconds=0.0) as link,
        pytest.raises(HelperUnreachable, match="does not answer"),
    ):
        link.head()


def test_two_questions_at_once_are_answered_one_after_the_other(leader, serve):
    served = serve()
    made = leader.round(served.link, leader.registered(served.link))
    sets = [made.collection(), made.collection(100, 101, 102)]
    requests, ends = [it.freeze() for it in sets], []

    def ask(request):
        try:
            served.link.answer(request)
            ends.append("answered")
        except AlreadyCollected:
            ends.append("refused")

    threads = [threading.Thread(target=ask, args=(request,)) for request in requests]
    for each in threads:
        each.start()
    for each in threads:
        each.join(20)
    assert sorted(ends) == ["answered", "refused"]
