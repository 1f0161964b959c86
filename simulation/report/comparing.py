"""Compare runs on the same people: each with the first, by paired tests, and the settings that differ.

Differences are a run minus the first one, with the paired tests of `palate.simulation.significance` on each person's
rank of the same held-out item. Where several runs are compared, p-values are corrected (Holm 1979), for each metric.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from palate.errors import ConfigError, DataError, RunError
from palate.simulation import significance
from palate.simulation.report.headline import protection
from palate.simulation.report.records import Result
from palate.simulation.report.rendering import cell, render, save
from palate.simulation.report.tables import Cell, Grid, Row, text_grid
from palate.simulation.report.words import ABSENT, data_size, duration, flattened, metric_name, p_value, score, signed
from palate.simulation.run_reader import Run

_AGAIN = "compare runs of the same data with the same cleaning options"
BETTER, WORSE = "\N{UPWARDS ARROW}", "\N{DOWNWARDS ARROW}"
SIGNIFICANT = 0.05
"""Corrected p-values below it are marked with an arrow."""

_WHERE = {"full": "the whole catalogue", "sampled": "sampled candidates"}
_FACTS = {"run", "data", "model", "unit", "epsilon", "delta", "protection", "seed", "rounds"}
_FACTS |= {"cpu_seconds", "peak_memory_mb", "bytes_per_device"}
_RESAMPLING_SEED = 0  # the same runs give the same intervals every time


@dataclass(frozen=True)
class Tested:
    """A run minus the first one in one metric.

    Attributes
    ----------
    difference
        With its interval, p-value and effect size.
    corrected
        The p-value, corrected for the number of runs that are compared with the first.
    """

    difference: significance.Difference
    corrected: float

    @property
    def arrow(self) -> str:
        """Up where the run is better than the first, down where it is worse, empty where neither is shown."""
        if self.corrected >= SIGNIFICANT:
            return ""
        return BETTER if self.difference.value > 0 else WORSE


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs on the same people and held-out items, each compared with the first.

    Attributes
    ----------
    names
        Names of the run folders, made different by a number where two folders share one.
    results
        What result.json says about each.
    num_users, top_k
        People compared, and the cut-off.
    config
        Options that differ: name, and the value of each run.
    by_ranking
        Paired comparisons of test accuracy under "full" and "sampled", one for each run after the first.
    """

    names: tuple[str, ...]
    results: tuple[Result, ...]
    num_users: int
    top_k: int
    config: tuple[tuple[str, tuple[str, ...]], ...]
    by_ranking: dict[str, tuple[significance.Comparison, ...]]

    @property
    def verdicts(self) -> list[str]:
        """One sentence for each run after the first: is it better, by NDCG in the whole catalogue?"""
        metric, first = f"ndcg@{self.top_k}", self.names[0]
        label = "corrected p" if len(self.names) > 2 else "p"
        found = []
        for name, tested in zip(self.names[1:], self.tests("full")[metric], strict=True):
            words = {BETTER: "is better than", WORSE: "is worse than", "": "shows no difference from"}[tested.arrow]
            test = tested.difference
            interval = f"95% interval {signed(test.low)} to {signed(test.high)}, {label} {p_value(tested.corrected)}"
            found.append(f"{name} {words} {first}: {metric_name(metric)} {signed(test.value)} ({interval}).")
        return found

    def tests(self, ranking: str) -> dict[str, list[Tested]]:
        """Return the tested metrics under "full" or "sampled", each with one test for each run after the first."""
        pairs = self.by_ranking[ranking]
        found = {}
        for metric, differences in (
            (f"hr@{self.top_k}", [pair.hit_rate for pair in pairs]),
            (f"ndcg@{self.top_k}", [pair.ndcg for pair in pairs]),
        ):
            corrected = significance.holm([difference.p_value for difference in differences])
            found[metric] = list(map(Tested, differences, corrected))
        return found

    def values(self, ranking: str) -> dict[str, list[float]]:
        """Return the metrics under "full" or "sampled", each with one value for each run, tested ones first."""
        names = (f"hr@{self.top_k}", f"ndcg@{self.top_k}", f"recall@{2 * self.top_k}", "mrr")
        each = [result.summary.test.accuracy(ranking).values for result in self.results]
        return {name: [values[name] for values in each] for name in names}

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON; lists have the order of `runs`, and every `difference` is to the first of them."""
        return {
            "runs": [{**_facts(result), "run": name} for name, result in zip(self.names, self.results, strict=True)],
            "users": self.num_users,
            "top_k": self.top_k,
            "config": {name: list(values) for name, values in self.config},
            "test": {ranking: self._ranking_values(ranking) for ranking in self.by_ranking},
        }

    def _ranking_values(self, ranking: str) -> list[dict[str, object]]:
        values, tests = self.values(ranking), self.tests(ranking)
        found: list[dict[str, object]] = []
        for place, name in enumerate(self.names):
            metrics: dict[str, object] = {}
            for metric, each in values.items():
                test = tests[metric][place - 1] if place and metric in tests else None
                metrics[metric] = {
                    "value": each[place],
                    "difference": each[place] - each[0],
                    "test": asdict(test.difference) | {"corrected_p_value": test.corrected} if test else None,
                }
            pair = self.by_ranking[ranking][place - 1] if place else None
            served = {"only_first": pair.only_first, "only_this": pair.only_second} if pair else {}
            found.append({"run": name, "metrics": metrics, **served})
        return found

    def _repr_html_(self) -> str:
        """Show the tables in a notebook."""
        note = f"{', '.join(self.names)} on {self.results[0].data}: {self.num_users:,} people, the same held-out items."
        return cell("Comparison", comparison_grids(self), note=note)


def compare_runs(*runs: Run) -> Comparison:
    """Compare finished runs on the same test items, each with the first.

    Raises
    ------
    ConfigError
        If there are fewer than two.
    RunError
        If they are of different catalogues, people, held-out items or cut-offs, or of fewer than 2 people.
    """
    if len(runs) < 2:
        raise ConfigError(
            f"{len(runs)} run to compare, at least 2 are needed", hint="name another: palate runs lists them"
        )
    first = runs[0]
    for other in runs[1:]:
        _require_comparable(first, other)
    options = [flattened(run.config) for run in runs]
    names = dict.fromkeys(name for each in options for name in each)
    config = ((name, tuple(each.get(name, ABSENT) for each in options)) for name in names)
    return Comparison(
        names=_distinct([run.folder.resolve().name for run in runs]),
        results=tuple(run.result for run in runs),
        num_users=len(first.ranked["test"].user_ids),
        top_k=first.top_k,
        config=tuple((name, values) for name, values in config if len(set(values)) > 1),
        by_ranking={ranking: tuple(_paired(first, other, ranking) for other in runs[1:]) for ranking in _WHERE},
    )


def comparison_grids(comparison: Comparison, *, guarantees: bool = True) -> list[Grid]:
    """Make tables: accuracy and tests under both protocols, guarantees, lists and cost, configuration.

    Parameters
    ----------
    comparison
        What was compared.
    guarantees
        False leaves them out, for a page that says them elsewhere.
    """
    names = comparison.names
    grids = [make(comparison, ranking) for ranking in _WHERE for make in (_accuracy_grid, _test_grid)]
    if guarantees:
        said = ((name, str(protection(result))) for name, result in zip(names, comparison.results, strict=True))
        grids.append(text_grid("Guarantees", ("Run", "What is promised"), said))
    facts = [_shown_facts(result) for result in comparison.results]
    rows = ((name, *(each[name] for each in facts)) for name in facts[0])
    grids.append(text_grid("Lists and cost", ("", *names), rows))
    differing = ((name, *values) for name, values in comparison.config)
    options = text_grid("Configuration where it differs", ("Option", *names), differing)
    return [*grids, options if options.rows else replace(options, notes=("The configurations are equal.",))]


def write_comparison(comparison: Comparison, path: Path) -> None:
    """Write the comparison as one HTML page; raises as `palate.simulation.report.rendering.save`."""
    banners = [(name, protection(result)) for name, result in zip(comparison.names, comparison.results, strict=True)]
    grids = comparison_grids(comparison, guarantees=False)
    save(render("compare.html.j2", comparison=comparison, grids=grids, banners=banners), path)


def _accuracy_grid(comparison: Comparison, ranking: str) -> Grid:
    values, tests = comparison.values(ranking), comparison.tests(ranking)
    rows = []
    for place, name in enumerate(comparison.names):
        cells = []
        for metric, each in values.items():
            arrow = tests[metric][place - 1].arrow if place and metric in tests else ""
            cells.append(Cell(f"{score(each[place])} {arrow}".rstrip(), best=each[place] == max(each)))
        rows.append(Row(name, tuple(cells)))
    return Grid(f"Test, {_WHERE[ranking]}", ("Run", *map(metric_name, values)), tuple(rows))


def _test_grid(comparison: Comparison, ranking: str) -> Grid:
    first, *others = comparison.names
    corrected = len(others) > 1
    rows = []
    for place, name in enumerate(others):
        for metric, tests in comparison.tests(ranking).items():
            test = tests[place].difference
            cells = [metric_name(metric), f"{signed(test.value)} {tests[place].arrow}".rstrip()]
            cells += [f"{signed(test.low)} to {signed(test.high)}", signed(test.effect), p_value(test.p_value)]
            cells += [p_value(tests[place].corrected)] if corrected else []
            rows.append(Row(name, tuple(map(Cell, cells))))
    served = "; ".join(
        f"only {name} served {pair.only_second:,} people, only {first} {pair.only_first:,}"
        for name, pair in zip(others, comparison.by_ranking[ranking], strict=True)
    )
    return Grid(
        caption=f"Difference from {first}, {_WHERE[ranking]}",
        columns=(
            "Run",
            "Metric",
            "Difference",
            "95% interval",
            "Effect",
            "p",
            *(("Corrected p",) if corrected else ()),
        ),
        rows=tuple(rows),
        notes=(f"{comparison.num_users:,} people; {served}.",),
    )


def _paired(first: Run, other: Run, ranking: str) -> significance.Comparison:
    rng = np.random.default_rng(_RESAMPLING_SEED)
    evaluations = first.ranked["test"].evaluation, other.ranked["test"].evaluation
    try:
        return significance.compare(*evaluations, rng=rng, ranking=ranking)
    except DataError as error:
        raise RunError(f"{first.folder} and {other.folder}: {error.message}", hint=_AGAIN) from error


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Add a number to names that occur more than once."""
    many, seen, found = Counter(names), Counter[str](), []
    for name in names:
        seen[name] += 1
        found.append(f"{name} ({seen[name]})" if many[name] > 1 else name)
    return tuple(found)


