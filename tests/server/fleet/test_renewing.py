"""Admissions renew themselves: leader and helper sign longer ones, and a device takes only its own."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.privacy.aggregators.admission import ADMISSION_SECONDS, RENEW_SECONDS, Certificate, key_number
from palate.privacy.aggregators.errors import RegisterRefused
from palate.privacy.aggregators.registering import LiveKey, check_renewal
from palate.server.fleet.transport.enrolment import Enrolment

DAY = 86_400
NOW = 1_800_000_000


def certificate(**changes) -> Certificate:
    values = {"fleet": "f", "device": 7, "identity_key": b"k" * 32, "generation": 1, "not_after": NOW + 100 * DAY}
    return Certificate(**values | changes)


LIVE = LiveKey(1, b"k" * 32)


def test_a_renewal_lengthens_what_was_admitted_and_nothing_else():
    check_renewal(certificate(not_after=NOW + ADMISSION_SECONDS), live=LIVE, revoked=(), now=NOW)
    for changed, live, revoked, words in (
        ({}, None, (), "was not admitted here"),
        ({"identity_key": b"x" * 32}, LIVE, (), "was not admitted here"),
        ({"generation": 2}, LIVE, (), "was not admitted here"),
        ({}, LIVE, (key_number(LIVE.identity_key),), "is revoked"),
        ({"not_after": NOW + ADMISSION_SECONDS + 2 * DAY}, LIVE, (), "at most"),
        ({"not_after": NOW - 1}, LIVE, (), "at most"),
    ):
        with pytest.raises(RegisterRefused, match=words):
            check_renewal(certificate(**changed), live=live, revoked=revoked, now=NOW)


def certificates(fleet):
    with closing(Enrolment(fleet.folder / "nodes.sqlite")) as enrolment:
        return [Certificate.from_bytes(node.certificate) for node in enrolment.nodes()]


def test_the_helper_renews_only_what_its_operator_has_admitted(make_fleet):
    fleet = make_fleet(helper=True)
    now = int(fleet.helper.clock())
    known = certificates(fleet)[0]
    longer = replace(known, not_after=now + ADMISSION_SECONDS, signatures=()).signed(fleet.keys[0])
    (signed,) = fleet.helper.renew([longer.to_bytes()])
    Certificate.from_bytes(signed).verify(fleet.parties)
    assert fleet.helper.renew([longer.to_bytes()]) == [signed]
    stranger = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    invented = replace(longer, device=99, identity_key=stranger).signed(fleet.keys[0])
    with pytest.raises(RegisterRefused, match="was not admitted here"):
        fleet.helper.renew([longer.to_bytes(), invented.to_bytes()])
    unsigned = replace(longer, signatures=()).signed(fleet.keys[1])
    with pytest.raises(RegisterRefused):
        fleet.helper.renew([unsigned.to_bytes()])


def test_admissions_near_their_end_are_renewed_with_the_next_register(make_fleet):
    fleet = make_fleet(helper=True)
    now = int(fleet.helper.clock())
    before = certificates(fleet)
    assert all(each.not_after - now < RENEW_SECONDS for each in before)
    fleet.operation().run()
    after = certificates(fleet)
    assert all(each.not_after - now > ADMISSION_SECONDS - 7 * DAY for each in after)
    assert [(each.device, each.identity_key) for each in after] == [(each.device, each.identity_key) for each in before]
    assert [round_.status for round_ in fleet.state.rounds()] == ["done"] * len(fleet.state.rounds())
