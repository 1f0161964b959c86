"""Anchors: a receipt proves one head, and tells its signer nothing about it."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from palate.privacy.ledger.anchors import Anchor, Receipt, anchor_from_receipt, open_receipt
from palate.privacy.ledger.errors import BadReceipt, Rollback
from palate.privacy.ledger.verify import verify_ledger

SERVER = Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32)
KEY = SERVER.public_key()
SALT = bytes(range(32))
HEAD = Anchor("device", 6, bytes([5]) * 32)
RECEIPT = Receipt(
    run="run-1",
    round=2,
    commitment=HEAD.commit(SALT),
    survivors=bytes(32),
    total=bytes(32),
    model=bytes(32),
    log_index=2,
)


def test_a_receipt_comes_back_as_it_went_in():
    assert open_receipt(RECEIPT.sign(SERVER), KEY) == RECEIPT
    assert anchor_from_receipt(RECEIPT.sign(SERVER), KEY, HEAD, SALT) == HEAD


def test_a_receipt_finds_a_rollback_of_the_ledger_it_was_made_for(ledger, signer, tmp_path):
    head = verify_ledger(ledger, "device", signer.public_key()).head
    text = replace(RECEIPT, commitment=head.commit(SALT)).sign(SERVER)
    anchor = anchor_from_receipt(text, KEY, head, SALT)
    verify_ledger(ledger, "device", signer.public_key(), anchors=[anchor])
    with pytest.raises(Rollback):
        anchor.check([bytes(32)] * 5)


@pytest.mark.parametrize(
    "other",
    [replace(HEAD, seq=7), replace(HEAD, name="tablet"), replace(HEAD, entry=bytes(32))],
    ids=["seq", "name", "entry"],
)
def test_a_receipt_is_for_one_head_only(other: Anchor):
    with pytest.raises(BadReceipt, match="another head"):
        anchor_from_receipt(RECEIPT.sign(SERVER), KEY, other, SALT)


def test_a_commitment_cannot_be_guessed_without_its_salt():
    assert HEAD.commit(SALT) != HEAD.commit(bytes(32))
    with pytest.raises(BadReceipt, match="another head"):
        anchor_from_receipt(RECEIPT.sign(SERVER), KEY, HEAD, bytes(32))
    for salt in (b"", bytes(31), bytes(33)):
        with pytest.raises(BadReceipt, match="a salt has 32 bytes"):
            HEAD.commit(salt)


def test_another_servers_receipt_is_refused():
    with pytest.raises(BadReceipt, match="another server"):
        open_receipt(RECEIPT.sign(Ed25519PrivateKey.generate()), KEY)


@pytest.mark.parametrize(
    "changes",
    [
        {"commitment": bytes(31)},
        {"survivors": b""},
        {"total": bytes(33)},
        {"round": -1},
        {"log_index": 1 << 53},
        {"run": "\n"},
    ],
)
def test_a_receipt_out_of_bounds_cannot_be_signed(changes: dict[str, object]):
    with pytest.raises(BadReceipt):
        replace(RECEIPT, **changes).sign(SERVER)


@given(st.data())
def test_any_changed_byte_of_a_receipt_is_found(data: st.DataObject):
    text = bytearray(RECEIPT.sign(SERVER))
    text[data.draw(st.integers(0, len(text) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BadReceipt):
        open_receipt(bytes(text), KEY)


def test_ten_thousand_mutated_receipts_all_have_a_name():
    generator, original = random.Random(2), RECEIPT.sign(SERVER)
    for _ in range(10_000):
        text = bytearray(original)
        start = generator.randrange(len(text))
        text[start : start + generator.choice([0, 1, 9, 80])] = generator.randbytes(generator.choice([0, 1, 2, 20]))
        if text != original:
            with pytest.raises(BadReceipt):
                open_receipt(bytes(text), KEY)


@pytest.mark.parametrize(("seq", "entry"), [(0, bytes(32)), (-1, bytes(32)), (1 << 53, bytes(32)), (1, bytes(31))])
def test_an_anchor_is_the_number_and_the_hash_of_an_entry(seq: int, entry: bytes):
    with pytest.raises(BadReceipt):
        Anchor("device", seq, entry)
