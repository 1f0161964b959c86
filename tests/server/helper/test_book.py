"""The helper's ledger: what a crash leaves, what an old backup is told, and what is destroyed."""

from __future__ import annotations

import shutil
import sqlite3

import numpy as np
import pytest

from palate.errors import EnvironmentProblem
from palate.privacy.aggregators.errors import AlreadyCollected, HelperRestored, RequestRefused, RoundKeyGone
from palate.privacy.aggregators.messages import Answer, Head
from palate.privacy.ledger.errors import Fork, LedgerUnreadable, Rollback, Tampered
from palate.server.helper.anchor import AnchorFile
from palate.server.helper.secrets_folder import RoundSecrets

from .conftest import FLEET, NOW, RUN, key_of


def collected(leader, place, *devices, server_round=1):
    """One round, answered; the service it was answered by, and the round."""
    service = place.open()
    membership = leader.registered(service)
    made = leader.round(service, membership, server_round)
    return service, made, service.answer(made.collection(*devices).freeze())


def private_halves(place):
    return sorted(place.secrets.glob("*.key"))


@pytest.mark.parametrize("together", [False, True])
def test_a_helper_on_disk_gives_the_masks_of_a_round(make_leader, make_place, together):
    leader = make_leader(together=together)
    service = make_place(leader).open()
    made = leader.round(service, leader.registered(service))
    collection = made.collection()
    answered = service.answer(collection.freeze())
    assert np.array_equal(collection.finish(answered.answer).integers, made.signed_sum())
    head = Head.from_bytes(answered.head)
    assert (head.sequence, head.answer_hash) == (1, Answer.from_bytes(answered.answer).content_hash)
    assert service.head() == answered.head


def test_the_same_request_gets_the_same_bytes_also_after_a_restart(leader, place):
    service = place.open()
    made = leader.round(service, leader.registered(service))
    request = made.collection().freeze()
    first = service.answer(request)
    service.book.close()
    assert place.open().answer(request) == first


def test_a_second_set_is_refused_also_after_a_restart(leader, place):
    service, made, _ = collected(leader, place)
    other = made.collection(100, 101, 102).freeze()
    with pytest.raises(AlreadyCollected):
        service.answer(other)
    service.book.close()
    with pytest.raises(AlreadyCollected):
        place.open().answer(other)


def test_the_private_half_of_a_key_is_destroyed_once_it_has_answered(leader, place):
    service = place.open()
    membership = leader.registered(service)
    made = leader.round(service, membership)
    assert len(private_halves(place)) == 1
    service.answer(made.collection().freeze())
    assert private_halves(place) == []
    with pytest.raises(RoundKeyGone, match="destroyed"):
        service.round_key(RUN, 1)


def test_the_private_half_of_a_key_is_destroyed_once_it_has_expired(leader, place):
    service = place.open(round_key_seconds=500)
    service.round_key(RUN, 1)
    place.time = NOW + 501
    service.round_key(RUN, 2)
    with pytest.raises(RoundKeyGone):
        service.round_key(RUN, 1)
    service.sweep()
    assert len(private_halves(place)) == 1
    with pytest.raises(RoundKeyGone):
        service.round_key(RUN, 1)


def test_a_private_half_is_overwritten_before_it_is_removed(leader, place, monkeypatch):
    service = place.open()
    service.round_key(RUN, 1)
    (path,) = private_halves(place)
    left = []
    unlink = type(path).unlink
    monkeypatch.setattr(type(path), "unlink", lambda self, **how: (left.append(self.read_bytes()), unlink(self, **how)))
    RoundSecrets(place.secrets).destroy(bytes.fromhex(path.stem))
    assert left == [bytes(33)]


def test_a_round_has_one_key_also_after_a_restart(place):
    service = place.open()
    first = service.round_key(RUN, 1)
    assert service.round_key(RUN, 1) == first != service.round_key(RUN, 2)
    service.book.close()
    assert place.open().round_key(RUN, 1) == first


