"""A ledger as text: no byte of it can be changed unnoticed."""

from __future__ import annotations

import random

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palate.privacy.ledger.errors import LedgerError, LedgerUnreadable, Tampered
from palate.privacy.ledger.export import export_ledger, from_text, to_text
from palate.privacy.ledger.store import LedgerBook
from palate.privacy.ledger.verify import verify_ledger, verify_records


def _verify(text: bytes, signer: Ed25519PrivateKey):
    name, records = from_text(text, signer.public_key())
    return verify_records(name, records, signer.public_key())


@pytest.fixture(scope="module")
def sealed_in_threes(tmp_path_factory) -> bytes:
    """One of three ledgers that were signed together, so that entries have ways to their signatures."""
    from palate.privacy.ledger.body import Intent, Outcome, Policy, hash_text

    signer = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    path = tmp_path_factory.mktemp("export") / "three.db"
    names = ["a", "b", "c"]
    intent = Intent(
        run="r", round=1, mechanism="user", unit="user", adjacency="zero-out", clip_int=4096, sum_var_int=8192**2,
        m_honest=2, n1=3, sampling="none-claimed", model=hash_text(b""), transcript=hash_text(b""),
    )  # fmt: skip
    outcome = Outcome(run="r", round=1, status="released", payload=hash_text(b"masked"), receipt="")
    with LedgerBook(path, signer) as book:
        book.create(names, Policy(unit="user", adjacency="zero-out", delta="1e-5", budget_nano=10**9, n_min=2))
        book.append_batch([(name, intent) for name in names])
        book.append_batch([(name, outcome) for name in names])
    return export_ledger(path, "b", signer.public_key())


def test_text_says_what_the_file_says(ledger, signer):
    text = export_ledger(ledger, "device", signer.public_key())
    assert _verify(text, signer) == verify_ledger(ledger, "device", signer.public_key())
    name, records = from_text(text, signer.public_key())
    assert to_text(name, signer.public_key(), records) == text


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_single_byte_mutation_has_a_name(sealed_in_threes, signer, data):
    at = data.draw(st.integers(0, len(sealed_in_threes) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != sealed_in_threes[at]))
    with pytest.raises(LedgerError):
        _verify(sealed_in_threes[:at] + bytes([byte]) + sealed_in_threes[at + 1 :], signer)


def test_ten_thousand_mutations_all_have_a_name(sealed_in_threes, signer):
    assert _verify(sealed_in_threes, signer).state.seq == 3
    generator = random.Random(11)
    for _ in range(10_000):
        text = bytearray(sealed_in_threes)
        for _ in range(generator.randrange(1, 4)):
            start = generator.randrange(len(text))
            end = start + generator.choice([0, 1, 1, 1, 8, 64])
            text[start:end] = generator.randbytes(generator.choice([0, 1, 1, 1, 3, 32]))
        if text == sealed_in_threes:
            continue
        with pytest.raises(LedgerError):
            _verify(bytes(text), signer)


@pytest.mark.parametrize("order", [[0, 2, 1, 3], [0, 1, 3], [0, 2, 3], [0, 1, 2, 2, 3], [1, 2, 3], [0]])
def test_lines_moved_dropped_or_doubled_have_a_name(sealed_in_threes, signer, order):
    lines = sealed_in_threes.splitlines(keepends=True)
    with pytest.raises(LedgerError):
        _verify(b"".join(lines[number] for number in order), signer)


def test_another_ledgers_entries_under_this_name_are_found(sealed_in_threes, signer):
    with pytest.raises(Tampered):
        _verify(sealed_in_threes.replace(b'"ledger":"b"', b'"ledger":"a"'), signer)


def test_another_key_and_another_format_are_refused(sealed_in_threes, signer):
    with pytest.raises(Tampered, match="another key"):
        _verify(sealed_in_threes, Ed25519PrivateKey.generate())
    with pytest.raises(LedgerUnreadable, match="palate-ledger/1"):
        _verify(sealed_in_threes.replace(b"palate-ledger/1", b"palate-ledger/3"), signer)
    with pytest.raises(LedgerUnreadable, match="empty"):
        _verify(b"", signer)
