"""Fit and evaluate baselines in the same run, on the same split and negatives, as the model they are a reference for.

A baseline is fitted twice: on the training items for validation, on training and validation items for the test. What a
run sums up is never more than the training items, so the controls (a run without something) sum up no more either; the
other references know the validation items, to their advantage. Those with candidates choose among them on validation.
What is expensive is remembered, and left out for many people unless it is asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pydantic import TypeAdapter

from palate.models.arrays import Float32Array
from palate.models.training import LocalTraining
from palate.privacy.budget import Promise
from palate.simulation.baselines import remembering
from palate.simulation.baselines.base import Baseline, FitData
from palate.simulation.baselines.registry import BASELINES
from palate.simulation.datasets.splits import Split
from palate.simulation.evaluation import Evaluation, Scorer, Summary, evaluate, summarise
from palate.simulation.report.records import ReadSummary

MANY_PEOPLE = 20_000
"""Above so many people what is expensive is fitted only on request."""

_SUMMARY: TypeAdapter[Summary | None] = TypeAdapter(ReadSummary | None)


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
    settings
        Hyperparameters that were chosen on validation items; empty where there was no choice.
    test_evaluation
        Ranks per user, for paired tests; None where the result was remembered.
    cpu_seconds
        Processor time of choosing, fitting and evaluating, when it was done.
    """

    name: str
    label: str
    citation: str
    skipped: str | None = None
    validation: Summary | None = None
    test: Summary | None = None
    settings: Mapping[str, float] = field(default_factory=dict)
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
            "settings": dict(self.settings),
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
    ordered: bool = False,
    on_request: bool = True,
    remembered: bool = False,
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
    ordered
        Whether the order of a history is known: baselines then weigh recent interactions as Palate's models do.
    on_request
        Whether somebody asked for these baselines; if not, expensive ones are left out above MANY_PEOPLE.
    remembered
        Whether results of Palate's own expensive baselines are kept in the cache folder, and taken from there.
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
    data = FitData(
        split.train, split.num_items, content, seed, training, promise, noise_seed, summed=split.train, ordered=ordered
    )
    results = {}
    for entry in chosen:
        if progress is not None:
            progress(entry.name)
        label = f"{entry.label}, by recency" if entry.weighs_recency and ordered else entry.label
        empty = BaselineResult(entry.name, label, entry.citation)
        skipped = entry.obstacle(split.num_items, content, promise, ordered=ordered)
        if skipped is None and entry.expensive and not on_request and split.train.num_users > MANY_PEOPLE:
            skipped = f"{split.train.num_users:,} people, above {MANY_PEOPLE:,} only on request (--baselines all)"
        if skipped is not None:
            results[entry.name] = replace(empty, skipped=skipped)
            continue
        if entry.spends_budget and promise:
            empty = replace(empty, label=f"{label} (epsilon {promise.epsilon:g})")
        if remembered and entry.expensive and BASELINES.built_in.get(entry.name) and BASELINES[entry.name] is entry:
            results[entry.name] = _remembered(entry, empty, data, split, groups)
        else:
            results[entry.name] = _fitted(entry, empty, data, split, groups)
    return results


Groups = Mapping[str, Sequence[str]] | None


def _remembered(entry: Baseline, empty: BaselineResult, data: FitData, split: Split, groups: Groups) -> BaselineResult:
    """Take the result from the cache, or fit and keep it."""
    held = [array for part in (split.validation, split.test) for array in (part.item, part.negatives)]
    labels = {
        "name": entry.name,
        "groups": groups,
        "seed": data.seed,
        "ordered": data.ordered,
        "items": split.num_items,
    }
    key = remembering.key_of([split.train.indptr, split.train.items, *held, data.content], labels)
    kept = remembering.recall(key)
    if kept is None:
        found = _fitted(entry, empty, data, split, groups)
        remembering.remember(key, found.to_dict())
        return found
    return replace(
        empty,
        validation=_SUMMARY.validate_python(kept["validation"]),
        test=_SUMMARY.validate_python(kept["test"]),
        settings=kept["settings"],
        cpu_seconds=kept["cpu_seconds"],
    )


def _fitted(entry: Baseline, empty: BaselineResult, data: FitData, split: Split, groups: Groups) -> BaselineResult:
    """Choose settings and evaluate on validation, then fit once more and evaluate on the test."""

    def summary(evaluation: Evaluation, known: FitData) -> Summary:
        return summarise(
            evaluation, train=known.history, num_items=split.num_items, content=data.content, groups=groups
        )

    started = time.process_time()
    validation, settings = None, dict(entry.candidates[0]) if entry.candidates else {}
    if (split.validation.item >= 0).any():
        scorer, settings = _chosen(entry, data, split)
        validation = summary(evaluate(scorer, split.validation, data.history), data)
        del scorer  # before the next one is made
    everything = replace(data, history=split.full_train)
    tested = evaluate(entry.fit(everything, **settings), split.test, everything.history)
    return replace(
        empty,
        validation=validation,
        test=summary(tested, everything),
        settings=settings,
        test_evaluation=tested,
        cpu_seconds=time.process_time() - started,
    )


def _chosen(entry: Baseline, data: FitData, split: Split) -> tuple[Scorer, dict[str, float]]:
    """Fit to the training items with the settings that rank the validation items best."""
    first, *others = entry.candidates or ({},)
    best, settings = entry.fit(data, **first), first

    def quality(scorer: Scorer) -> float:
        return evaluate(scorer, split.validation, data.history, with_full=False).metrics().ndcg.value

    reached = quality(best) if others else 0.0
    for candidate in others:
        scorer = entry.fit(data, **candidate)
        if (found := quality(scorer)) > reached:
            best, settings, reached = scorer, candidate, found
    return best, dict(settings)