def test_backup_programs_leave_the_private_halves_out(place):
    place.open()
    assert (place.secrets / "CACHEDIR.TAG").read_bytes().startswith(b"Signature: 8a477f597d28d172789f06886806bc55\n")
    assert place.secrets.stat().st_mode & 0o077 == 0


def test_a_leader_cannot_fill_the_disk_with_keys(place, monkeypatch):
    monkeypatch.setattr("palate.server.helper.book.MAX_OPEN_KEYS", 2)
    service = place.open(round_key_seconds=500)
    keys = [service.round_key(RUN, number) for number in (1, 2)]
    with pytest.raises(RequestRefused, match="2 round keys"):
        service.round_key(RUN, 3)
    assert service.round_key(RUN, 2) == keys[1]
    place.time = NOW + 501
    service.round_key(RUN, 3)


def test_a_strange_file_among_the_private_halves_is_left_alone(place):
    place.open().book.close()
    for name in ("notes.key", f"{'z' * 64}.key"):
        (place.secrets / name).write_text("mine")
    place.open()
    assert len(private_halves(place)) == 2


class Killed(BaseException):
    """The power went."""


STEPS = {
    "before the answer is written": ("record", False),
    "after the answer is written": ("record", True),
    "before the anchor": ("anchor", False),
    "after the anchor": ("anchor", True),
    "before the key is destroyed": ("destroy", False),
    "after the key is destroyed": ("destroy", True),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_helper_killed_at_any_step_answers_one_set_and_charges_no_second(leader, place, monkeypatch, step):
    name, after = STEPS[step]
    service = place.open()
    made = leader.round(service, leader.registered(service))
    whole, part = made.collection(), made.collection(100, 101, 102)
    request = whole.freeze()
    real = getattr(type(service.book), name)

    def killed(self, *arguments):
        if after:
            real(self, *arguments)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(type(service.book), name, killed)
        with pytest.raises(Killed):
            service.answer(request)
    service.book.close()

    again = place.open()
    if step == "before the answer is written":  # nothing left: the leader may still ask with another set
        assert again.book.head() == (0, bytes(32))
    else:
        with pytest.raises(AlreadyCollected):
            again.answer(part.freeze())
        assert private_halves(place) == []
    answered = again.answer(request)
    assert np.array_equal(whole.finish(answered.answer).integers, made.signed_sum())
    assert again.book.head()[0] == place.anchor.read().sequence == 1
    assert private_halves(place) == []


def test_a_helper_killed_while_it_makes_a_key_publishes_none_that_it_has_lost(place, monkeypatch):
    service = place.open()
    with monkeypatch.context() as patch:
        real = RoundSecrets.put

        def killed(self, *arguments):
            real(self, *arguments)
            raise Killed

        patch.setattr(RoundSecrets, "put", killed)
        with pytest.raises(Killed):
            service.round_key(RUN, 1)
    assert len(private_halves(place)) == 1
    service.book.close()
    again = place.open()
    assert private_halves(place) == []  # never published
    again.round_key(RUN, 1)
    assert len(private_halves(place)) == 1


def test_what_a_crash_left_half_written_is_destroyed(place):
    place.open().book.close()
    (place.secrets / ".ab.key.00.tmp").write_bytes(b"half")
    place.open()
    assert list(place.secrets.glob(".*.tmp")) == []


def test_a_half_overwritten_key_opens_nothing(leader, place):
    service = place.open()
    made = leader.round(service, leader.registered(service))
    (path,) = private_halves(place)
    path.write_bytes(path.read_bytes()[:20] + bytes(13))
    with pytest.raises(RoundKeyGone):
        service.answer(made.collection().freeze())


def test_a_restored_backup_is_refused_by_the_anchor(leader, place, tmp_path):
    service = place.open()
    leader.registered(service)
    service.book.close()
    shutil.copytree(place.ledger.parent, tmp_path / "backup")
    service, _, _ = collected(leader, place)
    service.book.close()
    shutil.rmtree(place.ledger.parent)
    shutil.copytree(tmp_path / "backup", place.ledger.parent)
    with pytest.raises(Rollback, match="has seen 0 answers, the anchor 1") as refused:
        place.open()
    assert refused.value.exit_code == 6


def test_a_backup_restored_with_its_anchor_is_found_out_by_a_device(leader, place, tmp_path):
    service = place.open()
    leader.registered(service)
    service.book.close()
    shutil.copytree(place.folder, tmp_path / "backup")
    service, _, answered = collected(leader, place)
    newest = Head.from_bytes(answered.head)
    service.book.close()
    shutil.rmtree(place.folder)
    shutil.copytree(tmp_path / "backup", place.folder)
    service = place.open()
    made = leader.round(service, leader.registered(service), 2)
    with pytest.raises(HelperRestored):
        service.answer(made.collection(seen=newest).freeze())


def test_another_history_is_refused_by_the_anchor(leader, place, tmp_path):
    service = place.open()
    leader.registered(service)
    service.book.close()
    shutil.copytree(place.folder, tmp_path / "backup")
    collected(leader, place)[0].book.close()
    anchor = place.anchor.path.read_bytes()
    shutil.rmtree(place.folder)
    shutil.copytree(tmp_path / "backup", place.folder)
    collected(leader, place, 100, 101, 102)[0].book.close()
    place.anchor.path.write_bytes(anchor)
    with pytest.raises(Fork):
        place.open()


def test_an_anchor_behind_the_ledger_is_brought_up(leader, place):
    before = place.anchor.path.read_bytes()
    collected(leader, place)[0].book.close()
    place.anchor.path.write_bytes(before)
    place.open()
    assert place.anchor.read().sequence == 1


@pytest.mark.parametrize(("content", "refusal"), [(None, Rollback), (b"{}", Tampered), (b"", Tampered)])
def test_a_missing_or_damaged_anchor_is_refused(place, content, refusal):
    place.anchor.path.unlink() if content is None else place.anchor.path.write_bytes(content)
    with pytest.raises(refusal, match="anchor"):
        place.open()


def test_another_helpers_anchor_is_refused(place):
    AnchorFile(place.anchor.path, FLEET, key_of(9)).write(place.anchor.read())
    with pytest.raises(Tampered):
        place.open()


def test_nothing_is_answered_while_the_anchor_cannot_be_written(leader, place):
    service = place.open()
    made = leader.round(service, leader.registered(service))
    request = made.collection().freeze()
    medium = place.anchor.path.parent
    medium.rename(medium.with_name("away"))
    for _ in range(2):  # the second time the answer is in the ledger
        with pytest.raises(EnvironmentProblem, match="anchor"):
            service.answer(request)
        assert len(private_halves(place)) == 1
    medium.with_name("away").rename(medium)
    service.answer(request)
    assert private_halves(place) == []


def edit(place, *statements):
    with sqlite3.connect(place.ledger) as connection:
        for statement in statements:
            connection.execute(statement)


def test_a_ledger_whose_guards_were_taken_off_is_refused(place):
    edit(place, "DROP TRIGGER answers_no_update")
    with pytest.raises(Tampered, match="answers_no_update"):
        place.open()


def test_an_edited_answer_is_refused(leader, place):
    collected(leader, place)[0].book.close()
    (guard,) = next(
        sqlite3.connect(place.ledger).execute("SELECT sql FROM sqlite_master WHERE name = 'answers_no_update'")
    )
    edit(
        place,
        "DROP TRIGGER answers_no_update",
        "UPDATE answers SET answer = CAST(substr(answer, 1, 100) || x'00' || substr(answer, 102) AS BLOB)",
        guard,
    )
    with pytest.raises(Tampered, match="answer 1"):
        place.open()


def test_a_damaged_file_is_refused(leader, place):
    collected(leader, place)[0].book.close()
    with place.ledger.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"x" * 4096)
    with pytest.raises((Tampered, LedgerUnreadable)):
        place.open()


def test_a_missing_ledger_or_another_key_is_refused(place):
    place.key = key_of(9)
    with pytest.raises(LedgerUnreadable, match="another key"):
        place.open()
    place.ledger.unlink()
    with pytest.raises(LedgerUnreadable, match="no ledger"):
        place.open()
