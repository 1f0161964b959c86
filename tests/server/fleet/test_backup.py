"""A backup is of one moment, holds all that belongs together, and is refused where it does not."""

from __future__ import annotations

import stat
import tarfile
from contextlib import closing

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.cli.main import main
from palate.errors import ConfigError, RunError
from palate.server.fleet import backup as backing
from palate.server.fleet.backup import BackupWatcher, back_up, restore
from palate.server.fleet.folder import FleetFolder
from palate.server.fleet.setup import make_fleet
from palate.server.fleet.state import FleetState
from palate.server.fleet.transport.enrolment import Enrolment
from palate.server.fleet.watching import RoundEnded

GIVEN = {
    "name": "books",
    "run": "books-1",
    "listen": {"address": "localhost:1", "bind": "127.0.0.1", "port": 0},
    "cohort": {"devices": 4, "smallest": 3},
    "schedule": {"rounds": 1, "dim": 2},
}


@pytest.fixture
def folder(tmp_path):
    """A fleet without a round."""
    items = tmp_path / "items.csv"
    items.write_text("item\n" + "".join(f"i{row}\n" for row in range(12)))
    made = FleetFolder(tmp_path / "fleet")
    make_fleet(made, items, GIVEN)
    return made


def everything(folder):
    """The bytes of all files but databases, whose copies may differ in their free pages, and locks."""
    return {
        path.relative_to(folder.root): path.read_bytes()
        for path in folder.root.rglob("*")
        if path.is_file() and path.suffix not in {".sqlite", ".lock"} and not path.name.endswith(("-wal", "-shm"))
    }


def test_a_restored_fleet_is_the_one_that_was_backed_up(folder, tmp_path):
    with closing(FleetState(folder.state)) as state:
        state.halt_at(3)
    path, contents = back_up(folder, tmp_path)
    assert path.name.startswith("books-")
    assert path.suffix == ".backup"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = restore(path, other := FleetFolder(tmp_path / "other"))
    assert everything(other) == everything(folder)
    assert (found.contents, found.status["run"]) == (contents, "books-1")
    for name in ("keys", "keys/server.key"):
        assert stat.S_IMODE((other.root / name).stat().st_mode) & 0o077 == 0
    with closing(FleetState(other.state)) as state:
        assert state.halted_at() == 3
    assert not list(tmp_path.glob(".*"))


def test_a_backup_has_no_locks_and_no_drafts(folder, tmp_path):
    (folder.root / ".half.tmp").write_bytes(b"x")
    _, contents = back_up(folder, tmp_path / "b")
    assert not [name for name in contents.files if name.endswith((".lock", ".tmp"))]
    assert {"fleet.toml", "catalogue.parquet", "keys/server.key", "fleet.sqlite"} <= {*contents.files}


@pytest.mark.parametrize("change", ["content", "missing", "added", "cut", "list"])
def test_a_changed_backup_is_refused_and_leaves_nothing(folder, tmp_path, change):
    path, _ = back_up(folder, tmp_path / "b")
    unpacked, changed = tmp_path / "unpacked", tmp_path / "changed"
    with tarfile.open(path) as archive:
        names = archive.getnames()
        archive.extractall(unpacked, filter="data")
    key = unpacked / "keys" / "server.key"
    if change == "content":
        key.write_text("0" * 64)
    elif change == "missing":
        names.remove("keys/server.key")
    elif change == "added":
        (unpacked / "more").write_text("x")
        names.insert(0, "more")
    elif change == "list":
        names.remove("backup.json")
    with tarfile.open(changed, "w") as archive:
        for name in names:
            archive.add(unpacked / name, name)
    if change == "cut":
        changed.write_bytes(changed.read_bytes()[:3000])
    with pytest.raises(RunError):
        restore(changed, FleetFolder(tmp_path / "other"))
    assert not (tmp_path / "other").exists()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "a/../../outside"])
def test_a_backup_writes_nothing_outside_its_folder(folder, tmp_path, name):
    path = tmp_path / "b"
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(RunError, match="in no backup"):
        restore(path, FleetFolder(tmp_path / "place" / "other"))
    assert not (tmp_path / "outside").exists()


def test_a_folder_in_which_something_is_is_not_restored_into(folder, tmp_path):
    path, _ = back_up(folder, tmp_path / "b")
    before = everything(folder)
    with pytest.raises(ConfigError, match="is not empty"):
        restore(path, folder)
    assert everything(folder) == before


