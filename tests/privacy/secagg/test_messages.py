"""Every message has one spelling: what is written is read back, and nothing else is."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.privacy.secagg import messages
from palate.privacy.secagg.encoding import MAX_ROSTER, Kind, Reader, bitmap, header
from palate.privacy.secagg.errors import MessageError, OfferRefused, SecureAggregationError
from palate.privacy.secagg.keys import EnrolmentCertificate
from palate.privacy.secagg.offer import Offer
from palate.privacy.secagg.server import Stage

H32, SIG = st.binary(min_size=32, max_size=32), st.binary(min_size=64, max_size=64)
DEVICE = st.integers(0, (1 << 64) - 1)
NUMBER = st.integers(0, (1 << 63) - 1)
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=128)
HEAD = {"context": H32, "root": H32, "signature": SIG}


@st.composite
def _ranked(draw, size: int):
    """A roster's size, ranks on it, and a record for each."""
    roster_size = draw(st.integers(0, 20))
    ranks = tuple(sorted(draw(st.sets(st.integers(0, roster_size - 1))))) if roster_size else ()
    return roster_size, ranks, tuple(draw(st.binary(min_size=size, max_size=size)) for _ in ranks)


CERTIFICATES = st.builds(
    EnrolmentCertificate, fleet=TEXT, device=DEVICE, identity_key=H32, not_after=NUMBER, signature=SIG
)


@st.composite
def _rosters(draw):
    devices = sorted(draw(st.sets(DEVICE, max_size=6)))
    fleet = draw(TEXT)
    entry = st.builds(
        messages.RosterEntry, device=st.just(0), cipher_key=H32, mask_key=H32, commitment=H32, signature=SIG
    )
    certified = [device for device in devices if draw(st.booleans())]
    return messages.Roster(
        context=draw(H32),
        fleet=fleet,
        entries=tuple(
            messages.RosterEntry(**{**draw(entry).__dict__, "device": device}) for device in devices
        ),
        certificates=tuple(
            EnrolmentCertificate(
                fleet=fleet, device=device, identity_key=draw(H32), not_after=draw(NUMBER), signature=draw(SIG)
            )
            for device in certified
        ),
        signature=draw(SIG),
    )  # fmt: skip


@st.composite
def _masked(draw):
    word_bytes = draw(st.integers(1, 8))
    words = draw(st.integers(0, 40).flatmap(lambda n: st.binary(min_size=n * word_bytes, max_size=n * word_bytes)))
    head = {name: draw(strategy) for name, strategy in HEAD.items()}
    return messages.MaskedVector(device=draw(DEVICE), word_bytes=word_bytes, words=words, **head)


@st.composite
def _sets(draw):
    roster_size, shared, _ = draw(_ranked(1))
    survivors = tuple(rank for rank in shared if draw(st.booleans()))
    head = {name: draw(strategy) for name, strategy in HEAD.items()}
    return messages.SurvivorSets(roster_size=roster_size, shared=shared, survivors=survivors, **head)


def _records(size: int) -> st.SearchStrategy[tuple[bytes, ...]]:
    return st.lists(st.binary(min_size=size, max_size=size), max_size=8).map(tuple)


