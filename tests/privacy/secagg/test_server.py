"""What a server refuses of a device, and that a refusal leaves the round as it was."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

from palate.privacy.secagg.errors import (
    AdvertRefused,
    ConsistencyRefused,
    EnrolmentRefused,
    Equivocation,
    MaskedRefused,
    MessageError,
    QuorumLost,
    ReceiptRefused,
    ReconstructionFailed,
    RevealRefused,
    SharesRefused,
    StageClosed,
)
from palate.privacy.secagg.keys import DeviceIdentity, EnrolmentAuthority
from palate.privacy.secagg.messages import Advert, Consistency, MaskedVector, Reveal, SealedShares
from palate.privacy.secagg.server import Stage

MESSAGES = {
    Stage.ADVERTISE: Advert, Stage.SHARE: SealedShares, Stage.MASK: MaskedVector,
    Stage.CONFIRM: Consistency, Stage.REVEAL: Reveal,
}  # fmt: skip


def _own_message(fleet, stage: Stage, device: int):
    """What a device would send at a stage; nobody else has sent anything there."""
    message = fleet.play(until=stage)[device]
    return MESSAGES[stage].from_bytes(fleet.answer(device, stage, message))


def _resign(fleet, device: int, message) -> bytes:
    return message.signed(fleet.identities[device].sign).to_bytes()


@pytest.fixture
def fleet(secagg):
    return secagg.fleet(8)


OTHER = {
    Stage.ADVERTISE: (AdvertRefused, {"context": bytes(32)}),
    Stage.SHARE: (SharesRefused, {"root": bytes(32)}),
    Stage.MASK: (MaskedRefused, {"context": bytes(32)}),
    Stage.CONFIRM: (ConsistencyRefused, {"root": bytes(32)}),
    Stage.REVEAL: (RevealRefused, {"root": bytes(32)}),
}


@pytest.mark.parametrize("stage", Stage)
def test_a_message_for_another_round_is_refused_and_the_right_one_still_counts(fleet, stage):
    device, (error, changes) = fleet.ids[2], OTHER[stage]
    message = _own_message(fleet, stage, device)
    with pytest.raises(error, match="another"):
        fleet.server.receive(stage, device, _resign(fleet, device, replace(message, **changes)))
    fleet.server.receive(stage, device, message.to_bytes())
    assert fleet.server.arrived(stage) == {device}
    assert fleet.server.excluded == frozenset()


@pytest.mark.parametrize("stage", Stage)
def test_a_message_that_its_device_did_not_sign_is_refused(fleet, stage):
    device = fleet.ids[2]
    data = _own_message(fleet, stage, device)
    signature = bytes([data.signature[0] ^ 1]) + data.signature[1:]
    with pytest.raises(OTHER[stage][0], match="not signed by it"):
        fleet.server.receive(stage, device, replace(data, signature=signature).to_bytes())


@pytest.mark.parametrize("stage", Stage)
def test_a_message_in_the_name_of_another_device_is_refused(fleet, stage):
    message = _own_message(fleet, stage, fleet.ids[2])
    with pytest.raises(OTHER[stage][0], match=r"device 121 sent .* 114"):
        fleet.server.receive(stage, fleet.ids[3], message.to_bytes())


@pytest.mark.parametrize("stage", Stage)
def test_a_message_of_another_step_is_refused(fleet, stage):
    message = _own_message(fleet, stage, fleet.ids[2])
    other = Stage((stage + 1) % len(Stage))
    with pytest.raises(StageClosed, match="is not open"):
        fleet.server.receive(other, fleet.ids[2], message.to_bytes())


def test_a_stranger_is_not_waited_for(fleet):
    fleet.play(until=Stage.MASK, drops={Stage.SHARE: fleet.ids[:1]})
    assert fleet.server.expected(Stage.MASK) == set(fleet.ids[1:])
    for device in (fleet.ids[0], 5):
        with pytest.raises(StageClosed, match=f"does not wait for device {device}"):
            fleet.server.receive(Stage.MASK, device, b"")


def test_an_advert_needs_an_enrolment_in_this_fleet_that_has_not_ended(fleet):
    device = fleet.ids[0]
    key = fleet.identities[device].key
    for authority, not_after in (
        (EnrolmentAuthority.generate("test fleet"), 0),
        (EnrolmentAuthority("other fleet", fleet.authority._key), 0),
        (fleet.authority, fleet.offer.issued_at - 1),
    ):
        identity = DeviceIdentity(authority.enrol(device, key.public_key(), not_after=not_after), key)
        advert = Advert.from_bytes(fleet.devices[device].advertise())
        forged = replace(advert, certificate=identity.certificate).to_bytes()
        with pytest.raises(EnrolmentRefused):
            fleet.server.receive(Stage.ADVERTISE, device, forged)
    fleet.server.receive(Stage.ADVERTISE, device, fleet.devices[device].advertise())


@pytest.mark.parametrize("taken", ["cipher_key", "mask_key"])
def test_keys_that_are_anothers_or_of_low_order_are_refused(fleet, taken):
    first, second = fleet.ids[:2]
    fleet.server.receive(Stage.ADVERTISE, first, fleet.devices[first].advertise())
    theirs = Advert.from_bytes(fleet.devices[first].advertise())
    own = Advert.from_bytes(fleet.devices[second].advertise())
    wrong = {theirs.mask_key: "taken", own.cipher_key: "taken", own.mask_key: "taken", bytes(32): "low order"}
    for key, match in wrong.items():
        changed = replace(own, **{taken: key})
        if changed != own:
            with pytest.raises(AdvertRefused, match=match):
                fleet.server.receive(Stage.ADVERTISE, second, _resign(fleet, second, changed))


def test_a_full_roster_takes_nobody_else(secagg):
    fleet = secagg.fleet(6, max_roster=5)
    with pytest.raises(AdvertRefused, match="came after 5 others"):
        fleet.play()


@pytest.mark.parametrize("stage", [Stage.SHARE, Stage.REVEAL])
def test_too_few_shares_are_refused(fleet, stage):
    device, name = fleet.ids[2], {Stage.SHARE: "sealed", Stage.REVEAL: "shares"}[stage]
    message = _own_message(fleet, stage, device)
    forged = replace(message, **{name: getattr(message, name)[:-1]})
    with pytest.raises(OTHER[stage][0], match=r"[67] shares"):
        fleet.server.receive(stage, device, _resign(fleet, device, forged))


def test_masked_values_out_of_the_ring_are_refused(secagg):
    fleet = secagg.fleet(8, ring_bits=30)
    device = fleet.ids[2]
    message = _own_message(fleet, Stage.MASK, device)
    before = fleet.server._sum.tolist()
    with pytest.raises(MessageError, match="more than 30 bits"):
        fleet.server.receive(Stage.MASK, device, _resign(fleet, device, replace(message, words=b"\xff" * 200)))
    with pytest.raises(MaskedRefused, match="sent 196 bytes"):
        fleet.server.receive(Stage.MASK, device, _resign(fleet, device, replace(message, words=message.words[4:])))
    assert fleet.server._sum.tolist() == before
    fleet.server.receive(Stage.MASK, device, message.to_bytes())


@pytest.mark.parametrize("stage", [Stage.ADVERTISE, Stage.SHARE, Stage.REVEAL])
def test_a_device_that_contradicts_itself_leaves_the_round(fleet, stage):
    device = fleet.ids[2]
    inputs = fleet.play(until=stage)
    first = {other: fleet.answer(other, stage, inputs[other]) for other in inputs}
    for other, data in first.items():
        fleet.server.receive(stage, other, data)
    message = MESSAGES[stage].from_bytes(first[device])
    changes = {
        Stage.ADVERTISE: {"commitment": bytes(32)},
        Stage.SHARE: {"sealed": getattr(message, "sealed", ())[::-1]},
        Stage.REVEAL: {"shares": getattr(message, "shares", ())[::-1]},
    }[stage]
    second = _resign(fleet, device, replace(message, **changes))
    with pytest.raises(Equivocation, match="device 114 signed two messages"):
        fleet.server.receive(stage, device, second)
    assert fleet.server.excluded == {device}
    assert device not in fleet.server.arrived(stage)
    for data in (first[device], second):
        with pytest.raises(StageClosed):
            fleet.server.receive(stage, device, data)
    messages = fleet.server.close(stage)
    assert device not in messages
    for later in Stage:
        if later > stage:
            for other, data in messages.items():
                fleet.server.receive(later, other, fleet.answer(other, later, data))
            messages = fleet.server.close(later)
    summed = [other for other in fleet.ids if other != device or stage is Stage.REVEAL]
    assert fleet.server.result().survivors == tuple(summed)
    assert fleet.server.result().vector.tolist() == fleet.sum_of(summed).tolist()


def test_a_second_masked_vector_is_dropped_and_the_first_one_counts(fleet):
    device = fleet.ids[2]
    inputs = fleet.play(until=Stage.MASK)
    for other in fleet.ids:
        fleet.server.receive(Stage.MASK, other, fleet.answer(other, Stage.MASK, inputs[other]))
    before = fleet.server._sum.tolist()
    message = MaskedVector.from_bytes(fleet.answer(device, Stage.MASK, inputs[device]))
    with pytest.raises(Equivocation):
        fleet.server.receive(Stage.MASK, device, _resign(fleet, device, replace(message, words=message.words[::-1])))
    assert fleet.server._sum.tolist() == before
    assert fleet.server.excluded == {device}
    messages = fleet.server.close(Stage.MASK)
    for stage in (Stage.CONFIRM, Stage.REVEAL):
        for other in set(messages) - {device}:
            fleet.server.receive(stage, other, fleet.answer(other, stage, messages[other]))
        messages = fleet.server.close(stage)
    assert fleet.server.result().vector.tolist() == fleet.sum_of(fleet.ids).tolist()


def test_a_forged_second_message_excludes_nobody(fleet):
    device = fleet.ids[2]
    for other in fleet.ids:
        fleet.server.receive(Stage.ADVERTISE, other, fleet.devices[other].advertise())
    advert = Advert.from_bytes(fleet.devices[device].advertise())
    with pytest.raises(AdvertRefused, match="not signed by it"):
        fleet.server.receive(Stage.ADVERTISE, device, replace(advert, commitment=bytes(32)).to_bytes())
    assert fleet.server.excluded == frozenset()
    assert device in fleet.server.arrived(Stage.ADVERTISE)


def _lie(fleet, liars):
    """Let some devices reveal shares that are off by one."""

    def tamper(stage: Stage, device: int, data: bytes) -> bytes:
        if stage is Stage.REVEAL and device in liars:
            reveal = Reveal.from_bytes(data)
            off = tuple(share[:-1] + bytes([share[-1] ^ 1]) for share in reveal.shares)
            return _resign(fleet, device, replace(reveal, shares=off))
        return data

    return tamper


def test_wrong_shares_are_corrected_and_their_senders_named(secagg):
    fleet = secagg.fleet(9)
    fleet.play(drops={Stage.MASK: fleet.ids[-1:]}, tamper=_lie(fleet, fleet.ids[:1]))
    survivors = fleet.ids[:-1]
    assert fleet.server.result().liars == (fleet.ids[0],)
    assert fleet.server.result().vector.tolist() == fleet.sum_of(survivors).tolist()


def test_too_many_wrong_shares_give_no_sum_at_all(secagg):
    fleet = secagg.fleet(9)
    with pytest.raises(ReconstructionFailed, match=r"9 shares of device 100 .* 5 true ones would") as failure:
        fleet.play(tamper=_lie(fleet, fleet.ids[:3]))
    assert failure.value.device == fleet.ids[0]
    with pytest.raises(StageClosed):
        fleet.server.result()


def test_stages_are_closed_in_order(fleet):
    with pytest.raises(StageClosed, match="MASK cannot be closed now"):
        fleet.server.close(Stage.MASK)
    with pytest.raises(QuorumLost):
        fleet.server.close(Stage.ADVERTISE)
    assert fleet.server.stage is Stage.ADVERTISE
    with pytest.raises(StageClosed, match="not open yet"):
        fleet.server.expected(Stage.SHARE)


def test_a_receipt_needs_a_sum_and_a_true_hash(fleet):
    with pytest.raises(StageClosed):
        fleet.server.receipt(model_hash="cd" * 32, log_index=0)
    fleet.play()
    with pytest.raises(ReceiptRefused, match="64 hexadecimal digits"):
        fleet.server.receipt(model_hash="CD" * 32, log_index=0)


def test_secrets_and_vectors_are_not_printed(fleet):
    fleet.play(until=Stage.CONFIRM)
    device = fleet.devices[fleet.ids[0]]
    shown = " ".join(map(repr, (device, fleet.authority, fleet.identities[fleet.ids[0]], fleet.server)))
    assert "DeviceRound(<sealed>)" in shown
    assert "PrivateKey" not in shown
    with pytest.raises(TypeError, match="cannot be copied"):
        copy.copy(device)
