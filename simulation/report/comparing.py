"""Compare two runs: differences in configuration, and whether one is significantly better for the same people.

Differences are second run minus first, with the paired tests of `palate.simulation.significance` on each person's
rank of the same held-out item.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np

from palate.errors import DataError, RunError
from palate.simulation import significance
from palate.simulation.report.ranked import RANKINGS
from palate.simulation.report.records import Result
from palate.simulation.report.rendering import cell
from palate.simulation.report.tables import Cell, Grid, Row, text_grid
from palate.simulation.report.words import data_size, duration, flattened, metric_name, p_value, score, signed
from palate.simulation.run_reader import Run

_AGAIN = "compare runs of the same data with the same cleaning options"
ABSENT = "\N{EN DASH}"
_FACTS = {"run", "data", "model", "unit", "epsilon", "delta", "protection", "seed", "rounds"}
_FACTS |= {"cpu_seconds", "peak_memory_mb", "bytes_per_device"}
_RESAMPLING_SEED = 0  # the same two runs give the same interval every time


Contrast = tuple[str, float, float, significance.Difference | None]
"""A metric's published name, its values in both runs, and its test where it has one."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two runs on the same people and held-out items.

    Attributes
    ----------
    first, second
        What result.json says about each.
    num_users, top_k
        People compared, and the cut-off.
    config
        Options that differ: name, value in the first run, value in the second.
    by_ranking
        Paired tests of test accuracy under "sampled" and "full".
    """

    first: Result
    second: Result
    num_users: int
    top_k: int
    config: tuple[tuple[str, str, str], ...]
    by_ranking: dict[str, significance.Comparison]

    @property
    def names(self) -> tuple[str, str]:
        """Names of the two runs; runs in different folders may share a name."""
        first, second = self.first.run, self.second.run
        return (first, second) if first != second else (f"{first} (first)", f"{second} (second)")

    @property
    def verdict(self) -> str:
        """One sentence: which of the two is better, if the data shows it."""
        test, (first, second) = self.by_ranking["sampled"].ndcg, self.names
        if test.low <= 0 <= test.high:
            found = f"No difference between {first} and {second} is shown"
        else:
            found = f"{second if test.low > 0 else first} is better than {first if test.low > 0 else second}"
        interval = f"95% interval {signed(test.low)} to {signed(test.high)}"
        return f"{found}: NDCG@{self.top_k} differs by {signed(test.value)} ({interval})."

    def contrasts(self, ranking: str) -> list[Contrast]:
        """List the metrics under "sampled" or "full", tested ones first."""
        tested, k = self.by_ranking[ranking], self.top_k
        tests = {f"hr@{k}": tested.hit_rate, f"ndcg@{k}": tested.ndcg, f"recall@{2 * k}": None, "mrr": None}
        first, second = (run.summary.test.accuracy(ranking).values for run in (self.first, self.second))
        return [(name, first[name], second[name], test) for name, test in tests.items()]

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON; `difference` is second minus first."""
        return {
            "first": _facts(self.first),
            "second": _facts(self.second),
            "users": self.num_users,
            "top_k": self.top_k,
            "config": {name: {"first": first, "second": second} for name, first, second in self.config},
            "test": {
                ranking: {
                    "only_first": found.only_first,
                    "only_second": found.only_second,
                    "metrics": {
                        metric: {
                            "first": first,
                            "second": second,
                            "difference": second - first,
                            "test": asdict(test) if test else None,
                        }
                        for metric, first, second, test in self.contrasts(ranking)
                    },
                }
                for ranking, found in self.by_ranking.items()
            },
        }

    def _repr_html_(self) -> str:
        """Show the tables in a notebook."""
        note = f"{' and '.join(self.names)} on {self.first.data}: {self.num_users:,} people, the same held-out items."
        return cell("Comparison", comparison_grids(self), note=note)


