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
    kept = _kept(path, {"run": key})
    if kept is None:
        training = read_config(run, RESOLVED).training
        prepared = prepare(config)
        found = run_baselines(
            control_names(),
            prepared.split,
            content=prepared.public_columns,
            seed=config.seed,
            training=training,
            promise=promise,
            noise_seed=config.seed if config.privacy.noise == "seeded" else None,
            progress=lambda name: phase(f"control {name}"),
        )
        kept = {name: result.to_dict() for name, result in found.items()}
        _keep(path, {"run": key}, kept)
    return list(kept.values())


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
    kept = _kept(path, label) or {}
    for name in names:
        if name in kept:
            continue
        prepared = prepare(config)
        phase(f"reference {name}")
        found = run_baselines([name], prepared.split, content=prepared.public_columns, seed=config.seed)
        kept[name] = found[name].to_dict()
        _keep(path, label, kept)
    return [kept[name] for name in names]


def dataset_name(data: str) -> str:
    """Name a dataset for people and folders: a preset's name, a file's without its ending."""
    return Path(data).name.split(".")[0] or "data"


def _kept(path: Path, label: Mapping[str, object]) -> dict[str, Found] | None:
    """Read what was kept, if it is about the same; a damaged file is no loss, as it can be computed again."""
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        found: dict[str, Found] = read["results"]
        return found if read["of"] == dict(label) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(path: Path, label: Mapping[str, object], results: Mapping[str, Found]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    files.replace(
        path, json.dumps({"of": dict(label), "results": results}, allow_nan=False).encode(), mode=files.SHARED
    )
