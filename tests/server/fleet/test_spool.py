"""The spool of a round: what is whole is there after a crash, and what is not is not."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from palate.errors import EnvironmentProblem
from palate.server.fleet.spool import UploadSpool, reports_in


@pytest.fixture
def path(tmp_path):
    return tmp_path / "spool" / "3.uploads"


def filled(path, *uploads):
    spool = UploadSpool(path)
    for device, upload in uploads:
        spool.put(device, upload)
    return spool


def test_uploads_are_there_when_it_is_opened_again_and_count_without_being_read(path):
    uploads = {(1 << 64) - 1: b"a" * 1000, 0: b"", 7: b"c" * 3}
    spool = filled(path, *uploads.items())
    spool.close()
    again = UploadSpool(path)
    assert {device: again.get(device) for device in again.devices()} == uploads
    assert dict(again.sizes()) == {device: len(upload) for device, upload in uploads.items()}
    assert again.get(8) is None
    assert reports_in(path) == 3
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert reports_in(path.with_name("4.uploads")) == 0


@pytest.mark.parametrize("lost", [1, 3, 20, 21, 30])
def test_what_a_crash_cut_off_does_not_count_and_makes_room_for_what_follows(path, lost):
    filled(path, (1, b"x" * 50), (2, b"y" * 20)).close()
    os.truncate(path, path.stat().st_size - lost)
    again = UploadSpool(path)
    assert list(again.devices()) == [1]
    again.put(3, b"z")
    again.close()
    last = UploadSpool(path)
    assert {device: last.get(device) for device in last.devices()} == {1: b"x" * 50, 3: b"z"}


def test_zeros_behind_the_last_record_are_no_record(path):
    filled(path, (1, b"x")).close()
    os.truncate(path, path.stat().st_size + 500)
    assert list(UploadSpool(path).devices()) == [1]


def test_a_damaged_upload_does_not_count(path):
    filled(path, (1, b"x" * 50), (2, b"y" * 20)).close()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert list(UploadSpool(path).devices()) == [1]


def test_a_full_disk_is_said_so_and_leaves_what_was_there(path, monkeypatch):
    spool = filled(path, (1, b"x" * 50))
    real, calls = os.pwrite, []

    def half(file, data, at):
        if calls:
            raise OSError(errno.ENOSPC, "No space left on device")
        calls.append(at)
        return real(file, data[: len(data) // 2], at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", half)
        with pytest.raises(EnvironmentProblem, match="No space left") as problem:
            spool.put(2, b"y" * 50)
    assert "palate server resume" in problem.value.hint
    assert list(spool.devices()) == [1]
    spool.put(2, b"z")
    spool.close()
    assert UploadSpool(path).get(2) == b"z"


def test_uploads_are_on_disk_before_a_request_and_after_every_sixty_fourth(path, monkeypatch):
    synced, real = [], os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda file: (synced.append(os.fstat(file).st_size), real(file)))
    spool = filled(path, *((device, b"x" * 84) for device in range(65)))
    assert synced == [64 * 100]
    spool.sync()
    assert synced == [64 * 100, 65 * 100]


def test_a_disk_that_does_not_sync_is_said_so(path, monkeypatch):
    def broken(file):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(EnvironmentProblem, match="Input/output"):
        filled(path, (1, b"x")).sync()
