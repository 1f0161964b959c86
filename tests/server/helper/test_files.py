"""A helper without a network: questions and replies are files that somebody carries, and loses."""

from __future__ import annotations

import pytest

from palate.privacy.aggregators.errors import RequestRefused, RoundKeyGone
from palate.privacy.ledger.checkpoint import TreeHead
from palate.privacy.ledger.errors import BadProof
from palate.privacy.ledger.note import Note
from palate.server.helper.link import HelperUnreachable
from palate.server.helper.queries import Query, Question
from palate.server.helper.remote import issued_ahead

from .conftest import FLEET, NOW, RUN, log_of


def test_a_question_that_nobody_has_carried_says_what_to_do(leader, carry, place):
    link = carry(place.open(), wait_seconds=0.0)
    with pytest.raises(HelperUnreachable, match=r"round-key-[0-9a-f]{16}\.query") as refused:
        link.round_key(RUN, 1)
    assert "palate helper answer round-key-" in refused.value.hint


def test_keys_that_were_issued_ahead_need_no_carrying(leader, carry, place, tmp_path):
    service = place.open()
    keys = [(RUN, number, service.round_key(RUN, number)) for number in (1, 2)]
    link = carry(service, wait_seconds=0.0)
    (tmp_path / "carried" / "films.keys").write_bytes(issued_ahead(keys))
    assert [link.round_key(RUN, number) for number in (1, 2)] == [key for *_, key in keys]
    with pytest.raises(HelperUnreachable):
        link.round_key(RUN, 3)


def test_a_reply_that_is_half_copied_is_waited_for_and_a_refusal_may_be_asked_again(leader, carry, place, tmp_path):
    service = place.open(round_key_seconds=10)
    link = carry(service)
    link.round_key(RUN, 1)
    (reply,) = (tmp_path / "carried").glob("*.reply")
    whole = reply.read_bytes()
    reply.write_bytes(whole[:50])
    with pytest.raises(HelperUnreachable, match="no reply"):
        link.round_key(RUN, 1)
    assert reply.exists()
    reply.unlink()
    place.time = NOW + 11
    with pytest.raises(RoundKeyGone):
        link.round_key(RUN, 1)
    assert not reply.exists()


def test_a_cosignature_that_was_lost_on_its_way_is_made_up_for(leader, carry, place, tmp_path):
    service = place.open()
    link, folder = carry(service), tmp_path / "carried"
    tree, checkpoint = log_of(leader, 2)
    link.cosign(checkpoint, tree.consistency_proof)
    kept = (folder / "cosigned").read_bytes()
    tree, checkpoint = log_of(leader, 3)
    link.cosign(checkpoint, tree.consistency_proof)
    for path in folder.iterdir():
        path.unlink()  # what the helper said of three leaves never came
    (folder / "cosigned").write_bytes(kept)
    link.cosign(checkpoint, tree.consistency_proof)  # the same again needs no proof
    (folder / "cosigned").write_bytes(kept)
    tree, checkpoint = log_of(leader, 7)
    with pytest.raises(BadProof):
        link.cosign(checkpoint, tree.consistency_proof)
    cosigned = link.cosign(checkpoint, tree.consistency_proof)
    assert TreeHead.from_text(Note.decode(cosigned).text) == TreeHead.of(FLEET, tree)


def test_a_question_of_somebody_else_is_not_answered(leader, make_leader):
    query = Query.signed(Question.HEAD, [], parties=leader.parties, key=leader.authority)
    with pytest.raises(RequestRefused, match="not signed by this helper's leader"):
        Query.from_file(query.to_file(), leader.parties)
    for data in (b"", b"junk", query.to_file()[:-1], query.to_file() + b"x"):
        with pytest.raises(RequestRefused):
            Query.from_file(data, leader.parties)
