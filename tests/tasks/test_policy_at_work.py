"""A tenant's policy at work: the step is decided by the version in force when it opens, and says which that was."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

from sqlalchemy import update

from identity.audit import Act
from identity.policy.file import read_policy
from identity.policy.ledger import apply_policy
from identity.policy.rules import FACTS_ALONE
from pipeline.policy.trial import PolicyTrial, compare, stored_cases
from pipeline.states import JobState, StepState, Wait
from pipeline.steps.replay import replay_job
from pipeline.tables import jobs
from tests.tasks.approvals import FOUR_EYES, asked, say
from tests.tasks.in_process_system import InProcessSystem
from tests.tasks.scenes import deal, opportunity

NOTHING_YET = 'format = 1\n[[rule]]\nname = "elsewhere"\nwhen = { action = "slack.*" }\ndeny = "no"\n'
FROZEN = 'format = 1\n[[rule]]\nname = "freeze"\nwhen = { action = "salesforce.Update*" }\ndeny = "books are closed"\n'
BY_CAPABILITY = (
    'format = 1\n[[rule]]\nname = "leave"\nwhen = { action = "salesforce.Update*" }\nrequire = "capability"\n'
)


def put_in_force(system: InProcessSystem, text: str) -> None:
    ids, now = system.runtime.ids("aud"), datetime.now(UTC)
    system.runtime.database.write(
        lambda c: apply_policy(c, "acme", text, Act(audit_id=ids, by="cli:test", now=now), over=None)
    )


def tried_on(system: InProcessSystem, before: str, after: str, *, since: datetime) -> PolicyTrial:
    """What would come of the stored steps, under one policy and under another."""
    return system.runtime.database.read(
        lambda c: compare(
            stored_cases(c, system.registry, "acme", since=since), read_policy(before), read_policy(after)
        )
    )


def won(system: InProcessSystem) -> None:
    system.connect_seller("acme", "ada")
    system.report("acme", "deal.changed", deal(opportunity(system)))


def test_a_step_that_the_tenants_policy_forbids_is_refused_and_nothing_is_sent(system: InProcessSystem) -> None:
    put_in_force(system, FROZEN)
    won(system)
    (job,) = system.settle()
    _, step = system.steps()
    assert (job.state, step.state, step.policy_version) == (JobState.DEAD, StepState.REFUSED, 1)
    assert "'freeze' forbids salesforce.UpdateOpportunity: books are closed" in job.reason
    assert system.authors() == []


def test_a_step_that_needs_a_capability_whose_upstream_takes_none_is_refused_and_nothing_is_sent(
    system: InProcessSystem,
) -> None:
    put_in_force(system, BY_CAPABILITY)
    won(system)
    (job,) = system.settle()
    _, step = system.steps()
    assert (job.state, step.state, step.policy_version) == (JobState.DEAD, StepState.REFUSED, 1)
    assert "salesforce is not known to take any" in job.reason
    assert system.authors() == []


def test_a_policy_that_comes_into_force_during_a_run_decides_the_steps_that_follow(system: InProcessSystem) -> None:
    """The run has read the older version; its next opening is refused by the newer one, in the next run."""
    put_in_force(system, NOTHING_YET)
    system.connect_engineer("acme", "ada")
    frozen = 'format = 1\n[[rule]]\nname = "freeze"\nwhen = { action = "linear.*" }\ndeny = "no"\n'
    system.when("after_commit", 1, lambda: put_in_force(system, frozen))
    system.pull("acme/shop", "ada", "bug")
    (job,) = system.settle()
    assert job.runs_spent == 0
    assert [(one.state, one.policy_version) for one in system.steps()] == [(StepState.DONE, 1), (StepState.REFUSED, 2)]


def test_a_policy_is_tried_on_the_steps_that_were_done(system: InProcessSystem) -> None:
    won(system)
    system.settle()
    assert {one.state for one in system.steps()} == {StepState.DONE}
    waited = update(jobs).values(created_at=datetime.now(UTC) - timedelta(days=30))
    system.runtime.database.write(lambda c: c.execute(waited).rowcount)

    def tried(text: str, since: datetime) -> PolicyTrial:
        cases = stored_cases
        return system.runtime.database.read(
            lambda c: compare(cases(c, system.registry, "acme", since=since), FACTS_ALONE, read_policy(text))
        )

    lately = datetime.now(UTC) - timedelta(days=7)
    (change,) = tried(FROZEN, lately).changes
    assert (change.workflow, change.action, change.steps) == ("update_opportunity", "salesforce.UpdateOpportunity", 1)
    assert (change.before, change.after.partition(":")[0]) == ("as user, delegated", "refused")
    assert change.example.endswith("step 2")
    assert tried(NOTHING_YET, lately) == PolicyTrial(asked=2, unreadable=0, changes=())
    assert tried(FROZEN, datetime.now(UTC)).asked == 0
    (change,) = tried(BY_CAPABILITY, lately).changes
    assert "is not known to take any" in change.after, "as the step itself would be refused"


def test_a_policy_is_tried_on_a_step_that_waits_for_the_approval_of_the_one_in_force(waiting: InProcessSystem) -> None:
    now = datetime.now(UTC)
    trial = tried_on(waiting, FOUR_EYES, NOTHING_YET, since=now - timedelta(days=7))
    (change,) = trial.changes
    assert (trial.asked, change.action, change.steps) == (2, "salesforce.UpdateOpportunity", 1)
    assert change.before == "as user, delegated, approved by 2 of bob, carol"
    assert change.after == "as user, delegated"
    assert change.example == f"job {asked(waiting).job} step 2"
    assert tried_on(waiting, FOUR_EYES, NOTHING_YET, since=now).changes == trial.changes, "it waits still"
    for who in ("bob", "carol"):
        say(waiting, who)
    waiting.settle()
    trial = tried_on(waiting, FOUR_EYES, NOTHING_YET, since=now - timedelta(days=7))
    assert (trial.asked, [one.steps for one in trial.changes]) == (2, [1]), "it has begun, and counts once"


def test_a_policy_is_tried_on_a_step_that_waits_for_a_consent(system: InProcessSystem) -> None:
    system.connect_seller("acme", "ada")
    system.sandbox.order("auth", "revoke", provider="salesforce", user="ada")
    system.report("acme", "deal.changed", deal(opportunity(system)))
    (job,) = system.settle()
    assert job.wait == Wait.CONSENT
    closed = FROZEN.replace("salesforce.Update*", "salesforce.*")
    now = datetime.now(UTC)
    for since in (now, now - timedelta(days=7)):
        trial = tried_on(system, NOTHING_YET, closed, since=since)
        (change,) = trial.changes
        assert (trial.asked, change.steps, change.example) == (1, 1, f"job {job.id} step 1")


def test_a_step_that_was_refused_and_waits_once_more_is_tried_once(waiting: InProcessSystem) -> None:
    """It has a row, which is of the refusal, and its replay has asked anew."""
    say(waiting, "bob", yes=False)
    (job,) = waiting.settle()
    assert [one.state for one in waiting.steps()] == [StepState.DONE, StepState.REFUSED]
    write = waiting.runtime.database.write
    write(partial(replay_job, job=job.id, by="admin:test", at=datetime.now(UTC)))
    (job,) = waiting.settle()
    assert job.wait == Wait.APPROVAL
    trial = tried_on(waiting, FOUR_EYES, NOTHING_YET, since=datetime.now(UTC) - timedelta(days=7))
    assert (trial.asked, [one.steps for one in trial.changes]) == (2, [1])
