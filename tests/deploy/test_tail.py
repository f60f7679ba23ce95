"""`aswhom tail` follows all jobs until it is stopped, or one until it has ended."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, update

from deploy.installation import Installation
from deploy.settings import load
from pipeline.jobs import claims as moves
from pipeline.jobs.new_jobs import NewJob, insert_job
from pipeline.states import AttemptState, StepState
from pipeline.steps import openings
from pipeline.tables import jobs, steps
from tests.deploy.conftest import Cli
from tests.ledger.acts import close
from tests.ledger.house import House, intent_of
from tests.servers.process import end, start


@pytest.fixture
def ended(cli: Cli) -> Cli:
    """With a job that is done and one that is dead."""
    cli.json("tenants", "add", "acme")
    with Installation(load(data_dir=cli.data_dir)) as at:
        at.write(lambda c: [_ended(c, at, state) for state in ("done", "dead")])
    return cli


def _ended(c: Connection, at: Installation, state: str) -> int:
    workflow = at.workflows.get("link_pull_request")
    new = NewJob(id=state, tenant="acme", workflow=workflow, triggered_by="ada", event={}, config={})
    insert_job(c, new, now=at.now())
    return c.execute(update(jobs).where(jobs.c.id == state).values(state=state, reason="a bug")).rowcount


def test_one_job_is_followed_to_its_end_which_is_the_exit_code(ended: Cli) -> None:
    assert ended("tail", "done").exit_code == 0
    answer = ended("tail", "dead", "--json")
    assert answer.exit_code == 1
    (line,) = map(json.loads, answer.stdout.splitlines())
    assert (line["job"], line["state"], line["reason"]) == ("dead", "dead", "a bug")
    assert "aswhom jobs list" in ended.json("tail", "nobody", code=1)["message"]


def test_what_is_over_is_told_with_the_time_at_which_it_was(cli: Cli) -> None:
    opened, closed, finished = (datetime(2026, 1, 31, 8, minute, tzinfo=UTC) for minute in (1, 2, 3))
    with Installation(load(data_dir=cli.data_dir)) as at:
        house = House(at.ledger)
        house.build()
        claimed = house.claim(house.job())
        for position in (1, 2):
            asked = intent_of(house, claimed, position=position, occurrence=position)
            at.write(partial(openings.open_attempt, intent=asked))
        close(house, asked, AttemptState.EFFECT, StepState.DONE, result={"id": "1"}, external_id="1")
        at.write(partial(moves.finish, job=claimed))
        at.write(lambda c: c.execute(update(jobs).values(finished_at=finished)).rowcount)
        at.write(lambda c: c.execute(update(steps).values(opened_at=opened)).rowcount)
        at.write(lambda c: c.execute(update(steps).where(steps.c.position == 2).values(closed_at=closed)).rowcount)
    answer = cli("tail", claimed.id, "--json")
    times = [datetime.fromisoformat(json.loads(line)["at"]) for line in answer.stdout.splitlines()]
    assert times == [opened, closed, finished]
    days = [line.split()[0] for line in cli("tail", claimed.id).output.splitlines()]
    assert days == [moment.astimezone().strftime("%Y-%m-%d") for moment in times]


def test_all_are_followed_until_the_time_is_over(ended: Cli) -> None:
    with Installation(load(data_dir=ended.data_dir)) as at:
        at.write(lambda c: c.execute(update(jobs).values(state="queued", reason=None)).rowcount)
    answer = ended("tail", "--timeout", "0", "--tenant", "acme")
    assert answer.exit_code == 0
    assert [line.split()[-1] for line in answer.output.splitlines()] == ["queued", "queued"]
    assert ended("tail", "--timeout", "0", "--workflow", "another").output == ""


@contextmanager
def _followed(cli: Cli, job: str, log: Path) -> Iterator[subprocess.Popen[str]]:
    """`aswhom tail` of one job in a process of its own, whose lines can be waited for."""
    command = ["-c", "from deploy.cli import main; main()", "tail", job, "--json", "--data-dir", str(cli.data_dir)]
    process = start([sys.executable, *command], log=log, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        end(process)


def test_a_job_is_followed_while_it_moves(cli: Cli, tmp_path: Path) -> None:
    """Nothing moves before the line of the last move was read: each was told while the job still had some before it."""
    with Installation(load(data_dir=cli.data_dir)) as at:
        house = House(at.ledger)
        house.build()
        job = house.job()
        with _followed(cli, job, tmp_path / "tail.log") as process:
            assert process.stdout is not None

            def told() -> tuple[Any, Any]:
                line = json.loads(process.stdout.readline())  # type: ignore[union-attr]
                assert line["job"] == job
                step = line.get("step")
                return (step["action"], step["state"]) if step else (line["state"], line["reason"])

            assert told() == ("queued", None)
            claimed = house.claim(job)
            assert told() == ("running", None)
            asked = intent_of(house, claimed)
            at.write(partial(openings.open_attempt, intent=asked))
            assert told() == ("github.Say", "open")
            close(house, asked, AttemptState.EFFECT, StepState.DONE, result={"id": "1"}, external_id="1")
            assert told() == ("github.Say", "done")
            at.write(partial(moves.finish, job=claimed))
            assert told() == ("done", None)
            assert process.stdout.read() == ""
            assert process.wait() == 0
