"""Messages that are genuine, but of another round, roster, sender or server: refused at every step, on both sides."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from palate.privacy.secagg import errors
from palate.privacy.secagg.keys import DeviceIdentity, EnrolmentAuthority
from palate.privacy.secagg.messages import Consistency, Inbox, Receipt, Reveal, Roster, Signatures, SurvivorSets
from palate.privacy.secagg.server import Stage
from palate.privacy.secagg.shamir import PRIME

DOWN = {
    Stage.SHARE: (Roster, errors.RosterRefused),
    Stage.MASK: (Inbox, errors.InboxRefused),
    Stage.CONFIRM: (SurvivorSets, errors.SurvivorsRefused),
    Stage.REVEAL: (Signatures, errors.SignaturesRefused),
    None: (Receipt, errors.ReceiptRefused),
}


def _received(fleet, stage: Stage | None):
    """What the first device is about to be sent at a stage (None: the receipt), and how it takes it."""
    device = fleet.ids[0]
    inputs = fleet.play(until=stage)
    kind, error = DOWN[stage]
    if stage is None:
        data, take = fleet.server.receipt(model_hash="cd" * 32, log_index=1), fleet.devices[device].accept
    else:
        data, take = inputs[device], lambda message: fleet.answer(device, stage, message)
    return kind.from_bytes(data), take, error


@pytest.mark.parametrize("stage", DOWN)
def test_a_message_that_another_server_signed_is_refused_at_every_step(secagg, stage):
    fleet = secagg.fleet(6)
    message, take, error = _received(fleet, stage)
    fleet.server_key = Ed25519PrivateKey.generate()
    with pytest.raises(error, match="not signed by this server"):
        take(fleet.sign(message))


@pytest.mark.parametrize(
    ("stage", "field"),
    # A roster is what the root is of.
    [(stage, field) for stage in DOWN for field in ("context", "root") if (stage, field) != (Stage.SHARE, "root")],
)
def test_a_message_of_another_round_or_roster_is_refused_at_every_step(secagg, stage, field):
    fleet = secagg.fleet(6)
    message, take, error = _received(fleet, stage)
    with pytest.raises(error, match="is for another offer"):
        take(fleet.sign(replace(message, **{field: bytes(32)})))
    assert fleet.devices[fleet.ids[0]].aborted


def test_an_inbox_with_shares_from_the_device_itself_is_refused(secagg):
    fleet = secagg.fleet(6)
    message, take, error = _received(fleet, Stage.MASK)
    doubled = replace(message, senders=(0, *message.senders), sealed=(message.sealed[0], *message.sealed))
    with pytest.raises(error, match="from others than its peers"):
        take(fleet.sign(doubled))


def test_an_inbox_addressed_to_another_device_is_refused(secagg):
    fleet = secagg.fleet(6)
    message, take, error = _received(fleet, Stage.MASK)
    with pytest.raises(error, match="for another device"):
        take(fleet.sign(replace(message, device=fleet.ids[1])))


def test_signatures_of_devices_that_did_not_survive_do_not_count(secagg):
    # Four survivors and one that dropped sign: a genuine signature, but 5 of the survivors are asked for.
    fleet = secagg.fleet(8)
    gone = fleet.ids[-1]
    fleet.play(until=Stage.REVEAL, drops={Stage.MASK: [gone]})
    sets = fleet.server._sets
    statement = Consistency(context=sets.context, root=sets.root, device=gone, sets_hash=sets.sets_hash)
    genuine = statement.signed(fleet.identities[gone].sign).signature
    confirmation = fleet.server._confirmation()
    forged = replace(
        confirmation,
        signers=(*confirmation.signers[:4], 7),
        signatures=(*confirmation.signatures[:4], genuine),
    )
    with pytest.raises(errors.SignaturesRefused, match="survivors must have"):
        fleet.devices[fleet.ids[0]].reveal(fleet.sign(forged))


def test_a_device_that_is_not_enrolled_in_the_fleet_does_not_begin(secagg):
    fleet = secagg.fleet(6)
    key = Ed25519PrivateKey.generate()
    for authority in (EnrolmentAuthority.generate("test fleet"), EnrolmentAuthority("other", fleet.authority._key)):
        stranger = DeviceIdentity(authority.enrol(100, key.public_key()), key)
        with pytest.raises(errors.EnrolmentRefused):
            fleet.device(100, identity=stranger)


@pytest.mark.parametrize(
    ("stage", "error"), [(Stage.CONFIRM, errors.ConsistencyRefused), (Stage.REVEAL, errors.RevealRefused)]
)
def test_a_server_takes_no_answer_for_other_survivor_sets(secagg, stage, error):
    fleet = secagg.fleet(6)
    device = fleet.ids[1]
    data = fleet.answer(device, stage, fleet.play(until=stage)[device])
    message = {Stage.CONFIRM: Consistency, Stage.REVEAL: Reveal}[stage].from_bytes(data)
    forged = replace(message, sets_hash=bytes(32)).signed(fleet.identities[device].sign)
    with pytest.raises(error, match="other survivor sets"):
        fleet.server.receive(stage, device, forged.to_bytes())


def test_a_server_takes_no_share_that_is_not_in_the_field(secagg):
    fleet = secagg.fleet(6)
    device = fleet.ids[1]
    message = Reveal.from_bytes(fleet.answer(device, Stage.REVEAL, fleet.play(until=Stage.REVEAL)[device]))
    for value, refused in ((PRIME, True), (PRIME - 1, False)):
        shares = (*message.shares[:-1], value.to_bytes(33, "big"))
        data = replace(message, shares=shares).signed(fleet.identities[device].sign).to_bytes()
        if refused:
            with pytest.raises(errors.RevealRefused, match="6 below p are expected"):
                fleet.server.receive(Stage.REVEAL, device, data)
        else:
            fleet.server.receive(Stage.REVEAL, device, data)


@pytest.mark.parametrize("secret", ["seed", "mask"])
def test_a_device_that_shares_another_secret_than_it_committed_to_is_named(secagg, secret):
    fleet = secagg.fleet(8)
    false = fleet.ids[3]

    def swap(stage: Stage, device: int, data: bytes) -> bytes:
        if (stage, device) == (Stage.ADVERTISE, false):
            party = fleet.devices[false]
            changed = bytes(32) if secret == "seed" else X25519PrivateKey.generate()
            party._secrets = replace(party._secrets, **{secret: changed})
        return data

    with pytest.raises(errors.ReconstructionFailed, match="do not give the secret that it committed to") as failure:
        fleet.play(tamper=swap, drops={Stage.MASK: [false]} if secret == "mask" else None)
    assert failure.value.device == false
    assert fleet.server.stage is Stage.REVEAL
