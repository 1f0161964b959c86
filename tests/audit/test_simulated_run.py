"""What `palate simulate` writes is what `palate audit` wants to see: no fault, and the same epsilon."""

from __future__ import annotations

import json

import pytest

from palate.simulation.federation import simulate
from palate.simulation.progress import Watcher

CHANGES = {
    "everybody": {},
    "dropouts": {"privacy": {"dropout": 0.1, "gamma": 0.1}},
    "capped cohorts": {"schedule": {"rounds": 3, "participation": 0.5}, "privacy": {"cap": 2}},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_a_simulated_run_passes_its_audit_and_claims_what_its_ledgers_give(
    settings, tmp_path, audit, audit_json, changes
):
    pytest.importorskip("dp_accounting", reason="needs the extra audit")
    folder = tmp_path / "run"
    simulate(settings(unit="user", epsilon=8.0, delta=1e-5, **changes), folder, Watcher())
    code, _, err = audit("ledger", folder)
    assert code == 0, err
    (unit,) = audit_json("budget", folder, "--no-check")["units"]
    result = json.loads((folder / "result.json").read_text())
    assert unit["claim"]["epsilon"] == result["guarantee"]["epsilon"]
    assert unit["busiest"]["rounds"] == 1 + result["guarantee"]["device_rounds"]
    assert unit["epsilon"] == pytest.approx(result["guarantee"]["epsilon"], abs=1e-3)
    assert unit["devices"] == 36
