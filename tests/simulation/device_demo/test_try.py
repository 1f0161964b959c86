"""`palate client try`: a newcomer's device, and nobody else's."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from palate.cli.client import client_app
from palate.cli.errors import ending_of
from palate.client.fleet import enrolling
from palate.client.fleet.folder import DeviceFolder
from palate.client.owner import forgetting
from palate.client.vault import Vault, files, tombstone
from palate.client.vault.history import History
from palate.simulation.config import checked_config
from palate.simulation.device_demo import making
from palate.simulation.federation import simulate
from palate.simulation.progress import Watcher


def ends(*arguments):
    result = CliRunner().invoke(client_app, [str(argument) for argument in arguments])
    if result.exception is None or isinstance(result.exception, SystemExit):
        return result.exit_code, result.stdout
    ending = ending_of(result.exception)
    return ending.exit_code, f"{ending.message}\n{ending.hint}"


@pytest.mark.slow
def test_a_newcomer_gets_a_device_that_recommends_and_keeps_it(tmp_path):
    home = tmp_path / "demo"
    code, text = ends("try", "--folder", home, "--json")
    assert code == 0
    found = json.loads(text)
    assert found["home"] == str(home)
    assert all(command.startswith("palate client ") for command in found["commands"])
    code, text = ends("recommend", "more mystery, but not horror", "--folder", home, "--json")
    answer = json.loads(text)
    assert (code, answer["table_notes"], answer["not_understood"]) == (0, [], [])
    assert len(answer["recommendations"]) == 10
    assert not any("Horror" in line["genres"] for line in answer["recommendations"])
    with Vault.open(DeviceFolder(home).vault) as vault:
        length = len(History(vault).in_order())
    assert 30 <= length <= 80
    assert json.loads(ends("undo", "--folder", home, "--json")[1])["undone"] == 0
    before = (home / "table.safetensors").read_bytes()
    code, text = ends("try", "--folder", home)
    assert (code, f"export PALATE_HOME={home}" in text, "palate client recommend" in text) == (0, True, True)
    assert (home / "table.safetensors").read_bytes() == before
    assert ends("join", "--folder", home)[0] == 2  # it belongs to no fleet
    code, text = ends("try", "--folder", home, "--seed", 9)
    assert (code, "with seed 1, not 9" in text) == (2, True)
    assert ends("try", "--folder", home, "--seed", 1)[0] == 0


RATINGS = "user,item,rating,title\n" + "".join(
    f"u{user},i{item},{1 + (user + item) % 5},Film {item} ({1980 + item})\n"
    for user in range(40)
    for item in range(120)
    if (7 * user + 3 * item) % 5 == 0
)


@pytest.mark.slow
def test_a_finished_run_gives_real_items_and_an_empty_history_or_a_persons_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ratings.csv").write_text(RATINGS)
    config = checked_config({"data": str(tmp_path / "ratings.csv"), "unit": "none", "baselines": ()})
    simulate(config, tmp_path / "run", Watcher(lambda _: None), ray_address="")
    code, text = ends("try", "--from", tmp_path / "run", "--folder", tmp_path / "empty")
    assert (code, "palate client import" in text.splitlines()[1]) == (0, True)
    assert json.loads(ends("history", "--folder", tmp_path / "empty", "--json")[1])["interactions"] == 0
    kept = making.made_with(DeviceFolder(tmp_path / "empty"))
    assert kept["run"] == str(tmp_path / "run")
    assert "no privacy" in (tmp_path / "empty" / making.MARK).read_text()
    assert ends("try", "--folder", tmp_path / "empty", "--user", "u3", "--from", tmp_path / "run")[0] == 2
    code, _ = ends("try", "--from", tmp_path / "run", "--user", "u3", "--folder", tmp_path / "theirs")
    shown = json.loads(ends("history", "--n", 0, "--folder", tmp_path / "theirs", "--json")[1])
    assert (code, shown["interactions"]) == (0, RATINGS.count("\nu3,"))
    code, text = ends("try", "--from", tmp_path / "run", "--user", "u77", "--folder", tmp_path / "nobodys")
    assert (code, "no user 'u77'" in text, (tmp_path / "nobodys").exists()) == (10, True, False)


def test_where_a_device_comes_from_is_said_once(tmp_path, monkeypatch):
    home = tmp_path / "demo"
    assert "both given" in ends("try", "--data", "ml-100k", "--from", "run", "--folder", home)[1]
    assert "--user needs" in ends("try", "--user", "7", "--folder", home)[1]
    monkeypatch.setenv("PALATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PALATE_DATA", raising=False)
    code, text = ends("try", "--data", "ml-100k", "--folder", home)
    assert (code, "nobody to agree to the terms" in text, "try --data ml-100k --yes" in text) == (2, True, True)
    assert not home.exists()


@pytest.mark.parametrize("more", [[], ["--fresh"]])
def test_a_real_device_is_left_alone(tmp_path, more):
    folder = DeviceFolder(tmp_path / "real")
    enrolling.begin(folder, keyring="file")
    before = sorted(path.name for path in folder.home.rglob("*"))
    code, text = ends("try", "--folder", folder.home, *more)
    assert (code, "is not a demonstration device" in text) == (2, True)
    assert sorted(path.name for path in folder.home.rglob("*")) == before


@pytest.fixture
def demo(tmp_path):
    """What `try` makes, but for the films and the table."""
    folder = DeviceFolder(tmp_path / "demo")
    enrolling.begin(folder, keyring="file")
    folder.catalogue.write_bytes(b"films")
    (folder.home / making.MARK).write_text('{"seed":1}')
    return folder


def made_again(monkeypatch):
    """Let `try` begin a device, and stop there."""

    def making_one(folder, *_):
        enrolling.begin(folder, keyring="file")
        raise KeyboardInterrupt

    monkeypatch.setattr(making, "make", making_one)


def test_a_demonstration_that_joined_a_fleet_or_spent_is_not_made_anew(demo, monkeypatch):
    made_again(monkeypatch)
    before = disk(demo.home)
    stone = tombstone.engrave(b"v" * 16, {("user", "add"): 5}, None, None)
    with monkeypatch.context() as patched:
        patched.setattr(making.FleetProfile, "load", lambda _: object())
        assert_refused(demo)
    for path, content in ((demo.ledger, b"charges"), (demo.vault / tombstone.FILE, stone.to_bytes())):
        path.write_bytes(content)
        path.chmod(0o600)
        assert_refused(demo)
        path.unlink()
    assert disk(demo.home) == before


def assert_refused(folder):
    before = disk(folder.home)
    code, text = ends("try", "--folder", folder.home, "--fresh")
    assert (code, "privacy budget" in text) == (2, True)
    assert disk(folder.home) == before


def disk(home):
    return {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}


def test_a_demonstration_is_shredded_before_another_is_made_and_other_files_stay(demo, monkeypatch):
    made_again(monkeypatch)
    (demo.home / "mine.json").write_text("kept")
    shredded = []
    real = files.shred
    monkeypatch.setattr(files, "shred", lambda path: (shredded.append(path.name), real(path)))
    assert ends("try", "--folder", demo.home, "--fresh")[0] == 130
    assert {"vault.key", "catalogue.parquet"} <= set(shredded)
    assert [path.name for path in disk(demo.home)] == ["mine.json"]


def test_a_demonstration_that_was_forgotten_or_half_forgotten_can_be_made_anew(demo, monkeypatch):
    made_again(monkeypatch)
    with monkeypatch.context() as patched:
        patched.setattr(forgetting, "_shred_all", lambda _: (_ for _ in ()).throw(OSError("the disk is gone")))
        with pytest.raises(OSError, match="the disk is gone"):
            forgetting.forget_device(demo)
    assert ends("try", "--folder", demo.home, "--fresh")[0] == 130
    assert disk(demo.home) == {}


def test_an_agent_in_rounds_keeps_a_demonstration_from_being_made_anew(demo):
    before = disk(demo.home)
    with demo.locked():
        assert ends("try", "--folder", demo.home, "--fresh")[0] == 11
    assert {path: disk(demo.home)[path] for path in before} == before


@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_the_owners_own_empty_folder_stays_where_nothing_can_be_made(tmp_path, monkeypatch, mode):
    made_again(monkeypatch)
    home = tmp_path / "own"
    home.mkdir(mode=mode)
    assert ends("try", "--folder", home)[0] == {0o755: 12, 0o700: 130}[mode]
    assert list(home.iterdir()) == []


def test_half_a_device_is_cleared_away(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(making, "simulate", interrupted)
    assert ends("try", "--folder", tmp_path / "demo")[0] == 130
    assert not (tmp_path / "demo").exists()


def test_try_has_help_and_an_example():
    text = ends("try", "--help")[1]
    assert "Example: palate client try" in text
