"""The share of a process's threads that a host that does not answer gets, and a tenant of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from pipeline.throttle.in_flight import Full, InFlight, Slot

HANGS, BURST = Full(hangs=True), Full(hangs=False)


@dataclass
class Flights:
    """Those of a process whose host may have four calls, two of them a tenant's, and whose clock a test moves."""

    now: float = 1_000.0
    most: int = 4
    of: InFlight = field(init=False)

    def __post_init__(self) -> None:
        self.of = InFlight(self.most, monotonic=lambda: self.now)

    def go(self, tenant: str = "acme", *, host: str = "api.example", calls: int = 1) -> list[Slot | Full]:
        """As many of them as have a place are sent."""
        entered = [self.of.enter(host, tenant) for _ in range(calls)]
        for call in entered:
            if isinstance(call, Slot):
                self.of.sent(call)
        return entered

    def fly(self, tenant: str = "acme") -> Slot:
        (call,) = self.go(tenant)
        assert isinstance(call, Slot)
        return call


@pytest.fixture
def flights() -> Flights:
    return Flights()


def _fly(entered: list[Slot | Full]) -> list[bool]:
    return [isinstance(call, Slot) for call in entered]


def test_one_tenants_silent_calls_leave_the_host_to_others(flights: Flights) -> None:
    flights.go(calls=2)
    flights.now += 2
    assert flights.go() == [HANGS]
    assert _fly(flights.go("globex", calls=3)) == [True, True, False]
    assert flights.go("initech") == [HANGS], "the host has its share"
    assert _fly(flights.go(host="other.example")) == [True]


def test_of_a_first_burst_no_host_is_said_to_hang_and_it_gets_no_more_than_its_share(flights: Flights) -> None:
    assert flights.go(calls=6)[4:] == [BURST, BURST]
    flights.now += 2
    assert flights.go("globex") == [HANGS]


def test_a_ledger_that_is_slow_to_open_is_no_silence_of_the_host(flights: Flights) -> None:
    opening = [flights.of.enter("api.example", "acme") for _ in range(4)]
    flights.now += 10
    assert flights.go() == [BURST]
    assert isinstance(opening[0], Slot)
    flights.of.leave(opening[0], sent=False)
    assert _fly(flights.go()) == [True], "its tenant has no silent call"


def test_an_answer_lifts_a_tenants_limit_and_the_hosts(flights: Flights) -> None:
    first, _ = flights.fly(), flights.fly()
    flights.now += 2
    flights.of.leave(first, answered=True)
    assert _fly(flights.go(calls=5)) == [True, True, True, True, False]


def test_what_was_never_sent_is_no_silence_of_the_host(flights: Flights) -> None:
    answered, _ = flights.fly(), flights.fly()
    flights.of.leave(answered, answered=True)
    for _ in range(10):  # such as steps whose budget is empty
        unsent = flights.of.enter("api.example", "acme")
        assert isinstance(unsent, Slot)
        flights.of.leave(unsent, sent=False)
    flights.now += 2
    assert _fly(flights.go(calls=4)) == [True, True, True, True]


def test_what_got_no_answer_is_silence_also_when_it_has_ended() -> None:
    flights = Flights(most=2)
    lost, _ = flights.fly(), flights.fly("globex")
    flights.of.leave(lost)
    assert _fly(flights.go()) == [True]
    assert flights.go("initech") == [HANGS]
