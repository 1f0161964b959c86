"""What answers a round's plan on a node: one person's device, or a shard of virtual ones.

The Flower ClientApp is a thin relay around a host. `DeviceHost` is one device; the simulation brings its own, found
through the entry point group "palate.device_hosts".
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from pydantic import ValidationError

from palate.client.guard import Guard
from palate.client.trainer import popularity_update, score_catalogue, train
from palate.models.arrays import AnyArray, Float32Array, Int32Array
from palate.models.scores.base import State
from palate.models.self_evaluation import device_metrics, draw_candidates
from palate.models.serving import serving_training
from palate.models.table import ItemTable
from palate.models.training import LocalTraining
from palate.privacy.integer.csprng import KEY_BYTES, Purpose, WordStream
from palate.privacy.integer.ring import Ring, RingArray
from palate.privacy.integer.skellam import SkellamSampler
from palate.privacy.mechanisms.evaluation import with_metrics
from palate.privacy.mechanisms.registry import mechanism_of
from palate.privacy.mechanisms.terms import ReleaseTerms
from palate.privacy.wire import NUM_METRICS, ItemUpdate, RoundPlan, WireError

log = logging.getLogger(__name__)

Arrays = dict[str, AnyArray]


class Host(Protocol):
    """Whatever a node runs for its people."""

    def answer(self, plan: RoundPlan) -> ItemUpdate:
        """Take part in a round."""
        ...

    def inspect(self, question: Mapping[str, str | int], table_arrays: Arrays) -> Arrays:
        """Answer a question of the simulation about a table; a real device answers none."""
        ...


class DeviceHost:
    """One person's device.

    Parameters
    ----------
    items
        The person's history, oldest first, int32 [n].
    key_of_round
        Gives a fresh 64-bit sampling key for a round; on a real device from the operating system.
    guard
        Charges the device's ledger; without one the device refuses every protected round.
    held_back
        The item that the device tests tables with, and does not train on; None if it has none.
    secret_of_round
        Gives 32 fresh secret bytes for rounding and noise; simulations pass their own.
    """

    def __init__(
        self,
        items: Int32Array,
        key_of_round: Callable[[int], np.uint64],
        guard: Guard | None = None,
        *,
        held_back: int | None = None,
        secret_of_round: Callable[[RoundPlan], bytes] = lambda _: os.urandom(KEY_BYTES),
    ) -> None:
        self._items = items
        self._key_of_round = key_of_round
        self._guard = guard
        self._held_back = held_back
        self._secret_of_round = secret_of_round
        self._heads: dict[tuple[str, str], State] = {}
        self._state: State | None = None

    def __repr__(self) -> str:
        return "DeviceHost(<private>)"

    def answer(self, plan: RoundPlan) -> ItemUpdate:
        """Charge the round, train locally, and release the update through the mechanism of the plan's unit.

        Raises
        ------
        WireError
            If the plan asks for something that this device does not know, or for protection that it cannot account
            for.
        PrivacyError
            If the device's ledger refuses the round.
        """
        mechanism = mechanism_of(plan)
        if not mechanism.protects:
            if self._guard is not None:
                raise WireError(f"unit {plan.unit!r} protects nothing, and this device keeps a budget")
            training_of(plan)
            update, state = self._contribution(plan)
            if state is not None:
                self.keep(plan, state)
            return ItemUpdate(update)
        if self._guard is None:
            raise WireError(f"unit {plan.unit!r} needs a ledger, and this device has none")
        if plan.terms is None:
            raise WireError(f"unit {plan.unit!r} needs terms")
        terms, made = plan.terms, list[State]()
        training_of(plan)  # a plan that cannot be answered must not be charged
        if not mechanism.per_interaction:
            terms.mechanism(plan.update_size)

        def compute() -> ItemUpdate:
            vector, state = self.release(plan, terms)
            made.extend([] if state is None else [state])
            return ItemUpdate(vector)

        answer = self._guard.charged(plan, compute)
        if made:  # only now: a head of a round that was not kept would be a release that was not charged
            self.keep(plan, made[0])
        return answer

    def release(self, plan: RoundPlan, terms: ReleaseTerms) -> tuple[RingArray, State | None]:
        """Return what leaves and the head that stays; for callers that charge the round themselves, before this.

        Whatever goes wrong in training, noise leaves all the same: whether a computation failed depends on the person's
        data, and would be seen.
        """
        secret = self._secret_of_round(plan)
        if not mechanism_of(plan).per_interaction:
            contribution, state = self._contribution_or_zeros(plan)
            from palate.client import private_optimizer  # Opacus takes seconds to import, and only devices need it

            vector = private_optimizer.release(
                contribution,
                terms.mechanism(plan.update_size),
                rounding=WordStream(secret, Purpose.ROUNDING),
                noise=WordStream(secret, Purpose.NOISE),
            )
            return vector, state
        try:
            return self._released_interactions(plan, terms, secret)
        except Exception as error:  # by its type alone: a text may quote the history
            log.error("round %d failed with %s, noise alone is sent", plan.server_round, type(error).__name__)
            noise = SkellamSampler(terms.share_variance).draw(plan.update_size, WordStream(secret, Purpose.NOISE))
            return Ring(bits=terms.ring_bits).reduce(noise), None

    def _released_interactions(
        self, plan: RoundPlan, terms: ReleaseTerms, secret: bytes
    ) -> tuple[RingArray, State | None]:
        from palate.client import interaction_trainer  # as above

        bound = plan.interactions_per_round
        if plan.purpose == "popularity":
            vector = interaction_trainer.popularity_interactions(
                self._items, len(plan.learned), terms, interactions_per_round=bound, secret=secret
            )
            return vector, None
        released = interaction_trainer.train_interactions(
            ItemTable(plan.fixed, plan.learned),
            self._items,
            self._heads.get((plan.run, plan.unit)),
            training_of(plan),
            terms,
            interactions_per_round=bound,
            key=self._key_of_round(plan.server_round),
            secret=secret,
        )
        return released.vector, released.state

    def _contribution_or_zeros(self, plan: RoundPlan) -> tuple[Float32Array, State | None]:
        try:
            contribution, state = self._contribution(plan)
        except Exception as error:  # by its type alone, as above
            log.error("round %d failed with %s, zeros are sent", plan.server_round, type(error).__name__)
        else:
            if np.isfinite(contribution).all():
                return contribution, state
            log.error("round %d: values are not finite, a contribution of zeros is sent", plan.server_round)
        return np.zeros(plan.update_size, dtype=np.float32), None

    def _contribution(self, plan: RoundPlan) -> tuple[Float32Array, State | None]:
        """Return the exact update in the order of the wire, float32 [update_size], and the head after the round.

        Both are private; the update leaves through a mechanism only.
        """
        if plan.purpose == "popularity":
            return popularity_update(self._items, len(plan.learned)), None
        table, config = ItemTable(plan.fixed, plan.learned), training_of(plan)
        key, head = self._key_of_round(plan.server_round), self._heads.get((plan.run, plan.unit))
        metrics = self._metrics(table, config, key) if plan.asks_for_metrics else None
        trained = train(table, self._items, head, config, key=key)
        update = trained.update if plan.active is None else trained.update[plan.active]
        flat = np.ascontiguousarray(update.T).reshape(-1)
        if metrics is not None and plan.terms is not None:
            flat = with_metrics(flat, metrics, clip_norm=plan.terms.clip_norm, share=plan.evaluation_share)
        return flat, trained.state

    def keep(self, plan: RoundPlan, state: State) -> None:
        """Keep a head for the next round of its run and unit; only one that was never noised recommends."""
        self._heads[plan.run, plan.unit] = state
        if not mechanism_of(plan).per_interaction:
            self._state = state

    def _metrics(self, table: ItemTable, config: LocalTraining, key: np.uint64) -> Float32Array:
        """Test the round's table on the item that was held back, float32 [NUM_METRICS]."""
        if self._held_back is None:
            return np.zeros(NUM_METRICS, dtype=np.float32)
        keys, target = np.full(1, key, dtype=np.uint64), np.array([self._held_back], dtype=np.int32)
        candidates = draw_candidates(keys, target, table.num_items)
        scores = self.scores(table, serving_training(config))[candidates]
        known = np.isin(candidates[:, 1:], self._items) | (candidates[:, 1:] == target)
        metrics: Float32Array = device_metrics(scores, ~known)[0]
        return metrics

    def settle(self) -> None:
        """Close the rounds that are open in the ledger, at the end of a run."""
        if self._guard is not None:
            self._guard.settle()

    def scores(self, table: ItemTable, config: LocalTraining, items: Int32Array | None = None) -> Float32Array:
        """Score the catalogue for this person on a table, float32 [num_items]; never leaves the device.

        `items` is a history that has grown since the last round; the head's linear part is fitted to it.
        """
        return score_catalogue(table, self._items if items is None else items, self._state, config)

    def inspect(self, question: Mapping[str, str | int], table_arrays: Arrays) -> Arrays:
        """Refuse: what a device knows about its person stays there."""
        del question, table_arrays
        raise WireError("a device answers no questions")


def training_of(plan: RoundPlan) -> LocalTraining:
    """Read the plan's parameters of local training.

    Raises
    ------
    WireError
        If they are not valid, or ask for updates whose zeros would show what a person has: on own items only, under a
        unit other than user.
    """
    try:
        training = LocalTraining.model_validate_json(plan.training)
    except ValidationError as error:
        raise WireError(f"plan: {error.error_count()} training parameters are not valid") from error
    if training.own_items_only and not mechanism_of(plan).hides_rows:
        raise WireError(f"plan: no updates on own items only at unit {plan.unit!r}")
    return training
