"""A trial whose ledger the command line reads: when it comes to rest, and why its steps ran as whom they did."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from deploy.demo.provision import linear_of
from deploy.trial import Trial
from identity.errors import Unavailable
from pipeline.tables import attempts, steps
from tests.deploy.conftest import Cli

RULES = """format = 1

[[rule]]
name = "issues have authors"
when = { action = "linear.CreateIssue" }
require = "user"

[[rule]]
name = "freeze"
when = { action = "github.Comment" }
deny = "the books are closed"
"""
FOUR_EYES = """format = 1

[[rule]]
name = "four eyes"
when = { action = "github.Comment" }
approval = { approvers = ["grace"] }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trial")


@pytest.fixture(scope="module")
def trial(folder: Path) -> Iterator[Trial]:
    """Ada of acme is connected, and grace is a user."""
    with Trial(folder) as made:
        for through in ("github", linear_of("acme")):
            made.connect("acme", "ada", through)
        made.connect("acme", "grace", "github")
        yield made


def labelled(trial: Trial) -> Any:
    """The job of a pull request of ada's, settled."""
    trial.pull_request("acme/shop", author="ada", labels=("bug",))
    *_, job = trial.settle("link_pull_request")
    return job


def test_a_step_is_explained_that_ran_as_a_person_that_a_rule_decided_and_that_was_refused(
    trial: Trial, folder: Path
) -> None:
    cli = Cli(folder)
    free = labelled(trial)
    cli.json("policy", "apply", "acme", "-", "--yes", input=RULES)
    held = labelled(trial)

    told = {one["action"]: one for one in cli.json("policy", "explain", free.id)}
    assert told["linear.CreateIssue"]["decision"] == "as user ada, delegated"
    assert told["slack.PostMessage"]["decision"] == "as the service, service"
    assert told["linear.CreateIssue"]["because"] == [
        "the workflow declares the user or the service for it",
        "it need not be attributable to a person, and its effect is write",
        "a person's act started the job: ada (github:1001)",
        "the user it means is acme.ada",
        "the workflow named user",
        "named by the workflow: user-triggered, write",
        "the tenant had no policy of its own",
    ]

    _, issue, comment, *_ = cli.json("policy", "explain", held.id)
    assert issue["because"][-2].endswith("; by the policy's 'issues have authors'")
    assert issue["because"][-1] == "by version 1 of the tenant's policy"
    assert comment["decision"] == "refused"
    assert "the policy's rule 'freeze' forbids github.Comment: the books are closed" in comment["because"]
    said = cli("policy", "explain", held.id, "1002").output
    assert said.startswith("step 1002, github.Comment: refused\n  - the workflow declares the user for it\n")


def test_a_policy_is_tried_on_the_steps_of_the_last_days(trial: Trial, folder: Path) -> None:
    cli = Cli(folder)
    cli.json("policy", "apply", "acme", "-", "--yes", input="format = 1\n")
    job = labelled(trial)
    ours = update(steps).where(steps.c.job_id != job.id).values(opened_at=datetime.now(UTC) - timedelta(days=30))
    trial.runtime.database.write(lambda c: c.execute(ours).rowcount)

    told = cli.json("policy", "simulate", "acme", "-", input=RULES)
    assert told["asked"] == 5
    (change,) = told["changes"]
    assert (change["workflow"], change["action"], change["steps"]) == ("link_pull_request", "github.Comment", 1)
    assert (change["before"], change["after"].partition(":")[0]) == ("as user, delegated", "refused")
    assert change["example"] == f"job {job.id} step 1002"
    said = cli("policy", "simulate", "acme", "-", input=RULES).output
    assert "1 of 5 step(s) of the last 7 day(s)" in said

    earlier = update(steps).where(steps.c.job_id == job.id).values(opened_at=datetime.now(UTC) - timedelta(days=8))
    trial.runtime.database.write(lambda c: c.execute(earlier).rowcount)
    assert cli.json("policy", "simulate", "acme", "-", input=RULES)["asked"] == 0
    assert cli.json("policy", "simulate", "acme", "-", "--days", "9", input=RULES)["asked"] == 5


def test_a_job_that_waits_for_an_approval_is_at_rest(trial: Trial, folder: Path) -> None:
    Cli(folder).json("policy", "apply", "acme", "-", "--yes", input=FOUR_EYES)
    job = labelled(trial)
    assert (job.state, job.wait) == ("waiting", "approval")
    with trial.runtime.database.engine.connect() as connection:
        settled_by = connection.execute(
            select(func.min(attempts.c.settled_by)).where(attempts.c.job_id == job.id)
        ).scalar_one()
    assert settled_by > datetime.now(UTC)  # no time was made to pass for it


def test_jobs_that_do_not_come_to_rest_in_so_many_rounds_are_named(trial: Trial) -> None:
    trial.pull_request("acme/shop", author="ada", labels=("bug",))
    with pytest.raises(Unavailable, match=r"after 0 rounds of work, these still move: job_"):
        trial.settle("link_pull_request", rounds=0)
