"""Another package adds a model, a dataset, a baseline and an importer by entry points, for CLI, API and suite."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


def blocks(language: str) -> list[str]:
    """Blocks of code on the page, in their order."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as pip installs it."""
    site = tmp_path_factory.mktemp("site")
    metadata = site / "palate_shop-1.0.dist-info"
    metadata.mkdir()
    _, *parts, tests = blocks("python")
    (site / "palate_shop.py").write_text("\n".join(parts))
    (site / "test_shop.py").write_text(tests)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: palate-shop\nVersion: 1.0\n")
    groups = tomllib.loads(blocks("toml")[0])["project"]["entry-points"]
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {what}\n" for name, what in parts.items())
        for group, parts in groups.items()
    ]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    return site


def run(site: Path, *command: str, code: int = 0) -> str:
    """Run Python where the package is installed; return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=site, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


PALATE = ("-m", "palate.cli.main")
SMALL = ("--set", "schedule.rounds=2", "--set", "schedule.dim=4", "--unit", "none", "--quiet")


def test_the_command_line_runs_them_by_name(site):
    program, *command = blocks("sh")[0].splitlines()[0].split()
    assert program == "palate"
    run(site, *PALATE, *command, *SMALL, "--folder", "by-name")
    result = json.loads((site / "by-name" / "result.json").read_text())
    assert set(result["baselines"]) == {"last", "popularity"}
    assert result["baselines"]["last"]["label"] == "What came last in the catalogue"
    assert "Forty made-up customers" in run(site, *PALATE, "data", "list", "--json")


def test_the_api_takes_names_and_objects(site):
    code = """
import palate, palate_shop
data = palate.load("shop")
small = {"schedule.rounds": 2, "schedule.dim": 4}
runs = []
for model, baseline in (("halved", "last"), (palate_shop.Halved, palate_shop.LAST)):
    plan = palate.plan(data, unit="none", model=model, baselines=[baseline], settings=small)
    runs.append(palate.simulate(data, plan))
assert str(runs[0].metrics) == str(runs[1].metrics)

class Mine(palate_shop.Halved):
    name = "mine_alone"

run = palate.simulate(data, palate.plan(data, unit="none", model=Mine, baselines=[], settings=small))
assert str(run.metrics) == str(runs[0].metrics)
print("done")
"""
    assert "done" in run(site, "-c", code)


def test_it_passes_the_suite(site):
    assert "failed" not in run(site, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_shop.py")


def test_a_wrong_name_suggests_theirs(site):
    assert "did you mean 'halved'?" in run(site, *PALATE, "simulate", "--data", "shop", "--model", "halvd", code=2)


def test_a_broken_package_is_named(site, tmp_path):
    shutil.copytree(site / "palate_shop-1.0.dist-info", tmp_path / "palate_shop-1.0.dist-info")
    code = """
from palate.errors import ConfigError
from palate.models.scores.registry import SCORE_MODELS
try:
    SCORE_MODELS["halved"]
except ConfigError as error:
    print(error)
"""
    printed = run(tmp_path, "-c", code)
    assert "model 'halved' of package palate-shop cannot be used: ModuleNotFoundError" in printed
