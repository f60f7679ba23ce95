"""A call in doubt whose step needs an approval is looked up first. If it cannot be, approvers are told of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, ClassVar

from sqlalchemy import select

from identity.audit import Act
from identity.model import PrincipalKind
from identity.policy.ledger import apply_policy
from identity.principals import ensure_principal
from pipeline.action import Facts, Recovery
from pipeline.approvals.shown import in_lines
from pipeline.approvals.tables import approvals
from pipeline.approvals.votes import Channel, Counted, Vote, vote
from pipeline.states import ApprovalState, AttemptState, JobState, Wait
from pipeline.workflow import USER
from tests.ledger.acts import attempt_states
from tests.ledger.house import Say
from tests.ledger.tries import Found, Named, answers, says, time_passes
from tests.ledger.workers import Workers, declare

FOUR_EYES = """format = 1
[[rule]]
name = "four eyes"
when = { action = "github.*" }
approval = { approvers = ["bob"], quorum = 1, expires_in = "1h" }
"""


class Keyed(Say):
    facts: ClassVar[Facts] = replace(Say.facts, recovery=Recovery.KEYED)


def _job(workers: Workers, action: type[Say]) -> str:
    house = workers.house
    declare(workers, partial(says, action))
    house.workflow = replace(house.workflow, uses={action: USER})
    make = partial(ensure_principal, kind=PrincipalKind.USER, name="bob", tenant="acme", now=datetime.now(UTC))
    house.database.write(partial(make, id="acme.bob"))
    return house.job()


def _job_in_doubt(workers: Workers, action: type[Say]) -> str:
    """A job whose only call got no answer."""
    job = _job(workers, action)
    answers(workers, 500)
    workers.work(job)
    return job


def _applies_four_eyes(workers: Workers) -> None:
    apply = partial(apply_policy, over=None, act=Act(audit_id="aud-1", by="cli:test", now=datetime.now(UTC)))
    workers.house.database.write(lambda c: apply(c, "acme", FOUR_EYES))


def _asked(workers: Workers) -> list[Any]:
    return list(workers.house.database.read(lambda c: c.execute(select(approvals).order_by(approvals.c.asked)).all()))


def _bob_says_yes(workers: Workers) -> None:
    row = _asked(workers)[-1]
    given = Vote(
        approval=row.id,
        tenant="acme",
        principal="acme.bob",
        yes=True,
        digest=row.digest,
        channel=Channel.CLI,
        said_as="cli:test",
    )
    counted = workers.house.database.write(partial(vote, given=given, now=datetime.now(UTC)))
    assert counted == Counted(state=ApprovalState.APPROVED)


def test_a_search_tells_before_anybody_is_asked(workers: Workers) -> None:
    job = _job_in_doubt(workers, Found)
    _applies_four_eyes(workers)
    time_passes(workers)
    answers(workers, 200)
    workers.work(job)
    assert (workers.house.row(job).state, _asked(workers)) == (JobState.DONE, [])
    assert attempt_states(workers.house) == [AttemptState.ADOPTED, AttemptState.NO_EFFECT]


def test_people_are_asked_about_a_call_that_a_search_has_ruled_out_as_about_any(workers: Workers) -> None:
    job = _job_in_doubt(workers, Named)
    _applies_four_eyes(workers)
    time_passes(workers)
    answers(workers, 200, id="9")
    workers.work(job)
    assert workers.house.row(job).wait == Wait.APPROVAL
    assert attempt_states(workers.house) == [AttemptState.NO_EFFECT, AttemptState.NO_EFFECT]
    (asked,) = _asked(workers)
    assert "in_doubt" not in asked.shown
    _bob_says_yes(workers)
    workers.work(job)
    assert workers.house.row(job).state == JobState.DONE


def test_where_nothing_can_be_looked_up_approvers_are_told_that_it_may_have_been_done(workers: Workers) -> None:
    job = _job_in_doubt(workers, Keyed)
    _applies_four_eyes(workers)
    time_passes(workers)
    workers.work(job)
    (asked,) = _asked(workers)
    assert in_lines(asked.shown)[1] == "it was sent before and no answer came: it may have been done already"
    answers(workers, 200, id="9")
    _bob_says_yes(workers)
    workers.work(job)
    assert workers.house.row(job).state == JobState.DONE


def test_an_approval_lasts_though_its_call_is_in_doubt_by_now(workers: Workers) -> None:
    job = _job(workers, Keyed)
    _applies_four_eyes(workers)
    workers.work(job)
    _bob_says_yes(workers)
    for status in (500, 200):
        answers(workers, status, id="9")
        workers.work(job)
        time_passes(workers)
    (asked,) = _asked(workers)
    assert (workers.house.row(job).state, asked.state) == (JobState.DONE, ApprovalState.APPROVED)
    assert attempt_states(workers.house) == [AttemptState.ADOPTED, AttemptState.EFFECT]
