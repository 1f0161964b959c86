"""All runs of a folder in one table: what each is about, what it promises, what it reached, and what it cost.

Only `config.toml`, `result.json` and `rounds.jsonl` are read, so that hundreds of runs are listed at once. A run that
has not finished, or is damaged, is listed as such. `palate.simulation.run_reader.read_run` checks a whole run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from palate.errors import PalateError, RunError
from palate.simulation.report.files import file_bytes, file_record, is_file
from palate.simulation.report.records import Difference, Result
from palate.simulation.report.tables import Grid, text_grid
from palate.simulation.report.words import ABSENT, duration, score, signed
from palate.simulation.run_folder import read_config


@dataclass(frozen=True)
class ListedRun:
    """A run folder in a line.

    Attributes
    ----------
    run, folder
        Name of the folder, and its path.
    state
        "finished", "unfinished" or "damaged".
    rounds
        Training rounds that are done.
    data, unit, model
        Of the configuration; empty where it cannot be read.
    epsilon, delta
        What is proven of a finished run, and what was asked for of others, for all rounds; None without protection.
    hit_rate, ndcg
        Test accuracy in the whole catalogue at ten; None until finished.
    gain
        Hit rate minus that of the fair control, with its interval; None where no control was computed.
    control
        The fair control.
    cpu_seconds
        Of training and ranking.
    """

    run: str
    folder: str
    state: str
    rounds: int = 0
    data: str = ""
    unit: str = ""
    model: str = ""
    epsilon: float | None = None
    delta: float | None = None
    hit_rate: float | None = None
    ndcg: float | None = None
    gain: Difference | None = None
    control: str | None = None
    cpu_seconds: float | None = None

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self) | {"gain": None if self.gain is None else self.gain.model_dump()}


def _largest(value: float | None) -> tuple[bool, float]:
    return value is None, -(value or 0.0)


def _smallest(value: float | None) -> tuple[bool, float]:
    return value is None, value or 0.0


ORDERS: dict[str, Callable[[ListedRun], tuple[object, ...]]] = {
    "name": lambda run: (run.run,),
    "data": lambda run: (run.data,),
    "quality": lambda run: _largest(run.ndcg),
    "gain": lambda run: _largest(None if run.gain is None else run.gain.value),
    "epsilon": lambda run: _smallest(run.epsilon),
    "cpu": lambda run: _smallest(run.cpu_seconds),
}
"""Ways to sort: the best, the strictest or the cheapest first, and what is unknown last. Equal runs are by name."""


def list_runs(folder: Path) -> list[ListedRun]:
    """List the runs directly inside a folder by name; a run folder itself is listed alone.

    Raises
    ------
    RunError
        If there is no such folder.
    """
    if is_file(folder / "config.toml"):
        return [_listed(folder)]
    try:
        found = sorted(path.parent for path in folder.glob("*/config.toml")) if folder.is_dir() else None
    except (OSError, ValueError):
        found = None
    if found is None:
        raise RunError(f"{folder} is not a folder", hint="name the folder that has your runs; by default it is runs/")
    return [_listed(path) for path in found]


def runs_grid(runs: Sequence[ListedRun]) -> Grid:
    """Make the table of runs."""
    controls = {run.control for run in runs if run.control}
    notes = ["HR and NDCG are in the whole catalogue, of the first ten."]
    if any(run.epsilon is not None for run in runs):
        notes.append(
            "Epsilon at delta: of one unit replaced by zeros, for all rounds of a run; as asked for where it has not "
            "finished. palate compare says what each rests on."
        )
    if controls:
        notes.append("Gain: points of HR over the control that learns nothing together, \N{PLUS-MINUS SIGN} for 95%.")
    return text_grid(
        "",
        ("run", "data", "unit", "epsilon at delta", "HR", "NDCG", "gain", "CPU", "state"),
        [
            (
                run.run,
                run.data or ABSENT,
                run.unit or ABSENT,
                ABSENT if run.epsilon is None else f"{run.epsilon:.4g} at {run.delta:g}",
                ABSENT if run.hit_rate is None else score(run.hit_rate),
                ABSENT if run.ndcg is None else score(run.ndcg),
                ABSENT if run.gain is None else _points(run.gain),
                ABSENT if run.cpu_seconds is None else duration(run.cpu_seconds),
                run.state if run.state != "unfinished" else f"unfinished, {run.rounds} rounds",
            )
            for run in runs
        ],
        notes if runs else (),
    )


def _listed(folder: Path) -> ListedRun:
    name = folder.resolve().name
    try:
        config = read_config(folder)
        finished = is_file(folder / "result.json")
        result = file_record(folder, "result.json", Result) if finished else None
        lines = len(file_bytes(folder, "rounds.jsonl").splitlines()) if is_file(folder / "rounds.jsonl") else 0
    except PalateError:
        return ListedRun(name, str(folder), "damaged")
    if result is None:
        begun = ListedRun(name, str(folder), "unfinished", max(0, lines - 1))  # the first round is of popularity
        asked = None if config.epsilon is None else config.delta
        begun = replace(begun, data=config.data, unit=config.unit, model=config.training.model)
        return replace(begun, epsilon=config.epsilon, delta=asked)
    accuracy = result.summary.test.full
    gain = result.gain
    return ListedRun(
        name,
        str(folder),
        "finished",
        result.rounds,
        data=result.data,
        unit=result.unit,
        model=result.model,
        epsilon=None if result.guarantee is None else result.guarantee.epsilon,
        delta=None if result.guarantee is None else result.guarantee.delta,
        hit_rate=accuracy.hit_rate.value,
        ndcg=accuracy.ndcg.value,
        gain=None if gain is None else gain.of("full")[f"hr@{accuracy.top_k}"],
        control=None if gain is None else gain.control,
        cpu_seconds=result.cpu_seconds.total,
    )


def _points(gain: Difference) -> str:
    return f"{signed(100 * gain.value, 1)} \N{PLUS-MINUS SIGN} {196 * gain.se:.1f}"
