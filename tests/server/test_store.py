"""The run store: a crash leaves the old file or the new one, and damage is said instead of read."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from palate.errors import RunError
from palate.models.table import ItemTable
from palate.privacy import files
from palate.server.coordinator import Snapshot
from palate.server.store import CHECKPOINT_FORMAT, TABLE_FORMAT, RunStore, read_tensors

METADATA = {"run": "r", "catalogue": "ab12"}


def snapshot(server_round: int = 3) -> Snapshot:
    rng = np.random.default_rng(server_round)
    table = ItemTable(
        rng.normal(size=(5, 2)).astype(np.float32), np.asfortranarray(rng.normal(size=(5, 3)).astype(np.float32))
    )
    popularity = rng.exponential(size=5).astype(np.float32)
    return Snapshot(server_round, server_round + 1, table, popularity, {"velocity": rng.normal(size=(5, 3))})


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path)


def test_a_saved_snapshot_is_loaded_bit_for_bit(store):
    saved = snapshot()
    store.save(saved, METADATA)
    loaded = store.load(METADATA)
    assert loaded.server_round == 3
    assert loaded.table.content_hash == saved.table.content_hash
    np.testing.assert_array_equal(loaded.popularity, saved.popularity)
    assert list(loaded.optimiser) == ["velocity"]
    np.testing.assert_array_equal(loaded.optimiser["velocity"], saved.optimiser["velocity"])
    assert loaded.optimiser["velocity"].dtype == np.float64


def test_the_choice_of_rows_is_loaded_as_it_was_and_refused_where_it_does_not_fit(store):
    active = np.array([True, False, False, True, False])
    store.save(replace(snapshot(), active=active), METADATA)
    np.testing.assert_array_equal(store.load(METADATA).active, active)
    store.save(snapshot(), METADATA)
    assert store.load(METADATA).active is None
    for wrong in (active[:4], active.astype(np.uint8)):
        store.save(replace(snapshot(), active=wrong), METADATA)
        with pytest.raises(RunError, match="is damaged"):
            store.load(METADATA)


def test_a_new_folder_has_no_checkpoint(store):
    assert store.load(METADATA) is None


def test_the_public_item_table_holds_no_optimiser_state(store):
    store.save(snapshot(), METADATA)
    arrays, label = read_tensors(store.table_path, TABLE_FORMAT)
    assert set(arrays) == {"fixed", "learned", "popularity"}
    assert label["hash"] == snapshot().table.content_hash
    assert label["round"] == "3"


def test_a_crash_before_the_rename_leaves_the_old_checkpoint_and_no_scrap(store, monkeypatch):
    store.save(snapshot(1), METADATA)

    def crash(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        store.save(snapshot(2), METADATA)
    monkeypatch.undo()
    assert store.load(METADATA).server_round == 1
    assert sorted(path.name for path in store.folder.iterdir()) == [
        "checkpoint.safetensors",
        "item_table.safetensors",
    ]


def test_a_crash_between_table_and_checkpoint_goes_on_from_the_old_checkpoint(store, monkeypatch):
    store.save(snapshot(1), METADATA)
    rename = Path.replace

    def crash(self: Path, target: Path) -> None:
        if target == store.checkpoint_path:
            raise KeyboardInterrupt
        rename(self, target)

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        store.save(snapshot(2), METADATA)
    assert store.load(METADATA).server_round == 1


def test_content_is_on_disk_before_the_rename_and_the_name_after_it(tmp_path, monkeypatch):
    events = []
    rename = Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: events.append("flushed"))
    monkeypatch.setattr(Path, "replace", lambda self, target: (events.append("renamed"), rename(self, target)))
    files.replace(tmp_path / "x", b"new", mode=files.SHARED)
    assert events == ["flushed", "renamed", "flushed"]
    assert (tmp_path / "x").read_bytes() == b"new"


def test_a_checkpoint_cut_short_anywhere_is_damaged(store):
    store.save(snapshot(), METADATA)
    whole = store.checkpoint_path.read_bytes()
    for length in [*range(0, 40, 7), len(whole) // 2, len(whole) - 1]:
        store.checkpoint_path.write_bytes(whole[:length])
        with pytest.raises(RunError, match="damaged"):
            store.load(METADATA)


def test_a_flipped_bit_in_the_table_is_damage(store):
    store.save(snapshot(), METADATA)
    whole = bytearray(store.checkpoint_path.read_bytes())
    place = whole.index(snapshot().table.learned.tobytes(order="C"))
    whole[place] ^= 1
    store.checkpoint_path.write_bytes(whole)
    with pytest.raises(RunError, match="damaged"):
        store.load(METADATA)


@pytest.mark.parametrize("name", ["fixed", "learned", "popularity"])
def test_a_checkpoint_without_one_of_its_arrays_is_damaged(store, name):
    arrays = {"fixed": np.zeros((5, 1), np.float32), "learned": np.zeros((5, 2), np.float32), "popularity": np.ones(5)}
    del arrays[name]
    save_file(arrays, store.checkpoint_path, {**METADATA, "format": CHECKPOINT_FORMAT, "round": "1"})
    with pytest.raises(RunError, match="damaged"):
        store.load(METADATA)


@pytest.mark.parametrize("label", [{"round": "three"}, {}, {"round": "1", "hash": "0" * 64}])
def test_a_checkpoint_with_a_wrong_label_is_damaged(store, label):
    arrays = {"fixed": np.zeros((5, 1), np.float32), "learned": np.zeros((5, 2), np.float32), "popularity": np.ones(5)}
    save_file(arrays, store.checkpoint_path, {**METADATA, "format": CHECKPOINT_FORMAT, **label})
    with pytest.raises(RunError, match="damaged"):
        store.load(METADATA)


def test_a_checkpoint_of_another_format_is_refused_by_name(store):
    save_file({"fixed": np.zeros(1)}, store.checkpoint_path, {"format": "palate-server-checkpoint/9"})
    with pytest.raises(RunError, match="palate-server-checkpoint/9"):
        store.load(METADATA)


def test_a_checkpoint_of_another_catalogue_is_refused(store):
    store.save(snapshot(), METADATA)
    with pytest.raises(RunError, match="its catalogue is not this run's"):
        store.load({**METADATA, "catalogue": "cd34"})


def test_a_missing_file_of_tensors_is_said_to_be_missing(tmp_path):
    with pytest.raises(RunError, match="missing"):
        read_tensors(tmp_path / "absent.safetensors", TABLE_FORMAT)


def lines(store: RunStore, *rounds: int) -> None:
    for number in rounds:
        store.append_round({"round": number, "loss": 0.5})


def test_rounds_are_cut_back_to_the_checkpoint(store):
    lines(store, 0, 1, 2, 3)
    assert [line["round"] for line in store.read_rounds(1)] == [0, 1]
    lines(store, 2)
    assert [line["round"] for line in store.read_rounds(2)] == [0, 1, 2]


@pytest.mark.parametrize("rest", [b'{"round": 2, "lo', b"{", b"\xff\xfe", b"\n\n{}"])
def test_half_a_line_after_the_checkpoint_is_cut_off(store, rest):
    lines(store, 0, 1)
    with store.rounds_path.open("ab") as file:
        file.write(rest)
    assert [line["round"] for line in store.read_rounds(1)] == [0, 1]
    assert store.rounds_path.read_text() == "".join(
        json.dumps({"round": number, "loss": 0.5}) + "\n" for number in (0, 1)
    )


@pytest.mark.parametrize(
    "content", [b"", b'{"round": 0}\n', b'{"round": 0}\n{"rou', b"\xff\xff\n\xff\n", b"3\n[]\n", b"{}\n{}\n"]
)
def test_lines_that_the_checkpoint_promises_must_be_there(store, content):
    store.rounds_path.write_bytes(content)
    with pytest.raises(RunError, match=r"rounds\.jsonl is damaged"):
        store.read_rounds(1)


def test_a_line_of_a_round_without_checkpoint_is_dropped(store):
    lines(store, 0)
    assert store.read_rounds(-1) == []
    assert store.rounds_path.read_bytes() == b""
