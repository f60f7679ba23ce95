"""Time passes in a trial, by as much as workflows of one's own sleep and are patient, and costs none."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from deploy.trial import Trial, TrialJob
from pipeline.tables import attempts, steps
from tests.deploy.trials import trial_of
from tests.docs.pages import blocks, page

PATIENT = '''"""Post a message, however long Slack is away."""

from datetime import timedelta

from pipeline.run import Run
from pipeline.workflow import SERVICE, NoConfig, workflow
from tasks.actions import slack
from tasks.events.github import PullRequestEvent, pull_request


@workflow(agent="patient", on=pull_request("opened"), event=PullRequestEvent, uses={slack.PostMessage: SERVICE})
def patient(run: Run[NoConfig], event: PullRequestEvent) -> None:
    run.do(slack.PostMessage(channel="engineering", text=event.title), patience=timedelta(hours=12))
'''
HOURLY = {"mode": "status", "status": 503, "headers": {"Retry-After": "3600"}}


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """The page's own workflow, and a patient one; ada of acme is connected."""
    (code,) = blocks(page("howto/write-a-workflow.md"), "python")
    with trial_of(tmp_path_factory.mktemp("trial"), {"triage": code, "patient": PATIENT}) as made:
        made.connect("acme", "ada", "github")
        yield made


def tried(trial: Trial, workflow: str, **faults: Any) -> TrialJob:
    """The job of a pull request of ada's, settled while Slack answers as *faults* say."""
    trial.enable(workflow, "acme")
    trial.upstreams.order("slack", "faults", **HOURLY, **faults)
    try:
        trial.pull_request("acme/shop", author="ada")
        *_, job = trial.settle(workflow)
    finally:
        trial.upstreams.http.delete(trial.upstreams.url("slack", "/_sandbox/faults")).raise_for_status()
    return job


def waits(trial: Trial, job: TrialJob) -> list[timedelta]:
    """How long after the first of a job's attempts each of them was made."""
    of_it = select(attempts.c.opened_at).where(attempts.c.job_id == job.id).order_by(attempts.c.opened)
    first, *later = trial.runtime.database.read(lambda c: list(c.execute(of_it).scalars()))
    return [at - first for at in later]


def test_the_pages_workflow_sleeps_its_three_days(trial: Trial) -> None:
    trial.enable("triage", "acme")
    trial.pull_request("acme/shop", author="ada")
    *_, job = trial.settle("triage", rounds=5)
    assert job.state == "done", job.reason
    assert trial.writes(job.id) == [("github", "aswhom-sandbox[bot]"), ("github", "ada")]
    of_it = select(steps.c.action, steps.c.opened_at, steps.c.closed_at).where(steps.c.job_id == job.id)
    told = trial.runtime.database.read(lambda c: c.execute(of_it.order_by(steps.c.position)).all())
    assert [step.action for step in told] == ["github.AddLabels", "run.sleep", "github.GetPull", "github.Comment"]
    moments = [at for step in told for at in (step.opened_at, step.closed_at)]
    assert moments == sorted(moments)  # what was done before it slept lies before that still
    assert timedelta() <= told[1].closed_at - told[1].opened_at - timedelta(days=3) < timedelta(minutes=1)


def test_a_patient_step_is_tried_after_eleven_hours(trial: Trial) -> None:
    job = tried(trial, "patient", times=11)
    assert job.state == "done", job.reason
    assert waits(trial, job)[-1] >= timedelta(hours=11)


def test_a_patient_step_is_given_up_after_its_twelve_hours(trial: Trial) -> None:
    job = tried(trial, "patient", times=40)
    assert job.state == "dead"
    assert "slack.PostMessage" in job.reason
    assert timedelta(hours=12) <= waits(trial, job)[-1] < timedelta(hours=13)
