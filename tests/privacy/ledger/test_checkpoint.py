"""Signed notes and checkpoints: only what trusted keys signed is believed, in one spelling."""

from __future__ import annotations

import random
import string
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from palate.privacy.ledger.body import encode
from palate.privacy.ledger.checkpoint import TreeHead, open_checkpoint
from palate.privacy.ledger.errors import BadNote, BadProof, Fork, Rollback
from palate.privacy.ledger.merkle import EMPTY_ROOT, MerkleTree, verify_inclusion
from palate.privacy.ledger.note import COSIGNATURE, Note, NoteKey, Signature
from palate.privacy.ledger.verify import verify_ledger

ORIGIN = "example.org/palate"
LOG, FIRST, SECOND = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2, 3))
LOG_KEY = NoteKey(ORIGIN, LOG.public_key())
WITNESSES = [NoteKey(f"w{number}", key.public_key(), COSIGNATURE) for number, key in enumerate((FIRST, SECOND), 1)]
TREE = MerkleTree([b"round %d" % number for number in range(9)])
HEAD = TreeHead.of(ORIGIN, TREE)
NOTE = HEAD.sign(LOG).cosigned(FIRST, "w1", time=1_700_000_000)


def test_a_checkpoint_comes_back_as_it_went_in():
    assert open_checkpoint(NOTE.encode(), LOG_KEY) == HEAD
    assert Note.decode(NOTE.encode()) == NOTE
    assert TreeHead.from_text(TreeHead(ORIGIN, 0, EMPTY_ROOT).to_text()).size == 0


def test_a_quorum_counts_trusted_witnesses_once():
    assert open_checkpoint(NOTE.encode(), LOG_KEY, witnesses=WITNESSES, quorum=1) == HEAD
    with pytest.raises(BadNote, match="1 trusted witnesses cosigned, 2 are needed"):
        open_checkpoint(NOTE.encode(), LOG_KEY, witnesses=WITNESSES, quorum=2)
    both = NOTE.cosigned(SECOND, "w2", time=1_700_000_001)
    assert open_checkpoint(both.encode(), LOG_KEY, witnesses=WITNESSES, quorum=2) == HEAD
    alias = NoteKey("w9", FIRST.public_key(), COSIGNATURE)
    twice = NOTE.cosigned(FIRST, "w9", time=1_700_000_001)
    with pytest.raises(BadNote, match="1 trusted witnesses"):
        open_checkpoint(twice.encode(), LOG_KEY, witnesses=[*WITNESSES, alias], quorum=2)


def test_the_log_is_no_witness_of_itself():
    own = HEAD.sign(LOG).cosigned(LOG, "w1", time=1_700_000_000)
    witness = NoteKey("w1", LOG.public_key(), COSIGNATURE)
    with pytest.raises(BadNote, match="0 trusted witnesses"):
        open_checkpoint(own.encode(), LOG_KEY, witnesses=[witness], quorum=1)


def test_a_witness_alone_does_not_make_a_checkpoint():
    alone = Note(HEAD.to_text(), ()).cosigned(FIRST, "w1", time=1)
    with pytest.raises(BadNote, match="did not sign"):
        open_checkpoint(alone.encode(), LOG_KEY, witnesses=WITNESSES, quorum=1)
    with pytest.raises(BadNote, match="no trusted key"):
        open_checkpoint(alone.encode(), LOG_KEY)


def test_unknown_signatures_are_passed_over_and_wrong_ones_are_not():
    stranger = Ed25519PrivateKey.generate()
    assert open_checkpoint(NOTE.signed(stranger, ORIGIN).encode(), LOG_KEY) == HEAD
    forged = Signature(ORIGIN, LOG_KEY.key_id, stranger.sign(NOTE.text.encode()))
    with pytest.raises(BadNote, match="does not fit"):
        open_checkpoint(replace(NOTE, signatures=(*NOTE.signatures, forged)).encode(), LOG_KEY)
    short = Signature(ORIGIN, LOG_KEY.key_id, b"short")
    with pytest.raises(BadNote, match="5 bytes"):
        open_checkpoint(replace(NOTE, signatures=(short,)).encode(), LOG_KEY)


def test_a_plain_signature_is_no_cosignature():
    plain = HEAD.sign(LOG).signed(FIRST, "w1")
    with pytest.raises(BadNote, match="0 trusted witnesses"):
        open_checkpoint(plain.encode(), LOG_KEY, witnesses=WITNESSES, quorum=1)
    with pytest.raises(BadNote, match="for cosignatures"):
        open_checkpoint(NOTE.encode(), LOG_KEY, witnesses=[NoteKey("w1", FIRST.public_key())])


def test_a_second_spelling_of_a_signature_is_refused():
    text = HEAD.sign(LOG).encode().decode()
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
    last = text[-3]  # before "=" and newline: its two lowest bits stand for nothing
    other = text[:-3] + alphabet[alphabet.index(last) ^ 1] + text[-2:]
    with pytest.raises(BadNote, match="canonical base64"):
        open_checkpoint(other.encode(), LOG_KEY)


