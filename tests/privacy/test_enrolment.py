"""Requests and welcomes: one spelling, signed or pinned, and nothing else is read."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from palate.privacy import enrolment
from palate.privacy.aggregators.admission import Certificate
from palate.privacy.enrolment import EnrolmentFileRefused, EnrolmentRequest, Welcome, device_name, device_number
from palate.privacy.ledger import canonical
from palate.privacy.secagg.keys import EnrolmentAuthority

IDENTITY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NODE = ec.derive_private_key(7, ec.SECP384R1())
REQUEST = EnrolmentRequest(IDENTITY.public_key(), NODE.public_key())
SIGNED = REQUEST.sign(IDENTITY)
AUTHORITY = EnrolmentAuthority("films", Ed25519PrivateKey.from_private_bytes(bytes(32)))
CATALOGUE = b"PAR1 of sorts"


def root_pem() -> str:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "t")])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    now = datetime.now(UTC)
    made = made.not_valid_before(now).not_valid_after(now + timedelta(days=1))
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode("ascii")


ADMISSION = Certificate(
    fleet="films",
    device=REQUEST.device,
    identity_key=REQUEST.identity_key.public_bytes_raw(),
    generation=2,
    not_after=1,
).signed(IDENTITY)
WELCOME = Welcome(
    fleet="films",
    address="fleet.example:9092",
    ca_certificate=root_pem(),
    server_key="11" * 32,
    authority_key=AUTHORITY.public_key.public_bytes_raw().hex(),
    authority_is_separate=False,
    certificate=AUTHORITY.enrol(REQUEST.device, REQUEST.identity_key).to_bytes().hex(),
    epsilon=8.0,
    delta=1e-5,
    rounds=3,
    smallest_roster=20,
    tau_thousandths=700,
    gamma_thousandths=100,
    num_items=4,
    catalogue_sha256=sha256(CATALOGUE).hexdigest(),
)


def test_a_request_survives_the_way_and_a_line_end():
    for data in (SIGNED, SIGNED + b"\n", SIGNED + b"\r\n"):
        opened = EnrolmentRequest.open(data)
        assert opened.fingerprint == REQUEST.fingerprint
        assert opened.node_key_pem == REQUEST.node_key_pem
        assert device_name(opened.device) == json.loads(SIGNED)["device"]


def test_a_device_number_follows_from_its_key_alone():
    """By hand, from docs/formats/enrolment.md."""
    tag, key = b"palate/enrolment/device/1", IDENTITY.public_key().public_bytes_raw()
    framed = len(tag).to_bytes(4, "big") + tag + len(key).to_bytes(4, "big") + key
    assert device_name(device_number(IDENTITY.public_key())) == sha256(framed).hexdigest()[:16]


def test_a_request_is_signed_by_the_key_that_it_names():
    with pytest.raises(EnrolmentFileRefused, match="signed by the key that it names"):
        REQUEST.sign(Ed25519PrivateKey.generate())


def changed(**changes):
    values = json.loads(SIGNED) | changes
    return canonical.encode({name: value for name, value in values.items() if value is not None})


P256 = ec.generate_private_key(ec.SECP256R1()).public_key()


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{}", b"[]", b"\xff", SIGNED[:-1], SIGNED + b"x", SIGNED.replace(b":", b": ", 1), b"{" * 70_000,
        changed(format="palate-enrolment-request/2"), changed(signature=None), changed(extra="x"),
        changed(device="0" * 16), changed(identity_key="22" * 32), changed(identity_key="2"), changed(node_key="00"),
        changed(node_key=json.loads(SIGNED)["node_key"].upper()), changed(signature="00" * 64), changed(signature=5),
        changed(
            node_key=P256.public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            ).hex()
        ),
        changed(
            node_key=ec.derive_private_key(8, ec.SECP384R1())
            .public_key()
            .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
            .hex()
        ),
    ],
)  # fmt: skip
def test_any_other_bytes_are_no_request(data):
    with pytest.raises(EnrolmentFileRefused):
        EnrolmentRequest.open(data)


@given(st.integers(0, len(SIGNED) - 1), st.integers(1, 255))
def test_no_byte_of_a_request_can_be_changed(place, flip):
    data = bytearray(SIGNED)
    data[place] ^= flip
    with pytest.raises(EnrolmentFileRefused):
        EnrolmentRequest.open(bytes(data))


def test_a_welcome_survives_the_way_with_its_catalogue():
    welcome, catalogue = Welcome.unpack(WELCOME.pack(CATALOGUE))
    assert (welcome, catalogue) == (WELCOME, CATALOGUE)
    assert (welcome.host, welcome.port) == ("fleet.example", 9092)
    assert WELCOME.pack(CATALOGUE) == WELCOME.pack(CATALOGUE)
    welcome.check_for(IDENTITY.public_key())


def test_a_welcome_to_a_next_key_says_what_earlier_ones_were_charged_in_a_format_of_its_own():
    peers_only = {"authority_is_separate": False, "tau_thousandths": 500}
    plain = replace(WELCOME, helper_key="33" * 32, certificate=ADMISSION.to_bytes().hex(), **peers_only)
    carrying = replace(plain, carried_nano=7)
    for welcome, form in ((WELCOME, 1), (plain, 2), (carrying, 3)):
        values = json.loads(welcome.to_json())
        assert values["format"] == f"palate-welcome/{form}"
        assert values.get("carried_nano") == (7 if form == 3 else None)
        assert Welcome.from_json(welcome.to_json()) == welcome
    for false in ({"format": "palate-welcome/3", "carried_nano": 0}, {"carried_nano": 7}):
        values = json.loads(plain.to_json()) | false
        with pytest.raises(EnrolmentFileRefused):
            Welcome.from_json(json.dumps(values, sort_keys=True, separators=(",", ":")).encode())
    with pytest.raises(EnrolmentFileRefused, match="among peers a person has one key"):
        replace(WELCOME, carried_nano=1)


def test_the_fingerprint_covers_every_field():
    others = [replace(WELCOME, server_key="22" * 32), replace(WELCOME, epsilon=7.0), replace(WELCOME, num_items=5)]
    assert len({WELCOME.fingerprint, *(other.fingerprint for other in others)}) == 4
    assert WELCOME.fingerprint == sha256(WELCOME.to_json()).hexdigest()


def test_a_welcome_for_another_device_or_of_another_authority_is_refused():
    with pytest.raises(EnrolmentFileRefused, match="is for device"):
        WELCOME.check_for(Ed25519PrivateKey.generate().public_key())
    with pytest.raises(EnrolmentFileRefused, match="did not enrol"):
        replace(WELCOME, authority_key="33" * 32).check_for(IDENTITY.public_key())
    with pytest.raises(EnrolmentFileRefused, match="'films'"):
        replace(WELCOME, fleet="books").check_for(IDENTITY.public_key())


@pytest.mark.parametrize(
    "changes",
    [
        {"fleet": ""}, {"fleet": "f" * 101}, {"fleet": "é"}, {"address": "host"}, {"address": "host:0"},
        {"address": "host:70000"}, {"address": "https://host:1"}, {"address": "a b:1"}, {"ca_certificate": "none"},
        {"ca_certificate": "é"}, {"server_key": "11"}, {"server_key": "AA" * 32}, {"authority_is_separate": 1},
        {"certificate": "00"}, {"certificate": "zz"}, {"epsilon": 0.0}, {"epsilon": float("nan")}, {"epsilon": 8},
        {"epsilon": float("inf")}, {"delta": 0.6}, {"rounds": 0}, {"rounds": True}, {"smallest_roster": 1},
        {"tau_thousandths": 499}, {"gamma_thousandths": 500}, {"num_items": 0}, {"catalogue_sha256": ""},
    ],
    ids=lambda changes: str(changes)[:40],
)  # fmt: skip
def test_a_welcome_out_of_bounds_can_be_neither_made_nor_read(changes):
    with pytest.raises(EnrolmentFileRefused, match=next(iter(changes))):
        replace(WELCOME, **changes)
    text = json.dumps(json.loads(WELCOME.to_json()) | changes, sort_keys=True, separators=(",", ":"))
    with pytest.raises(EnrolmentFileRefused):
        Welcome.from_json(text.encode())


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"{}", b"\xff", b"[" * 60_000, b" " * 70_000, WELCOME.to_json() + b" ",
        WELCOME.to_json().replace(b"welcome/1", b"welcome/2"), WELCOME.to_json().replace(b'"rounds":3,', b""),
        WELCOME.to_json().replace(b'"rounds":3,', b'"rounds":3,"rounds":3,'),
        WELCOME.to_json().replace(b'"rounds":3,', b'"rounds":3,"surprise":3,'),
    ],
)  # fmt: skip
def test_any_other_bytes_are_no_welcome(data):
    with pytest.raises(EnrolmentFileRefused):
        Welcome.from_json(data)


def zipped(*members, **options):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", **options) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return packed.getvalue()


GOOD = ("welcome.json", WELCOME.to_json()), ("catalogue.parquet", CATALOGUE)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"PK", WELCOME.pack(CATALOGUE)[:-30], zipped(), zipped(GOOD[0]), zipped(*GOOD, ("more", b"")),
        zipped(GOOD[0], ("../catalogue.parquet", CATALOGUE)), zipped(GOOD[0], ("/catalogue.parquet", CATALOGUE)),
        zipped(GOOD[0], ("catalogue.parquet", b"another")), zipped(("welcome.json", b"{}"), GOOD[1]),
        zipped(("welcome.json", bytes(1 << 20)), GOOD[1], compression=zipfile.ZIP_DEFLATED),
    ],
)  # fmt: skip
def test_any_other_archive_is_refused(data):
    with pytest.raises(EnrolmentFileRefused):
        Welcome.unpack(data)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_a_name_twice_is_refused():
    with pytest.raises(EnrolmentFileRefused, match="nothing else"):
        Welcome.unpack(zipped(*GOOD, GOOD[1]))


def test_a_catalogue_that_unpacks_to_more_than_is_accepted_is_not_read_to_its_end(monkeypatch):
    monkeypatch.setattr(enrolment, "MAX_CATALOGUE_BYTES", 1000)
    bomb = zipped(GOOD[0], ("catalogue.parquet", bytes(1 << 22)), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(EnrolmentFileRefused, match="more than the 1000 bytes"):
        Welcome.unpack(bomb)


@given(st.integers(0, len(WELCOME.pack(CATALOGUE)) - 1), st.integers(1, 255))
def test_a_damaged_archive_is_refused_by_name_or_reads_the_same(place, flip):
    data = bytearray(WELCOME.pack(CATALOGUE))
    data[place] ^= flip
    with contextlib.suppress(EnrolmentFileRefused):
        assert Welcome.unpack(bytes(data)) == (WELCOME, CATALOGUE)  # a time stamp, or the like
