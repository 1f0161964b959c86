"""Imports point down, and a few things live in one place only: read from the source, so that lazy imports count too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_LINES = 500

# Which of Palate's packages each package may import, besides itself; a dotted name admits one module.
FOR_ALL = {"errors"}
MAY_IMPORT = {
    "models": set(),
    "privacy": {"models.arrays"},
    "data": {"models"},
    "client": {"models", "privacy", "data"},
    "server": {"models", "privacy", "data"},
    "simulation": {"models", "privacy", "data", "client", "server"},
    "audit": {"models", "privacy", "data", "client", "server", "simulation"},
    "api": {"models", "privacy", "data", "client", "server", "simulation", "audit"},
    "cli": {"models", "privacy", "data", "client", "server", "simulation", "audit", "api"},
}
FLOWER_FILES = [
    "client/app.py",
    "client/fleet/relay.py",
    "client/fleet/transport/supernode.py",
    "server/app.py",
    "server/fleet/grid_messages.py",
    "server/fleet/transport/outgoing.py",
    "server/fleet/transport/superlink.py",
    "server/strategy.py",
    "simulation/grid.py",
    "simulation/session.py",
]
PRINTING_FILES = ["cli/*.py"]
ARRAY_FILES = ["models/arrays.py"]
DYNAMIC_IMPORT_FILES = ["api/__init__.py", "cli/main.py", "client/app.py", "models/registry.py", "server/app.py"]
DYNAMIC_IMPORTS = {"import_module", "entry_points", "spec_from_file_location", "run_module", "run_path"}
DYNAMIC_CALLS = {"__import__", "exec", "eval"}


def violations(path: str, source: str) -> list[str]:
    """Every rule that one file of a package breaks, as `path: what`; path is relative to the root."""
    package = path.partition("/")[0]
    tree = ast.parse(source)
    found = []
    imported = set(_imported(tree, path))
    for name in imported:
        top, *rest = name.split(".")
        if top in MAY_IMPORT:
            found.append(f"imports {name} without the package's name: say palate.{name}")
        if top == "palate" and not _may_import(package, rest):
            found.append(f"{package} must not import {name}")
        if top == "flwr" and not _is_one_of(path, FLOWER_FILES):
            found.append(f"imports {name} outside the apps, the strategy, the grids and the engines")
    calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    dynamic = (attributes | {name.rpartition(".")[2] for name in imported}) & DYNAMIC_IMPORTS | calls & DYNAMIC_CALLS
    if dynamic and not _is_one_of(path, DYNAMIC_IMPORT_FILES):
        found.append(f"imports dynamically: {', '.join(sorted(dynamic))}")
    if "print" in calls and not _is_one_of(path, PRINTING_FILES):
        found.append("prints; only the command line talks")
    if any(_names_a_dtype(node) for node in ast.walk(tree)) and not _is_one_of(path, ARRAY_FILES):
        found.append("names an array's dtype by itself: take the name from palate.models.arrays")
    return sorted(f"{path}: {what}" for what in found)


def _names_a_dtype(node: ast.AST) -> bool:
    """Whether this is NDArray[np.something]; a type variable in the brackets is allowed."""
    return (
        isinstance(node, ast.Subscript)
        and ast.unparse(node.value).endswith("NDArray")
        and isinstance(node.slice, ast.Attribute)
    )


def _may_import(package: str, parts: list[str]) -> bool:
    """Whether a file of a package may import a module, given in parts without `palate` in front."""
    # What is in api/ is the package palate itself: palate.loading, palate.Run, or palate alone.
    module = ".".join(parts if parts and parts[0] in {*MAY_IMPORT, *FOR_ALL} else ["api", *parts])
    admitted = {package, *FOR_ALL, *MAY_IMPORT[package]}
    return any(module == name or module.startswith(f"{name}.") for name in admitted)


def _imported(tree: ast.Module, path: str) -> Iterator[str]:
    """Dotted names that a module imports anywhere; `from a import b` gives a.b, for b may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = ["palate", *Path(path).parent.parts]
                base = ".".join([*parents[: len(parents) - node.level + 1], *([base] if base else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _is_one_of(path: str, patterns: list[str]) -> bool:
    return any(fnmatch(path, pattern) for pattern in patterns)


def _sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def test_every_package_keeps_to_its_layer():
    sources = _sources(*MAY_IMPORT)
    assert {path.relative_to(ROOT).parts[0] for path in sources} == set(MAY_IMPORT)
    broken = [
        line for path in sources for line in violations(path.relative_to(ROOT).as_posix(), path.read_text("utf-8"))
    ]
    assert not broken, "\n".join(broken)


def test_no_file_is_longer_than_the_limit():
    lengths = {
        path.relative_to(ROOT): len(path.read_text("utf-8").splitlines())
        for path in _sources(".ci", "docs", "tests", "benchmarks", *MAY_IMPORT)
    }
    assert not {path: lines for path, lines in lengths.items() if lines > MAX_LINES}


@pytest.mark.parametrize(
    ("path", "source", "complaint"),
    [
        ("models/table.py", "import palate.privacy.wire", "models must not import palate.privacy.wire"),
        ("models/table.py", "from palate import server", "models must not import palate.server"),
        ("models/scores/ncf.py", "from ...privacy import wire", "models must not import palate.privacy.wire"),
        (
            "privacy/wire.py",
            "def f():\n    from palate.models.table import ItemTable",
            "privacy must not import palate.models.table",
        ),
        (
            "client/host.py",
            "if TYPE_CHECKING:\n    from palate.server import release",
            "client must not import palate.server",
        ),
        ("server/release.py", "import palate.client.vault as v", "server must not import palate.client.vault"),
        (
            "client/host.py",
            "from palate.simulation.seeding import stream",
            "client must not import palate.simulation.seeding",
        ),
        (
            "server/cohort.py",
            "from palate.simulation import seeding",
            "server must not import palate.simulation.seeding",
        ),
        ("simulation/report/page.py", "import palate", "simulation must not import palate"),
        ("audit/page.py", "from palate import Run", "audit must not import palate.Run"),
        ("server/release.py", "import palate.running", "server must not import palate.running"),
        ("api/running.py", "from palate.cli.main import main", "api must not import palate.cli.main"),
        ("simulation/config.py", "from palate.cli.main import app", "simulation must not import palate.cli.main"),
        ("models/table.py", "from models.errors import PalateError", "without the package's name"),
        ("server/release.py", "from flwr.app import Message", "imports flwr.app.Message outside"),
        ("simulation/report/page.py", "import flwr", "imports flwr outside"),
        (
            "server/release.py",
            "import importlib\nimportlib.import_module('palate.client.app')",
            "import_module",
        ),
        ("server/release.py", "from importlib import import_module", "import_module"),
        ("server/release.py", "from importlib.metadata import entry_points", "entry_points"),
        ("models/table.py", "__import__('palate.server')", "__import__"),
        ("simulation/run.py", "print('hello')", "prints"),
        ("models/table.py", "Matrix = npt.NDArray[np.float64]", "palate.models.arrays"),
        ("models/table.py", "def f(x: NDArray[np.int32]): ...", "palate.models.arrays"),
    ],
)
def test_the_check_catches_a_violation(path: str, source: str, complaint: str):
    broken = violations(path, source)
    assert len(broken) == 1
    assert complaint in broken[0]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("models/scores/ncf.py", "from palate.models.table import ItemTable\nfrom ..errors import PalateError"),
        ("client/app.py", "from flwr.clientapp import ClientApp\nfrom palate.privacy import wire"),
        ("client/app.py", "from importlib.metadata import entry_points\nentry_points(group='x')"),
        ("simulation/grid.py", "import flwr.simulation\nfrom palate.server.app import app"),
        ("simulation/environment.py", "from importlib.metadata import version"),
        ("models/scores/linear.py", "module.eval()"),
        ("cli/data.py", "print('data')"),
        ("models/arrays.py", "Float64Array = npt.NDArray[np.float64]"),
        ("server/coordinator.py", "def f(x: npt.NDArray[Real]) -> npt.NDArray[Real]: ..."),
        ("cli/run.py", "import palate\nfrom palate import Run\nfrom palate.running import compare"),
        ("api/running.py", "from palate.loading import Data\nfrom palate.errors import RunError"),
        ("cli/main.py", "import importlib\nimportlib.import_module('palate.cli.simulate')"),
    ],
)
def test_the_check_accepts_what_is_allowed(path: str, source: str):
    assert violations(path, source) == []
