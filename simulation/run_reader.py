"""A finished run folder, read whole and checked: docs/formats/run-folder.md.

Every reader of runs (report, compare) goes through `read_run`, so a file that is missing, damaged or contradicts
another one raises a `RunError` instead of giving a wrong number: item indices must be in the catalogue, the item
table must have the hash that it claims, and the ranks must give the accuracy that result.json states.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.data.catalogue import Catalogue
from palate.errors import RunError
from palate.models.table import ItemTable
from palate.server.store import TABLE_FORMAT, read_tensors
from palate.simulation.evaluation import Evaluation, Summary
from palate.simulation.prepare import catalogue_hash
from palate.simulation.report.files import as_record, damaged, exists, file_bytes, file_record, is_file
from palate.simulation.report.ranked import PARTS, RANKINGS, RankedUsers, read_evaluation, read_items
from palate.simulation.report.records import Environment, Result, RoundRecord

RUNS = Path("runs")
"""Where runs are found by name."""


_HASHED = ("evaluation.parquet", "items.parquet", "rounds.jsonl")
_TOLERANCE = 1e-6  # of a mean over users that was written as JSON and is computed again


@dataclass(frozen=True, eq=False)
class SavedTable:
    """item_table.safetensors.

    Attributes
    ----------
    table
        The item table of the last round.
    columns
        Names of its fixed columns.
    catalogue
        SHA-256 over the item ids.
    """

    table: ItemTable
    columns: tuple[str, ...]
    catalogue: str


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run.

    Attributes
    ----------
    folder
        The run folder.
    config
        config.toml.
    environment, rounds, result
        environment.json, rounds.jsonl, result.json.
    catalogue
        items.parquet; descriptions (`texts`) are not kept in a run and are "".
    saved
        item_table.safetensors.
    ranked
        evaluation.parquet by part; "test" always has users, "validation" may be absent.
    """

    folder: Path
    config: dict[str, Any]
    environment: Environment
    rounds: tuple[RoundRecord, ...]
    result: Result
    catalogue: Catalogue
    saved: SavedTable
    ranked: dict[str, RankedUsers]

    @property
    def top_k(self) -> int:
        """Cut-off of the metrics and length of the lists."""
        return self.result.summary.test.sampled.top_k


def locate_run(name: str | Path, *, runs: Path = RUNS) -> Path:
    """Find a run folder by path, or by name under ./runs.

    Raises
    ------
    RunError
        If there is neither.
    """
    candidates = [Path(name).expanduser(), runs / name] if str(name) else []
    for candidate in candidates:
        if is_file(candidate / "config.toml"):
            return candidate
    known = sorted(path.parent.name for path in runs.glob("*/config.toml"))
    near = difflib.get_close_matches(str(name), known, n=1) or known[:5]
    hint = f"{runs}/ has {', '.join(near)}" if near else "make one with palate simulate --data demo"
    for candidate in candidates:
        if exists(candidate):
            raise RunError(f"{candidate} is not a run folder: it has no config.toml", hint=hint)
    raise RunError(f"no run folder called {str(name)!r}", hint=hint)


def read_run(folder: Path) -> Run:
    """Read a finished run.

    Parameters
    ----------
    folder
        The run folder.

    Raises
    ------
    RunError
        If it is no run folder, the run has not finished, or a part is missing, damaged or contradicts another.
    EnvironmentProblem
        If a file may not be read.
    """
    config = _toml(folder)
    if not is_file(folder / "result.json"):
        done = len(file_bytes(folder, "rounds.jsonl").splitlines()) if is_file(folder / "rounds.jsonl") else 0
        raise RunError(
            f"{folder} is not finished: {done} rounds are done and there is no result.json",
            hint=f"go on with palate simulate --config {folder / 'config.toml'} --folder {folder}",
        )
    result = file_record(folder, "result.json", Result)
    _require_hashes(folder, result.files)
    catalogue = read_items(folder)
    run = Run(
        folder=folder,
        config=config,
        environment=file_record(folder, "environment.json", Environment),
        rounds=_rounds(folder),
        result=result,
        catalogue=catalogue,
        saved=read_item_table(folder),
        ranked=read_evaluation(folder, catalogue.num_items, result.summary.test.sampled.top_k),
    )
    _require_agreement(run)
    return run


