"""`palate client try`: a newcomer's device, and nobody else's."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from palate.cli.client import client_app
from palate.cli.errors import ending_of
from palate.client.deployment import enrolling
from palate.client.deployment.folder import DeviceFolder
from palate.client.vault import Vault
from palate.client.vault.history import History
from palate.simulation.device_demo import making


def ends(*arguments):
    result = CliRunner().invoke(client_app, [str(argument) for argument in arguments])
    if result.exception is None or isinstance(result.exception, SystemExit):
        return result.exit_code, result.stdout
    ending = ending_of(result.exception)
    return ending.exit_code, f"{ending.message}\n{ending.hint}"


@pytest.mark.slow
def test_a_newcomer_gets_a_device_that_recommends_and_keeps_it(tmp_path):
    home = tmp_path / "demo"
    code, text = ends("try", "--home", home, "--json")
    assert code == 0
    found = json.loads(text)
    assert found["home"] == str(home)
    assert all(command.startswith("palate client ") for command in found["commands"])
    code, text = ends("recommend", "more mystery, but not horror", "--home", home, "--json")
    answer = json.loads(text)
    assert (code, answer["table_notes"], answer["not_understood"]) == (0, [], [])
    assert len(answer["recommendations"]) == 10
    assert not any("Horror" in line["genres"] for line in answer["recommendations"])
    with Vault.open(DeviceFolder(home).vault) as vault:
        length = len(History(vault).in_order())
    assert 30 <= length <= 80
    assert json.loads(ends("undo", "--home", home, "--json")[1])["undone"] == 0
    before = (home / "table.safetensors").read_bytes()
    code, text = ends("try", "--home", home)
    assert (code, f"export PALATE_HOME={home}" in text, "palate client recommend" in text) == (0, True, True)
    assert (home / "table.safetensors").read_bytes() == before
    assert ends("join", "--home", home)[0] == 2  # it belongs to no fleet


@pytest.mark.parametrize("more", [[], ["--fresh"]])
def test_a_real_device_is_left_alone(tmp_path, more):
    folder = DeviceFolder(tmp_path / "real")
    enrolling.begin(folder, keyring="file")
    before = sorted(path.name for path in folder.home.rglob("*"))
    code, text = ends("try", "--home", folder.home, *more)
    assert (code, "no demonstration device" in text) == (2, True)
    assert sorted(path.name for path in folder.home.rglob("*")) == before


def test_half_a_device_is_cleared_away(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(making, "simulate", interrupted)
    assert ends("try", "--home", tmp_path / "demo")[0] == 130
    assert not (tmp_path / "demo").exists()


def test_try_has_help_and_an_example():
    text = ends("try", "--help")[1]
    assert "Example: palate client try" in text
