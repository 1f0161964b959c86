"""Whole rounds: the sum is exact, whoever drops out, until too few are left; a crashed server goes on."""

from __future__ import annotations

import gc
import itertools
from dataclasses import replace
from types import FunctionType, ModuleType

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from palate.privacy.secagg.errors import InboxRefused, QuorumLost, RosterRefused, SignaturesRefused, StageClosed
from palate.privacy.secagg.messages import Receipt, Roster
from palate.privacy.secagg.server import Stage


@pytest.mark.parametrize("bits", [24, 30, 32, 33, 40, 64])
def test_the_sum_of_the_survivors_is_exact(secagg, bits):
    fleet = secagg.fleet(8, ring_bits=bits)
    gone = fleet.ids[2:4]
    fleet.play(drops={Stage.MASK: gone})
    result = fleet.server.result()
    survivors = [device for device in fleet.ids if device not in gone]
    assert result.survivors == tuple(survivors)
    assert result.vector.dtype == (np.uint32 if bits <= 32 else np.uint64)
    assert result.vector.tolist() == fleet.sum_of(survivors).tolist()
    assert result.liars == ()


DROPOUTS = [
    {first: [107, 114], second: [121]} if first < second else {first: [100, 107, 149]}
    for first, second in itertools.combinations_with_replacement(Stage, 2)
]


@pytest.mark.parametrize("drops", DROPOUTS, ids=lambda drops: "+".join(stage.name for stage in drops))
def test_dropouts_down_to_the_quorum_leave_the_sum_exact(secagg, drops):
    # 8 devices, tau 0.6: the quorum is 5, so that three may go.
    fleet = secagg.fleet(8)
    fleet.play(drops={stage: [d for s, ds in drops.items() if s <= stage for d in ds] for stage in Stage})
    late = {device for stage, devices in drops.items() if stage <= Stage.MASK for device in devices}
    survivors = [device for device in fleet.ids if device not in late]
    assert fleet.server.result().survivors == tuple(survivors)
    assert fleet.server.result().vector.tolist() == fleet.sum_of(survivors).tolist()


@pytest.mark.parametrize(
    ("stage", "gone", "left"), [(Stage.SHARE, 4, 4), (Stage.MASK, 4, 4), (Stage.CONFIRM, 4, 4), (Stage.REVEAL, 5, 3)]
)
def test_one_dropout_beyond_the_quorum_ends_the_round_at_that_stage(secagg, stage, gone, left):
    fleet = secagg.fleet(8)
    with pytest.raises(QuorumLost, match=f"{left} .* {left + 1} are needed"):
        fleet.play(drops={later: fleet.ids[:gone] for later in Stage if later >= stage})
    assert fleet.server.stage is stage
    with pytest.raises(StageClosed):
        fleet.server.result()


def test_too_few_adverts_make_no_roster(secagg):
    fleet = secagg.fleet(3)
    with pytest.raises(QuorumLost, match="3 enrolled devices came, 4 are needed"):
        fleet.play()


def test_a_stage_that_lost_its_quorum_can_be_closed_when_more_arrive(secagg):
    fleet = secagg.fleet(8)
    inboxes = fleet.play(until=Stage.MASK)
    late = fleet.ids[:4]
    for device in fleet.ids[4:]:
        fleet.server.receive(Stage.MASK, device, fleet.answer(device, Stage.MASK, inboxes[device]))
    with pytest.raises(QuorumLost):
        fleet.server.close(Stage.MASK)
    for device in late:
        fleet.server.receive(Stage.MASK, device, fleet.answer(device, Stage.MASK, inboxes[device]))
    assert set(fleet.server.close(Stage.MASK)) == set(fleet.ids)


def test_the_noise_that_was_planned_decides_how_many_must_survive(secagg):
    # The quorum of 8 is 5 and floor(.2 x 8) may be corrupt; 6 honest shares ask for 7 survivors.
    fleet = secagg.fleet(8, honest_shares=6)
    with pytest.raises(QuorumLost, match="6 devices sent masked vectors, 7 are needed"):
        fleet.play(drops={Stage.MASK: fleet.ids[:2]})


def test_every_message_again_changes_nothing_on_either_side(secagg):
    fleet = secagg.fleet(6)
    messages, answers = dict.fromkeys(fleet.ids, b""), {}
    for stage in Stage:
        for device, message in messages.items():
            answer = fleet.answer(device, stage, message)
            assert fleet.answer(device, stage, message) == answer
            fleet.server.receive(stage, device, answer)
            fleet.server.receive(stage, device, answer)
            answers[device] = answer
        messages = fleet.server.close(stage)
        for device, answer in answers.items():
            fleet.server.receive(stage, device, answer)
        assert fleet.server.close(stage) == messages
    assert fleet.server.result().vector.tolist() == fleet.sum_of(fleet.ids).tolist()


