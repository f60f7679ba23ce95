"""A service that failed is left alone, and then tried by one caller at a time."""

from __future__ import annotations

from datetime import timedelta

import pytest

from identity.cooldown import Cooldown, Turn

PAUSES = tuple(timedelta(seconds=seconds) for seconds in (1, 2, 5))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cooldown(clock: Clock) -> Cooldown:
    return Cooldown(*PAUSES, monotonic=clock)


def begun(cooldown: Cooldown) -> Turn:
    """The turn of a call that may go."""
    turn = cooldown.turn()
    assert turn is not None
    return turn


def goes(cooldown: Cooldown, times: int) -> list[bool]:
    return [cooldown.turn() is not None for _ in range(times)]


def test_one_trial_is_made_after_each_pause_until_one_succeeds(cooldown: Cooldown, clock: Clock) -> None:
    assert goes(cooldown, 3) == [True] * 3
    assert cooldown.failed(begun(cooldown))
    for pause in (1, 2, 5, 5):
        clock.now += pause - 0.1
        assert goes(cooldown, 2) == [False, False]
        clock.now += 0.1
        trial = begun(cooldown)
        assert goes(cooldown, 2) == [False, False]
        assert not cooldown.failed(trial), "the outage goes on"
    clock.now += 5
    assert cooldown.succeeded(begun(cooldown))
    assert goes(cooldown, 3) == [True] * 3
    assert not cooldown.succeeded(begun(cooldown))


def test_a_trial_that_never_ends_is_followed_by_another(cooldown: Cooldown, clock: Clock) -> None:
    cooldown.failed(begun(cooldown))
    clock.now += 1
    assert goes(cooldown, 2) == [True, False]
    clock.now += 5
    assert goes(cooldown, 2) == [True, False]


def test_a_call_that_began_before_a_failure_ends_no_outage(cooldown: Cooldown, clock: Clock) -> None:
    slow, hanging = begun(cooldown), begun(cooldown)
    cooldown.failed(hanging)
    assert not cooldown.succeeded(slow)
    assert cooldown.turn() is None


def test_calls_that_fail_together_count_once(cooldown: Cooldown, clock: Clock) -> None:
    turns = [begun(cooldown) for _ in range(4)]
    assert [cooldown.failed(turn) for turn in turns] == [True, False, False, False]
    clock.now += 1
    assert goes(cooldown, 1) == [True], "the first pause, not the last"


def test_a_call_that_began_before_a_recovery_begins_no_outage(cooldown: Cooldown, clock: Clock) -> None:
    late = begun(cooldown)
    cooldown.failed(begun(cooldown))
    clock.now += 1
    cooldown.succeeded(begun(cooldown))
    assert not cooldown.failed(late)
    assert goes(cooldown, 2) == [True, True]


def test_of_calls_that_learnt_nothing_only_the_trial_lets_the_next_caller_go(cooldown: Cooldown, clock: Clock) -> None:
    earlier = begun(cooldown)
    cooldown.failed(begun(cooldown))
    clock.now += 1
    trial = begun(cooldown)
    cooldown.undecided(earlier)
    assert cooldown.turn() is None
    cooldown.undecided(trial)
    assert goes(cooldown, 2) == [True, False]


def test_a_pause_that_ends_as_the_clock_reads_zero_is_waited_for(cooldown: Cooldown, clock: Clock) -> None:
    clock.now = -1.0  # where a monotonic clock begins is not said
    cooldown.failed(begun(cooldown))
    clock.now = -0.5
    assert cooldown.turn() is None
    clock.now = 0.0
    assert goes(cooldown, 2) == [True, False]