def _require_comparable(first: Run, second: Run) -> None:
    """Refuse runs of different catalogues or people; `significance.compare` refuses what else does not fit."""
    names = f"{first.folder} and {second.folder}"
    if first.catalogue.ids != second.catalogue.ids:
        sizes = f"{first.catalogue.num_items:,} and {second.catalogue.num_items:,} items"
        raise RunError(f"{names} are of different catalogues ({sizes})", hint=_AGAIN)
    people = first.ranked["test"].user_ids, second.ranked["test"].user_ids
    if people[0] != people[1]:
        raise RunError(f"{names} are of different people ({len(people[0]):,} and {len(people[1]):,})", hint=_AGAIN)


def _facts(result: Result) -> dict[str, object]:
    return result.model_dump(include=_FACTS) | {"beyond": asdict(result.summary.test.beyond)}


def _shown_facts(result: Result) -> dict[str, str]:
    beyond = result.summary.test.beyond
    return {
        "Guarantee": str(result.guarantee) if result.guarantee else result.protection,
        "Coverage": f"{beyond.coverage:.1%}",
        "Gini": score(beyond.gini),
        "Novelty": f"{beyond.novelty:.2f} bits",
        "Diversity": ABSENT if beyond.diversity is None else score(beyond.diversity),
        "Rounds": str(result.rounds),
        "Processor time, one round": duration(result.cpu_seconds.per_round_median),
        "Processor time, whole run": duration(result.cpu_seconds.total),
        "Peak memory": f"{result.peak_memory_mb:,.0f} MB",
        "Down and up, one device, one round": f"{data_size(result.bytes_per_device.down)}, "
        f"{data_size(result.bytes_per_device.up)}",
    }
