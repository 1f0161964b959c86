"""Presence: a node is there for two of its intervals after it was last heard."""

from __future__ import annotations

import pytest

from palate.server.fleet.transport.presence import DEFAULT_INTERVAL_SECONDS, PATIENCE, Presence


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def presence(clock) -> Presence:
    return Presence(clock=clock)


def test_a_node_is_online_for_two_of_its_intervals(presence, clock):
    presence.heard(7, 10.0)
    clock.now = PATIENCE * 10.0
    assert presence.online() == [7]
    clock.now += 0.001
    assert presence.online() == []


def test_any_sign_of_life_prolongs_at_the_promised_interval(presence, clock):
    presence.heard(7, 10.0)
    clock.now = 15.0
    presence.heard(7)
    clock.now = 15.0 + PATIENCE * 10.0
    assert presence.is_online(7)
    clock.now += 0.001
    assert not presence.is_online(7)


def test_a_node_that_the_server_does_not_remember_gets_the_usual_interval(presence, clock):
    presence.heard(7)
    clock.now = PATIENCE * DEFAULT_INTERVAL_SECONDS
    assert presence.is_online(7)


def test_who_says_goodbye_is_gone_at_once(presence):
    presence.heard(7)
    presence.heard(8)
    presence.left(7)
    assert presence.online() == [8]
    assert presence.wait_for(2, 0.01) == [8]
