"""Invitations: a link carries a fingerprint and a code that never travels, and only its bearer's request is signed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from oracle.mutating import mutations

from palate.errors import PalateError
from palate.privacy.enrolment import EnrolmentFileRefused, EnrolmentRequest
from palate.privacy.invitation import FleetCard, Invitation, Joining
from palate.server.fleet.certificates import make_authority


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    pem = make_authority(tmp_path_factory.mktemp("tls")).certificate.read_text(encoding="ascii")
    return FleetCard.of("films", pem, "11" * 32, "22" * 32, "")


def request():
    key = Ed25519PrivateKey.generate()
    asked = EnrolmentRequest(key.public_key(), ec.generate_private_key(ec.SECP384R1()).public_key())
    return asked, asked.sign(key)


def test_a_link_is_read_as_it_was_written_and_its_code_shows_in_no_print(card):
    made = Invitation.new("fleet.example:9092", card)
    assert Invitation.parse(f" {made.link}\n") == made
    assert made.link.rpartition("#")[2] not in f"{made} {made!r}", "a code is shown only to whoever asks for the link"
    assert made.link.startswith("palate://fleet.example:9092/")
    assert made.code.hex() not in repr(made)


@pytest.mark.parametrize(
    "change",
    [
        lambda link: link[:-1], lambda link: link + "A", lambda link: link.replace("palate:", "https:"),
        lambda link: link.replace("#", "?"), lambda link: link.replace(":9092", ""), lambda link: link[:-1] + "B",
        lambda link: "", lambda link: link.partition("#")[0],
    ],
)  # fmt: skip
def test_a_link_that_was_cut_or_changed_is_none(card, change):
    link = replace(Invitation.new("fleet.example:9092", card), code=bytes(16)).link
    with pytest.raises(EnrolmentFileRefused, match="not a whole invitation"):
        Invitation.parse(change(link))


def test_only_the_card_of_the_link_is_opened(card):
    made = Invitation.new("fleet.example:9092", card)
    assert made.opened(card.to_bytes()) == card
    for other in (replace(card, server_key="33" * 32), replace(card, helper_key="33" * 32), replace(card, fleet="f")):
        with pytest.raises(EnrolmentFileRefused, match="another fleet's card"):
            made.opened(other.to_bytes())


def test_the_code_does_not_travel_and_signs_one_request_for_one_fleet(card):
    made = Invitation.new("fleet.example:9092", card)
    asked, data = request()
    sent = made.join(data)
    assert made.code.hex().encode() not in sent
    assert made.key.private_bytes_raw().hex().encode() not in sent
    joining = Joining.open(sent, card)
    assert (joining.invitation, joining.request.device) == (made.public_key, asked.device)
    with pytest.raises(EnrolmentFileRefused, match="not signed by the code of its invitation"):
        Joining.open(sent, replace(card, fleet="books"))
    _, other = request()
    swapped = Invitation.new("fleet.example:9092", card).join(other)
    stolen = sent.replace(data.replace(b'"', b'\\"'), other.replace(b'"', b'\\"'))
    assert stolen != sent
    with pytest.raises(EnrolmentFileRefused, match="not signed by the code of its invitation"):
        Joining.open(stolen, card)
    assert Joining.open(swapped, card).invitation != made.public_key


@pytest.mark.campaign(short=1_000, long=10_000)
def test_damaged_requests_and_cards_are_refused_by_name(card, repeats):
    made = Invitation.new("fleet.example:9092", card)
    whole = {
        made.join(request()[1]): lambda data: Joining.open(data, card),
        card.to_bytes(): made.opened,
    }
    for data, read in whole.items():
        for changed in mutations(data, repeats):
            with pytest.raises(PalateError):
                read(changed)