def test_a_checkpoint_of_another_log_is_refused():
    other = TreeHead("example.org/else", 9, TREE.root())
    note = Note(other.to_text(), ()).signed(LOG, ORIGIN)
    with pytest.raises(BadNote, match=r"is of example\.org/else"):
        open_checkpoint(note.encode(), LOG_KEY)


@pytest.mark.parametrize(
    "text",
    [
        "", "\n", f"{ORIGIN}\n9\n", f"{ORIGIN}\n9\n{'A' * 43}=", f"{ORIGIN}\n9\n{'A' * 43}=\nmore\n",
        f"{ORIGIN}\n09\n{'A' * 43}=\n", f"{ORIGIN}\n+9\n{'A' * 43}=\n", f"{ORIGIN}\n-9\n{'A' * 43}=\n",
        f"{ORIGIN}\n٩\n{'A' * 43}=\n", f"{ORIGIN}\n{'9' * 5000}\n{'A' * 43}=\n", f"{ORIGIN}\n9\n{'A' * 42}B=\n",
        f"{ORIGIN}\n9\n{'A' * 43}\n", f"{ORIGIN}\n9\n{'A' * 40}\n", f"\n9\n{'A' * 43}=\n", f"a b\n9\n{'A' * 43}=\n",
        f"{ORIGIN}\n0\n{'A' * 43}=\n", f"{ORIGIN}\n9\n é\n", f"{ORIGIN}\r\n9\r\n{'A' * 43}=\r\n",
    ],
)  # fmt: skip
def test_what_is_not_a_canonical_checkpoint_is_refused(text: str):
    with pytest.raises(BadNote):
        TreeHead.from_text(text)


@given(st.data())
def test_any_changed_byte_of_a_cosigned_checkpoint_is_found_or_makes_a_stranger_of_its_signer(data: st.DataObject):
    encoded = bytearray(NOTE.encode())
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BadNote):
        open_checkpoint(bytes(encoded), LOG_KEY, witnesses=WITNESSES, quorum=1)


def test_ten_thousand_mutated_notes_and_keys_all_have_a_name():
    generator, note, key = random.Random(3), NOTE.encode(), LOG_KEY.encode()
    for _ in range(10_000):
        text = bytearray(note)
        start = generator.randrange(len(text))
        text[start : start + generator.choice([0, 1, 4, 40])] = generator.randbytes(generator.choice([1, 1, 2, 30]))
        if text != note:
            with pytest.raises(BadNote):
                open_checkpoint(bytes(text), LOG_KEY, witnesses=WITNESSES, quorum=1)
        at = generator.randrange(len(key))
        changed = key[:at] + chr(generator.randrange(256)) + key[at + generator.choice([0, 1, 5]) :]
        if changed != key:
            with pytest.raises(BadNote):
                NoteKey.decode(changed)


def test_growth_is_proven_and_anything_else_has_a_name():
    older = TreeHead(ORIGIN, 5, TREE.root(5))
    HEAD.check_extends(older, TREE.consistency_proof(5))
    HEAD.check_extends(HEAD, [])
    with pytest.raises(Rollback, match="5 leaves, it had 9 before"):
        older.check_extends(HEAD, [])
    with pytest.raises(Fork, match="two roots"):
        HEAD.check_extends(TreeHead(ORIGIN, 9, TREE.root(5)), [])
    with pytest.raises(BadProof, match="does not extend"):
        HEAD.check_extends(TreeHead(ORIGIN, 5, TREE.root(4)), TREE.consistency_proof(5))
    with pytest.raises(BadProof, match="different logs"):
        HEAD.check_extends(replace(older, origin="example.org/else"), TREE.consistency_proof(5))


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u00a0b", "a\nb"])
def test_a_key_has_a_name_without_spaces(name: str):
    with pytest.raises(BadNote):
        NoteKey(name, LOG.public_key())


def test_a_time_before_the_epoch_or_beyond_the_format_is_refused():
    for time in (-1, 1 << 63):
        with pytest.raises(BadNote):
            HEAD.sign(LOG).cosigned(FIRST, "w1", time=time)


def test_a_device_can_check_its_round_in_the_servers_log(ledger, signer):
    entries = verify_ledger(ledger, "device", signer.public_key(), allow_open=True)
    bodies = [encode(event, seq) for seq, event in enumerate(entries.events, start=1)]
    log = MerkleTree(bodies)
    seen = open_checkpoint(TreeHead.of(ORIGIN, log).sign(LOG).encode(), LOG_KEY)
    for index, body in enumerate(bodies):
        verify_inclusion(body, index, seen.size, log.inclusion_proof(index), seen.root)
    log.append(b"one more round")
    TreeHead.of(ORIGIN, log).check_extends(seen, log.consistency_proof(seen.size))
