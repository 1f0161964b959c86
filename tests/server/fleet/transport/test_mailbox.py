"""The mailbox: each node sees its own messages, none is lost on a flaky link, and none costs more than its bound."""

from __future__ import annotations

import hashlib
import threading
import time

import pytest

from palate.server.fleet.transport.mailbox import (
    MAX_DELIVERIES,
    MAX_OBJECTS,
    SWEEP_AFTER_SECONDS,
    Letter,
    Mailbox,
    MailError,
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def name_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def mailbox(clock) -> Mailbox:
    return Mailbox(max_reply_bytes=1_000, clock=clock)


def post(mailbox: Mailbox, message_id: str, node_id: int, contents: tuple[bytes, ...] = (b"table",)) -> None:
    letter = Letter(
        message_id=message_id,
        node_id=node_id,
        envelope=message_id.encode(),
        tree=b"tree",
        object_ids=tuple(map(name_of, contents)),
        expires_at=160.0,
    )
    mailbox.post(letter, {name_of(it): (lambda it=it: it) for it in contents})


def reply(mailbox: Mailbox, node_id: int, message_id: str, contents: tuple[bytes, ...], reply_id: str = "r") -> None:
    session, missing = mailbox.begin_reply(node_id, message_id, reply_id, b"envelope", set(map(name_of, contents)))
    for content in contents:
        if name_of(content) in missing:
            assert mailbox.add_object(node_id, session, name_of(content), content)


def test_a_message_reaches_its_node_and_the_reply_comes_back_once(mailbox):
    post(mailbox, "m", 1)
    assert mailbox.next_for(1).envelope == b"m"
    assert mailbox.object_for(1, name_of(b"table")) == b"table"
    mailbox.confirm(1, "m")
    assert mailbox.next_for(1) is None
    reply(mailbox, 1, "m", (b"a", b"b"))
    (got,) = mailbox.take(["m"])
    assert (got.message_id, got.reply_id, got.objects) == ("m", "r", {name_of(b"a"): b"a", name_of(b"b"): b"b"})
    assert mailbox.take(["m"]) == []


def test_a_node_sees_nothing_of_anothers_messages_or_replies(mailbox):
    post(mailbox, "m1", 1, (b"for one",))
    post(mailbox, "m2", 2, (b"for two",))
    assert mailbox.next_for(2).message_id == "m2"
    assert mailbox.object_for(2, name_of(b"for one")) is None
    mailbox.confirm(2, "m1")
    assert mailbox.next_for(1).message_id == "m1"
    assert mailbox.begin_reply(2, "m1", "r", b"", {name_of(b"x")}) == ("", [])
    session, _ = mailbox.begin_reply(1, "m1", "r", b"", {name_of(b"x")})
    assert not mailbox.add_object(2, session, name_of(b"x"), b"x")


def test_what_is_missing_does_not_depend_on_what_others_have_sent(mailbox):
    for node in (1, 2):
        post(mailbox, f"m{node}", node)
    reply(mailbox, 1, "m1", (b"liked: 17",))
    _, missing = mailbox.begin_reply(2, "m2", "r", b"", {name_of(b"liked: 17")})
    assert missing == [name_of(b"liked: 17")]


def test_an_unconfirmed_message_is_handed_out_again_but_not_for_ever(mailbox):
    post(mailbox, "m", 1)
    assert [mailbox.next_for(1) is not None for _ in range(MAX_DELIVERIES + 1)] == [True] * MAX_DELIVERIES + [False]


def test_a_node_that_begins_again_gets_what_it_had_not_answered(mailbox):
    for name in ("answered", "open"):
        post(mailbox, name, 1)
        mailbox.next_for(1)
        mailbox.confirm(1, name)
    reply(mailbox, 1, "answered", (b"a",))
    mailbox.begin_again(1)
    assert mailbox.next_for(1).message_id == "open"
    assert [it.message_id for it in mailbox.take(["answered", "open"])] == ["answered"]


def test_an_interrupted_reply_goes_on_where_it_stopped(mailbox):
    post(mailbox, "m", 1)
    names = {name_of(b"a"), name_of(b"b")}
    session, missing = mailbox.begin_reply(1, "m", "r", b"", names)
    assert set(missing) == names
    mailbox.add_object(1, session, name_of(b"a"), b"a")
    assert mailbox.take(["m"]) == []
    again, missing = mailbox.begin_reply(1, "m", "r", b"", names)
    assert missing == [name_of(b"b")]
    assert mailbox.add_object(1, again, name_of(b"a"), b"a"), "a repeated object is not an error"
    mailbox.add_object(1, again, name_of(b"b"), b"b")
    assert len(mailbox.take(["m"])) == 1


def test_the_first_complete_reply_counts(mailbox):
    post(mailbox, "m", 1)
    reply(mailbox, 1, "m", (b"first",), "r1")
    assert mailbox.begin_reply(1, "m", "r2", b"", {name_of(b"second")}) == ("", [])
    assert mailbox.take(["m"])[0].reply_id == "r1"


def test_content_of_another_hash_is_refused(mailbox):
    post(mailbox, "m", 1)
    session, _ = mailbox.begin_reply(1, "m", "r", b"", {name_of(b"a")})
    with pytest.raises(MailError, match="name's hash"):
        mailbox.add_object(1, session, name_of(b"a"), b"forged")
    assert mailbox.take(["m"]) == []


@pytest.mark.parametrize(("size", "fits"), [(500, True), (501, False)])
def test_a_reply_is_bounded_in_bytes(mailbox, size, fits):
    post(mailbox, "m", 1)
    contents = [b"a" * 500, b"b" * size]
    session, _ = mailbox.begin_reply(1, "m", "r", b"", set(map(name_of, contents)))
    assert mailbox.add_object(1, session, name_of(contents[0]), contents[0])
    if fits:
        assert mailbox.add_object(1, session, name_of(contents[1]), contents[1])
    else:
        with pytest.raises(MailError, match="more than 1000 bytes"):
            mailbox.add_object(1, session, name_of(contents[1]), contents[1])
    assert len(mailbox.take(["m"])) == fits


@pytest.mark.parametrize("count", [0, MAX_OBJECTS + 1])
def test_a_reply_is_bounded_in_objects(mailbox, count):
    post(mailbox, "m", 1)
    with pytest.raises(MailError, match=f"a reply of {count} objects"):
        mailbox.begin_reply(1, "m", "r", b"", {str(number) for number in range(count)})


def test_an_object_that_nobody_asked_for_is_not_stored(mailbox):
    post(mailbox, "m", 1)
    session, _ = mailbox.begin_reply(1, "m", "r", b"", {name_of(b"a")})
    assert not mailbox.add_object(1, session, name_of(b"other"), b"other")
    assert not mailbox.add_object(1, "no such session", name_of(b"a"), b"a")
    assert not mailbox.add_object(1, "", name_of(b"a"), b"a")


def test_an_expired_message_is_neither_handed_out_nor_answered(mailbox, clock):
    post(mailbox, "m", 1)
    assert mailbox.expired(["m", "unknown"]) == ["unknown"]
    clock.now = 160.0
    assert mailbox.expired(["m"]) == ["m"]
    assert mailbox.begin_reply(1, "m", "r", b"", {name_of(b"a")}) == ("", [])
    assert mailbox.next_for(1) is None


def test_what_nobody_asks_about_is_forgotten_after_a_while(mailbox, clock):
    post(mailbox, "m", 1)
    clock.now = 160.0 + SWEEP_AFTER_SECONDS - 0.001
    post(mailbox, "late", 1)
    assert mailbox.sweep() == []
    clock.now += 0.001
    assert sorted(mailbox.sweep()) == ["late", "m"]
    assert not mailbox._entries
    assert not mailbox._objects


def test_a_table_for_everyone_is_made_and_kept_once_and_let_go_at_the_end(mailbox):
    made = []
    for node in range(5):
        letter = Letter(
            message_id=f"m{node}", node_id=node, envelope=b"", tree=b"", object_ids=("o",), expires_at=160.0
        )
        mailbox.post(letter, {"o": lambda: made.append(1) or b"table"})
    assert len(made) == 1
    mailbox.withdraw([f"m{node}" for node in range(4)])
    assert mailbox.object_for(4, "o") == b"table"
    mailbox.withdraw(["m4"])
    assert not mailbox._objects
    assert not mailbox._uses
    assert not mailbox._entries
    assert not mailbox._inbox


def test_who_waits_is_woken_by_the_reply(mailbox):
    post(mailbox, "m", 1)
    timer = threading.Timer(0.05, reply, (mailbox, 1, "m", (b"a",)))
    timer.start()
    began = time.monotonic()
    mailbox.wait({"m"}, 10.0)
    assert time.monotonic() - began < 5.0
    timer.join()
    assert len(mailbox.take(["m"])) == 1
