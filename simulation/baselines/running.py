"""Fit and evaluate baselines in the same run, on the same split and negatives, as the model they are a reference for.

A baseline is fitted twice: on the training items for validation, on training and validation items for the test. What a
run sums up is never more than the training items, so the controls (a run without something) sum up no more either; the
other references know the validation items, to their advantage.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from palate.models.arrays import Float32Array
from palate.models.training import LocalTraining
from palate.privacy.budget import Promise
from palate.simulation.baselines.base import Baseline, FitData
from palate.simulation.baselines.registry import BASELINES
from palate.simulation.datasets.splits import Split
from palate.simulation.evaluation import Evaluation, Summary, evaluate, summarise


@dataclass(frozen=True, eq=False)
class BaselineResult:
    """What one baseline reached.

    Attributes
    ----------
    name, label, citation
        From the registry; the label of what spends a budget names it.
    skipped
        Why it could not run; everything below is then empty.
    validation, test
        Summaries; validation is None when nobody has a validation item.
    test_evaluation
        Ranks per user, for paired tests.
    cpu_seconds
        Processor time of fitting and evaluating.
    """

    name: str
    label: str
    citation: str
    skipped: str | None = None
    validation: Summary | None = None
    test: Summary | None = None
    test_evaluation: Evaluation | None = None
    cpu_seconds: float = 0.0

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON, without the ranks per user; one that could not run says why, and no more."""
        if self.skipped is not None:
            return {"label": self.label, "skipped": self.skipped}
        return {
            "name": self.name,
            "label": self.label,
            "citation": self.citation,
            "skipped": self.skipped,
            "validation": self.validation.to_dict() if self.validation else None,
            "test": self.test.to_dict() if self.test else None,
            "cpu_seconds": self.cpu_seconds,
        }


def run_baselines(
    names: Sequence[str | Baseline],
    split: Split,
    *,
    content: Float32Array | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
    training: LocalTraining | None = None,
    promise: Promise | None = None,
    noise_seed: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, BaselineResult]:
    """Fit and evaluate some baselines.

    Parameters
    ----------
    names
        Names in the registry, or baselines themselves.
    split
        Histories and held-out items.
    content
        Public content features, float32 [num_items, k].
    groups
        Labels of all users by grouping, for the summaries.
    seed
        For baselines that start from random numbers.
    training
        The run's parameters of local training, for the private controls; the defaults otherwise.
    promise
        The run's budget for whole people, which each private control spends as a whole; without one they are skipped.
    noise_seed
        Makes the controls' noise repeat; None takes it from the operating system. As for the run itself.
    progress
        Called with the name before each baseline.

    Returns
    -------
    dict
        Results in the order of `names`; a baseline that cannot run on this data says why in `skipped`.

    Raises
    ------
    ConfigError
        If a name is unknown; nothing has been fitted then.
    PrivacyError
        If no noise keeps the promise.
    """
    chosen = [BASELINES.resolve(each) for each in names]
    training = training or LocalTraining()
    data = FitData(split.train, split.num_items, content, seed, training, promise, noise_seed, summed=split.train)
    ranked = (split.validation.item >= 0).any()

    def summary(evaluation: Evaluation, known: FitData) -> Summary:
        return summarise(evaluation, train=known.history, num_items=split.num_items, content=content, groups=groups)

    results = {}
    for entry in chosen:
        if progress is not None:
            progress(entry.name)
        skipped = entry.obstacle(split.num_items, content, promise)
        if skipped is not None:
            results[entry.name] = BaselineResult(entry.name, entry.label, entry.citation, skipped=skipped)
            continue
        started = time.process_time()
        validation = summary(evaluate(entry.fit(data), split.validation, data.history), data) if ranked else None
        everything = replace(data, history=split.full_train)
        tested = evaluate(entry.fit(everything), split.test, everything.history)
        label = f"{entry.label} (epsilon {promise.epsilon:g})" if entry.spends_budget and promise else entry.label
        results[entry.name] = BaselineResult(
            entry.name,
            label,
            entry.citation,
            validation=validation,
            test=summary(tested, everything),
            test_evaluation=tested,
            cpu_seconds=time.process_time() - started,
        )
    return results
