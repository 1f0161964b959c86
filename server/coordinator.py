"""The server's side of a round, without any transport: plan down, sum of updates up, new table.

The first round asks for popularity, T more for updates of the learned columns. While popularity is still too noisy, the
first of these T ask for it again, with their own noise. Whether it is follows from what was released, and costs no
budget. A round that fails is abandoned: it keeps its number, because devices have charged it, and the next number asks
for the same again. Everything that a resumed run needs is in `Coordinator.snapshot`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from palate.errors import FederationError
from palate.models.arrays import BoolArray, Float32Array, Float64Array
from palate.models.popularity import POPULARITY_COLUMNS
from palate.models.table import ItemTable, fitted_embeddings, mixed_embeddings
from palate.privacy.mechanisms.evaluation import NoisyMetrics, split_metrics
from palate.privacy.mechanisms.registry import MECHANISMS
from palate.privacy.wire import RoundPlan
from palate.server.decoding import noise_std
from palate.server.denoising import denoise
from palate.server.optimisers import Aggregate, build_optimiser
from palate.server.popularity_loss import possible_loss
from palate.server.settings import ServerSettings

Real = TypeVar("Real", np.float32, np.float64)

_START, _SPLIT = 1, 2  # which of the public seed's streams draw the starting embeddings, and split popularity


@dataclass(frozen=True)
class RoundOutcome:
    """What a finished round leaves on the server.

    Attributes
    ----------
    server_round
        The round that is done.
    purpose
        "popularity" or "train".
    table
        The item table after the round.
    update_rms
        Root mean square of the change of the embeddings; 0 in the popularity round.
    metrics
        What the devices found out about the table that the round started from; None where they were not asked.
    """

    server_round: int
    purpose: str
    table: ItemTable
    update_rms: float
    metrics: NoisyMetrics | None = None


@dataclass(frozen=True)
class Snapshot:
    """Server state after a round: all that a resumed run needs.

    Attributes
    ----------
    server_round
        The last round, finished or abandoned.
    applied
        Rounds whose sum is in the table, popularity's included.
    table, popularity, optimiser
        What has been learned so far.
    active
        Which items are learned, bool [num_items]; None for all.
    popularity_rounds, popularity_noise
        Rounds that the popularity sum is the mean of, and the standard deviation of the noise in it.
    """

    server_round: int
    applied: int
    table: ItemTable
    popularity: Float32Array
    optimiser: dict[str, Float64Array]
    active: BoolArray | None = None
    popularity_rounds: int = 1
    popularity_noise: float = 0.0


@dataclass(frozen=True)
class WarmStart:
    """What a run takes over from the last table of the run before; released, so that it costs nothing.

    Attributes
    ----------
    popularity
        The table's popularity column, float32 [num_items]; 0 for items that are new.
    learned
        Learned columns, float32 [num_items, dim]; 0 for items that are new.
    """

    popularity: Float32Array
    learned: Float32Array

    @property
    def known(self) -> BoolArray:
        """Items of which something was learned, bool [num_items]."""
        found: BoolArray = np.any(self.learned != 0.0, axis=1)
        return found


class Coordinator:
    """State machine of one run.

    Parameters
    ----------
    settings
        The operator's choices.
    content
        Public content columns, float32 [num_items, c]; c may be 0.
    embeddings
        Public starting point of the learned columns, float32 [num_items, dim].
    columns
        Names of the fixed columns, popularity's first, to be sent with every table; none are sent in simulations.
    start
        What the run takes over from the one before, in place of the starting point.
    """

    def __init__(
        self,
        settings: ServerSettings,
        content: Float32Array,
        embeddings: Float32Array,
        *,
        columns: tuple[str, ...] = (),
        start: WarmStart | None = None,
    ) -> None:
        self.settings = settings
        self._columns = columns
        self._start = start
        self.next_round = 0
        self.applied = 0
        self.popularity = np.zeros(len(content), dtype=np.float32)
        self.popularity_rounds, self._popularity_noise, self._more_popularity = 0, 0.0, True
        self.active: BoolArray | None = None
        known = np.zeros(len(content), dtype=np.float32) if start is None else start.popularity
        self.table = ItemTable(
            np.concatenate([known[:, None], content], axis=1), embeddings if start is None else start.learned
        )
        self._optimiser = build_optimiser(settings.optimiser)

    @property
    def finished(self) -> bool:
        """Whether all rounds are done."""
        return self.applied > self.settings.schedule.rounds

    def plan(self) -> RoundPlan:
        """Return the plan of the next round."""
        if self._more_popularity and self.popularity_rounds:
            return self._popularity_again()
        return self._plan(self.next_round, popularity=self._more_popularity)

    def example_plans(self) -> tuple[RoundPlan, RoundPlan]:
        """Return the first popularity plan and a training plan of this run, for accounting; the table is today's.

        A popularity round in place of a training round has the same bound and noise as that, and fewer values. So an
        account of training rounds covers it.
        """
        return self._plan(0, popularity=True), self._plan(1, popularity=False)

    def _plan(self, server_round: int, *, popularity: bool) -> RoundPlan:
        settings, terms = self.settings, self.settings.terms
        return RoundPlan(
            run=settings.run,
            server_round=server_round,
            purpose="popularity" if popularity else "train",
            unit=settings.unit,
            terms=None if terms is None else terms.popularity if popularity else terms.train,
            evaluation_share=0.0 if popularity else settings.evaluation_share,
            interactions_per_round=(
                settings.popularity_interactions if popularity else settings.interactions_per_round
            ),
            participation=settings.schedule.participation,
            training=settings.training.model_dump_json(),
            fixed=self.table.fixed,
            learned=self.table.learned,
            active=None if popularity else self.active,
            columns=self._columns,
        )

    def _popularity_again(self) -> RoundPlan:
        """Ask for popularity with the bound in integers, the noise and so the charge of a training round."""
        plan, terms = self._plan(self.next_round, popularity=True), self.settings.terms
        if terms is None:
            raise FederationError("unit none asks for popularity once", hint="its sum has no noise")
        return replace(plan, terms=replace(terms.train, clip_norm=terms.popularity.clip_norm))

    def apply(self, total: Float64Array, *, survivors: int | None = None) -> RoundOutcome:
        """Finish the round with the sum of all updates.

        Parameters
        ----------
        total
            Sum over devices of the vectors that answered the plan, in their units, float64 [update_size].
        survivors
            How many devices the sum is of, where some dropped out. It then stands for that of the whole cohort: sum
            and noise are scaled up, so that rounds with different survivors compare, and steps keep their size.
        """
        done, plan = self.next_round, self.plan()
        update_rms, metrics = 0.0, None
        noise = noise_std(plan, survivors)
        if survivors is not None:
            share = self.settings.cohort / survivors
            total, noise = total * share, noise * share
        if plan.purpose == "popularity":
            self._add_popularity(total, noise)
            self._take_popularity(self._popularity_noise)
            self._more_popularity = self._wants_more()
            if self.popularity_rounds > self.settings.schedule.rounds and self._start is None:
                self.table = self.table.with_learned(np.zeros_like(self.table.learned))  # nothing is learned any more
        else:
            update, metrics = split_metrics(total, plan, noise_std=noise)
            popularity = np.maximum(self.popularity.astype(np.float64), 0.0)
            all_users = sum_of_user_weights(self.popularity, self.settings.cohort)
            ridge = self.settings.optimiser.item_regularisation * all_users * self.table.learned
            found = denoise(
                update.reshape(self.table.dim, -1).T,
                noise_std=noise,
                public=self.table.fixed if self.active is None else self.table.fixed[self.active],
                config=self.settings.release,
            )
            if self.active is not None:
                found = _on_all_rows(found, self.active)
            aggregate = Aggregate(
                total=found - ridge,
                devices=self.settings.cohort,
                popularity=popularity,
                all_users=all_users,
                unobserved_weight=self.settings.training.unobserved_weight,
                server_round=self.applied - self.popularity_rounds + 1,
                mean_root_length=self._mean_root_length,
                noise_std=noise,
                active=self.active,
            )
            change = self._optimiser.step(aggregate)
            if self.active is not None:  # rows without updates would move by rounding only
                change[~self.active] = 0.0
            self.table = self.table.with_learned((self.table.learned + change).astype(np.float32))
            update_rms = float(np.sqrt(np.mean(change**2)))
        self.next_round, self.applied = done + 1, self.applied + 1
        return RoundOutcome(done, plan.purpose, self.table, update_rms, metrics)

    def abandon(self) -> None:
        """Abandon the round; the next one asks for the same under a new number."""
        self.next_round += 1

    def _add_popularity(self, total: Float64Array, noise: float) -> None:
        """Take the mean of all popularity sums, weighted by what each is worth: its inverse variance."""
        if self.popularity_rounds:
            before, now = self._popularity_noise**-2, noise**-2
            total = (before * self.popularity + now * total) / (before + now)
            noise = (before + now) ** -0.5
        self.popularity, self._popularity_noise = total.astype(np.float32), noise
        self.popularity_rounds += 1

    def _wants_more(self) -> bool:
        """Whether the next training round is worth more to popularity than to the learned columns.

        It is while lists by popularity alone may still lose more than the tolerance against those that spend the whole
        budget on it, by an estimate from what was released (`palate.server.popularity_loss`). If then a single training
        round is left, it goes the same way: what one round finds with so little is mostly noise.
        """
        schedule, terms = self.settings.schedule, self.settings.terms
        tolerance = schedule.popularity_tolerance
        if not tolerance or terms is None or not MECHANISMS[self.settings.unit].hides_rows:
            return False
        if self.popularity_rounds > schedule.rounds:
            return False
        if 1 < self.popularity_rounds == schedule.rounds:
            return True
        first, each = terms.popularity.noise_multiplier**-2, terms.train.noise_multiplier**-2
        share = (first + (self.popularity_rounds - 1) * each) / (first + schedule.rounds * each)
        rng = np.random.default_rng([self.settings.start_seed, _SPLIT])
        loss = possible_loss(self.popularity, noise_std=self._popularity_noise, share=share, rng=rng)
        return loss > tolerance

    def _take_popularity(self, noise: float) -> None:
        """Fill the popularity column, and start the learned columns from what is known now."""
        schedule, embeddings = self.settings.schedule, self.table.learned
        column = POPULARITY_COLUMNS[schedule.popularity](self.popularity, noise_std=noise)
        fixed = np.concatenate([column[:, None], self.table.fixed[:, 1:]], axis=1)
        scale = schedule.initial_scale * (self._mean_root_length if self.settings.optimiser.relative else 1.0)
        if schedule.head:
            self.active = self._standing_out(schedule.head * noise)
        if self._start is not None:
            known = self._start.known
            embeddings = fitted_embeddings(fixed, self._start.learned, known)
            if self.active is not None:
                embeddings[~(self.active | known)] = 0.0
            self.table = ItemTable(fixed, embeddings)
            return
        learned = slice(None) if self.active is None else self.active
        if schedule.start == "content":
            rng = np.random.default_rng([self.settings.start_seed, _START])
            rows = fixed[learned]
            scale *= math.sqrt(len(fixed) / len(rows))  # of the same size over all rows as without a head
            embeddings = mixed_embeddings(rows, schedule.dim, scale=scale, rng=rng)
        else:
            embeddings = embeddings[learned]
        self.table = ItemTable(fixed, embeddings if self.active is None else _on_all_rows(embeddings, self.active))

    def _standing_out(self, least: float) -> BoolArray:
        """Choose the items that are learned, bool [num_items]: of known popularity, or among the best known.

        Post-processing of the popularity release. There are twice as many as columns at least, as fewer have nothing
        in common that so many columns could tell.
        """
        fewest = min(2 * self.settings.schedule.dim, len(self.popularity))
        rank = float(np.partition(self.popularity, -fewest)[-fewest])
        chosen: BoolArray = self.popularity >= min(least, rank)
        return chosen

    @property
    def _mean_root_length(self) -> float:
        """Estimate of the mean of ``sqrt(n_u)``: a device adds that much to the popularity sum."""
        return max(float(self.popularity.sum(dtype=np.float64)) / self.settings.cohort, 1e-6)

    def snapshot(self) -> Snapshot:
        """Return the state after the last round."""
        return Snapshot(
            self.next_round - 1,
            self.applied,
            self.table,
            self.popularity,
            dict(self._optimiser.state),
            self.active,
            self.popularity_rounds,
            self._popularity_noise,
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Continue after a snapshot's round."""
        self.next_round, self.applied = snapshot.server_round + 1, snapshot.applied
        self.table, self.popularity = snapshot.table, snapshot.popularity
        self._optimiser.state = dict(snapshot.optimiser)
        self.active = snapshot.active
        self.popularity_rounds, self._popularity_noise = snapshot.popularity_rounds, snapshot.popularity_noise
        self._more_popularity = self.applied == self.popularity_rounds and self._wants_more()


def _on_all_rows(rows: npt.NDArray[Real], active: BoolArray) -> npt.NDArray[Real]:
    """Put the rows of the active items in their places among zeros, [num_items, dim]."""
    everything = np.zeros((len(active), rows.shape[1]), dtype=rows.dtype)
    everything[active] = rows
    return everything


def sum_of_user_weights(popularity: Float32Array, devices: int) -> float:
    """Estimate ``W = sum_u n_u^-1/2``, from below, by the popularity sum, whose total is ``sum_u n_u^1/2``.

    By Cauchy and Schwarz W is at least ``N^2 / sum_u n_u^1/2``, with equality where all are equally active. W is the
    sum of user weights for the default exponent, 1/2; for other exponents it is an approximation.
    """
    return devices**2 / max(float(popularity.sum(dtype=np.float64)), 1.0)