def test_a_round_rebuilt_from_stored_messages_sends_the_same_bytes_and_gets_the_same_sum(secagg):
    fleet = secagg.fleet(8)
    stored: list[tuple[Stage, int, bytes]] = []

    def keep(stage: Stage, device: int, data: bytes) -> bytes:
        stored.append((stage, device, data))
        return data

    fleet.play(drops={Stage.MASK: fleet.ids[:2]}, tamper=keep)
    for crash in range(0, len(stored) + 1, 3):
        rebuilt = fleet.new_server()
        for stage, group in itertools.groupby(stored[:crash], key=lambda event: event[0]):
            for earlier in Stage:
                if earlier < stage and earlier == rebuilt.stage:
                    rebuilt.close(earlier)
            for _, device, data in group:
                rebuilt.receive(stage, device, data)
        for stage, device, data in stored[crash:]:
            while rebuilt.stage is not None and rebuilt.stage < stage:
                rebuilt.close(rebuilt.stage)
            rebuilt.receive(stage, device, data)
        rebuilt.close(Stage.REVEAL)
        assert rebuilt.result().vector.tolist() == fleet.server.result().vector.tolist()
        assert rebuilt.receipt(model_hash="cd" * 32, log_index=5) == fleet.server.receipt(
            model_hash="cd" * 32, log_index=5
        )


def test_receipts_name_the_sets_the_sum_and_the_new_table(secagg):
    fleet = secagg.fleet(6)
    fleet.play(drops={Stage.CONFIRM: fleet.ids[:1]})
    receipt = fleet.server.receipt(model_hash="cd" * 32, log_index=12)
    present, gone = (fleet.devices[fleet.ids[place]].accept(receipt) for place in (3, 0))
    assert (present["model_hash"], present["log_index"], present["confirmed"]) == ("cd" * 32, 12, True)
    assert present["sum_hash"] == Receipt.from_bytes(receipt).sum_hash.hex()
    assert not gone["confirmed"]
    assert gone["sets_hash"] == present["sets_hash"]


def test_a_device_needs_no_certificate_that_it_has_verified_before(secagg):
    fleet = secagg.fleet(6)
    for device in fleet.ids:
        fleet.server.receive(Stage.ADVERTISE, device, fleet.devices[device].advertise())
    full = fleet.server.close(Stage.ADVERTISE)
    fleet.devices[fleet.ids[2]].share(full[fleet.ids[2]])
    known = fleet.devices[fleet.ids[2]].verified
    assert set(known) == set(fleet.ids)

    again = secagg.fleet(6, server_round=4)
    again.authority, again.server_key, again.identities = fleet.authority, fleet.server_key, fleet.identities
    again.server = again.new_server()
    again.devices = {device: again.device(device) for device in again.ids}
    veteran, novice = again.ids[2], again.ids[3]
    again.devices[veteran] = again.device(veteran, known=known)
    for device in again.ids:
        again.server.receive(Stage.ADVERTISE, device, again.devices[device].advertise())
    roster = Roster.from_bytes(again.server.close(Stage.ADVERTISE)[veteran])
    bare = again.sign(replace(roster, certificates=()))
    assert len(roster.to_bytes()) - len(bare) == 104 * 6
    again.server.receive(Stage.SHARE, veteran, again.devices[veteran].share(bare))
    with pytest.raises(RosterRefused, match="no certificate"):
        again.devices[novice].share(bare)


def test_signatures_withheld_by_the_server_reveal_nothing(secagg):
    fleet = secagg.fleet(8)
    fleet.play(until=Stage.REVEAL)
    confirmation = fleet.server._confirmation()
    short = fleet.sign(
        type(confirmation)(
            context=confirmation.context,
            root=confirmation.root,
            roster_size=confirmation.roster_size,
            signers=confirmation.signers[:-1],
            signatures=confirmation.signatures[:-1],
        )
    )
    device = fleet.devices[fleet.ids[0]]
    with pytest.raises(SignaturesRefused, match="4 devices signed the survivor sets, 5 survivors must have"):
        device.reveal(short)
    assert device.aborted


def test_too_small_an_inbox_keeps_the_vector_on_the_device(secagg):
    fleet = secagg.fleet(8)
    fleet.play(until=Stage.MASK)
    fleet.server._shared = fleet.server._shared[:4]
    with pytest.raises(InboxRefused, match="4 devices have shared, 5 are needed"):
        fleet.answer(fleet.ids[0], Stage.MASK, fleet.server._inbox(0))


def test_no_private_key_is_within_reach_once_the_vector_is_masked(secagg):
    fleet = secagg.fleet(6)
    inboxes = fleet.play(until=Stage.MASK)
    device = fleet.devices[fleet.ids[0]]
    drawn = device._secrets.seed, device._secrets.mask.private_bytes_raw(), device._secrets.cipher.private_bytes_raw()
    sealing = list(device._sealing.values())
    assert all(secret in _reachable(device) for secret in (drawn[0], *sealing))
    device.mask(inboxes[fleet.ids[0]], fleet.vectors[fleet.ids[0]])
    reachable = _reachable(device)
    assert not any(isinstance(thing, X25519PrivateKey) for thing in reachable)
    assert not any(secret in thing for secret in (*drawn, *sealing) for thing in reachable if isinstance(thing, bytes))


def _reachable(root: object) -> list[object]:
    """Everything that an object refers to, directly or not, but for modules, classes and functions."""
    seen: dict[int, object] = {}
    left = [root]
    while left:
        thing = left.pop()
        if id(thing) not in seen and not isinstance(thing, ModuleType | type | FunctionType):
            seen[id(thing)] = thing
            left += gc.get_referents(thing)
    return list(seen.values())
