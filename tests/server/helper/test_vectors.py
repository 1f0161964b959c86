"""The bytes of docs/formats/helper.md, made without the code that is tested."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.errors import ConfigError, PalateError
from palate.privacy.aggregators.admission import Parties
from palate.privacy.aggregators.errors import RequestRefused, TooFewReports
from palate.privacy.ledger.errors import Tampered
from palate.server.helper.anchor import AnchorFile, LedgerEnd
from palate.server.helper.cards import HelperCard, LeaderCard
from palate.server.helper.queries import Query, Question, parts_of
from palate.server.helper.remote import issued_ahead
from palate.server.helper.replies import read_reply

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "helper.json").read_text("utf-8"))
LEADER, HELPER = (
    Ed25519PrivateKey.from_private_bytes(bytes.fromhex(VECTORS["keys"][who])) for who in ("leader", "helper")
)


def joined(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


PARTIES = Parties(leader=public(LEADER), helper=public(HELPER))
PARTIES_HASH = sha256(joined(b"palate two aggregators parties v1", public(LEADER), public(HELPER), b"")).digest()


def test_a_question_is_what_the_format_says():
    body = joined(b"films-1", (7).to_bytes(8, "big"))
    signature = LEADER.sign(joined(b"palate/helper/query/1", PARTIES_HASH, b"round-key", sha256(body).digest()))
    data = joined(b"palate-helper-query/1", b"round-key", signature, body)
    assert data.hex() == VECTORS["query"]
    query = Query.from_file(data, PARTIES)
    assert (query.question, query.body, query.to_file()) == (Question.ROUND_KEY, body, data)


def test_replies_are_what_the_format_says():
    assert read_reply(bytes.fromhex(VECTORS["done"])) == [b"one", b""]
    assert bytes.fromhex(VECTORS["done"]) == joined(b"palate-helper-reply/1", b"done", b"one", b"")
    with pytest.raises(TooFewReports) as refused:
        read_reply(bytes.fromhex(VECTORS["refused"]))
    assert (refused.value.valid, refused.value.least, refused.value.hint) == (2, 3, "wait for more")


def test_keys_issued_ahead_are_what_the_format_says():
    data = joined(joined(b"films-1", (7).to_bytes(8, "big"), b"key"))
    assert data.hex() == VECTORS["issued"]
    assert issued_ahead([("films-1", 7, b"key")]) == data


@pytest.mark.parametrize(("name", "kind", "key"), [("helper", HelperCard, HELPER), ("leader", LeaderCard, LEADER)])
def test_cards_are_what_the_format_says(name, kind, key):
    text = VECTORS[f"{name}_card"]
    values = json.loads(text)
    signature = values.pop("signature")
    told = joined(b"palate/helper/card/1", json.dumps(values, sort_keys=True, separators=(",", ":")).encode())
    assert key.sign(told).hex() == signature
    card = kind.open(text.encode())
    assert card.sign(key).decode() == text
    assert card.fingerprint == sha256(told).hexdigest() == VECTORS[f"{name}_card_fingerprint"]


def test_the_anchor_is_what_the_format_says(tmp_path):
    values = json.loads(VECTORS["anchor"])
    signature = values.pop("signature")
    told = joined(b"palate/helper/anchor/1", json.dumps(values, sort_keys=True, separators=(",", ":")).encode())
    assert HELPER.sign(told).hex() == signature
    (tmp_path / "anchor").write_text(VECTORS["anchor"])
    read = AnchorFile(tmp_path / "anchor", "films", HELPER).read()
    assert read == LedgerEnd(sequence=3, answer_hash=b"\x11" * 32, log_size=3, log_root=b"\x22" * 32)
    with pytest.raises(Tampered):
        AnchorFile(tmp_path / "anchor", "books", HELPER).read()


OPENED = {
    "query": (bytes.fromhex(VECTORS["query"]), lambda data: Query.from_file(data, PARTIES), RequestRefused),
    "helper_card": (VECTORS["helper_card"].strip().encode(), HelperCard.open, ConfigError),
    "leader_card": (VECTORS["leader_card"].strip().encode(), LeaderCard.open, ConfigError),
    "reply": (bytes.fromhex(VECTORS["done"]), read_reply, PalateError),
    "parts": (bytes.fromhex(VECTORS["issued"]), parts_of, RequestRefused),
}


@pytest.mark.campaign(short=300, long=10_000)
@pytest.mark.parametrize("name", OPENED)
def test_a_mutated_message_is_refused_by_name(name, repeats):
    """Every mutation is refused, or, where nothing is signed, read as something else; nothing else is raised."""
    import random

    rng, (data, read, refusal) = random.Random(name), OPENED[name]
    signed = name not in {"reply", "parts"}
    for _ in range(repeats):
        mutated = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            match rng.randrange(3):
                case 0:
                    mutated[rng.randrange(len(mutated))] ^= 1 << rng.randrange(8)
                case 1:
                    del mutated[rng.randrange(len(mutated)) :]
                case _:
                    mutated += rng.randbytes(rng.randint(1, 9))
            if not mutated:
                break
        if bytes(mutated).rstrip(b"\r\n") == data:  # whoever mails a card may end the line
            continue
        try:
            read(bytes(mutated))
        except refusal:
            continue
        assert not signed, bytes(mutated).hex()
