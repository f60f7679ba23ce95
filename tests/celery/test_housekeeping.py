"""Duties fail, hang and come back, each on its own."""

from __future__ import annotations

import os
import signal
import threading
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY

from deploy.housekeeping import keep
from identity.errors import Misconfigured, Unavailable
from identity.sql.store import CommitUnknown
from pipeline.duties.housekeeping import Duty, Housekeeping
from tests.waiting import eventually


class Heartbeats:
    def __init__(self) -> None:
        self.seen: list[tuple[str, str | None]] = []

    def __call__(self, duty: str, error: str | None) -> None:
        self.seen.append((duty, error))

    def of(self, duty: str) -> list[str | None]:
        return [error for name, error in self.seen if name == duty]


def duty(name: str, run: object, *, deadline: float = 30) -> Duty:
    assert callable(run)
    return Duty(name=name, every=timedelta(seconds=0.02), deadline=timedelta(seconds=deadline), run=run)


def stuck(name: str) -> float | None:
    return REGISTRY.get_sample_value("aswhom_duty_stuck", {"duty": name})


def test_a_duty_runs_again_and_again_until_stopped() -> None:
    ran: list[int] = []
    keeping = Housekeeping([duty("sweep", lambda: ran.append(1))], Heartbeats())
    keeping.start()
    eventually(lambda: len(ran) >= 3)
    assert keeping.stop()
    times = len(ran)
    assert threading.Event().wait(0.1) is False
    assert len(ran) == times


def test_a_duty_that_ticks_says_so_now_and_then_not_each_time() -> None:
    ran: list[float] = []
    beats = Heartbeats()
    keeping = Housekeeping(
        [duty("sweep", lambda: ran.append(1))], beats, monotonic=lambda: float(len(ran))
    )  # a second each
    keeping.start()
    eventually(lambda: len(ran) >= 20)
    assert keeping.stop()
    assert set(beats.of("sweep")) == {None}
    assert len(ran) // 5 - 1 <= len(beats.seen) <= len(ran) // 5 + 1


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (ValueError("ghu_token"), "ValueError"),  # whose message nobody vouches for
        (Misconfigured("set the key"), "Misconfigured: set the key"),
        (Unavailable("the ledger is busy"), "Unavailable: the ledger is busy"),
    ],
)
def test_a_duty_that_fails_is_told_and_tried_again(failure: Exception, told: str) -> None:
    failures = [failure, failure]

    def run() -> None:
        if failures:
            raise failures.pop()

    beats = Heartbeats()
    keeping = Housekeeping([duty("sweep", run)], beats)
    keeping.start()
    eventually(lambda: None in beats.of("sweep"))
    assert keeping.stop()
    assert beats.of("sweep") == [told, None], "what it says is told when it is another"


def test_a_duty_that_hangs_is_visible_and_holds_up_nobody(caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()

    def run_that_hangs() -> None:
        release.wait()

    beats = Heartbeats()
    swept: list[int] = []
    sweeps = duty("sweeps", lambda: swept.append(1))
    keeping = Housekeeping([duty("hangs", run_that_hangs, deadline=0.1), sweeps], beats)
    keeping.start()
    eventually(lambda: stuck("hangs") == 1)
    eventually(lambda: beats.of("hangs") == ["stuck: past its deadline of 0:00:00.100000"])
    before = len(swept)
    eventually(lambda: len(swept) > before + 2)
    assert "run_that_hangs" in caplog.text  # where it hangs
    assert beats.of("hangs") == ["stuck: past its deadline of 0:00:00.100000"]  # told once
    assert not keeping.stop(timedelta(seconds=0.1))
    release.set()
    eventually(lambda: stuck("hangs") == 0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_duty_that_took_its_thread_along_is_visible() -> None:
    class Unmarked(BaseException):
        pass

    def run() -> None:
        raise Unmarked

    beats = Heartbeats()
    keeping = Housekeeping([duty("dies", run, deadline=30)], beats)
    keeping.start()
    eventually(lambda: beats.of("dies") == ["stuck: ended by an exception that nothing catches"])
    assert stuck("dies") == 1
    assert keeping.stop()


def test_a_heartbeat_that_fails_does_not_stop_the_duty() -> None:
    ran: list[int] = []

    def deaf(name: str, error: str | None) -> None:
        raise OSError("disk full")

    keeping = Housekeeping([duty("sweep", lambda: ran.append(1))], deaf)
    keeping.start()
    eventually(lambda: len(ran) >= 3)
    assert keeping.stop()


@pytest.mark.parametrize("away", [Unavailable("the ledger is away"), CommitUnknown("the ledger is away")])
def test_a_heartbeat_that_the_ledger_cannot_take_now_is_a_line_without_a_stack(
    away: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[int] = []

    def deaf(name: str, error: str | None) -> None:
        raise away

    keeping = Housekeeping([duty("sweep", lambda: ran.append(1))], deaf)
    keeping.start()
    eventually(lambda: len(ran) >= 3)
    assert keeping.stop()
    told = [record for record in caplog.records if "no heartbeat for sweep" in record.getMessage()]
    assert told
    assert all("the ledger is away" in record.getMessage() and record.exc_info is None for record in told)


def test_a_duty_that_can_end_early_is_told_that_it_is_to_stop() -> None:
    told, begun = threading.Event(), threading.Event()

    def run_until_told() -> None:
        begun.set()
        told.wait()

    keeping = Housekeeping([duty("sweep", run_until_told)], Heartbeats(), stopping=told)
    keeping.start()
    assert begun.wait(60)
    assert keeping.stop()


@pytest.mark.parametrize("hangs", [False, True], ids=["ends", "hangs"])
def test_what_a_tick_uses_is_closed_only_once_it_has_ended(hangs: bool) -> None:
    """A request that is cut short may have taken effect, and one that has not begun must not fail half way."""
    child = os.fork()
    if child == 0:
        try:
            closed = threading.Event()

            def run() -> None:
                os.kill(os.getpid(), signal.SIGTERM)
                threading.Event().wait(None if hangs else 0.2)
                if closed.is_set():
                    os._exit(3)

            keeping = Housekeeping([duty("sweep", run)], Heartbeats())
            keep(keeping, closed.set, patience=timedelta(seconds=1 if hangs else 30))
            os._exit(0 if closed.is_set() else 4)
        finally:
            os._exit(5)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (1 if hangs else 0)


def test_both_outcomes_of_a_duty_are_exposed_before_its_first_tick() -> None:
    """Prometheus sees no increase from nothing to one."""
    Housekeeping([duty("unticked", lambda: None)], Heartbeats())
    for outcome in ("done", "failed"):
        labels = {"duty": "unticked", "outcome": outcome}
        assert REGISTRY.get_sample_value("aswhom_duty_seconds_count", labels) == 0


def test_two_duties_cannot_share_a_name() -> None:
    with pytest.raises(ValueError, match="one name"):
        Housekeeping([duty("sweep", lambda: None), duty("sweep", lambda: None)], Heartbeats())


def test_sigterm_ends_the_process_after_the_tick_it_is_in() -> None:
    child = os.fork()
    if child == 0:
        try:
            ended = threading.Event()

            def run() -> None:
                os.kill(os.getpid(), signal.SIGTERM)
                threading.Event().wait(0.2)
                ended.set()

            clean = Housekeeping([duty("sweep", run)], Heartbeats()).run()
            os._exit(0 if clean and ended.is_set() else 1)
        finally:
            os._exit(5)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
