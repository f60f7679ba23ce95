"""What a trial can have happen besides deliveries: a slot of a schedule, an answer to an approval, a revocation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from deploy.sandbox.world import REPOSITORIES
from deploy.trial import Trial
from identity.errors import BadInput
from tests.deploy.trials import trial_of

NIGHTLY = '''"""Post a message every night."""

from pipeline.run import Run
from pipeline.workflow import SERVICE, Daily, NoConfig, Tick, workflow
from tasks.actions import slack


@workflow(agent="nightly", schedule=Daily(cron="0 3 * * *"), uses={slack.PostMessage: SERVICE})
def nightly(run: Run[NoConfig], event: Tick) -> None:
    run.do(slack.PostMessage(channel="engineering", text=event.slot))
'''
CLOSING = '''"""Post a message whenever a tenant's own schedule says so."""

from pipeline.run import Run
from pipeline.workflow import SERVICE, NoConfig, Tick, workflow
from tasks.actions import slack


@workflow(agent="closing", uses={slack.PostMessage: SERVICE})
def closing(run: Run[NoConfig], event: Tick) -> None:
    run.do(slack.PostMessage(channel="engineering", text=event.schedule))
'''
GREET = '''"""Label a pull request, sleep, and greet its author; the label goes with the author's authority."""

from datetime import timedelta

from pipeline.run import Run, StepSkipped
from pipeline.workflow import SERVICE, SKIP, USER, NoConfig, compensate, workflow
from tasks.actions import github, slack
from tasks.events.github import PullRequestEvent, pull_request


def say_so(done: github.AddLabels, made: github.LabelNames) -> slack.PostMessage:
    return slack.PostMessage(channel="engineering", text=f"#{done.number} keeps its label")


declared = dict(
    on=pull_request("opened"),
    event=PullRequestEvent,
    user=lambda event: event.author,
    triggered_by=lambda event: event.sender,
)


@workflow(
    agent="greet", uses={github.AddLabels: USER.on_revoke(compensate(slack.PostMessage, say_so))}, **declared
)
def greet(run: Run[NoConfig], event: PullRequestEvent) -> None:
    run.do(github.AddLabels(repo=event.repo, number=event.number, labels=("new",)), as_=run.user)
    run.sleep(timedelta(days=3))


@workflow(agent="greet", uses={github.Comment: USER.on_revoke(SKIP), slack.PostMessage: SERVICE}, **declared)
def skipping(run: Run[NoConfig], event: PullRequestEvent) -> None:
    run.sleep(timedelta(days=3))
    try:
        run.do(github.Comment(repo=event.repo, number=event.number, body="Welcome."), as_=run.user)
    except StepSkipped:
        run.do(slack.PostMessage(channel="engineering", text="nobody greets"), as_=run.service)
'''
FOUR_EYES = """format = 1
[[rule]]
name = "four eyes"
when = { action = "github.AddLabels" }
approval = { approvers = ["grace", "ada"] }
"""


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """Ada and grace of acme are connected, and two of globex, of whom each is revoked by one test."""
    with trial_of(tmp_path_factory.mktemp("trial"), {"nightly": NIGHTLY, "closing": CLOSING, "greet": GREET}) as made:
        for tenant, login in (("acme", "ada"), ("acme", "grace"), ("globex", "linus"), ("globex", "margaret")):
            made.connect(tenant, login, "github")
        yield made


def begun(trial: Trial, workflow: str, tenant: str, author: str) -> Any:
    """The job of a pull request, after its first run."""
    trial.enable(workflow, tenant)
    trial.pull_request(REPOSITORIES[tenant][0], author=author)
    *_, job = trial.work(workflow)
    return job


def test_a_slot_of_a_schedule_comes_when_it_is_told_to(trial: Trial) -> None:
    with pytest.raises(BadInput, match="not switched on for acme"):
        trial.tick("nightly", "acme")
    with pytest.raises(BadInput, match="no schedule starts greet"):
        trial.tick("greet", "acme")
    trial.enable("nightly", "acme")
    ticked = {trial.tick("nightly", "acme"), trial.tick("nightly", "acme")}
    assert {(job.id, job.state) for job in trial.settle("nightly")} == {(job, "done") for job in ticked}
    assert {len(trial.writes(job)) for job in ticked} == {1}


def test_a_slot_is_of_the_workflows_own_schedule_or_of_one_that_a_tenant_may_give_it(trial: Trial) -> None:
    told = []
    for workflow, of in (("nightly", {}), ("closing", {"schedule": "quarterly"})):
        trial.enable(workflow, "acme")
        job = trial.tick(workflow, "acme", **of)
        (event,) = [one.event for one in trial.settle(workflow) if one.id == job]
        told.append(event["schedule"])
    assert told == ["nightly", "quarterly"]


def test_an_approval_is_answered_by_who_may(trial: Trial) -> None:
    trial.policy("acme", FOUR_EYES)
    job = begun(trial, "greet", "acme", "ada")
    assert (job.state, job.wait) == ("waiting", "approval")
    with pytest.raises(BadInput, match="the answer of ada does not count"):
        trial.answer(job.id, "ada", yes=True)  # it is her pull request
    trial.answer(job.id, "grace", yes=True)
    *_, job = trial.settle("greet")
    assert (job.state, trial.writes(job.id)) == ("done", [("github", "ada")])
    with pytest.raises(BadInput, match="waits for no approval"):
        trial.answer(job.id, "grace", yes=True)

    trial.pull_request("acme/shop", author="ada")
    *_, job = trial.settle("greet")
    trial.answer(job.id, "grace", yes=False)
    *_, job = trial.settle("greet")
    assert (job.state, trial.writes(job.id)) == ("dead", [])


def test_a_revocation_in_the_middle_cancels_a_job_and_what_it_did_is_compensated(trial: Trial) -> None:
    job = begun(trial, "greet", "globex", "linus")
    assert (job.state, job.wait) == ("waiting", "time")  # no time passed for it
    trial.revoke("user", "linus", tenant="globex")
    *_, job = trial.settle("greet")
    assert job.state == "cancelled"
    (compensation,) = trial.settle("greet.compensation")
    assert compensation.state == "done"
    assert [where for where, _ in trial.writes(compensation.id)] == ["slack"]


def test_a_revocation_in_the_middle_has_a_step_skipped(trial: Trial) -> None:
    job = begun(trial, "skipping", "globex", "margaret")
    trial.revoke("user", "margaret", tenant="globex")
    (job,) = trial.settle("skipping")
    assert job.state == "done", job.reason
    assert [where for where, _ in trial.writes(job.id)] == ["slack"]
    with pytest.raises(BadInput, match="nobody"):
        trial.revoke("user", "nobody", tenant="acme")
    with pytest.raises(BadInput, match="'person' cannot be revoked: tenant, connection, agent, user or account can"):
        trial.revoke("person", "ada", tenant="acme")
