"""Export holds everything but the secret keys; forgetting leaves nothing but what was spent."""

from __future__ import annotations

import json
import stat
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from palate.client.fleet import round_log
from palate.client.fleet.identity import DeviceKeys
from palate.client.owner import forgetting
from palate.client.vault import Vault, tombstone
from palate.client.vault.errors import Forgotten
from palate.privacy.accounting.events import Unit
from palate.privacy.budget import ADJACENCY, Promise
from palate.privacy.ledger.body import Intent
from palate.privacy.ledger.export import from_text
from palate.privacy.ledger.store import LedgerBook
from palate.privacy.ledger.verify import verify_records


@pytest.fixture
def charged(owner):
    """The device after one round: what it spent, in 1e-9 of 2 rho."""
    with Vault.open(owner.folder.vault) as vault:
        keys = DeviceKeys.load(vault)
    promise = Promise(unit=Unit.USER, epsilon=8.0, delta=1e-5)
    intent = Intent(
        run="run-1", round=0, mechanism="skellam", unit="user", adjacency=ADJACENCY, clip_int=100,
        sum_var_int=1_000_000, m_honest=10, n1=12, sampling="none-claimed", model="sha256:" + "0" * 64,
        transcript="sha256:" + "1" * 64,
    )  # fmt: skip
    with LedgerBook(owner.folder.ledger, keys.ledger) as book:
        book.create(["device"], promise.policy(smallest_cohort=10))
        book.append("device", intent)
        return book.state("device").spent_nano


def disk(home):
    return {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}


def test_an_export_holds_history_profile_and_a_ledger_that_verifies(owner, charged, tmp_path):
    owner("like", "Casino")
    owner("pin", "horror")
    size = owner.json("export", str(tmp_path / "mine.json"))["bytes"]
    data = (tmp_path / "mine.json").read_bytes()
    assert len(data) == size
    assert stat.S_IMODE((tmp_path / "mine.json").stat().st_mode) == 0o600
    found = json.loads(data)
    assert "film-002" in json.dumps(found["vault"]["purposes"]["history"])
    assert found["vault"]["purposes"]["profile"]["settings"] == {"genre: Horror": "pin"}
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(found["public_keys"]["ledger"]))
    name, records = from_text("".join(f"{line}\n" for line in found["ledgers"]["device"]).encode(), key)
    assert verify_records(name, records, key, allow_open=True).state.spent_nano == charged > 0


def test_no_secret_key_is_exported_and_no_file_overwritten(owner, tmp_path):
    path = tmp_path / "mine.json"
    owner("export", str(path))
    with Vault.open(owner.folder.vault) as vault:
        keys = DeviceKeys.load(vault)
    text = path.read_text("utf-8")
    for secret in (keys.signing, keys.ledger):
        assert secret.private_bytes_raw().hex() not in text
        assert secret.public_key().public_bytes_raw().hex() in text
    assert f"{keys.node.private.private_numbers().private_value:x}" not in text
    before = path.read_bytes()
    assert owner.ends("export", str(path))[0] == 2
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert owner.ends("export", str(tmp_path / "link"))[0] == 2
    assert owner.ends("export", str(tmp_path / "no" / "folder.json"))[0] == 12
    assert path.read_bytes() == before
    assert not (tmp_path / "nowhere").exists()


def test_nothing_is_forgotten_without_asking(owner, monkeypatch):
    before = owner.titles()
    assert owner.ends("forget")[0] == 2
    monkeypatch.setattr("palate.cli.terminal.sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    assert owner.ends("forget", typed="n\n")[0] == 2
    assert owner.titles() == before
    assert "forgotten" in owner("forget", typed="y\n")


def test_forgetting_leaves_the_sum_of_what_was_spent_and_nothing_else(owner, charged):
    with Vault.open(owner.folder.vault) as vault:
        public = DeviceKeys.load(vault).ledger.public_key().public_bytes_raw()
    owner("like", "Casino")
    found = owner.json("forget", "--yes")
    assert found["spent"] == [{"unit": "user", "adjacency": ADJACENCY, "spent_nano": charged}]
    stone = tombstone.read(owner.folder.vault)
    assert (stone.key, stone.spent_nano("user", ADJACENCY)) == (public, charged)
    assert {path.name for path in disk(owner.home)} == {"vault.tombstone", "agent.lock"}
    for command in (["recommend"], ["history"], ["forget", "--yes"], ["export", "x.json"], ["status"]):
        code, text = owner.ends(*command)
        assert code == 14, command
        assert len(text.splitlines()) == 2


def test_forgetting_that_was_cut_off_is_finished_by_doing_it_again(owner, charged, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(forgetting, "_shred_all", lambda _: (_ for _ in ()).throw(OSError("the disk is gone")))
        with pytest.raises(OSError, match="the disk is gone"):
            forgetting.forget_device(owner.folder)
    with pytest.raises(Forgotten) as caught:
        Vault.open(owner.folder.vault)
    assert caught.value.hint == "go on with: palate client forget --yes"
    assert owner.json("forget", "--yes")["spent"][0]["spent_nano"] == charged
    assert {path.name for path in disk(owner.home)} == {"vault.tombstone", "agent.lock"}


def test_forgetting_takes_drafts_of_a_crash_and_passes_over_folders_of_the_owners(owner, charged):
    (owner.home / ".table.safetensors.0123456789abcdef.tmp").write_bytes(b"half a table")
    (owner.home / "client.log.old").mkdir()
    owner.json("forget", "--yes")
    assert {path.name for path in disk(owner.home)} == {"vault.tombstone", "agent.lock"}
    assert (owner.home / "client.log.old").is_dir()


def test_a_lost_key_is_no_reason_to_be_kept(owner, charged):
    (owner.folder.vault / "vault.key").unlink()
    found = owner.json("forget", "--yes")
    assert found["spent"][0]["spent_nano"] == charged
    assert tombstone.read(owner.folder.vault).signature == b""


def test_what_was_spent_is_never_lost_by_forgetting(owner, charged):
    owner.folder.ledger.write_bytes(b"not a ledger")
    code, text = owner.ends("forget", "--yes")
    assert (code, "must not lose what was spent" in text) == (11, True)
    assert owner.titles()


def test_a_device_that_takes_part_in_rounds_is_not_forgotten_meanwhile(owner):
    with owner.folder.locked():
        code, text = owner.ends("forget", "--yes")
    assert (code, "another program takes part" in text) == (11, True)
    assert owner.titles()


def test_a_ledger_that_is_missing_after_rounds_is_not_taken_for_nothing_spent(owner):
    with Vault.open(owner.folder.vault) as vault:
        round_log._HEADS.write(vault, [{"name": "device", "seq": 2, "entry": "00" * 32}])
    owner.folder.ledger.unlink(missing_ok=True)
    code, text = owner.ends("forget", "--yes")
    assert (code, "must not lose what was spent" in text) == (11, True)
    assert owner.titles()
