"""`aswhom tail` follows all jobs until it is stopped, or one until it has ended."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import Connection, update

from deploy.installation import Installation
from deploy.settings import load
from pipeline.ledger.deliveries import insert_job
from pipeline.tables import jobs
from tests.deploy.conftest import Cli


@pytest.fixture
def ended(cli: Cli) -> Cli:
    """With a job that is done and one that is dead."""
    cli.json("tenants", "add", "acme")
    with Installation(load(data_dir=cli.data_dir)) as at:
        at.write(lambda c: [_ended(c, at, state) for state in ("done", "dead")])
    return cli


def _ended(c: Connection, at: Installation, state: str) -> int:
    insert_job(
        c, id=state, tenant="acme", workflow=at.workflows.get("link_pull_request"), user=None, triggered_by="ada",
        event={}, config={}, delivery=None, source_connection=None, now=at.now(),
    )  # fmt: skip
    return c.execute(update(jobs).where(jobs.c.id == state).values(state=state, reason="a bug")).rowcount


def test_one_job_is_followed_to_its_end_which_is_the_exit_code(ended: Cli) -> None:
    assert ended("tail", "done").exit_code == 0
    answer = ended("tail", "dead", "--json")
    assert answer.exit_code == 1
    (line,) = map(json.loads, answer.stdout.splitlines())
    assert (line["job"], line["state"], line["reason"]) == ("dead", "dead", "a bug")
    assert "aswhom jobs list" in ended.json("tail", "nobody", code=1)["message"]


def test_all_are_followed_until_the_time_is_over(ended: Cli) -> None:
    with Installation(load(data_dir=ended.data_dir)) as at:
        at.write(lambda c: c.execute(update(jobs).values(state="queued", reason=None)).rowcount)
    answer = ended("tail", "--timeout", "0", "--tenant", "acme")
    assert answer.exit_code == 0
    assert [line.split()[-1] for line in answer.output.splitlines()] == ["queued", "queued"]
    assert ended("tail", "--timeout", "0", "--workflow", "another").output == ""
