"""Every decoder of what a stranger may send, fed with damaged messages: it refuses, or reads what is written so.

10,000 mutations each. A decoder verifies no signature, so that takes seconds; what does is fuzzed with its part.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from oracle.mutating import mutations

from palate.errors import PalateError
from palate.privacy import aggregators
from palate.privacy.aggregators.admission import Certificate, Register, Revocation
from palate.privacy.aggregators.call import CollectionCall
from palate.privacy.aggregators.messages import Answer, CollectionReceipt, Head, LedgerNotice, Report, Request, Upload
from palate.privacy.aggregators.offer import CollectionOffer
from palate.privacy.aggregators.sealing import RoundKey, Suite
from palate.privacy.enrolment import EnrolmentRequest, Welcome
from palate.privacy.invitation import FleetCard, Invitation
from palate.privacy.ledger.checkpoint import TreeHead
from palate.privacy.ledger.framing import framed
from palate.privacy.ledger.note import Note
from palate.privacy.secagg.encoding import SIGNATURE_SIZE, Kind, Reader, read_fields
from palate.server.helper.cards import HelperCard, LeaderCard
from palate.server.helper.queries import parts_of
from palate.server.helper.remote import issued_ahead
from palate.server.helper.replies import read_reply

VECTORS = Path(__file__).parents[1] / "vectors"
ROUND = json.loads((VECTORS / "two-aggregators.json").read_text("utf-8"))
HELPER = json.loads((VECTORS / "helper.json").read_text("utf-8"))
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))


def vector(name: str) -> bytes:
    return bytes.fromhex(ROUND["x25519"][name])


def root_certificate() -> x509.Certificate:
    key, name = ec.derive_private_key(7, ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "t")])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    now = datetime.now(UTC)
    return made.not_valid_before(now).not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())


def offer(data: bytes) -> CollectionOffer:
    """What `CollectionOffer.open` reads before it verifies the signature."""
    reader = Reader(data, Kind.COLLECTION_OFFER)
    values = read_fields(CollectionOffer, reader)
    reader.end()
    return CollectionOffer(**values)


def checkpoint(data: bytes) -> Note:
    note = Note.decode(data)
    TreeHead.from_text(note.text)
    return note


Decoder = tuple[bytes, Callable[[bytes], Any], Callable[[Any], bytes]]


def of(kind: Any, data: bytes) -> Decoder:
    return data, kind.from_bytes, lambda found: found.to_bytes()


UPLOAD = Upload.from_bytes(vector("upload"), Suite.X25519)
PEM = root_certificate().public_bytes(Encoding.PEM).decode("ascii")
WELCOME = Welcome(
    fleet="films",
    address="fleet.example:9092",
    ca_certificate=PEM,
    server_key="11" * 32,
    helper_key="22" * 32,
    authority_key="",
    certificate=vector("certificate").hex(),
    epsilon=8.0,
    delta=1e-5,
    rounds=3,
    smallest_roster=20,
    gamma_thousandths=100,
    num_items=4,
    catalogue_sha256="33" * 32,
    carried_nano=5,
)
WRITTEN: dict[str, Decoder] = {
    "Certificate": of(Certificate, vector("certificate")),
    "Register": of(Register, vector("register")),
    "Revocation": of(Revocation, vector("revocation")),
    "RoundKey": of(RoundKey, vector("round_key")),
    "CollectionOffer": (vector("offer")[:-SIGNATURE_SIZE], offer, lambda found: found.body),
    "CollectionCall": of(CollectionCall, vector("call")),
    "Upload": (vector("upload"), lambda data: Upload.from_bytes(data, Suite.X25519), lambda found: found.to_bytes()),
    "Report": of(Report, UPLOAD.report.to_bytes()),
    "Request": of(Request, vector("request")),
    "Answer": of(Answer, vector("answer")),
    "CollectionReceipt": of(CollectionReceipt, vector("receipt")),
    "LedgerNotice": of(LedgerNotice, vector("notice")),
    "Head": of(Head, CollectionReceipt.from_bytes(vector("receipt")).head.to_bytes()),
    "FleetCard": of(FleetCard, FleetCard.of("films", PEM, "11" * 32, "22" * 32, "").to_bytes()),
    "Welcome": (WELCOME.to_json(), Welcome.from_json, lambda found: found.to_json()),
    "checkpoint": (TreeHead("films", 3, bytes(32)).sign(KEY).encode(), checkpoint, lambda found: found.encode()),
    "parts of a question": (framed(b"one", b"", b"three" * 9), parts_of, lambda found: framed(*found)),
}
READ: dict[str, tuple[bytes, Callable[[bytes], Any]]] = {
    "request to enrol": (
        EnrolmentRequest(KEY.public_key(), ec.derive_private_key(7, ec.SECP384R1()).public_key()).sign(KEY),
        EnrolmentRequest.open,
    ),
    "reply": (bytes.fromhex(HELPER["done"]), read_reply),
    "helper's card": (HELPER["helper_card"].encode(), HelperCard.open),
    "leader's card": (HELPER["leader_card"].encode(), LeaderCard.open),
    "keys issued ahead": (issued_ahead([("films-1", 7, b"key")]), lambda data: list(map(parts_of, parts_of(data)))),
    "link": (
        Invitation("fleet.example:9092", bytes(range(32)), bytes(16)).link.encode(),
        lambda data: Invitation.parse(data.decode("utf-8", "replace")),
    ),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_damaged_message_is_refused_by_name_or_is_another_in_its_one_spelling(name):
    data, read, write = WRITTEN[name]
    assert write(read(data)) == data
    for changed in mutations(data, 10_000):
        try:
            found = read(changed)
        except PalateError:
            continue
        assert write(found) == changed


@pytest.mark.parametrize("name", READ)
def test_a_damaged_file_is_refused_by_name(name):
    data, read = READ[name]
    read(data)
    refused = 0
    for changed in mutations(data, 10_000):
        try:
            read(changed)
        except PalateError:
            refused += 1
    assert refused > 2_000


def test_no_message_of_the_protocol_is_forgotten():
    """Every message of privacy/aggregators that is read from bytes has its fuzz here."""
    found = set()
    for module in pkgutil.iter_modules(aggregators.__path__, f"{aggregators.__name__}."):
        for name, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if kind.__module__.startswith(aggregators.__name__) and isinstance(getattr(kind, "kind", None), Kind):
                found.add(name)
    assert found <= set(WRITTEN), found - set(WRITTEN)
