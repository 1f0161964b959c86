"""What the runs of a frontier are compared with: private controls at every budget, references once for a dataset.

Both are kept as JSON, and computed again only if the run or the data has changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from palate.privacy import files
from palate.privacy.accounting.events import Unit
from palate.simulation.baselines.registry import BASELINES
from palate.simulation.baselines.running import run_baselines
from palate.simulation.config import SimulationConfig
from palate.simulation.prepare import prepare
from palate.simulation.run_folder import RESOLVED, read_config

Phase = Callable[[str], None]
Found = dict[str, Any]


def control_names() -> tuple[str, ...]:
    """Names of the baselines that spend a run's budget."""
    return tuple(name for name, baseline in BASELINES.items() if baseline.spends_budget)


def reference_names() -> tuple[str, ...]:
    """Names of the baselines without privacy."""
    return tuple(name for name, baseline in BASELINES.items() if not baseline.spends_budget)


def controls_of(config: SimulationConfig, run: Path, folder: Path, phase: Phase) -> list[Found]:
    """Fit the private controls of a finished run: the same budget, seed and local training, and nothing learned.

    Parameters
    ----------
    config
        The run as it was asked for.
    run
        Its folder.
    folder
        The frontier's; kept in controls/ there.
    phase
        Called with a line of text at each step.

    Returns
    -------
    list
        Results as `BaselineResult.to_dict` gives them; empty where the run has no budget for whole people.
    """
    promise = config.promises.get(Unit.USER)
    if promise is None:
        return []
    # The controls' own code is not in the key: like a run, they are what the version that made them found.
    key = hashlib.sha256((run / "result.json").read_bytes()).hexdigest()
    path = folder / "controls" / f"{run.name}.json"

    def fit(name: str) -> Found:
        phase(f"control {name}")
        data = prepare(config)
        return run_baselines(
            [name],
            data.split,
            content=data.public_columns,
            seed=config.seed,
            training=read_config(run, RESOLVED).training,
            promise=promise,
            noise_seed=config.seed if config.privacy.noise == "seeded" else None,
        )[name].to_dict()

    return _fitted(path, {"run": key}, control_names(), fit)


def references_of(
    config: SimulationConfig, names: Sequence[str], folder: Path, data_hash: str | None, phase: Phase
) -> list[Found]:
    """Fit references to the data of a run, without privacy and in one place, those that are not kept from before.

    Parameters
    ----------
    config
        A run on the data; its seed starts those that need one.
    names
        Which ones.
    folder
        The frontier's; kept in references/ there.
    data_hash
        Hash of the data, where the runs know it.
    phase
        Called with a line of text at each step.

    Returns
    -------
    list
        Results as `BaselineResult.to_dict` gives them, in the order of `names`; also of those that were skipped.
    """
    if not names:
        return []
    shown = json.dumps([config.data, config.read.model_dump(mode="json"), config.content.model_dump(mode="json")])
    digest = hashlib.sha256(shown.encode()).hexdigest()[:8]
    path = folder / "references" / f"{dataset_name(config.data)}-{digest}.json"
    label = {"data": data_hash or prepare(config).data_hash, "seed": config.seed}

    def fit(name: str) -> Found:
        prepared = prepare(config)
        phase(f"reference {name}")
        found = run_baselines(
            [name],
            prepared.split,
            content=prepared.public_columns,
            seed=config.seed,
            ordered=prepared.interactions.has_time,
            remembered=True,
        )
        return found[name].to_dict()

    return _fitted(path, label, names, fit)


def dataset_name(data: str) -> str:
    """Name a dataset for people and folders: a preset's name, a file's without its ending."""
    return Path(data).name.split(".")[0] or "data"


def _fitted(path: Path, label: Mapping[str, object], names: Sequence[str], fit: Callable[[str], Found]) -> list[Found]:
    """Return what is kept about the same, and fit and keep the rest; a damaged file is no loss."""
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        kept: dict[str, Found] = dict(read["results"]) if read["of"] == label else {}
    except (OSError, ValueError, KeyError, TypeError):
        kept = {}
    for name in names:
        if name not in kept:
            kept[name] = fit(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps({"of": label, "results": kept}, allow_nan=False)
            files.replace(path, text.encode(), mode=files.SHARED)
    return [kept[name] for name in names]
