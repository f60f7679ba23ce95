"""Kept connections: a request looks at the one it takes, and what is in use is nobody else's."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from dataclasses import dataclass

import httpcore
import pytest

from identity.http.connection_pool import KeptConnections
from identity.http.deadline import Deadline

HERE = httpcore.Origin(b"http", b"here", 80)
THERE = httpcore.Origin(b"http", b"there", 80)


@dataclass(eq=False, kw_only=True)
class Pretend:
    """A connection of the tests."""

    origin: httpcore.Origin
    whole: bool = True  # whether a whole answer was read
    hung_up: bool = False
    unopened: bool = False  # it could not be: such a one of httpcore's calls itself idle
    looked_at: int = 0
    closed: bool = False

    def handle_request(self, request: httpcore.Request) -> httpcore.Response:
        raise NotImplementedError

    def has_expired(self) -> bool:
        self.looked_at += 1
        return self.hung_up

    def is_idle(self) -> bool:
        return self.whole and not self.closed

    def is_closed(self) -> bool:
        return self.closed or self.unopened

    def close(self) -> None:
        self.closed = True


class Place:
    """Kept connections, all that were opened of them, and a clock."""

    def __init__(self, *, size: int = 4, keep_alive: float = 20) -> None:
        self.opened: list[Pretend] = []
        self.now = 0.0
        self.kept = KeptConnections(self._open, size=size, keep_alive=keep_alive, monotonic=lambda: self.now)

    def _open(self, origin: httpcore.Origin) -> Pretend:
        self.opened.append(Pretend(origin=origin))
        return self.opened[-1]

    def at_once(self, number: int, origin: httpcore.Origin = HERE) -> None:
        with ExitStack() as stack:
            for _ in range(number):
                stack.enter_context(self.kept.one_for(origin, self.deadline()))

    def once(self, origin: httpcore.Origin = HERE) -> Pretend:
        with self.kept.one_for(origin, self.deadline()) as connection:
            assert isinstance(connection, Pretend)
            return connection

    def deadline(self) -> Deadline:
        return Deadline(0.01, monotonic=lambda: 0.0)


def test_a_request_looks_at_no_connection_but_the_one_it_takes() -> None:
    place = Place()
    place.at_once(4)
    taken = place.once()
    assert len(place.opened) == 4
    assert {one for one in place.opened if one.looked_at} == {taken}


def test_what_is_in_use_is_nobody_elses() -> None:
    place = Place()
    place.once()
    with place.kept.one_for(HERE, place.deadline()) as one, place.kept.one_for(HERE, place.deadline()) as other:
        assert one is not other
    assert len(place.opened) == 2


def test_a_connection_goes_to_its_own_origin_alone() -> None:
    place = Place()
    here = place.once(HERE)
    assert place.once(THERE) is not here
    assert place.once(HERE) is here


@pytest.mark.parametrize("ending", ["a part of an answer", "never opened", "hung up", "too long", "none are kept"])
def test_what_cannot_be_used_again_is_closed(ending: str) -> None:
    place = Place(keep_alive=0 if ending == "none are kept" else 20)
    with place.kept.one_for(HERE, place.deadline()) as connection:
        assert isinstance(connection, Pretend)
        connection.whole = ending != "a part of an answer"
        connection.unopened = ending == "never opened"
    connection.hung_up = ending == "hung up"
    place.now += 20 if ending == "too long" else 1
    assert place.once() is not connection
    assert connection.closed


def test_those_that_cannot_be_opened_put_no_others_out() -> None:
    place = Place(size=2)
    place.at_once(2, HERE)
    warm = list(place.opened)
    with place.kept.one_for(THERE, place.deadline()) as connection:
        assert isinstance(connection, Pretend)
        connection.unopened = True
    assert [one.closed for one in [*warm, connection]] == [False, False, True]


def test_httpcore_says_of_one_that_could_not_be_opened_what_is_asked_here() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    connection = httpcore.HTTPConnection(httpcore.Origin(b"http", b"127.0.0.1", port))
    with pytest.raises(httpcore.ConnectError):
        connection.request("GET", f"http://127.0.0.1:{port}/")
    assert (connection.is_idle(), connection.is_closed()) == (True, True)


def test_a_connection_whose_request_failed_is_closed() -> None:
    place = Place()

    def fail() -> None:
        with place.kept.one_for(HERE, place.deadline()):
            place.opened[0].whole = False
            raise httpcore.ReadError

    with pytest.raises(httpcore.ReadError):
        fail()
    assert place.opened[0].closed


def test_others_that_are_kept_too_long_are_closed_by_whoever_comes() -> None:
    place = Place()
    here = place.once(HERE)
    place.now += 21
    place.once(THERE)
    assert here.closed


def test_no_more_are_kept_than_may_be_used() -> None:
    place = Place(size=2)
    place.at_once(2, HERE)
    place.at_once(2, THERE)
    assert [one.closed for one in place.opened] == [True, True, False, False]


def test_who_comes_when_all_are_used_waits_until_its_deadline() -> None:
    place = Place(size=1)
    with place.kept.one_for(HERE, place.deadline()), pytest.raises(httpcore.PoolTimeout):
        place.once()
    place.once()


def test_closing_closes_those_in_use_too_and_opens_no_more() -> None:
    place = Place()
    place.at_once(2)
    with place.kept.one_for(HERE, place.deadline()):
        place.kept.close()
        assert all(one.closed for one in place.opened)
    with pytest.raises(RuntimeError):
        place.once()
    assert len(place.opened) == 2
