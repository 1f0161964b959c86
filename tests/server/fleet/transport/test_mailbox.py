"""The mailbox: each node sees its own messages, none is lost on a flaky link, and none costs more than its bound."""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
import tracemalloc

import pytest

from palate.server.fleet.transport.mailbox import (
    MAX_DELIVERIES,
    MAX_OBJECTS,
    SWEEP_AFTER_SECONDS,
    Letter,
    Mailbox,
    MailError,
    Place,
    Reply,
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


class Sent:
    """A broadcast that is called "m" where it has one node, and "m" with the node's number where it has several."""

    expires_at = 160.0

    def __init__(self, name: str, contents: tuple[bytes, ...], *, several: bool = False) -> None:
        self.name, self.several = name, several
        self.object_ids = tuple(map(name_of, contents))

    def letter_for(self, node_id: int) -> Letter:
        name = f"{self.name}{node_id}" if self.several else self.name
        return Letter(
            message_id=name, envelope=name.encode(), tree=b"tree", root=name.encode(), object_ids=self.object_ids
        )


_numbers = itertools.count(1)


def post(mailbox: Mailbox, message_id: str, *nodes: int, contents: tuple[bytes, ...] = (b"table",)) -> int:
    number = next(_numbers)
    sent = Sent(message_id, contents, several=len(nodes) > 1)
    mailbox.post(number, sent, nodes, {name_of(it): (lambda it=it: it) for it in contents})
    return number


def taken(mailbox: Mailbox, *places: Place) -> list[Reply]:
    return list(iter(lambda: mailbox.take(places), None))


def reply(mailbox: Mailbox, node_id: int, message_id: str, contents: tuple[bytes, ...], reply_id: str = "r") -> None:
    session, missing = mailbox.begin_reply(node_id, message_id, reply_id, b"envelope", set(map(name_of, contents)))
    for content in contents:
        if name_of(content) in missing:
            assert mailbox.add_object(node_id, session, name_of(content), content)


def test_a_message_reaches_its_node_and_the_reply_comes_back_once(mailbox):
    number = post(mailbox, "m", 1)
    assert mailbox.next_for(1).envelope == b"m"
    assert mailbox.object_for(1, name_of(b"table")) == b"table"
    assert mailbox.object_for(1, "m") == b"m", "the root of the letter"
    mailbox.confirm(1, "m")
    assert mailbox.next_for(1) is None
    reply(mailbox, 1, "m", (b"a", b"b"))
    (got,) = taken(mailbox, Place(number, 1))
    contents = {name_of(b"a"): b"a", name_of(b"b"): b"b"}
    assert (got.place, got.reply_id, got.objects) == (Place(number, 1), "r", contents)
    assert taken(mailbox, Place(number, 1)) == []


def test_a_node_sees_nothing_of_anothers_messages_or_replies(mailbox):
    post(mailbox, "m1", 1, contents=(b"for one",))
    post(mailbox, "m2", 2, contents=(b"for two",))
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
    places = []
    for name in ("answered", "open"):
        places.append(Place(post(mailbox, name, 1), 1))
        mailbox.next_for(1)
        mailbox.confirm(1, name)
    reply(mailbox, 1, "answered", (b"a",))
    mailbox.begin_again(1)
    assert mailbox.next_for(1).message_id == "open"
    assert [it.place for it in taken(mailbox, *places)] == places[:1]


def test_an_interrupted_reply_goes_on_where_it_stopped(mailbox):
    place = Place(post(mailbox, "m", 1), 1)
    names = {name_of(b"a"), name_of(b"b")}
    session, missing = mailbox.begin_reply(1, "m", "r", b"", names)
    assert set(missing) == names
    mailbox.add_object(1, session, name_of(b"a"), b"a")
    assert taken(mailbox, place) == []
    again, missing = mailbox.begin_reply(1, "m", "r", b"", names)
    assert missing == [name_of(b"b")]
    assert mailbox.add_object(1, again, name_of(b"a"), b"a"), "a repeated object is not an error"
    mailbox.add_object(1, again, name_of(b"b"), b"b")
    assert len(taken(mailbox, place)) == 1


def test_the_first_complete_reply_counts(mailbox):
    number = post(mailbox, "m", 1)
    reply(mailbox, 1, "m", (b"first",), "r1")
    assert mailbox.begin_reply(1, "m", "r2", b"", {name_of(b"second")}) == ("", [])
    assert taken(mailbox, Place(number, 1))[0].reply_id == "r1"


def test_content_of_another_hash_is_refused(mailbox):
    number = post(mailbox, "m", 1)
    session, _ = mailbox.begin_reply(1, "m", "r", b"", {name_of(b"a")})
    with pytest.raises(MailError, match="name's hash"):
        mailbox.add_object(1, session, name_of(b"a"), b"forged")
    assert taken(mailbox, Place(number, 1)) == []


@pytest.mark.parametrize(("size", "fits"), [(500, True), (501, False)])
def test_a_reply_is_bounded_in_bytes(mailbox, size, fits):
    number = post(mailbox, "m", 1)
    contents = [b"a" * 500, b"b" * size]
    session, _ = mailbox.begin_reply(1, "m", "r", b"", set(map(name_of, contents)))
    assert mailbox.add_object(1, session, name_of(contents[0]), contents[0])
    if fits:
        assert mailbox.add_object(1, session, name_of(contents[1]), contents[1])
    else:
        with pytest.raises(MailError, match="more than 1000 bytes"):
            mailbox.add_object(1, session, name_of(contents[1]), contents[1])
    assert len(taken(mailbox, Place(number, 1))) == fits


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
    number = post(mailbox, "m", 1)
    assert mailbox.unanswered() == [(number, 60.0, [1])]
    clock.now = 160.0
    assert mailbox.unanswered() == [(number, 0.0, [1])]
    assert mailbox.begin_reply(1, "m", "r", b"", {name_of(b"a")}) == ("", [])
    assert mailbox.next_for(1) is None


def test_nobody_waits_for_a_message_that_is_answered(mailbox):
    place = Place(post(mailbox, "m", 1), 1)
    reply(mailbox, 1, "m", (b"a",))
    assert mailbox.unanswered() == [(place.number, 60.0, [])]
    assert mailbox.is_open(place.number)
    assert len(taken(mailbox, place)) == 1
    assert not mailbox.is_open(place.number)


def test_what_nobody_asks_about_is_forgotten_after_a_while(mailbox, clock):
    numbers = [post(mailbox, "m", 1)]
    clock.now = 160.0 + SWEEP_AFTER_SECONDS - 0.001
    numbers.append(post(mailbox, "late", 1, 2))
    assert mailbox.sweep() == []
    clock.now += 0.001
    assert mailbox.sweep() == numbers
    assert not mailbox._posted
    assert not mailbox._objects


def test_a_table_for_everyone_is_made_and_kept_once_and_let_go_at_the_end(mailbox):
    made = []
    for nodes in ((0, 1), (2,), (3, 4)):
        sent = Sent("m", (b"table",), several=True)
        mailbox.post(nodes[0] + 1, sent, nodes, {name_of(b"table"): lambda: made.append(1) or b"table"})
    assert len(made) == 1
    mailbox.withdraw([Place(1, 0), Place(1, 1), Place(3, 2), Place(4, 3)])
    assert mailbox.object_for(4, name_of(b"table")) == b"table"
    assert mailbox.object_for(3, name_of(b"table")) is None
    mailbox.withdraw([Place(4, 4)])
    assert not mailbox._objects
    assert not mailbox._uses
    assert not mailbox._posted


def test_every_node_of_a_broadcast_has_a_letter_of_its_own(mailbox):
    number = post(mailbox, "m", 1, 2)
    assert [mailbox.next_for(node).message_id for node in (1, 2)] == ["m1", "m2"]
    assert mailbox.begin_reply(2, "m1", "r", b"", {name_of(b"x")}) == ("", [])
    for node in (2, 1):
        reply(mailbox, node, f"m{node}", (b"a",))
    assert [it.place.node_id for it in taken(mailbox, Place(number, 1), Place(number, 2))] == [2, 1]


def test_a_node_that_has_not_asked_yet_costs_tens_of_bytes(mailbox):
    nodes = [(1 << 62) + node for node in range(20_000)]
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    post(mailbox, "m", *nodes)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (after - before) / len(nodes) < 100


def test_who_waits_is_woken_by_the_reply(mailbox):
    place = Place(post(mailbox, "m", 1), 1)
    timer = threading.Timer(0.05, reply, (mailbox, 1, "m", (b"a",)))
    timer.start()
    began = time.monotonic()
    mailbox.wait({place}, 10.0)
    assert time.monotonic() - began < 5.0
    timer.join()
    assert len(taken(mailbox, place)) == 1
