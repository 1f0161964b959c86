"""What a shard sends under unit user: its devices' quantised contributions, one by one, and their noise at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from palate.client.batched_release import Contributions, quantised_sum, release_sum
from palate.models.arrays import BoolArray, Float32Array, Int32Array, Int64Array, UInt64Array
from palate.models.histories import Histories
from palate.models.learning.kernel import PEOPLE_PER_CHUNK, ShardScorer, Sink
from palate.models.learning.updates import DeviceUpdates
from palate.models.learning.weights import user_weights
from palate.models.scores.base import State
from palate.models.scores.registry import score_model
from palate.models.self_evaluation import device_metrics, draw_candidates
from palate.models.table import ItemTable
from palate.models.training import LocalTraining
from palate.privacy.integer.csprng import Words
from palate.privacy.wire import NUM_METRICS, ItemUpdate, RoundPlan, WireError


class ShardRelease:
    """Takes the updates of a shard's devices as they are made, and holds no more than their sum.

    Parameters
    ----------
    plan
        The round, with terms.
    keys
        Keys of the devices that take part, 32 bytes each.
    surviving
        Which of them do not drop out, bool [m].
    metrics
        What they found out about the table, float32 [m, NUM_METRICS]; None where they were not asked.
    """

    def __init__(
        self,
        plan: RoundPlan,
        keys: Sequence[bytes],
        surviving: BoolArray,
        metrics: Float32Array | None = None,
    ) -> None:
        if plan.terms is None:
            raise WireError(f"unit {plan.unit!r} needs terms")
        self._mechanism = plan.terms.mechanism(plan.update_size)
        self._keys = keys
        self._surviving = surviving
        self._metrics = metrics
        self._share = plan.evaluation_share
        self._active = plan.active
        self._total = np.zeros(plan.update_size, dtype=np.int64)

    def take(self, people: Int64Array, updates: DeviceUpdates) -> None:
        """Add the contributions of some devices, int64 [B]; those that drop out are passed over."""
        kept = np.flatnonzero(self._surviving[people])
        if len(kept) < len(people):
            people, updates = people[kept], updates.select(kept)
        if self._active is not None:
            updates = updates.on_rows(self._active)
        metrics = None if self._metrics is None else self._metrics[people]
        keys = [self._keys[person] for person in people]
        self._total += quantised_sum(
            Contributions(updates, metrics, self._share), keys, self._mechanism.quantiser
        )  # fmt: skip

    def finish(self, noise: Words) -> ItemUpdate:
        """Add the noise of all who survived, and return what leaves the node."""
        return ItemUpdate(release_sum(self._total, int(self._surviving.sum()), self._mechanism, noise))


def popularity_updates(histories: Histories, taking_part: Int64Array, num_items: int, sink: Sink) -> None:
    """Hand out every person's part of the popularity sum, ``1/sqrt(n_u)`` on the own items; none without history."""
    own = histories.select(taking_part)
    weights = user_weights(own.lengths, exponent=0.5)
    for start in range(0, own.num_users, PEOPLE_PER_CHUNK):
        people = np.arange(start, min(start + PEOPLE_PER_CHUNK, own.num_users))
        part = own.select(people)
        owns = np.zeros((len(people), num_items), dtype=np.float32)
        owns[part.owners, part.items] = 1.0
        sink(people, DeviceUpdates.rank_one(owns, weights[people, None]))


def metrics_of(
    table: ItemTable,
    histories: Histories,
    held_out: Int32Array,
    fitted: State,
    keys: UInt64Array,
    config: LocalTraining,
) -> Float32Array:
    """Let devices test a table on the items that they held back.

    Parameters
    ----------
    histories, held_out
        Of the devices; -1 without a held-back item, int32 [m].
    fitted
        Their heads, fitted to this table, [m, ...].
    keys
        Their sampling keys of the round, uint64 [m].

    Returns
    -------
    float32 [m, NUM_METRICS], zeros for devices without a held-back item.
    """
    metrics = np.zeros((len(held_out), NUM_METRICS), dtype=np.float32)
    able = np.flatnonzero(held_out >= 0)
    scorer = ShardScorer(score_model(config.model, config.objective), torch.from_numpy(table.rows), fitted)
    for start in range(0, len(able), PEOPLE_PER_CHUNK):
        people = able[start : start + PEOPLE_PER_CHUNK]
        candidates = draw_candidates(keys[people], held_out[people], table.num_items)
        own = histories.select(people)
        known = np.zeros((len(people), table.num_items), dtype=np.bool_)
        known[own.owners, own.items] = True
        known[np.arange(len(people)), held_out[people]] = True
        competing = ~np.take_along_axis(known, candidates[:, 1:], axis=1)
        metrics[people] = device_metrics(scorer.score_items(people.astype(np.int32), candidates), competing)
    return metrics
