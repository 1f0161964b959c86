"""A device fetches a longer admission by itself, and takes none but its own, signed by all who admit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.client.fleet.member import renew_admission
from palate.client.fleet.profile import FleetProfile
from palate.privacy.aggregators.admission import ADMISSION_SECONDS, RENEW_SECONDS
from palate.server.fleet.certificates import issue_server_certificate, make_authority
from palate.server.fleet.transport.server import FleetServer


@pytest.fixture
def served(reporting, tmp_path):
    """The first device of a fleet, its server, and where that one keeps the device's certificate."""
    authority = make_authority(tmp_path / "tls")
    files = issue_server_certificate(authority, tmp_path / "tls", hosts=["127.0.0.1"])
    member = reporting.devices[0].member
    member.folder.authority.write_bytes(authority.certificate.read_bytes())
    with FleetServer(tmp_path / "nodes", certificate=files.certificate, key=files.key) as server:
        own = member.profile.welcome.admission
        server.enrolment.add(member.keys.request.node_key_pem, label="device", certificate=own.to_bytes())
        yield reporting, member, server


def offered(served, signers=None, **changes):
    """Let the server have another certificate for the device, and the device ask for it."""
    fleet, member, server = served
    made = replace(member.profile.welcome.admission, signatures=(), **changes)
    server.enrolment.renew({"device": made.signed(*(signers or fleet.admit)).to_bytes()})
    return renew_admission(member, server.address, now=fleet.now)


def test_a_longer_admission_is_fetched_kept_and_used_from_then_on(served):
    fleet, member, _ = served
    end = fleet.now + ADMISSION_SECONDS
    renewed = offered(served, not_after=end)
    assert renewed.profile.welcome.admission.not_after == end
    assert FleetProfile.require(member.vault) == renewed.profile
    renewed.profile.welcome.check_for(member.keys.signing.public_key())


def test_a_device_asks_for_nothing_while_its_admission_lasts(served, monkeypatch):
    _, member, server = served
    early = member.profile.welcome.admission.not_after - RENEW_SECONDS
    monkeypatch.setattr("palate.client.fleet.transport.link.Link.call", lambda *_: 1 / 0)
    assert renew_admission(member, server.address, now=early) is member


@pytest.mark.parametrize("change", ["device", "key", "shorter", "signer", "generation"])
def test_another_admission_is_not_taken(served, change):
    fleet, member, _ = served
    end = {"not_after": fleet.now + ADMISSION_SECONDS}
    stranger = Ed25519PrivateKey.generate()
    changes = {
        "device": {**end, "device": 9},
        "key": {**end, "identity_key": stranger.public_key().public_bytes_raw()},
        "shorter": {"not_after": fleet.now + 5},
        "signer": end,
        "generation": {**end, "generation": 2},
    }[change]
    assert offered(served, [stranger] if change == "signer" else None, **changes) is member
    assert FleetProfile.require(member.vault) == member.profile


def test_a_server_that_is_away_changes_nothing(served):
    fleet, member, server = served
    address = server.address
    server.stop()
    assert renew_admission(member, address, now=fleet.now) is member
