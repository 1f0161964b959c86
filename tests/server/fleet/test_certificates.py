"""The operator's authority: handshakes succeed with it and with nothing else, and every bad file is named."""

from __future__ import annotations

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from palate.server.fleet.certificates import (
    CertificateError,
    KeyFiles,
    check_accepted,
    check_issued_by,
    issue_server_certificate,
    last_moment,
    make_authority,
    read_node_public_key,
    renew_server_certificate,
    server_tls,
)

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> KeyFiles:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server(authority, tmp_path_factory) -> KeyFiles:
    hosts = ["127.0.0.1", "fleet.example", "::1"]
    return issue_server_certificate(authority, tmp_path_factory.mktemp("server"), hosts=hosts)


def handshake(server: ssl.SSLContext, authority: Path, host: str) -> str | None:
    """Shake hands in memory as OpenSSL does, and return the TLS version."""
    client = ssl.create_default_context(cafile=str(authority))
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    device = client.wrap_bio(down, up, server_hostname=host)
    fleet = server.wrap_bio(up, down, server_side=True)
    for _ in range(4):
        for side in (device, fleet):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return device.version()


@pytest.mark.parametrize("host", ["127.0.0.1", "fleet.example", "::1"])
def test_a_device_that_pins_the_authority_reaches_every_host_of_the_certificate(authority, server, host):
    context = server_tls(server.certificate, server.key)
    assert handshake(context, authority.certificate, host) == "TLSv1.3"


def test_another_host_is_refused(authority, server):
    with pytest.raises(ssl.SSLCertVerificationError, match=r"not valid for 'other\.example'"):
        handshake(server_tls(server.certificate, server.key), authority.certificate, "other.example")


def test_another_authority_is_refused(server, tmp_path):
    other = make_authority(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server_tls(server.certificate, server.key), other.certificate, "127.0.0.1")
    with pytest.raises(CertificateError, match="was not issued by"):
        check_issued_by(server.certificate, other.certificate)


@pytest.mark.parametrize("host", ["127.0.0.1", "fleet.example", "FLEET.example", "::1"])
def test_a_server_is_accepted_under_every_host_of_its_certificate(authority, server, host):
    check_accepted(server, authority.certificate, host)


@pytest.mark.parametrize("host", ["other.example", "127.0.0.2", "sub.fleet.example", "", ".example"])
def test_a_server_is_refused_under_any_other_host(authority, server, host):
    with pytest.raises(CertificateError, match="would refuse"):
        check_accepted(server, authority.certificate, host)


def test_a_server_is_refused_once_the_authority_is_no_longer_valid(tmp_path):
    old = make_authority(tmp_path / "old", days=1, now=NOW - timedelta(days=2))
    key = load_pem_private_key(old.key.read_bytes(), None)
    server = issue_server_certificate(old, tmp_path / "server", hosts=["fleet.example"], now=NOW - timedelta(days=1.5))
    leaf = x509.load_pem_x509_certificate(server.certificate.read_bytes())
    builder = x509.CertificateBuilder(
        leaf.issuer, leaf.subject, leaf.public_key(), leaf.serial_number, NOW - timedelta(hours=1),
        NOW + timedelta(days=9), list(leaf.extensions),
    )  # fmt: skip
    server.certificate.write_bytes(builder.sign(key, hashes.SHA384()).public_bytes(Encoding.PEM))
    with pytest.raises(CertificateError, match=r"would refuse .*expired"):
        check_accepted(server, old.certificate, "fleet.example")


def test_a_server_cannot_vouch_for_another_server(authority, server, tmp_path):
    # a stolen server key must not make further certificates that devices accept
    posing = tmp_path / "posing"
    posing.mkdir()
    KeyFiles(posing, "authority").key.write_bytes(server.key.read_bytes())
    KeyFiles(posing, "authority").key.chmod(0o600)
    KeyFiles(posing, "authority").certificate.write_bytes(server.certificate.read_bytes())
    forged = issue_server_certificate(KeyFiles(posing, "authority"), tmp_path / "forged", hosts=["bank.example"])
    forged.certificate.write_bytes(forged.certificate.read_bytes() + server.certificate.read_bytes())
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server_tls(forged.certificate, forged.key), authority.certificate, "bank.example")


def test_keys_are_readable_by_their_owner_alone(authority, server):
    assert [stat.S_IMODE(path.stat().st_mode) for path in (authority.key, server.key)] == [0o600, 0o600]
    check_issued_by(server.certificate, authority.certificate)


@pytest.mark.parametrize("name", ["authority.key", "authority.crt"])
def test_an_authority_is_never_replaced(tmp_path, name):
    (tmp_path / name).write_text("precious")
    with pytest.raises(CertificateError, match="exists, and is not replaced"):
        make_authority(tmp_path)
    assert (tmp_path / name).read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_server_certificate_is_never_replaced(authority, server):
    before = server.key.read_bytes()
    with pytest.raises(CertificateError, match="exists"):
        issue_server_certificate(authority, server.folder, hosts=["localhost"])
    assert server.key.read_bytes() == before


