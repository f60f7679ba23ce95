"""A worker that is told to stop while a call is on the wire."""

from __future__ import annotations

import signal
from collections.abc import Callable

from pipeline.states import AttemptState, JobState
from tests.system.rig import System


def test_a_worker_that_is_stopped_in_a_slow_call_ends_with_it_and_leaves_the_rest_to_the_next(
    start_system: Callable[..., System],
) -> None:
    system = start_system(ASWHOM_CALL_DEADLINE="60")
    system.start("web", "worker")
    system.connect("acme", "ada")
    system.order("github", "faults", mode="delay", endpoint="get_pull", seconds=50)
    system.pull("acme/shop", "ada", "bug")
    system.wait(system.attempts, "a call on the wire")
    worker = system.processes.pop("worker")
    worker.send_signal(signal.SIGTERM)
    system.wait(lambda: "Warm shutdown" in (system.directory / "worker.log").read_text(), "that it is told")
    system.order("github", "release")
    assert worker.wait(60) == 0
    (attempt,) = system.attempts()
    (job,) = system.jobs()
    assert (attempt.state, job.state, job.runs_spent) == (AttemptState.EFFECT, JobState.QUEUED, 0)
    assert "told to stop" in job.reason
    system.start("worker-2", "housekeeping")
    (job,) = system.settled()
    assert job.state == JobState.DONE
    assert {attempt.state for attempt in system.attempts()} == {AttemptState.EFFECT}
