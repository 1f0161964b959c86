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
from palate.client.interaction_release import popularity_interaction_sum
from palate.client.release import contributions, metrics_of, release_sum
from palate.models.arrays import AnyArray, Float32Array, Int32Array, Int64Array, UInt64Array
from palate.models.histories import Histories
from palate.models.learning.kernel import fit_heads, fresh_heads, popularity_updates, train
from palate.models.learning.updates import SparseUpdates, Updates
from palate.models.scores.base import State
from palate.models.scores.registry import serving_training
from palate.models.table import ItemTable
from palate.models.training import LocalTraining
from palate.privacy.integer.csprng import KEY_BYTES, Purpose, WordStream
from palate.privacy.integer.ring import Ring, RingArray
from palate.privacy.integer.skellam import SkellamSampler
from palate.privacy.mechanisms.registry import mechanism_of
from palate.privacy.mechanisms.terms import ReleaseTerms
from palate.privacy.wire import ItemUpdate, RoundPlan, WireError

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
    """One person's device: a batch of one for the kernel, with its own ledger, keys and head.

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
        self._history = Histories.of_one(items)
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
        from palate.client import opacus_release  # Opacus takes seconds to import, and only devices need it

        secret = self._secret_of_round(plan)
        if not mechanism_of(plan).per_interaction:
            contribution, state = self._contribution_or_zeros(plan)
            vector = opacus_release.release(
                contribution,
                terms.mechanism(plan.update_size),
                rounding=WordStream(secret, Purpose.ROUNDING),
                noise=WordStream(secret, Purpose.NOISE),
            )
            return vector, state
        try:
            if plan.purpose == "popularity":
                bound = plan.interactions_per_round
                counts = popularity_interaction_sum(
                    self._history, len(plan.learned), terms, interactions_per_round=bound
                )
                return release_sum(counts, 1, terms.mechanism(len(counts)), WordStream(secret, Purpose.NOISE)), None
            table, config = ItemTable(plan.fixed, plan.learned), training_of(plan)
            sums = opacus_release.interaction_sum(
                table,
                self._history,
                self._heads_before(plan, table, config),
                self._keys(plan),
                secret,
                config,
                terms,
                interactions_per_round=plan.interactions_per_round,
            )
        except Exception as error:  # only its type: a text may quote the history
            log.error("round %d failed with %s, only noise is sent", plan.server_round, type(error).__name__)
            noise = SkellamSampler(terms.share_variance).draw(plan.update_size, WordStream(secret, Purpose.NOISE))
            return Ring(bits=terms.ring_bits).reduce(noise), None
        return Ring(bits=terms.ring_bits).reduce(sums.integers), _only(sums.heads)

    def _contribution_or_zeros(self, plan: RoundPlan) -> tuple[Float32Array, State | None]:
        try:
            contribution, state = self._contribution(plan)
        except Exception as error:  # only its type, as above
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
        flat = np.zeros((1, plan.update_size), dtype=np.float32)  # what a device without history sends
        metrics: Float32Array | None = None
        clip_norm = 1.0 if plan.terms is None else plan.terms.clip_norm

        def take(_: Int64Array, updates: Updates | SparseUpdates) -> None:
            if plan.active is not None:
                updates = updates.on_rows(plan.active)
            contributions(updates, 0, 1, flat, clip_norm=clip_norm, metrics=metrics, share=plan.evaluation_share)

        if plan.purpose == "popularity":
            popularity_updates(self._history, len(plan.learned), take)
            return flat[0], None
        table, config = ItemTable(plan.fixed, plan.learned), training_of(plan)
        keys = self._keys(plan)
        if plan.asks_for_metrics and plan.terms is not None:
            metrics = self._metrics(table, serving_training(config), keys)
        heads = self._heads_before(plan, table, config)
        trained = train(table, self._history, heads, keys, config, sink=take)
        return flat[0], _only(trained.heads)

    def heads(self, table: ItemTable, config: LocalTraining) -> State:
        """Return the head that recommends as heads [1, ...], not yet fitted to a table; it never leaves the device."""
        return _batch_of_one(self._state, table, config)

    def _heads_before(self, plan: RoundPlan, table: ItemTable, config: LocalTraining) -> State:
        """Return the head as the last round of this run and unit left it, [1, ...]."""
        return _batch_of_one(self._heads.get((plan.run, plan.unit)), table, config)

    def _keys(self, plan: RoundPlan) -> UInt64Array:
        return np.full(1, self._key_of_round(plan.server_round), dtype=np.uint64)

    def keep(self, plan: RoundPlan, state: State) -> None:
        """Keep a head for the next round of its run and unit; only one that was never noised recommends."""
        self._heads[plan.run, plan.unit] = state
        if not mechanism_of(plan).per_interaction:
            self._state = state

    def _metrics(self, table: ItemTable, serving: LocalTraining, keys: UInt64Array) -> Float32Array:
        """Test the round's table on the item held back, float32 [1, NUM_METRICS]; zeros where there is none."""
        held_back = np.array([-1 if self._held_back is None else self._held_back], dtype=np.int32)
        fitted = fit_heads(table, self._history, self.heads(table, serving), serving)
        return metrics_of(table, self._history, held_back, fitted, keys, serving)

    def settle(self) -> None:
        """Close the rounds that are open in the ledger, at the end of a run."""
        if self._guard is not None:
            self._guard.settle()

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


def _batch_of_one(state: State | None, table: ItemTable, config: LocalTraining) -> State:
    """Return a head, or the public starting point, as heads [1, ...]."""
    if state is None:
        return fresh_heads(table, config, 1)
    return {name: value[None] for name, value in state.items()}


def _only(heads: State) -> State:
    """Return the head of a batch of one, without the dimension of the batch."""
    return {name: value[0] for name, value in heads.items()}
