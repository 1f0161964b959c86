"""The README and docs/api.md say what works: every line of Python runs, every command runs or at least parses.

They run in one folder with small made-up data, from top to bottom, as somebody would type them.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest

from palate.cli.main import main, root_command

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/api.md")

NOT_RUN = {
    "make simulate": "trains on the demo for half a minute; .ci/run does it",
    "make test": "would run these tests",
    "source .venv/bin/activate": "belongs to a shell",
    "palate data get ml-100k": "needs its owner's server, and consent to the licence",
    "palate simulate --data ml-100k": "needs ml-100k",
    "palate simulate --unit none --data ml-100k": "needs ml-100k",
    "palate plan --data ml-1m": "needs ml-1m",
    "palate audit attack": "takes minutes; tests/privacy/attacks have it in small",
    "palate server demo": "starts 20 processes for a minute; tests/simulation/fleet_demo have it in small",
    "palate client init": "asks for a passphrase, or for the system's keyring",
    "palate client try": "trains a federation; tests/simulation/device_demo have it in small",
    "palate client recommend": "needs the folder of palate client try",
    "palate client import": "needs somebody's export; tests/client/fleet have some in small",
    "palate client page": "opens a browser",
}
"""Lines that are checked and not run, by how they begin, and why. Options of `palate` are parsed all the same."""


def blocks(page: str, language: str) -> list[str]:
    """Code blocks of a page, in their order."""
    text = (ROOT / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    """Lines of a page's console blocks, without comments."""
    lines = [line for block in blocks(page, "console") for line in block.splitlines() if line.strip()]
    return [shlex.join(shlex.split(line, comments=True)) for line in lines]


def parse(arguments: list[str]) -> click.Context:
    """Parse a command line as `palate` does, down to the last sub-command, and run nothing."""
    ctx = root_command().make_context("palate", arguments)
    while isinstance(ctx.command, click.Group):
        name, command, rest = ctx.command.resolve_command(ctx, [*ctx._protected_args, *ctx.args])
        assert command is not None
        ctx = command.make_context(name, rest, parent=ctx)
    return ctx


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, small_data: Path) -> Path:
    """What the pages talk about: ratings.csv, movies.csv, sales.csv, items.csv, runs/demo and runs/another."""
    place = tmp_path_factory.mktemp("pages")
    rows = (small_data / "interactions.csv").read_text().replace("person", "v05")
    (place / "ratings.csv").write_text(rows)
    (place / "sales.csv").write_text(rows.replace("user,item", "customer,sku", 1))
    for name in ("movies.csv", "items.csv"):
        shutil.copy(small_data / "items.csv", place / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        small = ["--data", "ratings.csv", "--items", "movies.csv", "--baselines", "popularity", "--no-report", "-q"]
        assert main(["simulate", *small, "--folder", "runs/demo"]) == 0
        assert main(["simulate", *small, "--folder", "runs/another", "--unit", "none"]) == 0
    return place


@pytest.mark.parametrize("page", PAGES)
def test_every_line_of_python_runs(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    found = blocks(page, "python")
    assert found
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, block in enumerate(found, start=1):
        exec(compile(block, f"{page}, Python block {number}", "exec"), names)


@pytest.mark.parametrize("line", [line for page in PAGES for line in commands(page)])
def test_every_command_runs_or_parses(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    program, *arguments = shlex.split(line)
    if program == "palate":
        assert parse(arguments).command.name
    if not any(line.startswith(start) for start in NOT_RUN):
        assert program == "palate", f"say in NOT_RUN why this is not run: {line}"
        assert main(arguments) == 0
    elif program == "make":
        subprocess.run(["make", "--dry-run", *arguments], cwd=ROOT, check=True, capture_output=True)


def test_what_is_not_run_is_still_on_the_pages():
    lines = [line for page in PAGES for line in commands(page)]
    assert [start for start in NOT_RUN if not any(line.startswith(start) for line in lines)] == []


def test_a_wrong_option_on_a_page_would_be_found():
    with pytest.raises(click.UsageError):
        parse(["simulate", "--epsilom", "4"])
    with pytest.raises(click.UsageError):
        parse(["audit", "ledgr", "runs/demo"])