def compare_runs(first: Run, second: Run) -> Comparison:
    """Compare two finished runs on the same test items.

    Raises
    ------
    RunError
        If they are of different catalogues, people, held-out items or cut-offs, or of fewer than 2 people.
    """
    _require_comparable(first, second)
    by_ranking = {}
    for ranking in RANKINGS:
        rng = np.random.default_rng(_RESAMPLING_SEED)
        evaluations = first.ranked["test"].evaluation, second.ranked["test"].evaluation
        try:
            by_ranking[ranking] = significance.compare(*evaluations, rng=rng, ranking=ranking)
        except DataError as error:
            raise RunError(f"{first.folder} and {second.folder}: {error.message}", hint=_AGAIN) from error
    options = flattened(first.config), flattened(second.config)
    names = dict.fromkeys([*options[0], *options[1]])
    pairs = ((name, options[0].get(name, ABSENT), options[1].get(name, ABSENT)) for name in names)
    return Comparison(
        first=first.result,
        second=second.result,
        num_users=len(first.ranked["test"].user_ids),
        top_k=first.top_k,
        config=tuple(pair for pair in pairs if pair[1] != pair[2]),
        by_ranking=by_ranking,
    )


def comparison_grids(comparison: Comparison) -> list[Grid]:
    """Make tables of the comparison: accuracy under both protocols, lists and cost, configuration."""
    names = comparison.names
    grids = []
    for ranking, found in comparison.by_ranking.items():
        where = "sampled candidates" if ranking == "sampled" else "the whole catalogue"
        grids.append(
            Grid(
                caption=f"Test, {where}",
                columns=("Metric", *names, "Difference", "95% interval", "p-value"),
                rows=tuple(_contrast_row(*contrast) for contrast in comparison.contrasts(ranking)),
                notes=(
                    f"{comparison.num_users:,} people; only {names[0]} served {found.only_first:,} of them, "
                    f"only {names[1]} {found.only_second:,}.",
                ),
            )
        )
    facts = [_shown_facts(result) for result in (comparison.first, comparison.second)]
    both = ((name, value, facts[1][name]) for name, value in facts[0].items())
    grids.append(text_grid("Protection, lists and cost", ("", *names), both))
    options = text_grid("Configuration where it differs", ("Option", *names), comparison.config)
    return [*grids, options if options.rows else replace(options, notes=("The configurations are equal.",))]


def _require_comparable(first: Run, second: Run) -> None:
    """Refuse runs of different catalogues or people; `significance.compare` refuses what else does not fit."""
    names = f"{first.folder} and {second.folder}"
    if first.catalogue.ids != second.catalogue.ids:
        sizes = f"{first.catalogue.num_items:,} and {second.catalogue.num_items:,} items"
        raise RunError(f"{names} are of different catalogues ({sizes})", hint=_AGAIN)
    people = first.ranked["test"].user_ids, second.ranked["test"].user_ids
    if people[0] != people[1]:
        raise RunError(f"{names} are of different people ({len(people[0]):,} and {len(people[1]):,})", hint=_AGAIN)


def _contrast_row(metric: str, first: float, second: float, test: significance.Difference | None) -> Row:
    return Row(
        metric_name(metric),
        (
            Cell(score(first)),
            Cell(score(second)),
            Cell(signed(second - first)),
            Cell(f"{signed(test.low)} to {signed(test.high)}" if test else ABSENT),
            Cell(p_value(test.p_value) if test else ABSENT),
        ),
    )


def _facts(result: Result) -> dict[str, object]:
    return result.model_dump(include=_FACTS) | {"beyond": asdict(result.summary.test.beyond)}


def _shown_facts(result: Result) -> dict[str, str]:
    beyond = result.summary.test.beyond
    stated = result.guarantee.facts if result.guarantee else {"guarantee": result.protection}
    return {
        "Protection": stated["guarantee"],
        "Compared worlds": stated.get("compared worlds", ABSENT),
        "Holds if": stated.get("holds if", ABSENT),
        "Coverage": f"{beyond.coverage:.1%}",
        "Gini": score(beyond.gini),
        "Novelty": f"{beyond.novelty:.2f} bits",
        "Diversity": ABSENT if beyond.diversity is None else score(beyond.diversity),
        "Rounds": str(result.rounds),
        "Processor time, one round": duration(result.cpu_seconds.per_round_median),
        "Peak memory": f"{result.peak_memory_mb:,.0f} MB",
        "Down and up, one device, one round": f"{data_size(result.bytes_per_device.down)}, "
        f"{data_size(result.bytes_per_device.up)}",
    }