def read_item_table(folder: Path) -> SavedTable:
    """Read item_table.safetensors and check it against its own hash.

    Raises
    ------
    RunError
        If it is missing or damaged, or of an unknown format.
    """
    name = "item_table.safetensors"
    file_bytes(folder, name, limit=1)  # our error names the folder or file that cannot be read
    arrays, label = read_tensors(folder / name, TABLE_FORMAT)
    try:
        table = ItemTable(arrays["fixed"], arrays["learned"])
        columns = json.loads(label.get("columns", "[]"))
    except (KeyError, ValueError) as error:
        raise damaged(folder, name, str(error)) from error
    if label.get("hash") != table.content_hash:
        raise damaged(folder, name, "its content does not have the hash that it states")
    if not isinstance(columns, list) or len(columns) != table.fixed_dim:
        raise damaged(folder, name, f"{table.fixed_dim} fixed columns, but not as many names")
    return SavedTable(table, tuple(map(str, columns)), label.get("catalogue", ""))


def _require_hashes(folder: Path, files: dict[str, str]) -> None:
    """Refuse files that are not what the writer wrote, before they are parsed."""
    for name in _HASHED:
        if name in files and hashlib.sha256(file_bytes(folder, name)).hexdigest() != files[name]:
            raise damaged(folder, name, "its SHA-256 is not the one in result.json")


def _require_agreement(run: Run) -> None:
    """Refuse a folder whose parts belong to different runs."""
    for name, count in (
        ("result.json", run.result.dataset.items),
        ("item_table.safetensors", run.saved.table.num_items),
    ):
        if count != run.catalogue.num_items:
            raise damaged(run.folder, name, f"{count} items, but items.parquet has {run.catalogue.num_items}")
    if run.saved.catalogue != catalogue_hash(run.catalogue):
        raise damaged(run.folder, "item_table.safetensors", "it belongs to another catalogue than items.parquet")
    numbers = [record.round for record in run.rounds]
    if len(numbers) != run.result.rounds + 1 or numbers != list(range(len(numbers))):
        raise damaged(
            run.folder, "rounds.jsonl", f"{len(numbers)} rounds, result.json says {run.result.rounds} after round 0"
        )
    for part in PARTS:
        summary, ranked = run.result.summary.of(part), run.ranked.get(part)
        if (summary is None) != (ranked is None):
            raise damaged(run.folder, "evaluation.parquet", f"its {part} part does not fit result.json")
        if summary is not None and ranked is not None and not _reproduces(summary, ranked.evaluation):
            raise damaged(run.folder, "evaluation.parquet", f"its ranks do not give the {part} metrics of result.json")


def _reproduces(summary: Summary, evaluation: Evaluation) -> bool:
    """Tell whether the ranks give the accuracy that the summary states, under both protocols."""
    for ranking in RANKINGS:
        stated, found = summary.accuracy(ranking), evaluation.metrics(ranking)
        off = abs(stated.hit_rate.value - found.hit_rate.value), abs(stated.ndcg.value - found.ndcg.value)
        if stated.num_users != found.num_users or max(off) > _TOLERANCE:
            return False
    return True


def _toml(folder: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file_bytes(folder, "config.toml").decode("utf-8"))
    except ValueError as error:  # both of tomllib and of UTF-8
        raise damaged(folder, "config.toml", str(error)) from error


def _rounds(folder: Path) -> tuple[RoundRecord, ...]:
    lines = file_bytes(folder, "rounds.jsonl").splitlines()
    numbered = enumerate(lines, start=1)
    return tuple(as_record(folder, f"rounds.jsonl line {number}", line, RoundRecord) for number, line in numbered)
