"""Pull requests that are opened whatever the broker does, and must all end as if nothing had happened."""

from __future__ import annotations

from collections import Counter

from pipeline.states import AttemptState, JobState
from pipeline.tables import attempts, jobs
from tests.faults.books import accepted, balance, written_about
from tests.faults.endings import every_job_ended_once
from tests.system.rig import System


def open_pulls(system: System, number: int) -> list[str]:
    """Each is answered as accepted, whatever the broker does."""
    pulls = [system.pull("acme/shop", "ada", "bug", once=True) for _ in range(number)]
    assert [pull["statuses"] for pull in pulls] == [[202]] * number
    return [f"acme/shop#{pull['number']}" for pull in pulls]


def done(system: System) -> int:
    return system.count(jobs, jobs.c.state == JobState.DONE)


def out(system: System) -> int:
    """Calls that are on their way."""
    return system.count(attempts, attempts.c.state == AttemptState.OPEN)


def everything_is_done(system: System, pulls: list[str], *, seconds: float) -> None:
    system.wait(lambda: done(system) == len(pulls), "that all are done", seconds=seconds)
    assert accepted(system) == len(pulls)
    every_job_ended_once(system)
    balance(system)
    assert written_about(system, pulls) == {"comments": Counter(pulls), "messages": Counter(pulls)}
