"""Only a fresh signature of an enrolled key passes, and it passes once."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.supercore.protobuf.client import ProtobufRequestContext
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from palate.server.fleet.transport.authentication import Authenticator, Removed, Unauthenticated
from palate.server.fleet.transport.enrolment import Enrolment

P384_ORDER = int("ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16)
T0 = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


class Clock:
    now = T0

    def __call__(self) -> datetime:
        return self.now


class Device:
    def __init__(self) -> None:
        self.private = ec.generate_private_key(ec.SECP384R1())
        self.public = self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def headers(self, at: datetime) -> dict[str, str]:
        text = at.isoformat()
        signature = self.private.sign(text.encode(), ec.ECDSA(hashes.SHA256()))
        return {
            "flwr-public-key": base64.b64encode(self.public).decode(),
            "flwr-timestamp": text,
            "flwr-signature": base64.b64encode(signature).decode(),
        }


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def enrolment(tmp_path) -> Enrolment:
    return Enrolment(tmp_path / "f")


@pytest.fixture
def device(enrolment) -> Device:
    device = Device()
    enrolment.add(device.public)
    return device


@pytest.fixture
def authenticator(enrolment, clock) -> Authenticator:
    return Authenticator(enrolment, clock=clock)


def test_an_enrolled_device_passes(authenticator, enrolment, device):
    assert authenticator.check(device.headers(T0)) == enrolment.find(device.public)


def test_flowers_own_node_passes(enrolment, device):
    # the second source: what flwr's client really sends
    import httpx

    request = httpx.Request("POST", "https://fleet.example/v1/fleet/pull-messages")
    sent = {}
    interceptor = NodeAuthHttpInterceptor(device.private, device.private.public_key())
    context = ProtobufRequestContext(rpc_method="", message=None, request=request)
    interceptor.intercept(context, lambda it: sent.update(it.request.headers))
    assert Authenticator(enrolment).check(sent).public_key == device.public


def test_a_stranger_is_refused(authenticator):
    with pytest.raises(Unauthenticated, match="not enrolled"):
        authenticator.check(Device().headers(T0))


def test_a_stranger_cannot_sign_for_an_enrolled_device(authenticator, device):
    forged = Device().headers(T0) | {"flwr-public-key": base64.b64encode(device.public).decode()}
    with pytest.raises(Unauthenticated, match="signature is not valid"):
        authenticator.check(forged)


def test_a_signature_for_another_time_is_refused(authenticator, device):
    headers = device.headers(T0) | {"flwr-timestamp": (T0 + timedelta(seconds=1)).isoformat()}
    with pytest.raises(Unauthenticated, match="signature is not valid"):
        authenticator.check(headers)


@pytest.mark.parametrize("age", [-3_600, -5, 300, 3_600])
def test_a_time_that_is_off_is_refused(authenticator, device, age):
    with pytest.raises(Unauthenticated, match="are allowed"):
        authenticator.check(device.headers(T0 - timedelta(seconds=age)))


@pytest.mark.parametrize("age", [-4.9, 0, 299])
def test_a_clock_that_is_a_little_off_is_tolerated(authenticator, device, age):
    authenticator.check(device.headers(T0 - timedelta(seconds=age)))


@pytest.mark.parametrize("later", [0, 1, 299])
def test_a_replayed_signature_is_refused_for_as_long_as_its_time_is_good(authenticator, device, clock, later):
    headers = device.headers(T0)
    authenticator.check(headers)
    for step in range(20):  # other requests, so that the memory of signatures turns over
        clock.now = T0 + timedelta(seconds=later * step / 20)
        authenticator.check(device.headers(clock.now))
    clock.now = T0 + timedelta(seconds=later)
    with pytest.raises(Unauthenticated, match="used before"):
        authenticator.check(headers)


def test_the_other_form_of_a_signature_is_a_replay_too(authenticator, device):
    headers = device.headers(T0)
    authenticator.check(headers)
    r, s = decode_dss_signature(base64.b64decode(headers["flwr-signature"]))
    other = base64.b64encode(encode_dss_signature(r, P384_ORDER - s)).decode()
    assert other != headers["flwr-signature"]
    with pytest.raises(Unauthenticated, match="used before"):
        authenticator.check(headers | {"flwr-signature": other})


def test_the_memory_of_signatures_is_bounded_in_time(authenticator, device, clock):
    for minute in range(30):
        clock.now = T0 + timedelta(minutes=minute)
        authenticator.check(device.headers(clock.now))
    assert len(authenticator._seen._young) + len(authenticator._seen._old) <= 14


def test_two_requests_at_the_same_time_both_pass(authenticator, device):
    authenticator.check(device.headers(T0))
    authenticator.check(device.headers(T0))


def test_a_removed_device_is_refused_at_once(authenticator, enrolment, device):
    node = authenticator.check(device.headers(T0))
    enrolment.remove(node.node_id)
    with pytest.raises(Removed):
        authenticator.check(device.headers(T0 + timedelta(seconds=1)))


@pytest.mark.parametrize(
    "change",
    [
        {"flwr-signature": None},
        {"flwr-public-key": None},
        {"flwr-timestamp": None},
        {"flwr-signature": "!"},
        {"flwr-public-key": "A" * 2_000},
        {"flwr-timestamp": "yesterday"},
        {"flwr-timestamp": "2026-05-01T12:00:00"},
        {"flwr-timestamp": "\uff12\uff10\uff12\uff16-05-01T12:00:00+00:00"},
    ],
)
def test_headers_that_cannot_be_read_are_refused(authenticator, device, change):
    headers = {name: text for name, text in (device.headers(T0) | change).items() if text is not None}
    with pytest.raises(Unauthenticated):
        authenticator.check(headers)


def test_only_the_holder_of_a_removed_key_learns_that_it_was_removed(authenticator, enrolment, device):
    enrolment.remove(enrolment.find(device.public).node_id)
    with pytest.raises(Removed):
        authenticator.check(device.headers(T0))
    # whoever merely knows the key is told what any stranger is told
    forged = Device().headers(T0) | {"flwr-public-key": base64.b64encode(device.public).decode()}
    with pytest.raises(Unauthenticated, match="signature is not valid"):
        authenticator.check(forged)
    with pytest.raises(Unauthenticated, match=r"signed .* ago"):
        authenticator.check(device.headers(T0 - timedelta(hours=1)))


def test_a_key_that_was_removed_and_is_enrolled_again_passes(authenticator, enrolment, device):
    enrolment.remove(enrolment.find(device.public).node_id)
    node = enrolment.add(device.public)
    assert authenticator.check(device.headers(T0)) == node
