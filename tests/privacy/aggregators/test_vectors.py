"""The bytes of docs/formats/two-aggregators.md, against vectors that are written down."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from palate.privacy.aggregators.admission import Certificate, Entry, Membership, Parties, Register, Revocation
from palate.privacy.aggregators.call import CollectionCall
from palate.privacy.aggregators.device import Offered, mask_bytes
from palate.privacy.aggregators.messages import Answer, CollectionReceipt, LedgerNotice, Request, Upload, mark_of
from palate.privacy.aggregators.offer import CollectionOffer
from palate.privacy.aggregators.planes import PlaneSum, pack, unpack
from palate.privacy.aggregators.sealing import RoundKey, RoundSecret, Suite
from palate.privacy.errors import PrivacyError
from palate.privacy.ledger.checkpoint import TreeHead, open_checkpoint
from palate.privacy.ledger.merkle import MerkleTree
from palate.privacy.ledger.note import NoteKey

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "two-aggregators.json").read_text("utf-8"))
SUITES = [Suite.X25519, Suite.X_WING]


def of(suite: Suite) -> dict:
    return VECTORS[suite.name.lower()]


def data(suite: Suite, name: str) -> bytes:
    return bytes.fromhex(of(suite)[name])


def parties_of(suite: Suite) -> Parties:
    keys = {name: bytes.fromhex(key) for name, key in of(suite)["parties"].items() if key and name != "hash"}
    return Parties(**keys)


@pytest.mark.parametrize("vector", VECTORS["packing"], ids=lambda vector: f"{vector['bits']} bits")
def test_words_are_packed_as_written_down(vector):
    words = np.array(vector["words"], dtype=np.uint64)
    assert pack(words, vector["bits"]).hex() == vector["bytes"]
    assert unpack(bytes.fromhex(vector["bytes"]), len(words), vector["bits"]).tolist() == vector["words"]


@pytest.mark.parametrize("suite", SUITES)
def test_everything_that_an_offer_names_is_read_and_verified(suite):
    parties = parties_of(suite)
    assert parties.content_hash.hex() == of(suite)["parties"]["hash"]
    offered = Offered.checked(
        data(suite, "offer"),
        data(suite, "register"),
        data(suite, "round_key"),
        parties=parties,
        fleet="films",
        gamma_thousandths=166,
        least_epoch=5,
        now=1_000_001,
    )
    assert offered.offer.context.hex() == of(suite)["context"]
    assert offered.register.content_hash.hex() == of(suite)["register_hash"]
    assert offered.round_key.content_hash.hex() == of(suite)["round_key_hash"]
    entries = {int(number): Entry(bytes.fromhex(key), end) for number, (key, end) in of(suite)["entries"].items()}
    revocation = Revocation.from_bytes(data(suite, "revocation"))
    membership = Membership.checked(offered.register, entries, parties, revocation)
    assert membership.revoked == {101, 105}
    certificate = Certificate.from_bytes(data(suite, "certificate"))
    certificate.verify(parties)
    assert certificate.identity_key == entries[100].identity_key


@pytest.mark.parametrize("suite", SUITES)
def test_a_report_opens_to_its_vector(suite):
    offer = CollectionOffer.open(data(suite, "offer"), parties_of(suite).leader)
    upload = Upload.from_bytes(data(suite, "upload"), suite)
    assert upload.report.tag.hex() == of(suite)["tag"]
    opener = RoundSecret(suite, data(suite, "round_secret")).opener()
    seed = opener.open(upload.report.sealed, context=offer.context, device=100)
    assert seed == data(suite, "seed")
    mask = mask_bytes(seed, offer, 100)
    assert mask == data(suite, "mask")
    words, masks = unpack(upload.words, 11, 20), unpack(mask, 11, 20, strict=False)
    assert ((words - masks) % (1 << 20)).tolist() == of(suite)["vector"]


def test_tag_and_mask_are_what_the_page_says_from_hashes_alone():
    """A second implementation of the two formulas, from docs/formats/two-aggregators.md."""

    def framed(*parts: bytes) -> bytes:
        return b"".join(len(part).to_bytes(4, "big") + part for part in parts)

    vectors = of(Suite.X25519)
    context, device = bytes.fromhex(vectors["context"]), (100).to_bytes(8, "big")
    upload = Upload.from_bytes(data(Suite.X25519, "upload"), Suite.X25519)
    tag = sha256(framed(b"palate two aggregators tag v1", context, device, upload.salt, upload.words)).hexdigest()
    assert tag == vectors["tag"]
    info = framed(b"palate two aggregators mask v1", device)
    key = HKDF(algorithm=SHA256(), length=32, salt=context, info=info).derive(bytes.fromhex(vectors["seed"]))
    stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor().update(bytes(28))
    assert stream.hex() == vectors["mask"]


@pytest.mark.parametrize("suite", SUITES)
def test_the_answer_takes_the_masks_off(suite):
    parties = parties_of(suite)
    answer = Answer.from_bytes(data(suite, "answer"))
    answer.verify(parties.helper, PrivacyError, "not the helper's")
    assert answer.content_hash.hex() == of(suite)["answer_hash"]
    assert answer.request_hash.hex() == of(suite)["request_hash"]
    receipt = CollectionReceipt.from_bytes(data(suite, "receipt"))
    receipt.verify(parties.leader, PrivacyError, "not the leader's")
    assert receipt.head.answer_hash == receipt.answer_hash == answer.content_hash


def test_a_request_has_the_records_of_its_reports():
    request = Request.from_bytes(data(Suite.X25519, "request"))
    request.verify(parties_of(Suite.X25519).leader, PrivacyError, "not the leader's")
    assert request.content_hash.hex() == of(Suite.X25519)["request_hash"]
    assert request.records[0] == Upload.from_bytes(data(Suite.X25519, "upload"), Suite.X25519).report.record
    assert PlaneSum(11, 20).words().tolist() == [0] * 11


@pytest.mark.parametrize("suite", SUITES)
def test_a_call_holds_all_that_a_device_is_asked_with(suite):
    call = CollectionCall.from_bytes(data(suite, "call"))
    assert (call.offer, call.register, call.round_key) == tuple(
        data(suite, name) for name in ("offer", "register", "round_key")
    )
    tree = MerkleTree(leaf.encode() for leaf in of(suite)["leaves"])
    leader = Ed25519PublicKey.from_public_bytes(parties_of(suite).leader)
    assert open_checkpoint(call.checkpoint, NoteKey("films", leader)) == TreeHead.of("films", tree)
    assert call.leaves == tuple(sha256(b"\0" + leaf.encode()).digest() for leaf in of(suite)["leaves"])
    assert call.to_bytes() == data(suite, "call")


@pytest.mark.parametrize("suite", SUITES)
def test_a_report_has_marks_and_a_notice_shows_it(suite):
    report = Upload.from_bytes(data(suite, "upload"), suite).report
    marks = [report.chain[at : at + 8] for at in range(0, 64, 8)]
    assert marks == [bytes([n]) * 8 for n in (1, 3, 2)] + [bytes(8)] * 5
    assert report.follows(bytes([3]) * 8)
    assert report.follows(mark_of(report.ledger_head))
    assert not report.follows(bytes([4]) * 8)
    notice = LedgerNotice.from_bytes(data(suite, "notice"))
    notice.verify(parties_of(suite).leader, PrivacyError, "not the leader's")
    assert (notice.fleet, notice.report) == ("films", report.to_bytes())


READERS = {
    "call": CollectionCall.from_bytes,
    "certificate": Certificate.from_bytes,
    "register": Register.from_bytes,
    "revocation": Revocation.from_bytes,
    "round_key": lambda raw: RoundKey.open(raw, parties_of(Suite.X25519).helper),
    "offer": lambda raw: CollectionOffer.open(raw, parties_of(Suite.X25519).leader),
    "upload": lambda raw: Upload.from_bytes(raw, Suite.X25519),
    "request": Request.from_bytes,
    "answer": Answer.from_bytes,
    "receipt": CollectionReceipt.from_bytes,
    "notice": LedgerNotice.from_bytes,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("change", ["cut", "longer", "version", "kind"])
def test_another_spelling_is_refused(name, change):
    raw = data(Suite.X25519, name)
    changed = {
        "cut": raw[:-1],
        "longer": raw + b"\0",
        "version": raw[:4] + b"\2" + raw[5:],
        "kind": raw[:5] + bytes([raw[5] ^ 1]) + raw[6:],
    }[change]
    with pytest.raises(PrivacyError):
        READERS[name](changed)
