"""Files that others may touch are refused, links are not followed, and the rights hold whatever the umask."""

from __future__ import annotations

import os
import stat

import pytest

from palate.client.vault import Vault, files
from palate.client.vault.errors import LooseFile

FILES = ["vault.db", "vault.key"]


@pytest.fixture
def closed(folder):
    with Vault.create(folder):
        pass
    return folder


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o277])
def test_rights_do_not_depend_on_the_umask(folder, notes, umask):
    before = os.umask(umask)
    try:
        with Vault.create(folder) as vault:
            vault.put(notes, "a", b"1")
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(["vault.db", "vault.db-shm", "vault.db-wal", "vault.key"], 0o600)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_file_that_others_have_rights_to_is_refused(closed, name, mode):
    (closed / name).chmod(mode)
    with pytest.raises(LooseFile, match=f"{mode:04o}.*0600") as caught:
        Vault.open(closed)
    assert "chmod" in caught.value.hint
    assert stat.S_IMODE((closed / name).stat().st_mode) == mode  # refused, not mended: it may have been read


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o702])
def test_a_folder_that_others_may_write_in_is_refused(closed, tmp_path, mode):
    closed.chmod(mode)
    with pytest.raises(LooseFile):
        Vault.open(closed)
    (tmp_path / "new").mkdir()
    (tmp_path / "new").chmod(mode)
    with pytest.raises(LooseFile):
        Vault.create(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("name", FILES)
def test_a_link_in_the_place_of_a_file_is_refused(closed, tmp_path, name):
    (closed / name).rename(tmp_path / "elsewhere")
    (closed / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LooseFile, match="link"):
        Vault.open(closed)


@pytest.mark.parametrize("name", [*FILES, "vault.tombstone", "vault.db-wal"])
def test_a_link_that_waits_for_a_new_vault_is_not_followed(folder, tmp_path, name):
    folder.mkdir(mode=0o700)
    target = tmp_path / "target"
    (folder / name).symlink_to(target)
    with pytest.raises((LooseFile, FileNotFoundError)):
        Vault.create(folder)
    assert not target.exists()
    target.write_bytes(b"somebody else's")
    target.chmod(0o600)
    with pytest.raises(LooseFile):
        Vault.create(folder)
    assert target.read_bytes() == b"somebody else's"


@pytest.mark.parametrize("name", FILES)
def test_a_pipe_in_the_place_of_a_file_does_not_hang(folder, name):
    folder.mkdir(mode=0o700)
    os.mkfifo(folder / name, mode=0o600)
    with pytest.raises(LooseFile):
        Vault.create(folder)


def test_somebody_elses_file_is_refused(closed, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(LooseFile, match="runs as user 12345"):
        Vault.open(closed)


def test_shredding_overwrites_in_place_and_spares_what_a_link_names(tmp_path):
    victim, other_name = tmp_path / "a", tmp_path / "b"
    victim.write_bytes(b"secret" * 1000)
    os.link(victim, other_name)  # a second name shows what became of the bytes
    files.shred(victim)
    assert not victim.exists()
    assert len(other_name.read_bytes()) == 6000
    assert b"secret" not in other_name.read_bytes()
    link = tmp_path / "c"
    link.symlink_to(other_name)
    before = other_name.read_bytes()
    with pytest.raises(LooseFile):
        files.shred(link)
    assert other_name.read_bytes() == before
    files.shred(tmp_path / "nothing")
