"""The share of a process's threads that a host that does not answer gets, and a tenant of it."""

from __future__ import annotations

from pipeline.in_flight import Call, InFlight


def test_one_tenants_silent_calls_leave_the_host_to_others() -> None:
    flights = InFlight(4)
    ours = [flights.enter("api.example", "acme") for _ in range(3)]
    assert [call is not None for call in ours] == [True, True, False]
    assert [flights.enter("api.example", "globex") is not None for _ in range(3)] == [True, True, False]
    assert flights.enter("api.example", "initech") is None, "the host has its share"
    assert flights.enter("other.example", "acme") is not None


def test_an_answer_lifts_a_tenants_limit_and_the_hosts() -> None:
    flights = InFlight(4)
    first, second = flights.enter("api.example", "acme"), flights.enter("api.example", "acme")
    assert first is not None
    assert second is not None
    flights.leave(first, answered=True)
    assert [flights.enter("api.example", "acme") is not None for _ in range(3)] == [True, True, False]


def test_what_was_never_sent_is_no_silence_of_the_host() -> None:
    flights = InFlight(4)
    answered = flights.enter("api.example", "acme")
    flying = flights.enter("api.example", "acme")
    assert answered is not None
    flights.leave(answered, answered=True)
    for _ in range(10):  # such as steps whose budget is empty
        unsent = flights.enter("api.example", "acme")
        assert isinstance(unsent, Call)
        flights.leave(unsent, sent=False)
    assert flying is not None
    assert flights.enter("api.example", "acme") is not None


def test_what_got_no_answer_is_silence_also_when_it_has_ended() -> None:
    flights = InFlight(2)
    lost = flights.enter("api.example", "acme")
    assert lost is not None
    assert flights.enter("api.example", "globex") is not None
    flights.leave(lost)
    assert flights.enter("api.example", "acme") is not None
    assert flights.enter("api.example", "initech") is None
