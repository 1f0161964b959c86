"""What leader and helper see, and what mutated bytes do: uniform words, no data, and named refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from oracle.mutating import mutations
from scipy import stats

from palate.privacy.aggregators.admission import Certificate, Register, Revocation
from palate.privacy.aggregators.call import CollectionCall
from palate.privacy.aggregators.messages import Answer, CollectionReceipt, Head, Request, Upload
from palate.privacy.aggregators.offer import CollectionOffer
from palate.privacy.aggregators.planes import unpack
from palate.privacy.aggregators.sealing import RoundKey
from palate.privacy.errors import PrivacyError
from palate.privacy.ledger.checkpoint import TreeHead
from palate.privacy.ledger.errors import BadNote, BadProof, Fork, Rollback
from palate.privacy.ledger.merkle import MerkleTree, leaf_hash
from palate.privacy.ledger.note import Note

NOW = 1_000_000


def test_the_leaders_view_of_a_device_is_uniform_words(make_fleet):
    """A vector of zeros without noise, the worst there is: its masked words pass a chi-squared test of uniformity."""
    fleet = make_fleet(vector_length=40_000, ring_bits=12, sensitivity=8, share_variance=4)
    upload = Upload.from_bytes(fleet.report(100, vector=np.zeros(40_000, dtype=np.uint32)), fleet.suite)
    words = unpack(upload.words, 40_000, 12)
    assert stats.chisquare(np.bincount(words, minlength=1 << 12)).pvalue > 1e-6
    assert abs(np.corrcoef(words[:-1], words[1:])[0, 1]) < 0.03


def test_two_reports_of_the_same_vector_share_nothing(fleet):
    one, two = (Upload.from_bytes(fleet.report(100), fleet.suite) for _ in range(2))
    for name in ("words", "salt"):
        assert getattr(one, name) != getattr(two, name)
    assert one.report.tag != two.report.tag
    assert one.report.sealed != two.report.sealed


def call_of(fleet, leaves=(b"one", b"two", b"three")):
    note = TreeHead.of("films", MerkleTree(leaves)).sign(fleet.leader)
    checkpoint = note.cosigned(fleet.helper_key, "helper.films", time=5).encode()
    return CollectionCall(
        offer=fleet.offer_bytes,
        register=fleet.register.to_bytes(),
        round_key=fleet.round_key.to_bytes(),
        checkpoint=checkpoint,
        leaves=tuple(map(leaf_hash, leaves)),
    )


def check_call(fleet, data):
    call = CollectionCall.from_bytes(data)
    fleet.offered(offer=call.offer, register=call.register, round_key=call.round_key)
    call.log_head("films", fleet.parties, None)


def messages(fleet):
    collection = fleet.collection()
    for device in fleet.identities:
        collection.take(fleet.report(device), now=NOW + 5)
    request = collection.freeze()
    answer = fleet.helper.answer(request, now=NOW + 150)
    collected = collection.finish(answer)
    receipt = collection.receipt(collected, table_hash=bytes(32), log_index=1, head=fleet.helper.head())
    certificate = Certificate(fleet="films", device=100, identity_key=bytes(32), generation=1, not_after=NOW).signed(
        *fleet.admit
    )
    revocation = Revocation(fleet="films", number=2, keys=(3, 9)).signed(*fleet.admit)
    return {
        "call": (call_of(fleet).to_bytes(), lambda data: check_call(fleet, data)),
        "offer": (fleet.offer_bytes, lambda data: CollectionOffer.open(data, fleet.parties.leader)),
        "round key": (fleet.round_key.to_bytes(), lambda data: RoundKey.open(data, fleet.parties.helper)),
        "register": (fleet.register.to_bytes(), lambda data: Register.from_bytes(data).verify(fleet.parties)),
        "certificate": (certificate.to_bytes(), lambda data: Certificate.from_bytes(data).verify(fleet.parties)),
        "revocation": (revocation.to_bytes(), lambda data: Revocation.from_bytes(data).verify(fleet.parties)),
        "report": (fleet.report(100), lambda data: fleet.collection().take(data, now=NOW + 5)),
        "request": (request, lambda data: fleet.helper.answer(data, now=NOW + 150)),
        "answer": (answer, collection.finish),
        "receipt": (receipt, CollectionReceipt.from_bytes),
        "head": (fleet.helper.head().to_bytes(), Head.from_bytes),
    }


NAMES = ("call", "offer", "round key", "register", "certificate", "revocation", "report", "request", "answer")


@pytest.mark.campaign(short=1_000, long=10_000)
@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_message_is_refused_by_name(fleet, name, repeats):
    """Every signed message, as its receiver checks it: a PrivacyError, never another one, and never taken."""
    data, read = messages(fleet)[name]
    for changed in mutations(data, repeats):
        with pytest.raises(PrivacyError):
            read(changed)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("call", CollectionCall),
        ("answer", Answer),
        ("request", Request),
        ("receipt", CollectionReceipt),
        ("head", Head),
    ],
)
def test_every_message_is_written_as_it_was_read(fleet, name, kind):
    data, _ = messages(fleet)[name]
    assert kind.from_bytes(data).to_bytes() == data


def test_a_log_that_went_back_or_changed_is_found_with_the_leaves_of_a_call(fleet):
    seen = call_of(fleet, [b"one", b"two"]).log_head("films", fleet.parties, None)
    longer = call_of(fleet, [b"one", b"two", b"three"])
    assert longer.log_head("films", fleet.parties, seen).size == 3
    for leaves, error in (([b"one"], Rollback), ([b"one", b"2"], Fork), ([b"one", b"2", b"three"], BadProof)):
        with pytest.raises(error):
            call_of(fleet, leaves).log_head("films", fleet.parties, seen)
    with pytest.raises(BadProof, match="leaves are not those"):
        replace(longer, leaves=longer.leaves[:2]).log_head("films", fleet.parties, None)


def test_a_log_needs_the_leaders_signature_and_the_cosignature_of_the_pinned_helper(fleet):
    """Also an empty one: a leader could show it to newcomers, and begin another log for them."""
    for leaves in ((), (b"one", b"two", b"three")):
        call = call_of(fleet, leaves)
        assert call.log_head("films", fleet.parties, None).size == len(leaves)
        bare = Note(Note.decode(call.checkpoint).text, ())
        stranger = Ed25519PrivateKey.generate()
        for note in (
            bare.signed(fleet.leader, "films"),
            bare.cosigned(fleet.helper_key, "helper.films", time=5),
            bare.signed(fleet.leader, "films").cosigned(stranger, "helper.films", time=5),
            bare.signed(fleet.leader, "films").cosigned(fleet.leader, "helper.films", time=5),
            bare.signed(fleet.leader, "films").signed(fleet.helper_key, "helper.films"),
        ):
            with pytest.raises(BadNote):
                replace(call, checkpoint=note.encode()).log_head("films", fleet.parties, None)
