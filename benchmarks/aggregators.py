"""What a collection under two aggregators costs each side, in CPU-seconds, in process and without a network.

    python benchmarks/aggregators.py --reports 2000 --words 60000

Uploads lie in a leader's spool, each on disk before it counts. Signing keys and vectors are made beforehand and not
counted.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.privacy.aggregators.admission import Entry, Membership, Parties, list_of
from palate.privacy.aggregators.device import Offered, make_report
from palate.privacy.aggregators.helper import Helper
from palate.privacy.aggregators.leader import Collection
from palate.privacy.aggregators.offer import CollectionOffer
from palate.privacy.aggregators.sealing import RoundSecret, Suite
from palate.server.fleet.spool import UploadSpool


class _Book:
    """A helper's book in memory."""

    def __init__(self, secrets, members: Membership) -> None:
        self.secrets = secrets
        self.members = members

    def head(self):
        return 0, bytes(32)

    def answered(self, *_):
        return None

    def round_secret(self, round_key_hash):
        return self.secrets.get(round_key_hash)

    def membership(self, *_):
        return self.members

    def last_reports(self):
        return {}

    def record(self, *_):
        return None

    def anchor(self):
        return None

    def destroy(self, *_):
        return None


def measure(reports: int, words: int, bits: int, suite: Suite) -> dict[str, float]:
    """Run one collection; CPU-seconds and bytes by name."""
    leader, helper_key, authority = (Ed25519PrivateKey.generate() for _ in range(3))
    raw = [key.public_key().public_bytes_raw() for key in (leader, helper_key, authority)]
    parties = Parties(leader=raw[0], helper=raw[1], authority=raw[2])
    keys = [Ed25519PrivateKey.generate() for _ in range(reports)]
    entries = {place: Entry(key.public_key().public_bytes_raw(), 1 << 40) for place, key in enumerate(keys)}
    register = list_of(entries, fleet="bench", epoch=1, not_after=1 << 40).signed(authority)
    secret = RoundSecret.generate(suite)
    round_key = secret.published(helper_key, fleet="bench", index=0, not_after=1 << 40)
    offer = CollectionOffer(
        fleet="bench",
        run="run",
        server_round=1,
        plan_hash="00" * 32,
        vector_length=words,
        ring_bits=bits,
        sensitivity=1,
        share_variance=1,
        honest_shares=reports // 2,
        corrupt=reports // 20,
        least_batch=reports // 2 + reports // 20,
        most_reports=reports,
        register_hash=register.content_hash,
        round_key_hash=round_key.content_hash,
        parties_hash=parties.content_hash,
        issued_at=1,
        report_before=100,
        answer_before=200,
    )
    offer_bytes = offer.sign(leader)
    offered = Offered.checked(
        offer_bytes,
        register.to_bytes(),
        round_key.to_bytes(),
        parties=parties,
        fleet="bench",
        gamma_thousandths=50,
        least_epoch=0,
        now=2,
    )
    started = time.process_time()
    membership = Membership.checked(register, entries, parties)
    spent = {"register": time.process_time() - started, "device": 0.0, "leader": 0.0, "helper": 0.0}
    vector = np.zeros(words, dtype=np.uint32 if bits <= 32 else np.uint64)
    with tempfile.TemporaryDirectory() as folder:
        collection = Collection(
            offer,
            offer_bytes,
            membership=membership,
            suite=suite,
            parties=parties,
            key=leader,
            spool=UploadSpool(Path(folder) / "1.uploads"),
        )
        for place, key in enumerate(keys):
            started = time.process_time()
            report = make_report(offered, vector, device=place, identity=key, ledger_head=bytes(32), seen=None)
            made = time.process_time()
            collection.take(report, now=5)
            spent["device"] += made - started
            spent["leader"] += time.process_time() - made
        started = time.process_time()
        request = collection.freeze()
        spent["leader"] += time.process_time() - started
        started = time.process_time()
        book = _Book({round_key.content_hash: (round_key, secret)}, membership)
        answer = Helper("bench", helper_key, parties, book).answer(request, now=150)
        spent["helper"] = time.process_time() - started
        started = time.process_time()
        collected = collection.finish(answer)
        spent["leader"] += time.process_time() - started
    assert not collected.integers.any()
    return {
        "reports": reports,
        "words": words,
        "bits": bits,
        "report_bytes": len(report),
        "request_bytes": len(request),
        "device_ms": 1000 * spent["device"] / reports,
        "leader_cpu_s": spent["leader"],
        "helper_cpu_s": spent["helper"],
        "register_cpu_s": spent["register"],
    }


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reports", type=int, default=2000)
    parser.add_argument("--words", type=int, default=60_000)
    parser.add_argument("--bits", type=int, default=20)
    parser.add_argument("--suite", choices=[suite.name for suite in Suite], default=Suite.X25519.name)
    given = parser.parse_args()
    print(json.dumps(measure(given.reports, given.words, given.bits, Suite[given.suite]), indent=1))


if __name__ == "__main__":
    main()
