"""A thread cannot be stopped, so the process leaves; what it held is given back first."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

import pytest
import yaml

from pipeline.broker.liveness import DEAF_AFTER
from pipeline.broker.ring import CeleryRing
from pipeline.broker.watchdog import EXIT_CODE, Task, TaskLimits, Watchdog
from tests.celery.rig import ROOT, Child, bells
from tests.waiting import eventually

LIMITS = TaskLimits(task=timedelta(seconds=60), grace=timedelta(seconds=0.2))


class Process:
    """Stands in for the process that leaves, and for its clock."""

    def __init__(
        self,
        spend: Callable[[Sequence[Task]], None] | None = None,
        *,
        limits: TaskLimits = LIMITS,
        hears: Callable[[timedelta], bool] = lambda _: True,
        in_commit: Callable[[], Mapping[int, float]] = dict,
    ) -> None:
        self.now = 1000.0
        self.done: list[object] = []
        self.watchdog = Watchdog(
            limits,
            spend=spend or (lambda late: self.done.append(("spent", *(task.job for task in late)))),
            hand_back=lambda late: self.done.append(("handed back all but", *(task.job for task in late))),
            hears=hears,
            in_commit=in_commit,
            monotonic=lambda: self.now,
            terminate=lambda: self.done.append("terminate"),
            leave=lambda code: self.done.append(("leave", code)),
        )


def test_a_task_within_its_limit_is_left_alone() -> None:
    process = Process()
    with process.watchdog.watch("j1"):
        process.now += 59.9
        assert not process.watchdog.check()
    process.now += 1000
    assert not process.watchdog.check()
    assert process.done == []


def test_a_task_past_its_limit_spends_a_run_once_no_more_is_taken_and_before_the_process_leaves(
    caplog: pytest.LogCaptureFixture,
) -> None:
    process = Process()
    with process.watchdog.watch("j1"):
        process.now += 60
        assert process.watchdog.check()
    assert process.done == ["terminate", ("spent", "j1"), ("leave", EXIT_CODE)]
    assert "test_a_task_past_its_limit" in caplog.text  # the stack that hangs is in the log


def test_two_tasks_past_their_limit_are_told_of_together() -> None:
    process = Process()
    watched, leave = threading.Event(), threading.Event()

    def other() -> None:
        with process.watchdog.watch("j2"):
            watched.set()
            leave.wait(60)

    with process.watchdog.watch("j1"):
        process.now += 1
        thread = threading.Thread(target=other)
        thread.start()
        assert watched.wait(60)
        process.now += 60
        assert process.watchdog.check()
    assert process.done == ["terminate", ("spent", "j1", "j2"), ("leave", EXIT_CODE)]
    leave.set()
    thread.join(60)


def test_a_process_that_hears_nothing_leaves_after_the_calls_that_it_makes() -> None:
    deaf = Process(hears=lambda within: within > timedelta(minutes=2))
    with deaf.watchdog.watch("j1"):
        assert deaf.watchdog.check()
    assert deaf.done == ["terminate", ("handed back all but",), ("leave", EXIT_CODE)]


def test_what_a_process_could_not_do_while_it_was_frozen_it_is_not_late_with() -> None:
    heard = [False]
    process = Process(hears=lambda _: heard[0])
    with process.watchdog.watch("j1"):
        process.now += 59
        heard[0] = True
        assert not process.watchdog.look()  # for so long, nobody looked: that counts as frozen, too
        heard[0] = False
        process.now += 7200
        assert not process.watchdog.look()
        for _ in range(59):
            process.now += 1
            assert not process.watchdog.look()
        assert process.done == []
        process.now += 1
        assert process.watchdog.look()
    assert process.done[:2] == ["terminate", ("spent", "j1")]


def test_a_task_that_stands_in_a_commit_is_not_left_for_and_has_its_time_after_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    commits: dict[int, float] = {}
    process = Process(in_commit=lambda: commits)

    def looks(seconds: int) -> bool:
        for _ in range(seconds):
            process.now += 1
            if process.watchdog.look():
                return True
        return False

    with process.watchdog.watch("j1"):
        assert not looks(50)
        commits[threading.get_ident()] = process.now
        assert not looks(7200)
        assert [record.action for record in caplog.records] == ["watchdog.commit"]  # type: ignore[attr-defined]
        commits.clear()
        assert not looks(59)
        assert process.done == []
        assert looks(1)
    assert process.done[:2] == ["terminate", ("spent", "j1")]


def test_commits_that_end_buy_a_task_no_time() -> None:
    process = Process(in_commit=lambda: {threading.get_ident(): process.now - 4})
    with process.watchdog.watch("j1"):
        process.now += 9
        assert not process.watchdog.look()
        for _ in range(50):
            process.now += 1
            assert not process.watchdog.look()
        process.now += 1
        assert process.watchdog.look()


def test_a_process_that_is_deaf_a_minute_after_it_was_frozen_leaves() -> None:
    process = Process(hears=lambda _: False)
    process.now += 7200
    for _ in range(60):
        assert not process.watchdog.look()
        process.now += 1
    assert process.watchdog.look()
    assert process.done[-1] == ("leave", EXIT_CODE)


def test_an_alert_tells_of_a_deaf_worker_before_it_has_left() -> None:
    """Else nobody is told: the next process has another time of its own."""
    (rule,) = (
        rule
        for group in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
        if rule["alert"] == "AswhomWorkerDeaf"
    )
    silent = int(rule["expr"].rpartition(">")[2])
    seen_late = 15 + 15  # a scrape, and the rules' turn
    assert silent + int(rule["for"].removesuffix("s")) + seen_late <= (2 * DEAF_AFTER).total_seconds()


class Beside:
    """Another task of that process, in a thread of its own, until `end`."""

    def __init__(self, process: Process, job: str) -> None:
        self._process, self._job = process, job
        self._watched, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        with self._process.watchdog.watch(self._job):
            self._watched.set()
            self._over.wait(60)
        self._process.done.append(("ended", self._job))

    def begin(self) -> None:
        self._thread.start()
        assert self._watched.wait(60)

    def end(self) -> None:
        self._over.set()
        self._thread.join(60)


def test_the_calls_of_other_tasks_are_waited_for_and_what_hangs_is_not() -> None:
    process = Process(limits=TaskLimits(task=timedelta(seconds=60), grace=timedelta(minutes=5)))
    other = Beside(process, "j2")
    with process.watchdog.watch("j1"):
        process.now += 30
        other.begin()
        process.now += 30
        leaving = threading.Thread(target=process.watchdog.check)
        leaving.start()
        eventually(lambda: ("spent", "j1") in process.done)
        assert leaving.is_alive()
        other.end()
        leaving.join(60)
    assert process.done == ["terminate", ("spent", "j1"), ("ended", "j2"), ("leave", EXIT_CODE)]


def test_a_call_that_outlives_the_grace_is_not_waited_for() -> None:
    process = Process()
    other = Beside(process, "j2")
    with process.watchdog.watch("j1"):
        process.now += 30
        other.begin()
        process.now += 30
        assert process.watchdog.check()
    assert process.done == ["terminate", ("spent", "j1"), ("handed back all but", "j1"), ("leave", EXIT_CODE)]
    other.end()


def test_what_ends_within_the_grace_is_not_handed_back() -> None:
    deaf = Process(limits=TaskLimits(task=timedelta(seconds=60), grace=timedelta(seconds=10)), hears=lambda _: False)
    other = Beside(deaf, "j1")
    other.begin()
    leaving = threading.Thread(target=deaf.watchdog.check)
    leaving.start()
    eventually(lambda: "terminate" in deaf.done)
    other.end()
    deaf.watchdog.stop()  # as the process does, once its last task has ended
    leaving.join(60)
    assert deaf.done == ["terminate", ("ended", "j1")]


def test_a_task_that_moves_is_not_one_that_hangs() -> None:
    process = Process()
    with process.watchdog.watch(None) as moved:
        for _ in range(10):
            process.now += 59
            assert not process.watchdog.check()
            moved()
        process.now += 60
        assert process.watchdog.check()
    assert process.done == ["terminate", ("spent", None), ("leave", EXIT_CODE)]


def test_the_process_leaves_though_it_can_start_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    process = Process()
    monkeypatch.setattr(threading.Thread, "start", start)
    with process.watchdog.watch("j1"):
        process.now += 60
        assert process.watchdog.check()
    assert process.done == ["terminate", ("leave", EXIT_CODE)]


def test_the_process_leaves_though_the_ledger_hangs() -> None:
    never = threading.Event()

    def hang(_: Sequence[Task]) -> None:
        never.wait()

    process = Process(hang)
    with process.watchdog.watch("j1"):
        process.now += 60
        assert process.watchdog.check()
    assert process.done == ["terminate", ("leave", EXIT_CODE)]
    never.set()


def test_the_process_leaves_though_the_ledger_fails(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Sequence[Task]) -> None:
        raise OSError("disk full")

    process = Process(fail)
    with process.watchdog.watch("j1"):
        process.now += 60
        assert process.watchdog.check()
    assert process.done == ["terminate", ("leave", EXIT_CODE)]
    assert "claims of this process will lapse" in caplog.text


def test_a_process_that_stops_cleanly_within_the_grace_is_not_cut_short() -> None:
    process = Process()
    stopping = Watchdog(
        LIMITS,
        spend=lambda late: process.done.append(("spent", *(task.job for task in late))),
        hand_back=lambda late: process.done.append("handed back"),
        monotonic=lambda: process.now,
        terminate=lambda: stopping.stop(),  # noqa: PLW0108 - it is bound by then
        leave=lambda code: process.done.append(("leave", code)),
    )
    with stopping.watch("j1"):
        process.now += 60
        assert stopping.check()
    assert process.done == [("spent", "j1")]


def test_a_worker_whose_revocation_takes_longer_than_a_task_may_does_not_leave(
    ring: CeleryRing, child: Callable[..., Child]
) -> None:
    worker = child(RIG_LIMIT="1", RIG_GRACE="1")
    worker.work(concurrency=2)
    ring.revocations(["long-40"])
    eventually(lambda: "advanced long-40" in worker.lines(), log=worker.log)
    assert worker.running()
    assert "ran longer" not in worker.text()


def test_runs_are_told_to_stop_though_the_main_thread_hangs(ring: CeleryRing, child: Callable[..., Child]) -> None:
    worker = child(
        RIG_LIMIT="3", RIG_GRACE="1", RIG_CONF=json.dumps({"worker_consumer": "tests.celery.pools:StandsStill"})
    )
    ring.jobs(bells("hang-1"))
    worker.work(concurrency=2)
    assert worker.wait(60) == EXIT_CODE
    assert set(worker.lines()[-2:]) == {"winds down", "spent hang-1"}


def test_a_worker_with_a_task_that_hangs_leaves_and_the_next_one_consumes(
    ring: CeleryRing, child: Callable[..., Child]
) -> None:
    worker = child(RIG_LIMIT="1", RIG_GRACE="1")
    worker.work(concurrency=2)
    ring.jobs(bells("hang-1", "ok-1"))
    eventually(lambda: worker.began("hang-1") and worker.ended("ok-1"), log=worker.log)
    assert worker.wait(60) == EXIT_CODE
    assert "spent hang-1" in worker.lines()
    assert "spent ok-1" not in worker.lines()
    assert "entry.py" in worker.text()
    worker.work(concurrency=2)
    ring.jobs(bells("ok-2"))
    eventually(lambda: worker.ended("ok-2"), log=worker.log)