@pytest.mark.parametrize("days", [-1, 400])
def test_a_certificate_outside_its_time_is_named_with_its_dates(server, days):
    with pytest.raises(CertificateError, match=r"is valid from .* and it is") as caught:
        server_tls(server.certificate, server.key, now=NOW + timedelta(days=days))
    assert "palate server renew-tls" in caught.value.hint


def test_a_renewed_certificate_is_for_the_same_key_and_is_accepted_by_whoever_pins_the_authority(tmp_path):
    authority = make_authority(tmp_path)
    files = issue_server_certificate(authority, tmp_path / "server", hosts=["localhost"], days=2)
    key = files.key.read_bytes()
    last = renew_server_certificate(authority, files, hosts=["localhost", "127.0.0.1"], days=90)
    assert files.key.read_bytes() == key
    assert last == last_moment(files.certificate)
    assert timedelta(days=89) < last - datetime.now(UTC) < timedelta(days=91)
    check_accepted(files, authority.certificate, "127.0.0.1")


def test_a_renewal_that_fails_leaves_the_old_certificate(tmp_path):
    authority = make_authority(tmp_path)
    files = issue_server_certificate(authority, tmp_path / "server", hosts=["localhost"], days=2)
    before = files.certificate.read_bytes()
    authority.key.unlink()
    with pytest.raises(CertificateError, match="authority"):
        renew_server_certificate(authority, files, hosts=["localhost"])
    assert files.certificate.read_bytes() == before


def test_an_expired_authority_issues_nothing(tmp_path):
    old = make_authority(tmp_path, days=30, now=NOW - timedelta(days=60))
    with pytest.raises(CertificateError, match="is valid until"):
        issue_server_certificate(old, tmp_path / "server", hosts=["localhost"])


def test_a_server_certificate_ends_with_its_authority(tmp_path):
    short = make_authority(tmp_path, days=30)
    files = issue_server_certificate(short, tmp_path, hosts=["localhost"], days=300)
    server_tls(files.certificate, files.key, now=NOW + timedelta(days=29))
    with pytest.raises(CertificateError, match="is valid from"):
        server_tls(files.certificate, files.key, now=NOW + timedelta(days=31))


def _missing(files: KeyFiles) -> None:
    files.key.unlink()


def _garbage(files: KeyFiles) -> None:
    files.certificate.write_bytes(b"-----BEGIN CERTIFICATE-----\nnot base64\n")


def _loose(files: KeyFiles) -> None:
    files.key.chmod(0o644)


def _of_another(files: KeyFiles) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    files.key.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _other_kind(files: KeyFiles) -> None:
    other = ed25519.Ed25519PrivateKey.generate()
    files.key.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@pytest.mark.parametrize(
    ("spoil", "message", "hint"),
    [
        (_missing, "server.key cannot be read as a key: No such file", "name another file"),
        (_garbage, "server.crt cannot be read as a certificate: damaged", "make it again"),
        (_loose, "server.key has mode 0644, others can use it", "chmod 600"),
        (_of_another, "is not the key of the certificate", "of one making"),
        (_other_kind, "holds a Ed25519PrivateKey", "make it again"),
    ],
)
def test_a_spoilt_file_gives_its_name_a_reason_and_a_hint(server, tmp_path, spoil, message, hint):
    files = KeyFiles(tmp_path, "server")
    files.certificate.write_bytes(server.certificate.read_bytes())
    files.key.write_bytes(server.key.read_bytes())
    files.key.chmod(0o600)
    spoil(files)
    with pytest.raises(CertificateError, match=message) as caught:
        server_tls(files.certificate, files.key)
    assert hint in caught.value.hint
    assert "PRIVATE KEY" not in str(caught.value)


@pytest.mark.parametrize("host", ["https://f.example", "f.example:9092", "a b", "", "x" * 300, "ümlaut.example"])
def test_a_host_that_is_none_is_refused(authority, tmp_path, host):
    with pytest.raises(CertificateError, match="not a host name"):
        issue_server_certificate(authority, tmp_path, hosts=[host])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{"hosts": []}, {"hosts": ["localhost"], "days": 0}])
def test_senseless_options_are_refused(authority, tmp_path, options):
    with pytest.raises(CertificateError):
        issue_server_certificate(authority, tmp_path, **options)


def test_both_spellings_of_a_node_key_read_the_same():
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    line = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b" phone of A\n"
    assert read_node_public_key(line) == read_node_public_key(b"\n" + pem) == pem


def _private() -> bytes:
    return ec.generate_private_key(ec.SECP384R1()).private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


def _line(key) -> bytes:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_private, "this is a private key"),
        (lambda: _line(ec.generate_private_key(ec.SECP256R1())), "of kind secp256r1, not P-384"),
        (lambda: _line(ed25519.Ed25519PrivateKey.generate()), "not P-384"),
        (lambda: b"ecdsa-sha2-nistp384 AAAA", "cannot be read"),
        (lambda: b"", "cannot be read"),
        (lambda: b"x" * 5_000, "of 5000 bytes, at most 4096"),
    ],
)
def test_what_is_not_a_public_p384_key_is_refused(make, message):
    with pytest.raises(CertificateError, match=message):
        read_node_public_key(make())
