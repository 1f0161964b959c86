"""What every baseline promises, `palate.simulation.baselines.base.Baseline`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from palate.models.histories import Histories
from palate.testing.base import Conformance

if TYPE_CHECKING:
    from palate.simulation.baselines.base import Baseline, FitData

_USERS, _ITEMS, _TASTES = 60, 24, 3


class BaselineConformance(Conformance):
    """Checks of a baseline."""

    part: ClassVar[str | Baseline]

    @property
    def baseline(self) -> Baseline:
        """The baseline itself."""
        from palate.simulation.baselines.registry import BASELINES

        return BASELINES.resolve(self.part)

    def test_it_says_what_it_is(self) -> None:
        """Name, label and the year of its paper, as tables print them."""
        baseline = self.baseline
        self.expect(baseline.name and baseline.label, f"has the label {baseline.label!r}")
        cited = not baseline.citation or "(" in baseline.citation
        self.expect(cited, f"the citation {baseline.citation!r} has no year, as in Steck (2019)")

    def test_scores_are_finite_float32_and_one_for_each_item(self) -> None:
        """For everybody: also who has had nothing, and where a catalogue is tiny."""
        tiny = Histories(np.array([0, 2, 2, 3], dtype=np.int64), np.array([0, 1, 0], dtype=np.int32))
        columns = np.array([[0.5], [-0.5], [0.0]], dtype=np.float32)
        small = replace(self._data(), history=tiny, num_items=3, content=columns, summed=None)
        for data in (self._data(), small):
            users = np.arange(data.history.num_users, dtype=np.int32)[::-1].copy()
            scores = self.baseline.fit(data).scores(users)
            self.expect(
                scores.shape == (len(users), data.num_items),
                f"{len(users)} users and {data.num_items} items give {list(scores.shape)} scores",
            )
            self.expect(scores.dtype == np.float32, f"scores are {scores.dtype}, not float32")
            self.expect(np.isfinite(scores).all(), "scores are not finite")

    def test_a_fit_repeats_under_its_seeds(self) -> None:
        """Everything random is drawn from `seed`; noise from `noise_seed`."""
        users = np.arange(_USERS, dtype=np.int32)
        first, again = (self.baseline.fit(self._data()).scores(users) for _ in range(2))
        self.expect(np.array_equal(first, again), "two fits on the same data and seed differ")

    def test_a_fit_leaves_its_data_alone(self) -> None:
        """Other baselines are fitted on the same arrays."""
        data, before = self._data(), self._data()
        self.baseline.fit(data)
        for now, then in ((data.history.items, before.history.items), (data.content, before.content)):
            self.expect(np.all(now == then), "the fit writes into the data that it is given")

    def test_a_user_s_scores_do_not_depend_on_who_is_asked_with_them(self) -> None:
        """Scores of some users and candidates are those of the whole matrix."""
        scorer = self.baseline.fit(self._data())
        everybody = scorer.scores(np.arange(_USERS, dtype=np.int32))
        some = np.array([5, 0, 5], dtype=np.int32)
        self.expect_close(scorer.scores(some), everybody[some], "scores of some users")
        score_items = getattr(scorer, "score_items", None)
        if score_items is not None:
            items = np.array([[1, 2], [0, 3], [7, 7]], dtype=np.int32)
            expected = np.take_along_axis(everybody[some], items.astype(np.int64), axis=1)
            self.expect_close(score_items(some, items), expected, "scores of candidates")

    def test_it_says_why_it_cannot_run(self) -> None:
        """A baseline that lacks content, a budget or a small catalogue is skipped with the reason, without an error."""
        baseline, data = self.baseline, self._data()
        reason = baseline.obstacle(data.num_items, data.content, data.promise)
        self.expect(reason is None, f"cannot run on small data with content and a budget: {reason}")
        bare = replace(data, content=None, promise=None)
        if baseline.obstacle(bare.num_items, None, None) is None:
            baseline.fit(bare).scores(np.arange(3, dtype=np.int32))

    def _data(self) -> FitData:
        """Users who mostly stay with one of a few groups of items; the last ones have had nothing."""
        from palate.privacy.accounting.events import Unit
        from palate.privacy.budget import Promise
        from palate.simulation.baselines.base import FitData

        rng = np.random.default_rng(0)
        group = np.arange(_ITEMS) % _TASTES
        items = []
        for user in range(_USERS - 2):
            liking = np.where(group == user % _TASTES, 1.0, 0.05)
            items.append(rng.choice(_ITEMS, 5, replace=False, p=liking / liking.sum()))
        indptr = np.minimum(np.arange(_USERS + 1) * 5, 5 * (_USERS - 2)).astype(np.int64)
        history = Histories(indptr, np.concatenate(items).astype(np.int32))
        content = (np.eye(_TASTES)[group] - 1 / _TASTES).astype(np.float32)
        promise = Promise(unit=Unit.USER, epsilon=8.0, delta=1e-5)
        return FitData(history, _ITEMS, content, seed=5, promise=promise, noise_seed=5)
