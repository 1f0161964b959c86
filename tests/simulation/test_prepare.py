"""What is remembered of prepared data is that data and no other."""

from __future__ import annotations

import os

import pytest

from palate.simulation.prepare import prepare


def written(folder, users: int) -> None:
    folder.mkdir(exist_ok=True)
    rows = [f"u{user},i{(user + place) % 9},{place}" for user in range(users) for place in range(5)]
    (folder / "ratings.csv").write_text("\n".join(["user,item,timestamp", *rows]) + "\n")


def test_one_name_in_two_folders_is_two_datasets(settings, tmp_path, monkeypatch):
    for users in (12, 20):
        written(tmp_path / str(users), users)
    config = settings(data="ratings.csv")
    for users in (12, 20, 12):
        monkeypatch.chdir(tmp_path / str(users))
        assert prepare(config).interactions.num_users == users


def test_a_folder_that_is_called_as_a_preset_does_not_hide_it(settings, tmp_path, monkeypatch):
    written(tmp_path / "demo", 12)
    monkeypatch.chdir(tmp_path)
    assert prepare(settings(data="demo")).interactions.num_users == 2000


@pytest.mark.parametrize("as_folder", [False, True])
def test_a_file_that_has_changed_is_read_again(settings, tmp_path, as_folder):
    config = settings(data=str(tmp_path if as_folder else tmp_path / "ratings.csv"))
    if as_folder:
        (tmp_path / "ratings.csv").unlink(missing_ok=True)
    for moment, users in ((10**9, 12), (2 * 10**9, 20)):
        written(tmp_path, users)
        path = tmp_path / "ratings.csv"
        if as_folder:
            path = path.rename(tmp_path / "interactions.csv")
        os.utime(path, (moment, moment))
        assert prepare(config).interactions.num_users == users
