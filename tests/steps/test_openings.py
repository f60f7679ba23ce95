"""The opening and the closing of a step: the rule, the fence, once keys and late answers."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from identity.audit.tables import audit
from identity.model import (
    NeedsRefresh,
    Scope,
    ScopeKind,
)
from identity.tables import accounts, grants
from pipeline.duties import reconcile
from pipeline.jobs import awaited, claims
from pipeline.jobs.intents import Adopted, Ended, Intent, OnceMismatch, Opened, OpenOutcome
from pipeline.jobs.moves import move_job
from pipeline.states import AttemptState, JobState, Purpose, StepState, Wait
from pipeline.steps import refusals
from pipeline.steps import stored as ledger_steps
from pipeline.steps.replay import replay_job
from pipeline.tables import attempts, once_keys, steps
from pipeline.tables import jobs as jobs_table
from tests.ledger.acts import attempt_states, audit_kinds, close, done, listening, open_, revoke, step_state
from tests.ledger.house import House, account_scope
from tests.ledger.house import intent_of as intent
from tests.ledger.resolutions import resolve
from tests.ledgers import open_ledger


def test_an_opening_is_written_before_anything_is_sent_and_says_as_whom(house: House) -> None:
    asked = intent(house, house.claim(house.job()))
    assert isinstance(open_(house, asked), Opened)
    row = house.database.read(lambda c: c.execute(select(audit).where(audit.c.kind == "attempt.opened")).one())
    assert (row.principal_id, row.pattern, row.on_behalf_of, row.agent_id) == (
        "acme.ada",
        "delegated",
        "acme.ada",
        "tester",
    )
    assert row.reason == asked.decision.reason == "named by the workflow"
    assert row.attempt_id == asked.attempt
    consented = house.database.read(lambda c: c.execute(select(grants.c.consented)).scalars().all())
    assert row.detail["consented"] in consented


def test_an_opening_extends_the_claim_past_the_call(house: House) -> None:
    job = house.claim(house.job(), claim_for=timedelta(seconds=1))
    before = house.row(job.id).claimed_until
    open_(house, intent(house, job))
    settled = house.database.read(lambda c: c.execute(select(attempts.c.settled_by)).scalar_one())
    assert house.row(job.id).claimed_until > settled > before


def test_the_claim_outlasts_a_long_call_by_as_long_again(house: House) -> None:
    job = house.claim(house.job(), claim_for=timedelta(seconds=1))
    open_(house, intent(house, job, deadline=timedelta(minutes=2)))
    settled = house.database.read(lambda c: c.execute(select(attempts.c.settled_by)).scalar_one())
    assert house.row(job.id).claimed_until - settled >= timedelta(minutes=2) - timedelta(seconds=1)


def test_a_worker_that_lost_its_claim_opens_nothing(house: House) -> None:
    job = house.claim(house.job())
    stale = replace(job, fence=job.fence - 1)
    assert isinstance(open_(house, intent(house, stale)), Ended)
    assert attempt_states(house) == []


def test_a_job_that_was_told_to_stop_opens_nothing_and_is_cancelled(house: House) -> None:
    job = house.claim(house.job())
    house.database.write(partial(move_job, job=job.id, to=JobState.STOPPING))
    assert open_(house, intent(house, job)) == Ended(reason="stopped", moved=JobState.CANCELLED)
    assert attempt_states(house) == []


def test_a_job_whose_claim_lapsed_opens_nothing_though_nobody_else_has_it_yet(house: House) -> None:
    job = house.claim(house.job())
    spend = partial(claims.spend_run, fence=job.fence, limit=5, delay=timedelta(), reason="lapsed")
    house.database.write(partial(spend, job=job.id))
    assert open_(house, intent(house, job)) == Ended(reason="another worker has the job", moved=None)
    assert (house.row(job.id).state, attempt_states(house)) == (JobState.QUEUED, [])


@pytest.mark.parametrize(
    "scope",
    [
        Scope(kind=ScopeKind.TENANT, key="acme"),
        Scope(kind=ScopeKind.CONNECTION, key="gh"),
        Scope(kind=ScopeKind.AGENT, key="tester"),
        Scope(kind=ScopeKind.USER, key="acme.ada"),
        account_scope(),
    ],
    ids=lambda scope: str(scope.kind),
)
def test_a_job_accepted_before_a_revocation_of_any_scope_opens_nothing_for_good(house: House, scope: Scope) -> None:
    job = house.claim(house.job())
    revoke(house, scope)
    house.connect("acme", "acme.ada")  # a new consent does not bring the old job back
    assert isinstance(open_(house, intent(house, job)), Ended)
    row = house.row(job.id)
    assert row.state == JobState.CANCELLED
    assert "revoked" in row.reason
    assert attempt_states(house) == []
    assert "step.refused" in audit_kinds(house)


@pytest.mark.parametrize("kind", [ScopeKind.TENANT, ScopeKind.CONNECTION, ScopeKind.USER, ScopeKind.ACCOUNT])
def test_a_job_accepted_after_a_revocation_waits_for_consent_and_the_consent_wakes_it(
    house: House, kind: ScopeKind
) -> None:
    keys = {ScopeKind.TENANT: "acme", ScopeKind.CONNECTION: "gh", ScopeKind.USER: "acme.ada"}
    revoke(house, Scope(kind=kind, key=keys[kind]) if kind in keys else account_scope())
    job = house.claim(house.job())
    assert isinstance(open_(house, intent(house, job)), Ended)
    row = house.row(job.id)
    assert (row.state, row.wait, row.waits_for) == (JobState.WAITING, Wait.CONSENT, "account:acme/gh/acme.ada")
    house.connect("acme", "acme.ada")
    assert house.database.write(partial(awaited.wake, waits_for="account:acme/gh/acme.ada")) == [job.id]
    assert isinstance(open_(house, intent(house, house.claim(job.id))), Opened)


@pytest.mark.parametrize(("wait", "state"), [(timedelta(), JobState.DEAD), (timedelta(days=1), JobState.WAITING)])
def test_a_job_gives_up_on_a_consent_after_the_time_that_is_set(house: House, wait: timedelta, state: JobState) -> None:
    revoke(house, account_scope())
    job = house.claim(house.job())
    open_(house, intent(house, job, consent_wait=wait))
    reconcile.wake_due(house.database)
    row = house.row(job.id)
    assert row.state == state
    dead = "nobody connected the account in time: github.Say needs the consent of acme.ada: the account is revoked"
    assert row.reason == (dead if state is JobState.DEAD else dead.partition("time: ")[2])


def test_revoking_one_user_leaves_the_service_alone(house: House) -> None:
    job = house.claim(house.job())
    revoke(house, account_scope())
    asked = intent(house, job, principal="acme.service")
    asked = replace(asked, lease=replace(asked.lease, principal="acme.service"))
    assert isinstance(open_(house, asked), Opened)


def test_a_token_too_near_its_end_is_refreshed_before_anything_is_written(house: House) -> None:
    house.database.write(lambda c: c.execute(update(grants).values(expires_at=datetime.now(UTC))).rowcount)
    outcome = open_(house, intent(house, house.claim(house.job())))
    assert isinstance(outcome, NeedsRefresh)
    assert attempt_states(house) == []


def test_an_account_that_needs_reconnect_parks_the_job_at_the_step_that_needs_it(house: House) -> None:
    house.database.write(lambda c: c.execute(update(accounts).values(state="needs_reconnect")).rowcount)
    job = house.claim(house.job())
    assert isinstance(open_(house, intent(house, job)), Ended)
    assert house.row(job.id).wait == Wait.CONSENT


def test_a_closed_step_keeps_its_result(house: House) -> None:
    asked = intent(house, house.claim(house.job()))
    open_(house, asked)
    done(house, asked, {"id": "42"})
    stored = house.database.read(partial(ledger_steps.load, job=asked.job.id))[1]
    assert (stored.state, stored.result, stored.external_id) == (StepState.DONE, {"id": "42"}, "1")
    assert attempt_states(house) == [AttemptState.EFFECT]


def test_a_paused_workers_answer_counts_whatever_the_fence_says_by_then(house: House) -> None:
    job = house.job()
    asked = intent(house, house.claim(job))
    open_(house, asked)
    house.database.write(partial(claims.spend_run, job=job, fence=1, limit=5, delay=timedelta(), reason="lapsed"))
    again = house.claim(job)
    assert again.fence == 2
    done(house, asked)
    assert step_state(house, asked.step) == StepState.DONE


def test_a_second_attempt_does_not_open_over_an_answer_that_came_late(house: House) -> None:
    job = house.job()
    asked = intent(house, house.claim(job))
    open_(house, asked)
    close(house, asked, AttemptState.UNKNOWN, StepState.UNKNOWN)
    house.database.write(partial(claims.requeue, job=asked.job, delay=timedelta(), reason="unknown"))
    again = house.claim(job)
    done(house, asked)  # the first worker's call returned after all
    second = intent(house, again, step=asked.step, again=True, repeats_unknown=True)
    assert isinstance(open_(house, second), Ended)
    assert (step_state(house, asked.step), house.row(job).state) == (StepState.DONE, JobState.QUEUED)


def test_a_second_attempt_does_not_open_while_the_first_may_yet_be_answered(house: House) -> None:
    job = house.job()
    asked = intent(house, house.claim(job))
    open_(house, asked)
    house.database.write(partial(claims.requeue, job=asked.job, delay=timedelta(), reason="its worker stands still"))
    second = intent(house, house.claim(job), step=asked.step, again=True)
    outcome = open_(house, second)
    assert isinstance(outcome, Ended)
    assert outcome.reason == "an earlier attempt may yet be answered"
    assert attempt_states(house) == [AttemptState.OPEN]


def test_an_effect_reported_after_it_was_ruled_out_is_recorded_as_a_duplicate(house: House) -> None:
    asked = intent(house, house.claim(house.job()))
    open_(house, asked)
    assert not close(house, asked, AttemptState.NO_EFFECT, StepState.OPEN)
    assert done(house, asked)
    assert "attempt.duplicate_effect" in audit_kinds(house)
    assert attempt_states(house) == [AttemptState.NO_EFFECT]


def _in_doubt(house: House) -> tuple[Intent, Intent]:
    """A step whose first attempt is unknown, and a probe for it that is open."""
    job = house.job()
    asked = intent(house, house.claim(job))
    open_(house, asked)
    close(house, asked, AttemptState.UNKNOWN, StepState.UNKNOWN)
    look = intent(house, asked.job, step=asked.step, purpose=Purpose.PROBE, again=True, repeats_unknown=True)
    assert isinstance(open_(house, look), Opened)
    return asked, look


def test_a_probe_that_finds_the_effect_adopts_it(house: House) -> None:
    asked, look = _in_doubt(house)
    close(house, look, AttemptState.NO_EFFECT, StepState.DONE, result={"id": "9"}, resolves=AttemptState.ADOPTED)
    assert attempt_states(house) == [AttemptState.ADOPTED, AttemptState.NO_EFFECT]
    assert step_state(house, asked.step) == StepState.DONE


def test_a_probe_that_finds_nothing_frees_the_step_for_another_attempt(house: House) -> None:
    asked, look = _in_doubt(house)
    blocked = intent(house, asked.job, step=asked.step, again=True)
    assert isinstance(open_(house, replace(blocked, attempt=house.ids("att"))), Ended)
    due = update(jobs_table).where(jobs_table.c.id == asked.job.id).values(due_at=datetime.now(UTC))
    house.database.write(lambda c: c.execute(due).rowcount)
    again = house.claim(asked.job.id)
    close(house, look, AttemptState.NO_EFFECT, StepState.OPEN, resolves=AttemptState.NO_EFFECT)
    assert isinstance(open_(house, intent(house, again, step=asked.step, again=True)), Opened)


def test_a_call_without_an_outcome_stays_unknown_when_the_rule_or_policy_ends_its_job(house: House) -> None:
    asked, other = (intent(house, house.claim(house.job())) for _ in range(2))
    for one in (asked, other):
        open_(house, one)
        close(house, one, AttemptState.UNKNOWN, StepState.UNKNOWN)
    by_policy = intent(house, other.job, step=other.step, again=True)
    refuse = partial(refusals.refuse, intent=by_policy, reason="no")
    assert isinstance(house.database.write(refuse), Ended), "no workflow may go on as if nothing had been done"
    assert (house.row(other.job.id).state, step_state(house, other.step)) == (JobState.DEAD, StepState.UNKNOWN)
    revoke(house, account_scope())
    assert isinstance(open_(house, intent(house, asked.job, step=asked.step, again=True, repeats_unknown=True)), Ended)
    assert (house.row(asked.job.id).state, step_state(house, asked.step)) == (JobState.CANCELLED, StepState.UNKNOWN)
    kinds = audit_kinds(house)
    assert (kinds.count("step.given_up"), kinds.count("step.refused")) == (2, 0), "the audit says no more than happened"


def test_a_late_close_without_effect_does_not_undo_a_refusal(house: House) -> None:
    job = house.job()
    asked = intent(house, house.claim(job))
    open_(house, asked)
    revoke(house, account_scope())
    open_(house, intent(house, asked.job, step=asked.step, again=True, repeats_unknown=True))
    assert step_state(house, asked.step) == StepState.REFUSED
    late = replace(asked, purpose=Purpose.PROBE)
    close(house, late, AttemptState.NO_EFFECT, StepState.OPEN)
    assert step_state(house, asked.step) == StepState.REFUSED


def test_a_replay_opens_what_was_refused_or_failed_and_leaves_what_was_done(house: House) -> None:
    job = house.job()
    claimed = house.claim(job)
    ends = {1: StepState.DONE, 2: StepState.FAILED, 3: StepState.REFUSED}
    asked = {position: intent(house, claimed, position=position) for position in ends}
    for position in (1, 2):
        open_(house, asked[position])
    done(house, asked[1])
    close(house, asked[2], AttemptState.NO_EFFECT, StepState.FAILED, error="no")
    now = datetime.now(UTC)
    house.database.write(partial(refusals.refuse, intent=asked[3], reason="policy"))
    house.database.write(partial(claims.bury, job=claimed, reason="a step was refused"))
    house.database.write(partial(replay_job, job=job, by="ada", at=now))
    states = {position: step_state(house, asked[position].step) for position in ends}
    assert states == {1: StepState.DONE, 2: StepState.OPEN, 3: StepState.OPEN}


def test_of_two_jobs_with_one_once_key_one_acts_and_the_other_gets_its_result(house: House) -> None:
    first, second = (intent(house, house.claim(house.job()), once="pull#1") for _ in range(2))
    assert isinstance(open_(house, first), Opened)
    assert isinstance(open_(house, second), Ended)
    assert (house.row(second.job.id).state, house.row(second.job.id).wait) == (JobState.WAITING, Wait.ONCE)
    assert not done(house, first, {"id": "7"})
    again = intent(house, house.claim(second.job.id), once="pull#1")
    outcome = open_(house, again)
    assert isinstance(outcome, Adopted)
    assert outcome.result == {"id": "7"}
    assert attempt_states(house) == [AttemptState.EFFECT]
    assert "step.adopted" in audit_kinds(house)


def test_a_once_key_changes_hands_only_after_no_effect(house: House) -> None:
    first, second = (intent(house, house.claim(house.job()), once="pull#1") for _ in range(2))
    open_(house, first)
    close(house, first, AttemptState.UNKNOWN, StepState.UNKNOWN)
    house.database.write(partial(claims.bury, job=first.job, reason="whatever its job's state"))
    assert isinstance(open_(house, second), Ended)
    settled = update(attempts).where(attempts.c.id == first.attempt).values(state=AttemptState.NO_EFFECT)
    house.database.write(lambda c: c.execute(settled).rowcount)
    house.database.write(partial(awaited.wake, waits_for="once:acme:github.Say:pull#1"))
    again = intent(house, house.claim(second.job.id), once="pull#1")
    assert isinstance(open_(house, again), Opened)


def test_a_once_key_with_other_parameters_is_an_error(house: House) -> None:
    first, second = (intent(house, house.claim(house.job()), once="pull#1") for _ in range(2))
    open_(house, first)
    other = replace(second, request_hash="other")
    assert open_(house, other) == OnceMismatch(owner=first.job.id, done=None)
    close(house, first, AttemptState.NO_EFFECT, StepState.OPEN)
    assert open_(house, other) == OnceMismatch(owner=first.job.id, done=None), "its owner tries again"
    again = replace(first, attempt=house.ids("att"), again=True)
    open_(house, again)
    close(house, again, AttemptState.UNKNOWN, StepState.UNKNOWN)
    house.database.write(partial(claims.bury, job=first.job, reason="whatever its job's state"))
    assert open_(house, other) == OnceMismatch(owner=first.job.id, done=None), "its owner may have done it"


@pytest.mark.parametrize("ended", [StepState.FAILED, StepState.OPEN], ids=["failed", "job-ended"])
def test_what_came_to_nothing_keeps_its_once_key_from_nobody_whatever_their_parameters(
    house: House, ended: StepState
) -> None:
    first, second, third = (intent(house, house.claim(house.job()), once="pull#1") for _ in range(3))
    open_(house, first)
    close(house, first, AttemptState.NO_EFFECT, ended, error="channel_not_found")
    if ended is StepState.OPEN:
        house.database.write(partial(claims.bury, job=first.job, reason="its runs were spent"))
    mended = replace(second, request_hash="mended")
    assert isinstance(open_(house, mended), Opened)
    assert open_(house, third) == OnceMismatch(owner=second.job.id, done=None), "the key is for what its owner does"
    done(house, mended, {"id": "7"})
    assert open_(house, replace(third, request_hash="other")) == OnceMismatch(owner=second.job.id, done=second.step)
    assert isinstance(open_(house, replace(third, request_hash="mended")), Adopted)


def test_a_once_key_that_a_later_opening_takes_is_on_its_step_and_a_word_about_the_call_wakes_who_waits(
    house: House,
) -> None:
    """A newer workflow asks for a key that the one which opened the step did not have."""
    first = intent(house, house.claim(house.job()))
    open_(house, first)
    close(house, first, AttemptState.NO_EFFECT, StepState.OPEN)
    again = intent(house, first.job, step=first.step, again=True, once="pull#1")
    assert isinstance(open_(house, again), Opened)
    key = select(steps.c.once_key).where(steps.c.id == first.step)
    assert house.database.read(lambda c: c.execute(key).scalar_one()) == "pull#1"
    close(house, again, AttemptState.UNKNOWN, StepState.UNKNOWN)
    third = intent(house, first.job, step=first.step, again=True, repeats_unknown=True)  # as before it
    assert isinstance(open_(house, third), Opened)
    assert house.database.read(lambda c: c.execute(key).scalar_one()) == "pull#1"
    close(house, third, AttemptState.UNKNOWN, StepState.UNKNOWN)
    house.database.write(partial(claims.bury, job=first.job, reason="nobody knows"))
    second = intent(house, house.claim(house.job()), once="pull#1")
    assert isinstance(open_(house, second), Ended)
    resolve(house, first.job.id, [again.attempt, third.attempt], {"id": "9"})
    assert house.row(second.job.id).state == JobState.QUEUED


def test_once_keys_of_two_tenants_do_not_meet(house: House) -> None:
    house.connect("globex", "globex.ada")
    mine = intent(house, house.claim(house.job()), once="pull#1")
    theirs = intent(house, house.claim(house.job(tenant="globex")), once="pull#1", principal="globex.ada")
    theirs = replace(theirs, lease=replace(theirs.lease, tenant="globex", principal="globex.ada"))
    assert isinstance(open_(house, mine), Opened)
    assert isinstance(open_(house, theirs), Opened)


def test_racing_jobs_with_one_once_key_open_it_once(house: House) -> None:
    asked = [intent(house, house.claim(house.job()), once="pull#1") for _ in range(12)]
    outcomes: list[OpenOutcome] = []
    threads = [threading.Thread(target=lambda a=one: outcomes.append(open_(house, a))) for one in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [type(outcome) for outcome in outcomes].count(Opened) == 1
    assert len(outcomes) == 12


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_once_key_that_is_given_up_as_another_job_looks_at_it_is_that_jobs(house: House, ledger_url: str) -> None:
    """As a replay of a job that did nothing gives it up. SQLite has one writer anyway."""
    first, second = (intent(house, house.claim(house.job()), once="pull#1") for _ in range(2))
    open_(house, first)
    close(house, first, AttemptState.NO_EFFECT, StepState.FAILED, error="channel_not_found")
    other = open_ledger(ledger_url)
    given_up: list[int] = []

    def give_up(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if statement.startswith("INSERT INTO once_keys") and not given_up:
            given_up.append(other.write(lambda c: c.execute(delete(once_keys)).rowcount))

    with listening(house.database.engine, "after_cursor_execute", give_up):
        assert isinstance(open_(house, second), Opened)
    other.close()
    assert given_up == [1]
    assert house.database.read(lambda c: c.execute(select(once_keys.c.job_id)).scalars().all()) == [second.job.id]