def test_a_backup_beside_what_it_is_of_is_refused(folder, tmp_path):
    for target, words in ((folder.run / "b", "lies in the folder"), (tmp_path / "no" / "b", "is no folder")):
        with pytest.raises(ConfigError, match=words):
            back_up(folder, target)


def test_a_key_of_another_fleet_is_refused(folder, tmp_path):
    other = Ed25519PrivateKey.generate().private_bytes_raw().hex()
    folder.server_key.write_text(other)
    path, _ = back_up(folder, tmp_path / "b")
    with pytest.raises(RunError, match=r"is not the key of the ledger"):
        restore(path, FleetFolder(tmp_path / "other"))


def test_a_damaged_database_is_refused(folder, tmp_path):
    path, _ = back_up(folder, tmp_path / "b")
    assert restore(path, FleetFolder(tmp_path / "whole"))
    with closing(Enrolment(folder.enrolment)):
        pass
    folder.enrolment.write_bytes(folder.enrolment.read_bytes()[:4096] + b"x" * 8192)
    path, _ = back_up(folder, tmp_path / "c")
    with pytest.raises(RunError, match="is damaged"):
        restore(path, FleetFolder(tmp_path / "other"))


def test_what_begins_or_ends_while_files_are_copied_is_copied_again(folder, tmp_path, monkeypatch):
    """The first copy is of two moments: the ledger from before a round, fleet.sqlite from after it."""
    real, seen = backing._moment, []

    def moment(place):
        seen.append(None)
        return real(place), len(seen) if len(seen) < 5 else "still"

    monkeypatch.setattr(backing, "_moment", moment)
    back_up(folder, tmp_path / "b", sleep=lambda _: None)
    assert len(seen) == 6
    monkeypatch.setattr(backing, "_moment", lambda place: object())
    with pytest.raises(RunError, match="while they are copied"):
        back_up(folder, tmp_path / "c", sleep=lambda _: None)
    assert not (tmp_path / "c").exists()


def test_files_are_copied_against_the_order_in_which_a_round_writes_them(folder):
    names = ["run/item_table.safetensors", "fleet.sqlite", "run/checkpoint.safetensors", "run/log/leaves.jsonl"]
    names += ["run/log/checkpoint", "ledgers/server.sqlite", "ledgers/server.anchors.jsonl"]
    paths = [folder.root / name for name in names]
    order = sorted((path.relative_to(folder.root) for path in paths), key=lambda name: (backing._rank(name), name))
    assert [str(each) for each in order] == [*reversed(names[2:]), "fleet.sqlite", "run/item_table.safetensors"]


def test_a_backup_that_cannot_be_written_stops_no_round(folder, tmp_path):
    told = []
    watch = BackupWatcher(folder, tmp_path / "no" / "b", told.append)
    ended = RoundEnded(type("Round", (), {"number": 3})(), (), 1)
    watch(ended)
    assert len(told) == 1
    assert "is no folder" in told[0]
    BackupWatcher(folder, tmp_path / "b", told.append)(ended)
    assert len(told) == 1
    assert (tmp_path / "b").exists()


def test_the_commands_say_what_they_did(folder, tmp_path, capsys):
    place, other, path = ["--folder", str(folder.root)], str(tmp_path / "other"), str(tmp_path / "b.backup")
    assert main(["server", "backup", path, *place]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"wrote {path}: fleet books, ")
    assert "secret keys" in said.err
    assert main(["server", "restore", path, "--folder", other]) == 0
    said = capsys.readouterr()
    assert "0 of 2 rounds applied, 0 given up, none open" in said.out
    assert "never run again" in said.err
    assert main(["server", "restore", path, "--folder", other]) == 2
    assert main(["server", "restore", str(tmp_path / "none"), "--folder", other + "2"]) == 2
    assert main(["server", "restore", str(tmp_path / "items.csv"), "--folder", other + "2"]) == 11
    assert main(["helper", "restore", path, "--folder", other + "2"]) == 2
    assert "palate server restore" in capsys.readouterr().err


def test_an_epoch_is_never_used_twice_for_time_goes_on_after_a_backup(make_fleet):
    fleet = make_fleet(helper=True)
    fleet.operation()
    keeper, now = fleet.protocol().register, int(fleet.wall_clock())
    epochs = []
    for place, moment in enumerate((now, now, now - 1000, now + 50)):
        epochs.append(keeper.current(now=moment, until=now + 5000).register.epoch)
        fleet.remove(fleet.devices[place])
    assert epochs == [now, now + 1, now + 2, now + 50]
