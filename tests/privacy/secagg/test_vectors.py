"""Fixed vectors: one whole round as another implementation would have to play it, and for each message one that fails.

When the format changes, run this file as a program: it writes secagg.json anew from the seeds that are in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.privacy.secagg import errors, messages
from palate.privacy.secagg.device import DeviceRound
from palate.privacy.secagg.encoding import to_sign
from palate.privacy.secagg.keys import DeviceIdentity, EnrolmentAuthority, EnrolmentCertificate
from palate.privacy.secagg.offer import DevicePolicy, Offer
from palate.privacy.secagg.server import ServerRound, Stage

VECTORS = Path(__file__).parents[2] / "vectors" / "secagg.json"
READERS: dict[str, Callable[[bytes], object]] = {
    "certificate": EnrolmentCertificate.from_bytes,
    "advert": messages.Advert.from_bytes,
    "roster": messages.Roster.from_bytes,
    "sealed shares": messages.SealedShares.from_bytes,
    "inbox": messages.Inbox.from_bytes,
    "masked vector": messages.MaskedVector.from_bytes,
    "survivor sets": messages.SurvivorSets.from_bytes,
    "consistency": messages.Consistency.from_bytes,
    "signatures": messages.Signatures.from_bytes,
    "reveal": messages.Reveal.from_bytes,
    "receipt": messages.Receipt.from_bytes,
}
UP = {
    Stage.ADVERTISE: "advert", Stage.SHARE: "sealed shares", Stage.MASK: "masked vector",
    Stage.CONFIRM: "consistency", Stage.REVEAL: "reveal",
}  # fmt: skip
DOWN = {
    Stage.ADVERTISE: "roster", Stage.SHARE: "inbox", Stage.MASK: "survivor sets", Stage.CONFIRM: "signatures"
}  # fmt: skip
SEEDS = {"authority": "authority", "server": "server", "identity of 3": "d3", "identity of 258": "d258",
         "identity of 70000": "d70000", "identity of 18446744073709551615": "dlast"}  # fmt: skip
DEVICES = (3, 258, 70000, (1 << 64) - 1)
DROPPED = 258


def _stream(seed: bytes) -> Callable[[int], bytes]:
    """Bytes of H(seed, 0), H(seed, 1), ... in order; numbers as four big-endian bytes. For vectors only."""
    left, block = b"", 0

    def take(size: int) -> bytes:
        nonlocal left, block
        while len(left) < size:
            left += sha256(seed + block.to_bytes(4, "big")).digest()
            block += 1
        taken, left = left[:size], left[size:]
        return taken

    return take


def _played(seeds: dict[str, str]) -> dict:
    """The round of the vectors, from its seeds."""
    key = {name: Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed)) for name, seed in seeds.items()}
    authority = EnrolmentAuthority("vectors", key["authority"])
    offer = Offer(
        fleet="vectors", run="run-1", server_round=7, plan_hash=sha256(b"plan").hexdigest(), vector_length=6,
        ring_bits=24, sensitivity=256, share_variance=10_000, honest_shares=3, max_roster=5, gamma_thousandths=200,
        tau_thousandths=600, n_min=3, issued_at=1_700_000_000,
    )  # fmt: skip
    server = ServerRound(offer, server_key=key["server"], authority_key=authority.public_key)
    vectors = {device: [(device * 1009 + place * 65_537) % (1 << 24) for place in range(6)] for device in DEVICES}
    devices, texts = {}, {"offer": server.offer_bytes.hex()}
    for device in DEVICES:
        identity = key[f"identity of {device}"]
        certificate = authority.enrol(device, identity.public_key(), not_after=1_800_000_000)
        texts[f"certificate of {device}"] = certificate.to_bytes().hex()
        devices[device] = DeviceRound(
            server.offer_bytes,
            plan_hash=offer.plan_hash,
            identity=DeviceIdentity(certificate, identity),
            server_key=key["server"].public_key(),
            authority_key=authority.public_key,
            policy=DevicePolicy(smallest_cohort=3, gamma_thousandths=200),
            _random=_stream(bytes.fromhex(seeds[f"identity of {device}"])),
        )
    inputs = dict.fromkeys(DEVICES, b"")
    for stage in Stage:
        for device, data in inputs.items():
            if stage >= Stage.MASK and device == DROPPED:
                continue
            party = devices[device]
            answer = {
                Stage.ADVERTISE: lambda _, party=party: party.advertise(),
                Stage.SHARE: party.share,
                Stage.MASK: lambda data, party=party, device=device: party.mask(
                    data, np.array(vectors[device], np.uint32)
                ),
                Stage.CONFIRM: party.confirm,
                Stage.REVEAL: party.reveal,
            }[stage](data)
            texts[f"{UP[stage]} of {device}"] = answer.hex()
            server.receive(stage, device, answer)
        inputs = server.close(stage)
        if stage is Stage.SHARE:
            texts |= {f"inbox for {device}": data.hex() for device, data in inputs.items()}
        elif stage in DOWN:
            (data,) = set(inputs.values())
            texts[DOWN[stage]] = data.hex()
    texts["receipt"] = server.receipt(model_hash=sha256(b"table").hexdigest(), log_index=41).hex()
    sets = messages.SurvivorSets.from_bytes(bytes.fromhex(texts["survivor sets"]))
    return {
        "context": offer.context.hex(),
        "root": sets.root.hex(),
        "sets_hash": sets.sets_hash.hex(),
        "vectors": {str(device): vector for device, vector in vectors.items()},
        "dropped": str(DROPPED),
        "sum": server.result().vector.tolist(),
        "messages": texts,
    }


def _failures(texts: dict[str, str], seeds: dict[str, str]) -> list[dict[str, str]]:
    """For every kind of message, one that is refused."""
    raw = {name: bytes.fromhex(text) for name, text in texts.items()}
    server = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seeds["server"]))
    body = raw["offer"][:-64]
    # tau comes before n_min (4), graph (1), degree (4) and the time (8).
    weak = body[:-19] + (599).to_bytes(2, "big") + body[-17:]
    roster, sets = raw["roster"], bytearray(raw["survivor sets"])
    first = 6 + 32 + 8 + 4
    swapped = roster[:first] + roster[first + 168 : first + 336] + roster[first : first + 168] + roster[first + 336 :]
    sets[6 + 64 + 4] |= 0x08
    wide = bytearray(raw["masked vector of 3"])
    wide[78] = 0
    last = raw["reveal of 3"]

    def failing(kind: str, why: str, says: str, data: bytes, error: str = "MessageError") -> dict[str, str]:
        return {"kind": kind, "why": why, "message": data.hex(), "error": error, "says": says}

    return [
        failing(
            "certificate",
            "not signed by the authority",
            "did not enrol",
            raw["certificate of 3"][:-1] + b"\xff",
            "EnrolmentRefused",
        ),
        failing(
            "offer",
            "signed, but tau is below (1 + gamma) / 2",
            "must be between 600",
            weak + server.sign(to_sign(weak)),
            "OfferRefused",
        ),
        failing(
            "advert",
            "an empty fleet",
            "a text of 0 characters",
            raw["advert of 3"][:-80] + b"\0" + raw["advert of 3"][-72:],
        ),
        failing("roster", "devices do not ascend", "do not ascend", swapped),
        failing("sealed shares", "cut short", "64 bytes where 63", raw["sealed shares of 3"][:-1]),
        failing("inbox", "another type", "type 5 where 6", raw["inbox for 3"][:5] + b"\x05" + raw["inbox for 3"][6:]),
        failing("masked vector", "values of no bytes", "values of 0 bytes", bytes(wide)),
        failing("survivor sets", "a rank beyond the roster", "beyond a roster of 4", bytes(sets)),
        failing(
            "consistency",
            "another version",
            "version 2",
            raw["consistency of 3"][:4] + b"\x02" + raw["consistency of 3"][5:],
        ),
        failing("signatures", "a byte too many", "1 bytes follow", raw["signatures"] + b"\0"),
        failing("reveal", "more shares than are there", "are left", last[:110] + b"\x00\x00\x10\x00" + last[114:]),
        failing("receipt", "a log index of 2^63", "is above", raw["receipt"][:-72] + b"\x80" + raw["receipt"][-71:]),
    ]


def _load() -> dict:
    return json.loads(VECTORS.read_text("utf-8"))


def test_a_round_from_the_seeds_is_the_round_of_the_vectors():
    vector = _load()
    assert _played(vector["seeds"]) == {name: vector[name] for name in vector if name not in ("seeds", "failures")}


def test_the_sum_of_the_vectors_is_that_of_those_who_stayed():
    vector = _load()
    kept = [values for device, values in vector["vectors"].items() if device != vector["dropped"]]
    assert [sum(column) % (1 << 24) for column in zip(*kept, strict=True)] == vector["sum"]


def test_every_message_of_the_vectors_is_read_and_written_back():
    names = set()
    for name, text in _load()["messages"].items():
        kind = name.partition(" of ")[0].partition(" for ")[0]
        names.add(kind)
        if kind != "offer":
            assert READERS[kind](bytes.fromhex(text)).to_bytes().hex() == text
    assert names == {*READERS, "offer"}


@pytest.mark.parametrize("failure", _load()["failures"] if VECTORS.exists() else [], ids=lambda f: f["kind"])
def test_every_failing_vector_is_refused_by_name(failure):
    seeds = {name: bytes.fromhex(seed) for name, seed in _load()["seeds"].items()}
    public = {name: Ed25519PrivateKey.from_private_bytes(seeds[name]).public_key() for name in ("server", "authority")}
    data = bytes.fromhex(failure["message"])
    readers = {
        **READERS,
        "offer": lambda data: Offer.open(data, public["server"]),
        "certificate": lambda data: EnrolmentCertificate.from_bytes(data).check(
            public["authority"], fleet="vectors", issued_at=1_700_000_000
        ),
    }
    with pytest.raises(errors.SecureAggregationError, match=failure["says"]) as refusal:
        readers[failure["kind"]](data)
    assert type(refusal.value).__name__ == failure["error"]


def test_every_kind_of_message_has_a_failing_vector():
    assert {failure["kind"] for failure in _load()["failures"]} == {*READERS, "offer"}


if __name__ == "__main__":
    seeds = {name: sha256(label.encode()).hexdigest() for name, label in SEEDS.items()}
    made = _played(seeds)
    whole = {"seeds": seeds, **made, "failures": _failures(made["messages"], seeds)}
    VECTORS.write_text(json.dumps(whole, indent=1) + "\n", "utf-8")
