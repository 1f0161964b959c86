"""A regular install holds exactly the source: a wheel is built, installed apart, and every module imported from it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("api", "data", "models", "privacy", "client", "server", "simulation", "audit", "cli")
NOT_SOURCE = shutil.ignore_patterns("__pycache__", "*.pyc")

# Runs without the site module, whose .pth files would bring the editable install of this checkout back.
IMPORT_ALL = """
import importlib, json, pkgutil, sys
installed, dependencies = sys.argv[1:]
sys.path[:0] = [installed, dependencies]
import palate
files = {"palate": palate.__file__}
for module in pkgutil.walk_packages(palate.__path__, "palate."):
    files[module.name] = importlib.import_module(module.name).__file__
json.dump(files, sys.stdout)
"""


def _run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([sys.executable, *map(str, command)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder where the wheel is installed. Built from a copy: a build leaves a folder that later builds pick up."""
    workspace = tmp_path_factory.mktemp("wheel")
    source = workspace / "source"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=NOT_SOURCE)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    offline = ("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    _run("-m", "pip", "wheel", *offline, "--no-build-isolation", "--wheel-dir", workspace, source, cwd=workspace)
    [wheel] = workspace.glob("*.whl")
    target = workspace / "installed"
    _run("-m", "pip", "install", *offline, "--target", target, wheel, cwd=workspace)
    return target


def _inside(path: Path) -> Path:
    """Where a source file lies inside the installed package: what is in api/ is the package itself."""
    relative = path.relative_to(ROOT)
    return Path(*relative.parts[1:]) if relative.parts[0] == "api" else relative


def test_the_wheel_holds_every_source_file_and_nothing_else(installed: Path):
    source = {
        _inside(path).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {
        path.relative_to(installed / "palate").as_posix()
        for path in (installed / "palate").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == source


def test_the_wheel_puts_one_name_into_site_packages(installed: Path):
    names = {path.name for path in installed.iterdir() if path.suffix != ".dist-info"}
    assert names == {"palate", "bin"}
    assert (installed / "bin" / "palate").is_file()


def test_the_wheel_carries_the_licence(installed: Path):
    [licence] = installed.glob("palate-*.dist-info/licenses/LICENSE")
    assert licence.read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_every_module_can_be_imported_from_the_installed_wheel(installed: Path, tmp_path: Path):
    output = _run("-I", "-S", "-c", IMPORT_ALL, installed, sysconfig.get_path("purelib"), cwd=tmp_path)
    files = json.loads(output)
    assert {Path(file).relative_to(installed / "palate") for file in files.values()} == {
        _inside(path) for package in PACKAGES for path in (ROOT / package).rglob("*.py")
    }


def test_every_dependency_is_justified():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    required = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    names = {re.match(r"[\w-]+", requirement).group() for requirement in required} - {"palate"}
    page = (ROOT / "docs" / "dependencies.md").read_text("utf-8")
    assert set(re.findall(r"^\| `([\w-]+)", page, flags=re.MULTILINE)) == names


def test_the_citation_names_the_version_and_licence_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = (ROOT / "CITATION.cff").read_text("utf-8").splitlines()
    assert f"version: {project['version']}" in lines
    assert f"license: {project['license']}" in lines
