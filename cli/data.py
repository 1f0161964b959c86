"""`palate data`: list datasets, get one, and describe one before training."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from palate.cli.fields import reads
from palate.cli.terminal import Answer, answering, note, somebody_is_there
from palate.data.options import ReadOptions
from palate.errors import ConfigError
from palate.simulation.baselines import remembering
from palate.simulation.datasets.describe import Description, describe
from palate.simulation.datasets.fetch import Fetched
from palate.simulation.datasets.fetch import get as fetch
from palate.simulation.datasets.presets import PRESETS, load, locate
from palate.simulation.report.tables import Grid, facts_grid, text_grid

data_app = typer.Typer(help="List, get and describe datasets.", no_args_is_help=True)


@data_app.command("list", epilog="Example: palate data list")
@answering
def list_presets() -> Answer:
    """List the datasets that Palate knows by name, and whether they are on this machine."""
    rows = [
        {
            "name": name,
            "description": preset.description,
            "licence": preset.licence,
            "redistribution": preset.redistribution,
            "citation": preset.citation,
            "how_to_get": preset.how_to_get,
            "here": preset.read is not None or locate(name) is not None,
        }
        for name, preset in PRESETS.items()
    ]
    cells = []
    for name, row in zip(PRESETS, rows, strict=True):
        by_hand = "palate data get" if PRESETS[name].fetchable else "by hand"
        way = PRESETS[name].how_to_get if PRESETS[name].read is not None else by_hand
        licence = PRESETS[name].licence.split(";")[0]
        cells.append((name, "yes" if row["here"] else "no", PRESETS[name].description, licence, way))
    return Answer({"datasets": rows}, [text_grid("", ("name", "here", "what", "licence", "how to get"), cells)])


@data_app.command("get", epilog="Example: palate data get ml-100k --yes")
@answering
def get_preset(
    name: Annotated[str, typer.Argument(help="Name of a dataset, as palate data list shows it.")],
    yes: Annotated[bool, typer.Option("--yes", help="Agree to the owner's terms without being asked.")] = False,
) -> Answer:
    """Get a dataset from its owner into the cache, after you agree to its terms."""
    got = fetch_with_consent(name, yes=yes, hint=f"palate data get {name} --yes")
    values = {"name": name, "folder": str(got.folder), "origin": got.origin}
    return Answer(values, [str(got.folder)], [f"{name}: {got.origin}"])


def fetch_with_consent(name: str, *, yes: bool, hint: str) -> Fetched:
    """Get a preset, once the person at the terminal has agreed to its owner's terms; `hint` says how to agree before.

    Raises
    ------
    ConfigError
        If nobody agrees; and as `fetch`.
    """

    def agree(terms: str) -> bool:
        note(f"Terms of {name}", style="bold")
        note(f"{terms}\nCite: {PRESETS[name].citation}")
        if not yes and not somebody_is_there():
            raise ConfigError("there is nobody to agree to the terms", hint=hint)
        return yes or typer.confirm("Do you agree?", default=False, err=True)

    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), console=Console(stderr=True), transient=True
    )
    task = bar.add_task(name, total=None)

    def progress(done: int, total: int) -> None:
        if not bar.live.is_started:
            bar.start()
        bar.update(task, completed=done, total=total or None)

    try:
        return fetch(name, agree=agree, progress=progress)
    finally:
        bar.stop()


@data_app.command("forget", epilog="Example: palate data forget")
@answering
def forget_results() -> Answer:
    """Delete what is remembered of data: results of the references of earlier runs. Datasets and runs stay."""
    count, where = remembering.forget(), str(remembering.folder())
    return Answer({"forgotten": count, "folder": where}, [f"{count} results forgotten: {where}"])


@data_app.command("describe", epilog="Example: palate data describe ratings.csv --user-column who --min-user 5")
@reads(*ReadOptions.model_fields)
@answering
def describe_data(
    data: Annotated[
        str, typer.Argument(help="Name of a dataset, a folder, or a file: CSV, TSV, JSON, Parquet, RecBole's .inter.")
    ],
    *,
    read: ReadOptions,
) -> Answer:
    """Describe a dataset: counts, activity, popularity, what cleaning dropped, how it will be split."""
    described = describe(load(data, options=read))
    return Answer(asdict(described), [_description(described)])


def _description(described: Description) -> Grid:
    facts = {
        "users": f"{described.users:,}",
        "items": f"{described.items:,} ({described.described_items:,} with a description)",
        "interactions": f"{described.interactions:,} (density {described.density:.2%})",
        "per user": _spread(described.per_user),
        "per item": _spread(described.per_item),
        "popularity": f"the top tenth of the items holds {described.top_tenth_share:.0%} of the interactions",
        "order": described.order,
        "days": " to ".join(described.time_range) if described.time_range else "",
        "genres": ", ".join(f"{genre} {count}" for genre, count in described.genres.items()),
        "most popular": "\n".join(described.sample_titles),
        **{
            name: ", ".join(f"{value} {count}" for value, count in counts.items())
            for name, counts in described.groups.items()
        },
        "split": described.protocol,
        "warning": described.ties,
        "dropped": _dropped(described),
        "notes": "\n".join(described.cleaning.notes),
        "licence": described.licence,
        "cite": described.citation,
        "file": described.source,
    }
    return facts_grid(described.name, "", {name: value for name, value in facts.items() if value})


def _spread(quantiles: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in quantiles.items())


def _dropped(described: Description) -> str:
    report = described.cleaning
    counts = {
        "malformed": report.malformed,
        "missing": report.missing,
        "not_finite": report.not_finite,
        "below_rating": report.below_rating,
        "duplicates": report.duplicates,
        "below_core": report.below_core,
    }
    lines = []
    for reason, count in counts.items():
        where = ", ".join(map(str, report.example_lines.get(reason, ())))
        if count:
            lines.append(f"{count:,} {reason.replace('_', ' ')}" + (f" (lines {where})" if where else ""))
    return "\n".join(lines) or f"none of {report.rows_read:,} rows"