MADE = {
    "certificate": CERTIFICATES,
    "advert": st.builds(
        messages.Advert, context=H32, certificate=CERTIFICATES, cipher_key=H32, mask_key=H32, commitment=H32,
        signature=SIG,
    ),
    "roster": _rosters(),
    "shares": st.builds(messages.SealedShares, device=DEVICE, sealed=_records(82), **HEAD),
    "inbox": st.tuples(_ranked(82), DEVICE, H32, H32, SIG).map(
        lambda t: messages.Inbox(
            roster_size=t[0][0], senders=t[0][1], sealed=t[0][2], device=t[1], context=t[2], root=t[3], signature=t[4]
        )
    ),
    "masked": _masked(),
    "sets": _sets(),
    "consistency": st.builds(messages.Consistency, device=DEVICE, sets_hash=H32, **HEAD),
    "signatures": st.tuples(_ranked(64), H32, H32, SIG).map(
        lambda t: messages.Signatures(
            roster_size=t[0][0], signers=t[0][1], signatures=t[0][2], context=t[1], root=t[2], signature=t[3]
        )
    ),
    "reveal": st.builds(messages.Reveal, device=DEVICE, sets_hash=H32, shares=_records(33), **HEAD),
    "receipt": st.builds(
        messages.Receipt, sets_hash=H32, sum_hash=H32, model_hash=H32, log_index=NUMBER, **HEAD
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
@given(data=st.data())
@settings(max_examples=25)
def test_what_is_written_is_read_back_and_has_no_other_spelling(name, data):
    message = data.draw(MADE[name])
    encoded = message.to_bytes()
    read = type(message).from_bytes(encoded)
    assert read == message
    assert read.to_bytes() == encoded
    for broken in (encoded + b"\0", encoded[:-1], b"PSAH" + encoded[4:], encoded[:4] + b"\x02" + encoded[5:]):
        with pytest.raises(MessageError):
            type(message).from_bytes(broken)


@given(st.integers(0, 300), st.data())
def test_bitmaps_hold_exactly_their_ranks(size, data):
    ranks = data.draw(st.sets(st.integers(0, size - 1))) if size else set()
    encoded = header(Kind.INBOX) + bitmap(ranks, size)
    assert Reader(encoded, Kind.INBOX).ranks() == (tuple(sorted(ranks)), size)


def test_unused_bits_of_a_bitmap_are_zero():
    encoded = header(Kind.INBOX) + bitmap([0, 2], 3)
    assert encoded[-1:] == b"\xa0"
    with pytest.raises(MessageError, match="beyond a roster of 3"):
        Reader(encoded[:-1] + b"\xb0", Kind.INBOX).ranks()


def test_devices_on_a_roster_ascend():
    entry = {"cipher_key": bytes(32), "mask_key": bytes(32), "commitment": bytes(32), "signature": bytes(64)}
    for devices in ([2, 1], [1, 1]):
        roster = messages.Roster(
            context=bytes(32), fleet="f", certificates=(), signature=bytes(64),
            entries=tuple(messages.RosterEntry(device=device, **entry) for device in devices),
        )  # fmt: skip
        with pytest.raises(MessageError, match="do not ascend"):
            messages.Roster.from_bytes(roster.to_bytes())


def test_survivors_who_did_not_share_are_refused():
    sets = messages.SurvivorSets(
        context=bytes(32), root=bytes(32), roster_size=9, shared=(1, 2), survivors=(2, 3), signature=bytes(64)
    )
    with pytest.raises(MessageError, match="not a part of those who shared"):
        messages.SurvivorSets.from_bytes(sets.to_bytes())


def _capture(secagg) -> list[tuple[Callable[[bytes], object], bytes]]:
    """Every message of a true round, with what reads it."""
    fleet = secagg.fleet(6)
    server_key = fleet.server_key.public_key()

    def opened(data: bytes) -> SimpleNamespace:
        offer = Offer.open(data, server_key)
        return SimpleNamespace(to_bytes=lambda: offer.sign(fleet.server_key))

    up = {
        Stage.ADVERTISE: messages.Advert, Stage.SHARE: messages.SealedShares, Stage.MASK: messages.MaskedVector,
        Stage.CONFIRM: messages.Consistency, Stage.REVEAL: messages.Reveal,
    }  # fmt: skip
    down = {
        Stage.ADVERTISE: messages.Roster, Stage.SHARE: messages.Inbox, Stage.MASK: messages.SurvivorSets,
        Stage.CONFIRM: messages.Signatures,
    }  # fmt: skip
    found: list[tuple[Callable[[bytes], object], bytes]] = [(opened, fleet.server.offer_bytes)]
    sent: dict[Stage, bytes] = {}
    fleet.play(tamper=lambda stage, device, data: sent.setdefault(stage, data) and data)
    found += [(up[stage].from_bytes, data) for stage, data in sent.items()]
    for stage, kind in down.items():
        again = secagg.fleet(6)
        following = Stage(stage + 1)
        found.append((kind.from_bytes, again.play(until=following)[again.ids[0]]))
    found.append((messages.Receipt.from_bytes, fleet.server.receipt(model_hash="cd" * 32, log_index=1)))
    certificate = fleet.identities[fleet.ids[0]].certificate
    found.append((EnrolmentCertificate.from_bytes, certificate.to_bytes()))
    return found


def _mutated(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    raw = bytearray(data)
    kind = rng.randrange(6)
    if kind == 0:  # flip bits
        for _ in range(rng.randrange(1, 4)):
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    elif kind == 1:  # cut short
        del raw[rng.randrange(len(raw)) :]
    elif kind == 2:  # splice two messages
        other = rng.choice(others)
        raw = raw[: rng.randrange(len(raw))] + bytearray(other[rng.randrange(len(other)) :])
    elif kind == 3:  # a length bomb
        at = rng.randrange(len(raw))
        raw[at : at + 4] = rng.choice(
            [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\x10\x00", b"\x10\x00\x00\x00"]
        )
    elif kind == 4:  # repeat or drop a piece
        start, size = rng.randrange(len(raw)), rng.randrange(1, 64)
        raw[start:start] = raw[start : start + size] * rng.randrange(3)
    else:  # noise behind a true beginning
        raw = raw[: rng.randrange(4, 60)] + rng.randbytes(rng.randrange(300))
    return bytes(raw)


def test_mutated_messages_end_in_a_named_error_or_are_what_they_say(secagg):
    found = _capture(secagg)
    assert len(found) == Kind.RECEIPT  # the kinds after it are those of two aggregators
    rng, accepted, refused = random.Random(5), 0, 0
    corpus = [data for _, data in found]
    tracemalloc.start()
    for read, data in found:
        for _ in range(1000):
            broken = _mutated(data, rng, corpus)
            try:
                again = read(broken)
            except (MessageError, OfferRefused):
                refused += 1
            else:
                accepted += 1
                assert again.to_bytes() == broken
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert accepted + refused == 12_000
    assert accepted > 100  # a flipped bit of a key is still a key: the readers are not refusing by accident
    assert refused > 5_000
    assert peak < 2_000_000  # no length made anybody allocate


@pytest.mark.parametrize("stage", Stage)
def test_mutated_messages_to_a_server_leave_its_round_as_it_was(secagg, stage):
    fleet = secagg.fleet(6)
    inputs = fleet.play(until=stage)
    answers = {device: fleet.answer(device, stage, inputs[device]) for device in inputs}
    rng, first = random.Random(int(stage)), fleet.ids[0]
    for _ in range(150):
        broken = _mutated(answers[first], rng, list(answers.values()))
        if broken not in answers.values():
            with pytest.raises(SecureAggregationError):
                fleet.server.receive(stage, first, broken)
    assert fleet.server.excluded == frozenset()
    assert fleet.server.arrived(stage) == frozenset()
    for device, data in answers.items():
        fleet.server.receive(stage, device, data)
    messages_down = fleet.server.close(stage)
    for later in Stage:
        if later > stage:
            for device, data in messages_down.items():
                fleet.server.receive(later, device, fleet.answer(device, later, data))
            messages_down = fleet.server.close(later)
    assert fleet.server.result().vector.tolist() == fleet.sum_of(fleet.ids).tolist()


@pytest.mark.parametrize("stage", list(Stage)[1:])
def test_mutated_messages_to_a_device_end_its_round_with_a_named_error(secagg, stage):
    rng = random.Random(int(stage))
    for _ in range(6):
        fleet = secagg.fleet(6)
        inputs = fleet.play(until=stage)
        for device, data in inputs.items():
            broken = _mutated(data, rng, list(inputs.values()))
            if broken not in inputs.values():
                with pytest.raises(SecureAggregationError):
                    fleet.answer(device, stage, broken)
                assert fleet.devices[device].aborted


@pytest.mark.parametrize("count", [MAX_ROSTER + 1, 0xFFFFFFFF])
def test_a_length_beyond_the_largest_roster_is_refused_before_anything_is_read(count):
    head = header(Kind.SEALED_SHARES) + bytes(64) + bytes(8) + count.to_bytes(4, "big")
    with pytest.raises(MessageError, match=f"{count} is above {MAX_ROSTER}"):
        messages.SealedShares.from_bytes(head + bytes(1000))


def test_masked_values_are_not_printed():
    masked = messages.MaskedVector(
        context=bytes(32), root=bytes(32), device=1, word_bytes=4, words=np.arange(9, dtype="<u4").tobytes()
    )
    assert "words" not in repr(masked)
