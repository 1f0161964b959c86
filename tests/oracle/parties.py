"""What leader and helper keep of a collection, in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from palate.privacy.aggregators.admission import Membership
from palate.privacy.aggregators.messages import Answer
from palate.privacy.aggregators.offer import CollectionOffer
from palate.privacy.aggregators.sealing import RoundKey, RoundSecret


@dataclass
class Book:
    """A helper's book in memory."""

    answers: dict[bytes, tuple[bytes, bytes]] = field(default_factory=dict)
    end: tuple[int, bytes] = (0, bytes(32))
    secrets: dict[bytes, tuple[RoundKey, RoundSecret]] = field(default_factory=dict)
    members: Callable[[], Membership] = field(default=lambda: pytest.fail("no register"))
    anchored: int = 0
    counted: dict[int, tuple[int, bytes]] = field(default_factory=dict)

    def head(self) -> tuple[int, bytes]:
        return self.end

    def answered(self, context: bytes) -> tuple[bytes, bytes] | None:
        return self.answers.get(context)

    def round_secret(self, round_key_hash: bytes) -> tuple[RoundKey, RoundSecret] | None:
        return self.secrets.get(round_key_hash)

    def membership(self, register_hash: bytes) -> Membership:
        return self.members()

    def last_reports(self) -> dict[int, tuple[int, bytes]]:
        return dict(self.counted)

    def record(
        self, offer: CollectionOffer, request_hash: bytes, answer: Answer, counted: dict[int, tuple[int, bytes]]
    ) -> None:
        self.counted |= counted
        self.answers[offer.context] = (request_hash, answer.to_bytes())
        self.end = (answer.sequence, answer.content_hash)

    def anchor(self) -> None:
        self.anchored = self.end[0]

    def destroy(self, round_key_hash: bytes) -> None:
        self.secrets.pop(round_key_hash, None)


class Spool(dict):
    """Uploads in memory."""

    def put(self, device: int, upload: bytes) -> None:
        self[device] = upload

    def get(self, device: int, most: int | None = None) -> bytes | None:
        return self[device][:most] if device in self else None

    def sync(self) -> None:
        pass

    def devices(self) -> Iterator[int]:
        return iter(self)
