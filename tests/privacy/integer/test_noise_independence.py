"""No part of a vector's noise is that of another part, wherever noise is drawn: else it could be subtracted."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from palate.client.opacus_release import interaction_sum, release
from palate.client.release import release_sum
from palate.models.histories import Histories
from palate.models.learning.kernel import fresh_heads
from palate.models.table import ItemTable
from palate.models.training import LocalTraining
from palate.privacy.integer.csprng import Purpose, WordStream
from palate.privacy.integer.quantise import IntegerMechanism, Quantiser
from palate.privacy.integer.skellam import _CHUNK, MAX_TABLE_VARIANCE, SkellamSampler, draw_sum
from palate.privacy.mechanisms.terms import ReleaseTerms

SECRET = bytes(range(32))
HALF = _CHUNK  # also the size in which the sampler works: no chunk is another's copy
VARIANCE = 10**6
MECHANISM = IntegerMechanism(
    quantiser=Quantiser(clip_norm=1.0, sensitivity=4096, size=2 * HALF), share_variance=VARIANCE
)
NOTHING = np.zeros(2 * HALF, dtype=np.float32)


def stream(purpose: Purpose = Purpose.NOISE) -> WordStream:
    return WordStream(SECRET, purpose)


def device() -> np.ndarray:
    sent = release(NOTHING, MECHANISM, rounding=stream(Purpose.ROUNDING), noise=stream())
    return MECHANISM.ring.centre(sent)


def shard() -> np.ndarray:
    return MECHANISM.ring.centre(release_sum(NOTHING.astype(np.int64), 3, MECHANISM, stream()))


def interactions() -> np.ndarray:
    """A device without interactions: noise alone, two dimensions of `HALF` items each."""
    table = ItemTable(np.zeros((HALF, 0), np.float32), np.zeros((HALF, 2), np.float32))
    config = LocalTraining(model="gmf", objective="bce")
    terms = ReleaseTerms(clip_norm=1.0, sensitivity=256, share_variance=VARIANCE, honest_shares=1, roster_size=1)
    own, key = Histories.of_one(np.zeros(0, np.int32)), np.zeros(1, np.uint64)
    sent = interaction_sum(
        table, own, fresh_heads(table, config, 1), key, SECRET, config, terms, interactions_per_round=4
    )
    return sent.integers


DRAWS: dict[str, Callable[[], np.ndarray]] = {
    "sampler": lambda: SkellamSampler(VARIANCE).draw(2 * HALF, stream()),
    "sampler in parts": lambda: SkellamSampler(2 * MAX_TABLE_VARIANCE).draw(2 * HALF, stream()),
    "many shares": lambda: draw_sum(VARIANCE, 5, 2 * HALF, stream()),
    "mechanism": lambda: MECHANISM.noise(stream()),
    "device": device,
    "shard": shard,
    "interactions": interactions,
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
@pytest.mark.parametrize("pieces", [2, 8])
def test_pieces_of_one_vector_have_independent_noise(draw: Callable[[], np.ndarray], pieces: int):
    noise = draw().astype(np.float64).reshape(pieces, -1)
    correlation = np.corrcoef(noise) - np.eye(pieces)
    assert np.abs(correlation).max() < 5.5 / math.sqrt(noise.shape[1])
    for place, one in enumerate(noise):
        for other in noise[:place]:
            assert (one == other).mean() < 0.01
            assert (one == -other).mean() < 0.01


def test_words_of_a_stream_do_not_come_twice():
    words = stream().words(1 << 16)
    assert len(np.unique(words)) == len(words)
