"""Private controls that learn nothing together: noised popularity, alone or with public content.

Each control spends the whole budget of a run, for whole people, on one release: the popularity sum, ``1/sqrt(n_u)`` on
a person's items, through the integer mechanism (Agarwal, Kairouz & Liu 2021). Whatever a protected run reaches above
them is what it learned with the same budget; a run below them had better not have trained at all.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from palate.client.release import quantised_sum, release_sum
from palate.models.arrays import Float32Array, Int64Array
from palate.models.histories import Histories
from palate.models.learning.kernel import popularity_updates
from palate.models.learning.updates import SparseUpdates, Updates
from palate.models.popularity import saturating_column
from palate.privacy.accounting.calibrate import calibrate_skellam
from palate.privacy.budget import Promise
from palate.privacy.integer.csprng import KEY_BYTES, Purpose, WordStream
from palate.privacy.mechanisms.terms import ReleaseTerms
from palate.simulation.baselines.base import Baseline, FitData
from palate.simulation.baselines.content_only import fit_on_public_columns
from palate.simulation.baselines.scorers import ConstantScorer, FactorScorer
from palate.simulation.noise_keys import NoiseKeys

SENSITIVITY = 4096
"""Integer steps that a person's part is scaled to; finer steps had no measurable cost or gain."""

_CLIP_NORM = 1.0  # a person's part has this norm by construction
_ROUND = hashlib.sha256(b"private control").hexdigest()  # of the one release, in place of a plan's hash


@dataclass(frozen=True, eq=False)
class NoisedPopularity:
    """A popularity sum as a server would see it.

    Attributes
    ----------
    values
        The sum with its noise, float32 [num_items]; may be negative.
    noise_std
        Standard deviation of the noise in each value, in the same units.
    """

    values: Float32Array
    noise_std: float


def whole_budget_terms(promise: Promise, *, num_users: int, num_items: int) -> ReleaseTerms:
    """Size the noise of a single release that spends all of a budget; every person adds an equal share.

    Parameters
    ----------
    promise
        The budget; its unit is a whole person.
    num_users, num_items
        People in the sum, and values in it; both public.

    Raises
    ------
    PrivacyError
        If no noise meets the budget.
    """
    variance = (_noise_multiplier(promise.epsilon, promise.delta, num_items) * SENSITIVITY) ** 2
    return ReleaseTerms(
        clip_norm=_CLIP_NORM,
        sensitivity=SENSITIVITY,
        share_variance=int(np.ceil(variance / num_users)),
        honest_shares=num_users,
        roster_size=num_users,
    )


@lru_cache(maxsize=64)
def _noise_multiplier(epsilon: float, delta: float, num_items: int) -> float:
    """Calibrate once for a budget: validation and test, and both controls, need the same."""
    return calibrate_skellam(
        epsilon=epsilon, delta=delta, rounds=1, sensitivity=SENSITIVITY, num_values=num_items
    ).noise_multiplier


def noised_popularity(
    history: Histories, num_items: int, promise: Promise, *, noise_seed: int | None = None
) -> NoisedPopularity:
    """Release the popularity sum once, with all of the budget.

    Parameters
    ----------
    history
        What each person has had; who has had nothing still adds a share of the noise.
    num_items
        Size of the catalogue.
    promise
        The budget, for whole people.
    noise_seed
        None takes the noise from the operating system, afresh in every call. Noise from a seed protects nobody: it is
        for experiments that must repeat to the last bit.

    Raises
    ------
    PrivacyError
        If no noise meets the budget, or the noise would not fit into the ring.
    """
    num_users = history.num_users
    terms = whole_budget_terms(promise, num_users=num_users, num_items=num_items)
    mechanism, keys = terms.mechanism(num_items), _keys(noise_seed)
    total = np.zeros(num_items, dtype=np.int64)

    def take(people: Int64Array, updates: Updates | SparseUpdates) -> None:
        own = [keys.device(_ROUND, int(person)) for person in people]
        total[:] += quantised_sum(updates, own, mechanism.quantiser)

    popularity_updates(history, num_items, take)
    noise = WordStream(keys.shard(_ROUND, 0), Purpose.NOISE)
    released = mechanism.decode(release_sum(total, num_users, mechanism, noise))
    return NoisedPopularity(released, terms.noise_std / mechanism.quantiser.scale)


def _keys(noise_seed: int | None) -> NoiseKeys:
    if noise_seed is None:
        return NoiseKeys(os.urandom(KEY_BYTES))
    return NoiseKeys(hashlib.blake2b(b"private control %d" % noise_seed, digest_size=KEY_BYTES).digest())


def fit_dp_popularity(data: FitData) -> ConstantScorer:
    """Recommend what the noised sum says is popular; errors as for `noised_popularity`."""
    return ConstantScorer(_released(data).values)


def fit_dp_content(data: FitData) -> FactorScorer:
    """Fit every person's own ridge to the noised popularity column and public content: a run of no training rounds.

    Fitting stays on the device, so that it costs nothing. Errors as for `noised_popularity`.
    """
    popularity = _released(data)
    column = saturating_column(popularity.values, noise_std=popularity.noise_std)
    return fit_on_public_columns(data.history, column, data.content, data.training)


def _released(data: FitData) -> NoisedPopularity:
    return noised_popularity(data.summed or data.history, data.num_items, data.budget, noise_seed=data.noise_seed)


DP_POPULARITY = Baseline(
    name="dp_popularity",
    label="DP popularity",
    citation="Agarwal, Kairouz & Liu (2021), The Skellam mechanism, on one popularity sum",
    fit=fit_dp_popularity,
    spends_budget=True,
)
DP_CONTENT = Baseline(
    name="dp_content",
    label="DP popularity and content",
    citation="Agarwal, Kairouz & Liu (2021); Hu, Koren & Volinsky (2008), eq. 4, on public columns",
    fit=fit_dp_content,
    spends_budget=True,
)
