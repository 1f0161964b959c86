"""What a thief of the disk reads: after every operation, in every file of the folder, no name and no value in clear."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from vaults import verified

from palate.client.vault import HEADS, HISTORY, Vault
from palate.client.vault.errors import NotInVault
from palate.client.vault.history import History

MARK = "Xq7MARK"  # in every name and every value
PURPOSES = {"history": HISTORY, "heads": HEADS}

purposes = st.sampled_from(sorted(PURPOSES))
names = st.sampled_from([f"{MARK}-{letter}" for letter in "abcd"])
values = st.integers(0, 9000).map(lambda size: f"{MARK}{size}".encode() * (1 + size // 8))


def in_clear(folder: Path) -> list[str]:
    """Files of a folder in which the mark can be read, in UTF-8, UTF-16 or hexadecimal."""
    spellings = [MARK.encode(), MARK.encode("utf-16-le"), MARK.encode().hex().encode()]
    return [path.name for path in sorted(folder.rglob("*")) if any(s in path.read_bytes() for s in spellings)]


class Life(RuleBasedStateMachine):
    """Anything that may happen to a vault, beside a dictionary that should hold the same."""

    def __init__(self) -> None:
        super().__init__()
        self.top = Path(tempfile.mkdtemp())
        self.folder = self.top / "device"
        self.vault = Vault.create(self.folder, keyring="file")
        self.expected: dict[tuple[str, str], bytes] = {}

    def teardown(self) -> None:
        self.vault.close()
        shutil.rmtree(self.top)

    @rule(purpose=purposes, name=names, value=values)
    def put(self, purpose: str, name: str, value: bytes) -> None:
        self.vault.put(PURPOSES[purpose], name, value)
        self.expected[purpose, name] = value

    @rule(purpose=purposes, name=names)
    def get(self, purpose: str, name: str) -> None:
        if (purpose, name) in self.expected:
            assert self.vault.get(PURPOSES[purpose], name) == self.expected[purpose, name]
        else:
            with pytest.raises(NotInVault):
                self.vault.get(PURPOSES[purpose], name)

    @precondition(lambda self: self.expected)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        purpose, name = data.draw(st.sampled_from(sorted(self.expected)))
        self.vault.delete(PURPOSES[purpose], name)
        del self.expected[purpose, name]

    @rule(purpose=purposes, changes=st.lists(st.tuples(names, values), max_size=4), fails=st.booleans())
    def transaction(self, purpose: str, changes: list[tuple[str, bytes]], fails: bool) -> None:
        try:
            with self.vault.transaction():
                for name, value in changes:
                    self.vault.put(PURPOSES[purpose], name, value)
                assert in_clear(self.folder) == []
                if fails:
                    raise InterruptedError
        except InterruptedError:
            return
        self.expected |= {(purpose, name): value for name, value in changes}

    @rule(purpose=purposes)
    def rotate(self, purpose: str) -> None:
        self.vault.rotate(PURPOSES[purpose])

    @rule()
    def scrub(self) -> None:
        assert self.vault.scrub()

    @rule()
    def export(self) -> None:
        assert (MARK in str(self.vault.export())) == bool(self.expected)

    @rule()
    def reopen(self) -> None:
        self.vault.close()
        assert in_clear(self.folder) == []
        self.vault = Vault.open(self.folder)

    @invariant()
    def nothing_is_in_clear_and_all_is_there(self) -> None:
        assert in_clear(self.folder) == []
        assert verified(self.vault) == len(self.expected)
        for name, purpose in PURPOSES.items():
            assert self.vault.entries(purpose) == {k[1]: v for k, v in self.expected.items() if k[0] == name}


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=8, stateful_step_count=20, deadline=None)


def test_the_search_finds_what_is_in_clear(tmp_path):
    (tmp_path / "a").write_text(f"x{MARK}x", "utf-8")
    (tmp_path / "b").write_bytes(MARK.encode("utf-16-le"))
    (tmp_path / "c").write_text("nothing", "utf-8")
    assert in_clear(tmp_path) == ["a", "b"]


def test_a_history_leaves_no_item_in_clear(vault, folder):
    history = History(vault)
    history.add(f"{MARK}-1", 4.5, 1_700_000_000)
    assert in_clear(folder) == []
    history.mark(f"{MARK}-2", "hide")
    history.remove_item(f"{MARK}-1")
    history.undo(2)
    vault.close()
    assert in_clear(folder) == []


def test_a_deleted_box_is_gone_from_every_file(vault, folder, notes):
    vault.put(notes, "a", b"x" * 5000)
    box = bytes(vault._row("SELECT sealed FROM entries")[0])
    assert _holding(folder, box[2000:2064])
    vault.delete(notes, "a")
    assert not _holding(folder, box[2000:2064])


def test_a_rotated_key_is_gone_from_every_file(vault, folder, notes):
    vault.put(notes, "a", b"x")
    wrapped = [bytes(row[0]) for row in vault._rows("SELECT wrapped FROM keys")]
    assert all(_holding(folder, box[:40]) for box in wrapped)
    vault.rotate(notes)
    assert not any(_holding(folder, box[:40]) for box in wrapped)


def _holding(folder: Path, part: bytes) -> list[str]:
    return [path.name for path in folder.iterdir() if part in path.read_bytes()]
