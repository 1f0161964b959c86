"""Files are whole or absent, private unless said otherwise, and never written through a link."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

import pytest

from palate.privacy import files


@pytest.fixture(autouse=True)
def usual_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_a_new_file_is_its_owners_alone(tmp_path: Path):
    files.create(tmp_path / "key", b"secret")
    assert (tmp_path / "key").read_bytes() == b"secret"
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    files.create(tmp_path / "public", b"known", mode=0o666)
    assert (tmp_path / "public").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("dangling", [False, True])
def test_a_new_file_takes_nobodys_place_and_follows_no_link(tmp_path: Path, dangling: bool):
    target = tmp_path / "target"
    if not dangling:
        target.write_bytes(b"mine")
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(FileExistsError):
        files.create(tmp_path / "link", b"x")
    assert target.exists() is not dangling
    if not dangling:
        assert target.read_bytes() == b"mine"


def test_a_replacement_takes_the_place_of_a_link_and_not_of_what_it_names(tmp_path: Path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"mine")
    link.symlink_to(target)
    files.replace(link, b"new")
    assert (link.read_bytes(), link.is_symlink(), target.read_bytes()) == (b"new", False, b"mine")


def test_a_looser_file_is_replaced_by_a_private_one(tmp_path: Path):
    path = tmp_path / "welcome"
    path.write_bytes(b"old")
    path.chmod(0o644)
    files.replace(path, b"new")
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("write", [files.create, files.replace])
def test_what_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write):
    def full(descriptor: int) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        write(tmp_path / "table", b"half")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write", [files.create, files.replace])
@pytest.mark.parametrize("umask", [0o000, 0o077, 0o277])
def test_a_private_file_is_its_owners_whatever_the_umask(tmp_path: Path, write, umask: int):
    before = os.umask(umask)
    try:
        write(tmp_path / "key", b"secret")
    finally:
        os.umask(before)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("write", [files.create, files.replace])
def test_the_name_comes_after_the_contents_and_is_on_disk_at_the_end(tmp_path: Path, monkeypatch, write):
    path, seen = tmp_path / "table", []
    wait = os.fsync

    def noting(descriptor: int) -> None:
        seen.append((os.path.samestat(os.fstat(descriptor), tmp_path.stat()), path.exists()))
        wait(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    write(path, b"whole")
    assert seen == [(False, False), (True, True)]
    assert [each.name for each in tmp_path.iterdir()] == ["table"]


def test_a_new_file_that_cannot_be_waited_for_is_taken_away_again(tmp_path: Path, monkeypatch):
    wait = os.fsync

    def failing(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, "the disk is gone")
        wait(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="the disk is gone"):
        files.create(tmp_path / "mine.json", b"a whole history")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write", [files.create, files.replace])
def test_nothing_is_begun_in_a_folder_that_cannot_be_opened(tmp_path: Path, monkeypatch, write):
    folder = tmp_path / "drop"
    folder.mkdir()
    (folder / "there").write_bytes(b"old")
    real = os.open

    def refusing(path, *arguments, **named):
        if Path(path) == folder:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, *arguments, **named)

    monkeypatch.setattr(os, "open", refusing)
    for name in ("there", "new"):
        with pytest.raises(PermissionError):
            write(folder / name, b"a whole history")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"there": b"old"}


@pytest.mark.parametrize("refusal", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_hard_links_takes_new_files_and_keeps_old_ones(tmp_path: Path, monkeypatch, refusal: int):
    def refusing(*_, **__):
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(os, "link", refusing)
    files.create(tmp_path / "key", b"secret")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("key", "link"):
        with pytest.raises(FileExistsError):
            files.create(tmp_path / name, b"other")
    assert (tmp_path / "key").read_bytes() == b"secret"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["key", "link"]


def test_other_refusals_to_link_are_not_passed_over(tmp_path: Path, monkeypatch):
    def refusing(*_, **__):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "link", refusing)
    with pytest.raises(OSError, match="no space left"):
        files.create(tmp_path / "key", b"secret")
    assert list(tmp_path.iterdir()) == []


def test_a_replacement_that_fails_names_the_file_and_not_its_draft(tmp_path: Path):
    with pytest.raises(FileNotFoundError) as refused:
        files.replace(tmp_path / "nowhere" / "table", b"x")
    assert refused.value.filename == str(tmp_path / "nowhere" / "table")


def test_no_other_module_writes_a_file_by_hand():
    root = Path(__file__).parents[2]
    by_hand = re.compile(r"\.write_(bytes|text|parquet|csv)\((?!\)|buffer)|\.open\(\"w")
    allowed = {
        "api/testing/importers.py",  # a sample, into a temporary folder
        "cli/reference.py",  # docs
        "simulation/datasets/fetch.py",  # into a folder that gets its name when it is whole
        "simulation/run_folder.py",  # an empty lock
    }
    folders = ("api", "audit", "cli", "client", "data", "models", "privacy", "server", "simulation")
    shipped = [path for folder in folders for path in (root / folder).rglob("*.py")]
    assert len(shipped) > 200
    found = {str(path.relative_to(root)) for path in shipped if by_hand.search(path.read_text("utf-8"))}
    assert found == allowed
