"""What the command line tells of a job, and what an operator may do to one."""

from __future__ import annotations

import pytest

from deploy.installation import Installation
from deploy.settings import load
from pipeline.ledger.deliveries import insert_job
from tests.deploy.conftest import Cli


@pytest.fixture
def job(cli: Cli) -> str:
    """A job that is queued and never run."""
    cli.json("tenants", "add", "acme")
    with Installation(load(data_dir=cli.data_dir)) as at:
        now = at.now()
        workflow = at.workflows.get("link_pull_request")
        at.write(
            lambda c: insert_job(
                c,
                id="job_1",
                tenant="acme",
                workflow=workflow,
                user=None,
                triggered_by="ada",
                event={},
                config={},
                delivery=None,
                source_connection=None,
                now=now,
            )
        )
    return "job_1"


def test_a_job_is_told_in_sentences(cli: Cli, job: str) -> None:
    told = cli("jobs", "show", job).output
    assert "link_pull_request for acme by agent devops-assistant, queued" in told
    assert "Started by ada" in told
    assert cli.json("jobs", "show", job)["steps"] == []
    assert [row["id"] for row in cli.json("jobs", "list", "--tenant", "acme", "--state", "queued")] == [job]
    assert cli.json("jobs", "list", "--state", "done") == []
    assert cli.json("policy", "explain", job) == []
    assert "no step 1" in cli.json("policy", "explain", job, "1", code=1)["message"]


def test_a_cancelled_job_can_be_replayed_and_not_cancelled_twice(cli: Cli, job: str) -> None:
    assert cli.json("jobs", "cancel", job)["state"] == "cancelled"
    assert "cancelled already" in cli.json("jobs", "cancel", job, code=1)["message"]
    assert cli("jobs", "replay", job).exit_code == 2  # it asks first
    before = cli.json("jobs", "show", job)["accepted"]
    assert cli.json("jobs", "replay", job, "--yes")["state"] == "queued"
    assert cli.json("jobs", "show", job)["accepted"] > before
    assert cli.json("jobs", "replay", job, "--yes", code=1)["error"] == "BadInput"
    assert {row["kind"] for row in cli.json("audit", "search", "--kind", "job")} == {"job.cancelled", "job.replayed"}


def test_there_is_nothing_to_resolve_where_every_call_has_its_outcome(cli: Cli, job: str) -> None:
    assert cli.json("jobs", "resolve", job, "--no-effect", code=1)["error"] == "BadInput"


def test_a_revocation_says_how_much_depends_on_it(cli: Cli, job: str) -> None:
    asked = cli("revoke", "tenant", "acme")
    assert "1 unfinished job(s)" in asked.output
