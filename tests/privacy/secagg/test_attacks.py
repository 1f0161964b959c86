"""A server that lies, and what devices say to it: every attack that the protocol is for ends in a named error."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from palate.privacy.secagg.device import DeviceRound
from palate.privacy.secagg.errors import (
    EnrolmentRefused,
    InboxRefused,
    OfferRefused,
    ReceiptRefused,
    RosterRefused,
    RoundAborted,
    SecureAggregationError,
    SignaturesRefused,
    SurvivorsRefused,
)
from palate.privacy.secagg.keys import EnrolmentAuthority
from palate.privacy.secagg.messages import Inbox, Receipt, Reveal, Roster, Signatures, SurvivorSets
from palate.privacy.secagg.server import Stage
from palate.privacy.secagg.shamir import SHARE_SIZE


def _refuses(device: DeviceRound, error: type[SecureAggregationError], match: str, call) -> None:
    """The device refuses, is done with the round, and has nothing left that could be asked of it."""
    with pytest.raises(error, match=match):
        call()
    assert device.aborted
    assert device._secrets is None
    assert device._held == {}
    assert device._sealing == {}
    for step in (device.advertise, lambda: device.share(b""), lambda: device.confirm(b""), lambda: device.reveal(b"")):
        with pytest.raises(RoundAborted, match="after the round ended here"):
            step()


@pytest.fixture
def fleet(secagg):
    return secagg.fleet(8)


def _roster(fleet) -> tuple[DeviceRound, Roster]:
    data = fleet.play(until=Stage.SHARE)[fleet.ids[0]]
    return fleet.devices[fleet.ids[0]], Roster.from_bytes(data)


def _with_entry(roster: Roster, rank: int, **changes) -> Roster:
    entries = list(roster.entries)
    entries[rank] = replace(entries[rank], **changes)
    return replace(roster, entries=tuple(entries))


@pytest.mark.parametrize("key", ["cipher_key", "mask_key", "commitment"])
def test_keys_substituted_on_the_roster_are_found(fleet, key):
    device, roster = _roster(fleet)
    mine = X25519PrivateKey.generate().public_key().public_bytes_raw()
    forged = fleet.sign(_with_entry(roster, 3, **{key: mine}))
    _refuses(device, RosterRefused, "keys of device 121 are not signed by it", lambda: device.share(forged))


def test_a_device_that_the_server_made_up_is_found(fleet):
    device, roster = _roster(fleet)
    false = fleet.identity(121, EnrolmentAuthority("test fleet", fleet.server_key))
    entry = replace(roster.entries[3], signature=b"")
    entry = replace(entry, signature=false.sign(entry.advert_body(fleet.offer.context, false.certificate.identity_key)))
    certificates = (*roster.certificates[:3], false.certificate, *roster.certificates[4:])
    forged = replace(roster, entries=(*roster.entries[:3], entry, *roster.entries[4:]), certificates=certificates)
    _refuses(device, EnrolmentRefused, "did not enrol device 121", lambda: device.share(fleet.sign(forged)))


def test_a_roster_without_a_needed_certificate_is_refused(fleet):
    device, roster = _roster(fleet)
    less = fleet.sign(replace(roster, certificates=roster.certificates[:3]))
    _refuses(device, RosterRefused, "no certificate for device 121", lambda: device.share(less))


def test_own_entry_altered_on_the_roster_is_found(fleet):
    device, roster = _roster(fleet)
    forged = fleet.sign(_with_entry(roster, 0, commitment=bytes(32)))
    _refuses(device, RosterRefused, "does not show what this device advertised", lambda: device.share(forged))


def test_a_roster_that_another_server_signed_is_refused(fleet):
    device, roster = _roster(fleet)
    fleet.server_key = Ed25519PrivateKey.generate()
    _refuses(device, RosterRefused, "not signed by this server", lambda: device.share(fleet.sign(roster)))


def test_a_key_twice_on_the_roster_is_refused(fleet):
    device, roster = _roster(fleet)
    forged = fleet.sign(_with_entry(roster, 3, mask_key=roster.entries[4].mask_key))
    _refuses(device, RosterRefused, "share a key", lambda: device.share(forged))


def test_a_cohort_shrunk_on_the_roster_is_refused(fleet):
    device, roster = _roster(fleet)
    small = fleet.sign(replace(roster, entries=roster.entries[:3], certificates=roster.certificates[:3]))
    _refuses(device, RosterRefused, "a roster of 3 is not between 4 and 40", lambda: device.share(small))


def test_more_devices_than_the_ring_holds_are_refused(secagg):
    fleet = secagg.fleet(8)
    data = fleet.play(until=Stage.SHARE)[fleet.ids[0]]
    narrow = secagg.fleet(8, max_roster=7)
    device = narrow.devices[narrow.ids[0]]
    device.advertise()
    roster = replace(
        Roster.from_bytes(data),
        context=narrow.offer.context,
        entries=(device._advert.entry, *Roster.from_bytes(data).entries[1:]),
    )
    _refuses(device, RosterRefused, "a roster of 8 is not between 5 and 7", lambda: device.share(narrow.sign(roster)))


def test_a_peer_with_a_key_of_low_order_is_refused(fleet):
    device, roster = _roster(fleet)
    peer = fleet.identities[121]
    entry = replace(roster.entries[3], cipher_key=bytes(32))
    entry = replace(entry, signature=peer.sign(entry.advert_body(fleet.offer.context, peer.certificate.identity_key)))
    forged = replace(roster, entries=(*roster.entries[:3], entry, *roster.entries[4:]))
    _refuses(device, RosterRefused, "device 121 is of low order", lambda: device.share(fleet.sign(forged)))


def test_two_rosters_leave_the_groups_without_a_common_signature(secagg):
    # The server shows one half a roster without device 100, and the other half the whole.
    fleet = secagg.fleet(12)
    rosters = fleet.play(until=Stage.SHARE)
    whole = Roster.from_bytes(rosters[107])
    part = fleet.sign(replace(whole, entries=whole.entries[1:], certificates=whole.certificates[1:]))
    views = {device: part if device in fleet.ids[6:] else rosters[device] for device in fleet.ids}
    sealed = {device: fleet.devices[device].share(views[device]) for device in fleet.ids}
    # The groups seal under keys of different roots: what one sends does not open in the other.
    mixed = Inbox(
        context=fleet.offer.context,
        root=fleet.devices[107]._peers.root,
        device=107,
        roster_size=12,
        senders=tuple(rank for rank in range(12) if rank != 1),
        sealed=tuple(sealed[device][-64 - 82 : -64] for device in fleet.ids if device != 107),
    )
    device = fleet.devices[107]
    with pytest.raises(InboxRefused, match="tampered with"):
        device.mask(fleet.sign(mixed), fleet.vectors[107])


def _inbox(fleet) -> tuple[DeviceRound, Inbox]:
    data = fleet.play(until=Stage.MASK)[fleet.ids[0]]
    return fleet.devices[fleet.ids[0]], Inbox.from_bytes(data)


@pytest.mark.parametrize("place", [0, 33, 81])
def test_a_ciphertext_that_was_tampered_with_is_found(fleet, place):
    device, inbox = _inbox(fleet)
    bad = bytearray(inbox.sealed[2])
    bad[place] ^= 1
    forged = fleet.sign(replace(inbox, sealed=(*inbox.sealed[:2], bytes(bad), *inbox.sealed[3:])))
    _refuses(
        device, InboxRefused, "device 121 were tampered with", lambda: device.mask(forged, fleet.vectors[fleet.ids[0]])
    )


def test_shares_sealed_for_another_peer_do_not_open(fleet):
    device, inbox = _inbox(fleet)
    other = Inbox.from_bytes(fleet.server.close(Stage.SHARE)[fleet.ids[1]])
    forged = fleet.sign(replace(inbox, sealed=(inbox.sealed[0], *other.sealed[1:])))
    _refuses(device, InboxRefused, "were tampered with", lambda: device.mask(forged, fleet.vectors[fleet.ids[0]]))


def test_shares_that_a_device_sealed_itself_do_not_open_as_its_peers(fleet):
    # The key of a pair is the same in both directions: only nonce and addresses tell them apart.
    device, inbox = _inbox(fleet)
    own = fleet.server._sealed[fleet.ids[0]]
    forged = fleet.sign(replace(inbox, sealed=own))
    _refuses(device, InboxRefused, "were tampered with", lambda: device.mask(forged, fleet.vectors[fleet.ids[0]]))


def test_an_inbox_for_another_device_is_refused(fleet):
    device, _ = _inbox(fleet)
    other = fleet.server.close(Stage.SHARE)[fleet.ids[1]]
    _refuses(device, InboxRefused, "for another device", lambda: device.mask(other, fleet.vectors[fleet.ids[0]]))


def _sets(fleet, until: Stage = Stage.CONFIRM) -> tuple[DeviceRound, SurvivorSets]:
    fleet.play(until=until)
    return fleet.devices[fleet.ids[0]], fleet.server._sets


def test_a_device_that_is_declared_dropped_does_not_sign(fleet):
    device, sets = _sets(fleet)
    forged = fleet.sign(replace(sets, survivors=sets.survivors[1:]))
    _refuses(device, SurvivorsRefused, "declared dropped", lambda: device.confirm(forged))


def test_survivors_below_the_quorum_are_refused(fleet):
    device, sets = _sets(fleet)
    forged = fleet.sign(replace(sets, survivors=sets.survivors[:4]))
    _refuses(device, SurvivorsRefused, "4 devices survive, 5 are needed", lambda: device.confirm(forged))


def test_sharers_that_contradict_the_inbox_are_refused(fleet):
    device, sets = _sets(fleet)
    forged = fleet.sign(replace(sets, shared=sets.shared[:-1], survivors=sets.survivors[:-1]))
    _refuses(device, SurvivorsRefused, "7 are said to have shared, 8 shares arrived", lambda: device.confirm(forged))


def test_a_device_signs_one_pair_of_survivor_sets(fleet):
    device, sets = _sets(fleet)
    first = fleet.sign(sets)
    assert device.confirm(first) == device.confirm(first)
    other = fleet.sign(replace(sets, survivors=sets.survivors[:-1]))
    _refuses(device, RoundAborted, "twice, with different input", lambda: device.confirm(other))


def test_two_survivor_sets_never_both_get_a_quorum(fleet):
    # Half of the devices are told that the last one dropped, the others that it is there.
    _, sets = _sets(fleet)
    less = replace(sets, survivors=sets.survivors[:-1])
    views = {device: less if device in fleet.ids[:4] else sets for device in fleet.ids}
    signatures = {device: fleet.devices[device].confirm(fleet.sign(views[device]))[-64:] for device in fleet.ids}
    ranks = tuple(range(8))
    for claimed in (ranks[:5], ranks[3:], ranks[:-1]):
        mixed = fleet.sign(
            Signatures(
                context=sets.context,
                root=sets.root,
                roster_size=8,
                signers=claimed,
                signatures=tuple(signatures[fleet.ids[rank]] for rank in claimed),
            )
        )
        for device in (fleet.ids[0], fleet.ids[5]):
            with pytest.raises(SecureAggregationError) as refusal:
                fleet.devices[device].reveal(mixed)
            assert isinstance(refusal.value, SignaturesRefused | RoundAborted)
    assert fleet.devices[fleet.ids[0]].aborted
    assert fleet.devices[fleet.ids[5]].aborted


def test_one_reveal_is_all_that_a_device_gives(fleet):
    data = fleet.play(until=Stage.REVEAL)[fleet.ids[0]]
    device = fleet.devices[fleet.ids[0]]
    assert device.reveal(data) == device.reveal(data)
    assert device._held == {}
    message = Signatures.from_bytes(data)
    other = fleet.sign(replace(message, signers=message.signers[:-1], signatures=message.signatures[:-1]))
    _refuses(device, RoundAborted, "twice, with different input", lambda: device.reveal(other))


def test_a_reveal_holds_one_share_a_peer_and_never_both(secagg):
    fleet = secagg.fleet(8)
    dropped = fleet.ids[5]
    messages = fleet.play(until=Stage.REVEAL, drops={Stage.MASK: [dropped]})
    device = fleet.devices[fleet.ids[0]]
    held = dict(device._held)
    shares = Reveal.from_bytes(device.reveal(messages[fleet.ids[0]])).shares
    assert len(shares) == len(held) == 8
    for rank, share in enumerate(shares):
        of_seed, of_key = held[rank][:SHARE_SIZE], held[rank][SHARE_SIZE:]
        assert share == (of_key if fleet.ids[rank] == dropped else of_seed)
        assert of_seed != of_key


def test_both_shares_of_one_peer_cannot_be_had_by_asking_twice(fleet):
    # The server lets everybody sign that device 149 is alive, then asks again as if it had dropped.
    device, sets = _sets(fleet)
    device.confirm(fleet.sign(sets))
    dead = replace(sets, survivors=sets.survivors[:-1])
    with pytest.raises(RoundAborted):
        device.confirm(fleet.sign(dead))
    assert device._held == {}


def test_messages_of_an_earlier_round_are_refused(secagg):
    earlier, fleet = secagg.fleet(8), secagg.fleet(8, server_round=4)
    fleet.authority, fleet.server_key, fleet.identities = earlier.authority, earlier.server_key, earlier.identities
    fleet.server = fleet.new_server()
    fleet.devices = {device: fleet.device(device) for device in fleet.ids}
    replayed = {stage: earlier.play(until=stage)[earlier.ids[0]] for stage in (Stage.SHARE,)}
    device = fleet.devices[fleet.ids[0]]
    device.advertise()
    _refuses(device, RosterRefused, "for another offer", lambda: device.share(replayed[Stage.SHARE]))


def test_an_offer_for_another_plan_is_refused(fleet):
    with pytest.raises(OfferRefused, match="the offer is for plan abab"):
        fleet.device(fleet.ids[0], plan_hash="00" * 32)


def test_an_offer_of_another_server_is_refused(fleet):
    with pytest.raises(OfferRefused, match="not signed by this server"):
        fleet.device(fleet.ids[0], server_key=Ed25519PrivateKey.generate().public_key())


def test_a_receipt_for_other_survivors_is_refused(fleet):
    fleet.play()
    receipt = Receipt.from_bytes(fleet.server.receipt(model_hash="cd" * 32, log_index=1))
    device = fleet.devices[fleet.ids[0]]
    forged = fleet.sign(replace(receipt, sets_hash=bytes(32)))
    _refuses(device, ReceiptRefused, "other survivor sets than this device signed", lambda: device.accept(forged))


def test_a_receipt_that_the_server_did_not_sign_is_refused(fleet):
    fleet.play()
    receipt = fleet.server.receipt(model_hash="cd" * 32, log_index=1)
    device = fleet.devices[fleet.ids[0]]
    forged = receipt[:-65] + bytes([receipt[-65] ^ 1]) + receipt[-64:]
    _refuses(device, ReceiptRefused, "not signed by this server", lambda: device.accept(forged))
