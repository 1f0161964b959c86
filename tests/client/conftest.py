"""A terminal before `palate client`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from palate.cli.client import client_app
from palate.cli.errors import ending_of
from palate.client.fleet.folder import DeviceFolder


class Terminal:
    """Runs commands as `palate client` would, with errors turned into codes."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = DeviceFolder(home)

    def __call__(self, *arguments: str, typed: str | None = None) -> str:
        code, output = self.ends(*arguments, typed=typed)
        assert code == 0, output
        return output

    def json(self, *arguments: str) -> dict:
        return json.loads(self(*arguments, "--json"))

    def ends(self, *arguments: str, typed: str | None = None) -> tuple[int, str]:
        result = CliRunner().invoke(client_app, [*arguments, "--folder", str(self.home)], input=typed)
        if result.exception is None or isinstance(result.exception, SystemExit):
            return result.exit_code, result.stdout
        ending = ending_of(result.exception)
        assert ending.exit_code != 70, result.exc_info
        return ending.exit_code, f"{ending.message}\n{ending.hint}"

    def titles(self, *arguments: str) -> list[str]:
        return [line["title"] for line in self.json("recommend", *arguments)["recommendations"]]


@pytest.fixture(scope="session")
def terminal_at() -> Callable[[Path], Terminal]:
    """Open a terminal before the device of a folder."""
    return Terminal
