"""`palate audit ledger`: an intact record passes, and each way to spoil one has its exit code."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.privacy.ledger.export import export_ledger
from palate.privacy.ledger.heads import notes_of
from palate.privacy.ledger.state import LedgerState
from palate.privacy.ledger.verify import verify_ledger

SHARD = "ledgers/shard-0000.sqlite"
SERVER = "ledgers/server.sqlite"


@pytest.fixture
def hexkey(kit) -> str:
    return kit.signer.public_key().public_bytes_raw().hex()


def without_notes(run: Path) -> None:
    for path in run.glob("ledgers/*.anchors.jsonl"):
        path.unlink()


def test_an_intact_record_passes_and_says_what_it_holds(run, audit_json, hexkey):
    found = audit_json("ledger", run, "--key", hexkey)
    assert found["intact"] is True
    assert found["faults"] == []
    assert (found["ledgers"], found["entries"], found["open_rounds"]) == (7, 7 * 9, 0)
    assert [file["file"] for file in found["files"]] == ["server.sqlite", "shard-0000.sqlite", "shard-0001.sqlite"]
    assert found["key"] == {"public": hexkey, "origin": "given by the reader", "beside_the_ledger": False}
    verdicts = {check["name"]: check["verdict"] for check in found["checks"]}
    assert verdicts.pop("Anchors") == "not shown"  # what lies beside the ledgers proves nothing about their owner
    assert set(verdicts.values()) == {"passed"}
    assert found["anchors"] == {"checked": 3 * 4, "from_elsewhere": False}


def test_a_key_beside_the_ledger_is_said_to_prove_less(run, audit):
    code, out, _ = audit("ledger", run)
    assert code == 0
    assert "The record of small is intact." in out
    assert "The key is in the ledger's folder" in " ".join(out.split())


def test_a_key_file_from_elsewhere_proves_more(run, tmp_path, audit_json, hexkey):
    (tmp_path / "kept.key").write_text(hexkey + "\n")
    assert audit_json("ledger", run, "--key", tmp_path / "kept.key")["key"]["beside_the_ledger"] is False
    assert audit_json("ledger", run, "--key", run / "ledgers/public.key")["key"]["beside_the_ledger"] is True


def reword(db, find: bytes, put: bytes) -> None:
    (number, body) = db.execute("SELECT id, body FROM entries WHERE kind = 'INTENT' ORDER BY id").fetchone()
    assert find in body
    db.execute("UPDATE entries SET body = ? WHERE id = ?", (body.replace(find, put), number))


TAMPERING = {
    "edited": lambda db: reword(db, b'"n1":6', b'"n1":9'),
    "deleted": lambda db: db.execute("DELETE FROM entries WHERE seq = 3"),
    "reordered": lambda db: db.execute("UPDATE entries SET seq = 9 - seq WHERE seq IN (4, 5)"),
    "guard added": lambda db: db.execute("CREATE TRIGGER more BEFORE INSERT ON book BEGIN SELECT 1; END"),
    "signature swapped": lambda db: db.execute("UPDATE seals SET signature = zeroblob(64) WHERE id = 2"),
}


@pytest.mark.parametrize("book", [SHARD, SERVER])
@pytest.mark.parametrize("attack", TAMPERING)
def test_a_record_that_was_tampered_with_ends_in_1(run, audit, kit, attack, book):
    kit.behind_the_guards(run / book, TAMPERING[attack])
    code, out, err = audit("ledger", run)
    assert code == 1
    assert "cannot be relied on" in out
    assert f"error: {Path(book).name}: " in err


def test_all_faults_are_reported_and_not_only_the_first(run, audit_json, kit):
    for book in (SHARD, SERVER):
        kit.behind_the_guards(run / book, TAMPERING["edited"])
    found = audit_json("ledger", run, code=1)
    assert [fault["error"] for fault in found["faults"]] == ["Tampered", "Tampered"]
    assert found["intact"] is False
    assert found["ledgers"] == 3


def test_another_key_ends_in_1(run, audit):
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()
    code, _, err = audit("ledger", run, "--key", other)
    assert code == 1
    assert "another key" in err


def test_a_file_that_is_cut_short_ends_in_6(run, audit, kit):
    kit.cut_last_round(run / SHARD)
    code, _, err = audit("ledger", run)
    assert code == 6
    assert "shard-0000.sqlite has 21 entries, an anchor saw 27" in err


def test_a_file_cut_short_with_its_notes_is_missed_by_the_server(run, audit, kit):
    kit.cut_last_round(run / SHARD)
    notes_of(run / SHARD).unlink()
    code, _, err = audit("ledger", run)
    assert code == 1
    assert "3 devices were charged for round 3 of small" in err


def test_a_whole_record_cut_short_is_found_by_heads_that_were_kept(run, tmp_path, audit, kit):
    kept = tmp_path / "heads.jsonl"
    assert audit("ledger", run, "--save-anchors", kept)[0] == 0
    for path in run.glob("ledgers/*.sqlite"):
        kit.cut_last_round(path)
    without_notes(run)
    assert audit("ledger", run)[0] == 0, "the limit that the page states: nothing inside the record can show this"
    code, _, err = audit("ledger", run, "--anchors", kept)
    assert code == 6
    assert "an anchor saw" in err


def test_heads_that_were_kept_pass_when_the_record_goes_on(run, tmp_path, audit_json, kit):
    kept = tmp_path / "heads.jsonl"
    for path in run.glob("ledgers/*.sqlite"):
        kit.cut_last_round(path)
    without_notes(run)
    audit_json("ledger", run, "--save-anchors", kept)
    longer = kit.write_run(tmp_path / "longer")
    without_notes(longer)
    found = audit_json("ledger", longer, "--anchors", kept)
    assert found["anchors"] == {"checked": 3, "from_elsewhere": True}
    assert {check["name"]: check["verdict"] for check in found["checks"]}["Anchors"] == "passed"


def test_a_record_that_was_signed_anew_ends_in_6(run, tmp_path, audit, kit):
    kept = tmp_path / "heads.jsonl"
    assert audit("ledger", run, "--save-anchors", kept)[0] == 0
    # The owner of the key writes another history: the same rounds with more noise.
    quieter = {"intents": lambda number: kit.intent(number, sum_var_int=4 * 32768**2)}
    forged = kit.write_run(tmp_path / "forged", **quieter)
    assert audit("ledger", forged)[0] == 0
    code, _, err = audit("ledger", forged, "--anchors", kept)
    assert code == 6
    assert "not those that an anchor saw" in err


def test_a_file_that_an_anchor_saw_may_not_be_gone(run, tmp_path, audit):
    kept = tmp_path / "heads.jsonl"
    audit("ledger", run, "--save-anchors", kept)
    (run / "ledgers/shard-0001.sqlite").unlink()
    code, _, err = audit("ledger", run)
    assert (code, "shard-0001.sqlite is gone" in err) == (6, True), "its notes are still there"
    without_notes(run)
    assert audit("ledger", run)[0] == 1, "half of the shares are"
    code, _, err = audit("ledger", run, "--anchors", kept)
    assert (code, "shard-0001.sqlite is gone" in err) == (6, True)


def test_an_anchor_of_a_single_ledger_is_compared_too(run, tmp_path, audit, kit):
    key = kit.signer.public_key()
    head = verify_ledger(run / SHARD, "device-000001", key).head
    line = '{"entry":"%s","ledger":"device-000001","seq":%d}\n'
    kept = tmp_path / "one.jsonl"
    for entry, seq, code in ((head.entry.hex(), 9, 0), (head.entry.hex(), 8, 6), (head.entry.hex(), 10, 6)):
        kept.write_text(line % (entry, seq))
        assert audit("ledger", run, "--anchors", kept)[0] == code
        assert audit("ledger", run, "--anchors", kept, "--device", "device-000001")[0] == code


def test_the_head_of_a_single_ledger_can_be_kept(run, tmp_path, audit, kit, hexkey):
    kept, text = tmp_path / "one.jsonl", tmp_path / "device.ledger"
    text.write_bytes(export_ledger(run / SHARD, "device-000001", kit.signer.public_key()))
    for arguments in ((run, "--device", "device-000001"), (text, "--key", hexkey)):
        assert audit("ledger", *arguments, "--save-anchors", kept)[0] == 0
        assert kept.read_text().count('"ledger":"device-000001"') == kept.read_text().count("\n") == 1
        assert audit("ledger", run, "--anchors", kept)[0] == 0
    kit.cut_last_round(run / SHARD)
    text.write_bytes(export_ledger(run / SHARD, "device-000001", kit.signer.public_key()))
    assert audit("ledger", text, "--key", hexkey)[0] == 0
    assert audit("ledger", text, "--key", hexkey, "--anchors", kept)[0] == 6


@pytest.mark.parametrize("text", ["{}\n", "nonsense\n", '{"book":"a","entries":0,"heads":""}\n', '{"book":1}\n'])
def test_a_file_of_anchors_that_is_none_is_refused(run, tmp_path, audit, text):
    (tmp_path / "bad.jsonl").write_text(text)
    code, _, err = audit("ledger", run, "--anchors", tmp_path / "bad.jsonl")
    assert code == 11
    assert "bad.jsonl: line 1 is no anchor" in err


def test_a_line_of_notes_that_a_crash_cut_off_is_passed_over(run, audit):
    with notes_of(run / SHARD).open("ab") as file:
        file.write(b'{"book":"shard-0')
    assert audit("ledger", run)[0] == 0


def test_an_open_round_ends_in_5_and_leaves_the_record_intact(tmp_path, audit_json, kit):
    folder = kit.write_run(tmp_path / "small", outcomes=lambda number: kit.outcome(number) if number < 3 else None)
    found = audit_json("ledger", folder, code=5)
    assert (found["intact"], found["open_rounds"], found["finished"]) == (True, 7, False)
    assert "round 3 of small in server" in found["faults"][0]["message"]


def test_a_signed_ledger_that_overspent_ends_in_3(tmp_path, audit, kit, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(LedgerState, "_check_intent", lambda self, intent, policy: None)
        folder = kit.write_run(tmp_path / "small", policy={"budget_nano": 10**8})
    for command in ("ledger", "budget", "plan"):
        code, _, err = audit(command, folder)
        assert code == 3
        assert "server.sqlite: round 2 of small needs 0.0625" in err


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"sum_var_int": 4 * 40000**2}, "sum_var_int"), ({"clip_int": 2048}, "clip_int"), ({"m_honest": 5}, "m_honest"),
        ({"model": "sha256:" + "0" * 64}, "model"), ({"transcript": "sha256:" + "0" * 64}, "transcript"),
    ],
)  # fmt: skip
def test_a_device_that_was_charged_for_another_round_than_the_server_announced_is_found(
    run, audit, kit, changes, field
):
    (run / SHARD).unlink()
    notes_of(run / SHARD).unlink()
    wrong, names = {2: changes}, {"device-000000": kit.everybody}
    kit.write_book(run / SHARD, names, intents=lambda number: kit.intent(number, **wrong.get(number, {})))
    code, _, err = audit("ledger", run)
    assert code == 1
    assert f"device-000000 and the server differ about round 2 of small: {field}" in err


def test_a_round_that_the_server_lacks_is_found(tmp_path, audit, kit):
    folder = kit.write_run(tmp_path / "small")
    kit.cut_last_round(folder / SERVER)
    without_notes(folder)
    code, _, err = audit("ledger", folder)
    assert code == 1
    assert "was charged for round 3 of small, which the server's lacks" in err


@pytest.mark.parametrize(("taking_part", "code"), [(6, 0), (4, 0), (3, 1)])
def test_a_sum_with_fewer_shares_than_its_noise_counts_on_is_found(tmp_path, audit, kit, taking_part, code):
    absent = {f"device-{number:06}": (0, 1, 3) for number in range(taking_part, 6)}
    folder = kit.write_run(tmp_path / "small", participation=absent)
    ended, _, err = audit("ledger", folder)
    assert ended == code
    assert code == 0 or "3 devices were charged for round 2 of small; its noise counts on at least 4" in err


def test_a_device_in_two_files_could_be_charged_twice(run, audit, kit):
    kit.write_book(run / "ledgers/shard-0002.sqlite", {"device-000000": kit.everybody})
    code, _, err = audit("ledger", run)
    assert code == 1
    assert "device-000000 is in 2 files" in err


def test_a_gap_in_the_files_of_devices_is_found(run, audit):
    (run / SHARD).unlink()
    without_notes(run)
    code, _, err = audit("ledger", run)
    assert code == 1
    assert "shard-0000 is missing" in err


def test_one_ledger_is_verified_alone_and_listed(run, audit, audit_json):
    code, out, _ = audit("ledger", run, "--device", "device-000004")
    assert code == 0
    assert "Ledger device-000004, 9 entries" in out
    found = audit_json("ledger", run, "--device", "device-000004")
    assert found["ledgers"] == 2  # with the server's, to compare it with
    (device,) = found["device"]
    assert [(row["round"], row["status"]) for row in device["rounds"]] == [(n, "released") for n in range(4)]
    assert device["spent_nano"] == sum(row["charge_nano"] for row in device["rounds"])


def test_another_devices_fault_does_not_hide_in_a_single_one(run, audit, kit):
    kit.behind_the_guards(run / SHARD, TAMPERING["edited"])
    assert audit("ledger", run, "--device", "device-000000")[0] == 1
    assert audit("ledger", run, "--device", "device-000004")[0] == 0


def test_an_exported_ledger_is_verified_without_its_run(run, tmp_path, audit_json, audit, kit, hexkey):
    text = export_ledger(run / SHARD, "device-000002", kit.signer.public_key())
    path = tmp_path / "device.ledger"
    path.write_bytes(text)
    found = audit_json("ledger", path, "--key", hexkey)
    assert (found["run"], found["ledgers"], found["entries"]) == (None, 1, 9)
    assert {check["name"]: check["verdict"] for check in found["checks"]}["Server and devices"] == "not shown"
    path.write_bytes(text.replace(b'n1\\":6', b'n1\\":7', 1))
    assert audit("ledger", path, "--key", hexkey)[0] == 1
    path.write_bytes(text)
    code, _, err = audit("ledger", path, "--key", hexkey, "--device", "device-000001")
    assert (code, "holds ledger device-000002" in err) == (2, True)


def test_a_single_file_of_ledgers_is_verified_too(run, audit_json):
    found = audit_json("ledger", run / SHARD)
    assert (found["target"], found["run"], found["ledgers"]) == ("shard-0000.sqlite", None, 3)


def test_what_cannot_be_audited_has_a_named_reason(run, tmp_path, audit):
    def ending(*arguments: object) -> tuple[int, str]:
        code, _, err = audit("ledger", *arguments)
        assert "hint:" in err
        return code, err

    assert ending(tmp_path / "nowhere")[0] == 11
    assert ending(run, "--key", "abc")[0] == 2
    assert ending(run, "--device", "device-999999")[0] == 2
    (run / SHARD).write_bytes(b"SQLite format 3\0" + bytes(100))
    assert ending(run)[0] == 11
    (run / "ledgers/public.key").unlink()
    assert ending(run)[0] == 2
    shutil.rmtree(run / "ledgers")
    code, err = ending(run)
    assert (code, "keeps no ledgers" in err) == (11, True)


def test_the_server_ledger_may_not_be_missing(run, audit):
    (run / SERVER).unlink()
    code, _, err = audit("ledger", run)
    assert (code, "server.sqlite is damaged: it is missing" in err) == (11, True)
