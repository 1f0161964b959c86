"""Tables of the report: this run and every baseline, accuracy by group, and costs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from palate.models.metrics import Estimate, RankingMetrics
from palate.simulation.bands import Band
from palate.simulation.evaluation import Summary
from palate.simulation.report.records import BaselineResult, Result, RoundRecord
from palate.simulation.report.words import ABSENT, data_size, duration, score

FEW_USERS = 30
"""Groups smaller than this are marked: their numbers say little."""

_NO_RIVALS = {"popularity", "dp_popularity", "dp_content"}

ROLES = ("first", "second", "third")
"""Colours of models beside each other, in their order."""


Tone = Literal["", "good", "bad", "unknown"]
"""Colour of a verdict on a terminal."""


@dataclass(frozen=True)
class Cell:
    """One value of a table.

    Attributes
    ----------
    text
        What is shown.
    note
        Small print below it, on a page only.
    best
        Whether it is the best of its column.
    tone
        How a verdict is coloured on a terminal.
    """

    text: str
    note: str = ""
    best: bool = False
    tone: Tone = ""


@dataclass(frozen=True)
class Row:
    """One line: its name, its cells, and whether it is this run's own."""

    label: str
    cells: tuple[Cell, ...]
    own: bool = False


@dataclass(frozen=True)
class Grid:
    """A table, for the terminal (`palate.cli.terminal`) and for a page (`parts.html.j2`).

    Attributes
    ----------
    caption
        What it shows.
    columns
        Headings; the first is that of the row labels.
    rows
        Lines.
    notes
        Sentences below it.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = field(default=())


def own_label(result: Result) -> str:
    """Name of this run in tables with its baselines."""
    return f"Palate ({result.model})"


def measured(result: Result, part: str) -> list[tuple[str, Summary]]:
    """List this run and its baselines with their results on one part, this run first; what was skipped is left out."""
    own, hidden = result.summary.of(part), result.hidden
    found = [(own_label(result), own)]
    if part == "test" and hidden is not None:
        found.append((f"The same, newest {hidden.newest} hidden", hidden.test))
    found += [(baseline.label, baseline.of(part)) for baseline in result.baselines.values()]
    return [(label, summary) for label, summary in found if summary is not None]


def best_reference(result: Result, ranking: str) -> BaselineResult | None:
    """Find the reference without privacy that is best on the test by NDCG under "sampled" or "full".

    On the test, although choices are made on validation: nothing of Palate's is chosen by it, and whoever is compared
    with the strongest opponent should be. Popularity and the private controls have sentences of their own.
    """
    rivals = [baseline for name, baseline in result.baselines.items() if name not in _NO_RIVALS]
    ran = [(baseline, baseline.test) for baseline in rivals if baseline.test is not None]
    found = max(ran, key=lambda each: each[1].accuracy(ranking).ndcg.value, default=None)
    return found[0] if found else None


def headliners(result: Result, ranking: str = "full") -> dict[str, Summary]:
    """Test results by label of this run, of popularity and of the best reference, those that there are."""
    rivals = result.baselines.get("popularity"), best_reference(result, ranking)
    measured = {rival.label: rival.test for rival in rivals if rival is not None and rival.test is not None}
    return {own_label(result): result.summary.test, **measured}


def accuracy_grid(result: Result, part: str, ranking: str) -> Grid:
    """Accuracy of every model on "validation" or "test" under "sampled" or "full", the best of a column marked."""
    models = [(label, summary.accuracy(ranking)) for label, summary in measured(result, part)]
    k = result.summary.test.sampled.top_k
    columns = (f"hr@{k}", f"ndcg@{k}", f"recall@{2 * k}", f"precision@{k}", f"f1@{k}", "mrr")
    best = {column: max(score(accuracy.values[column]) for _, accuracy in models) for column in columns}

    def cell(accuracy: RankingMetrics, column: str) -> Cell:
        text = score(accuracy.values[column])
        interval = accuracy.intervals.get(column)
        # Values that print equal count as equal: the reader sees no more digits.
        return Cell(text, _interval(interval) if interval else "", best=text == best[column])

    where = "sampled candidates" if ranking == "sampled" else "the whole catalogue"
    skipped = [f"{b.label}: skipped, {b.skipped}." for b in result.baselines.values() if b.skipped]
    return Grid(
        caption=f"{part.capitalize()}, {where}",
        columns=("Model", f"HR@{k} = recall@{k}", f"NDCG@{k}", f"Recall@{2 * k}", f"Precision@{k}", f"F1@{k}", "MRR"),
        rows=tuple(
            Row(label, tuple(cell(accuracy, column) for column in columns), own=index == 0)
            for index, (label, accuracy) in enumerate(models)
        ),
        notes=(f"{models[0][1].num_users:,} people; small print: 95% interval; bold: best of the column.", *skipped),
    )


def beyond_grid(result: Result) -> Grid:
    """Show properties of the test lists; nothing is marked, because more is not always better."""
    return Grid(
        caption="Test, the lists themselves",
        columns=("Model", "Coverage", "Gini", "Novelty", "Diversity"),
        rows=tuple(
            Row(
                label,
                (
                    Cell(f"{summary.beyond.coverage:.1%}"),
                    Cell(score(summary.beyond.gini)),
                    Cell(f"{summary.beyond.novelty:.2f} bits"),
                    Cell(ABSENT if summary.beyond.diversity is None else score(summary.beyond.diversity)),
                ),
                own=index == 0,
            )
            for index, (label, summary) in enumerate(measured(result, "test"))
        ),
        notes=("Read together with accuracy: random lists would be the most novel and cover the most.",),
    )


def band_grid(caption: str, heading: str, models: Mapping[str, Sequence[Band]]) -> Grid:
    """Test accuracy of this run by group, with the hit rate of some baselines.

    Parameters
    ----------
    caption, heading
        What the groups are, as a sentence and as a column heading.
    models
        The same groups of all models by label, this run's first.
    """
    bands, *others = models.values()
    k = bands[0].sampled.top_k
    return Grid(
        caption=caption,
        columns=(
            heading,
            "People",
            f"HR@{k}",
            f"NDCG@{k}",
            f"HR@{k}, whole catalogue",
            *(f"{label}, HR@{k}" for label in list(models)[1:]),
        ),
        rows=tuple(
            Row(
                band.label,
                (
                    Cell(f"{band.users:,}", "few" if band.users < FEW_USERS else ""),
                    Cell(score(band.sampled.hit_rate.value), _interval(band.sampled.hit_rate)),
                    Cell(score(band.sampled.ndcg.value), _interval(band.sampled.ndcg)),
                    Cell(score(band.full.hit_rate.value), _interval(band.full.hit_rate)),
                    *(Cell(score(same[index].sampled.hit_rate.value)) for same in others),
                ),
            )
            for index, band in enumerate(bands)
        ),
    )


def cost_grid(result: Result, rounds: Sequence[RoundRecord]) -> Grid:
    """Show what the run cost, in time, memory and traffic."""
    training = [record for record in rounds if record.purpose == "train"] or list(rounds)
    down = sum(record.bytes_down * record.devices for record in rounds)
    up = sum(record.bytes_up * record.devices for record in rounds)
    facts = {
        "Processor time, whole run": (duration(result.cpu_seconds.total), "one core"),
        "Processor time, one round": (duration(result.cpu_seconds.per_round_median), "median, one core"),
        "Devices in a round": (f"{statistics.median(record.devices for record in training):,.0f}", "median"),
        "Devices trained in a second": (f"{statistics.median(r.users_per_second for r in training):,.0f}", "median"),
        "Peak memory": (f"{result.peak_memory_mb:,.0f} MB", "the whole process"),
        "To one device in one round": (data_size(result.bytes_per_device.down), "item table and plan"),
        "From one device in one round": (data_size(result.bytes_per_device.up), "one update"),
        "All traffic of the run": (data_size(down + up), f"{data_size(down)} down, {data_size(up)} up"),
    }
    return text_grid(
        "What the run cost", ("", "Measured", "Of what"), ((name, *values) for name, values in facts.items())
    )


def baseline_cost_grid(result: Result) -> Grid:
    """Where the baselines come from and what they cost."""
    rows = (
        (b.label, "skipped" if b.skipped else duration(b.cpu_seconds), b.citation, _settings(b))
        for b in result.baselines.values()
    )
    return text_grid("The references", ("Model", "Processor time", "After", "Chosen on validation"), rows)


def _settings(baseline: BaselineResult) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in baseline.settings.items())


def text_grid(
    caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]], notes: Sequence[str] = (), *, own: int = -1
) -> Grid:
    """Make a table of texts; the first of each row is its label, and row `own` is this run's."""
    lines = (Row(first, tuple(map(Cell, rest)), own=place == own) for place, (first, *rest) in enumerate(rows))
    return Grid(caption, tuple(columns), tuple(lines), tuple(notes))


def facts_grid(caption: str, heading: str, facts: Mapping[str, str]) -> Grid:
    """Names and values, such as a configuration; without a heading the table has none."""
    return text_grid(caption, (heading, "Value" if heading else ""), facts.items())


def _interval(interval: Estimate) -> str:
    return f"{score(interval.low)}\N{EN DASH}{score(interval.high)}"
