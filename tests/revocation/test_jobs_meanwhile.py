"""Jobs that are cancelled, accepted, replayed or counted during a revocation, and what its receipt says of them."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, select, update

from identity.model import AccessPattern, PrincipalKind, Scope, ScopeKind
from identity.policy.decision import Decision
from identity.sql.sequence import next_number
from pipeline.authoring.declared_workflow import Workflow
from pipeline.authoring.registry import Registry
from pipeline.db.database import Database
from pipeline.jobs.claims import ClaimedJob, finish
from pipeline.jobs.intents import Ended, Intent
from pipeline.revocation import pages
from pipeline.revocation.declaration import Stage, load
from pipeline.revocation.pages import page_numbers, write_page
from pipeline.revocation.statements import reach_jobs
from pipeline.revocation.tables import revocations
from pipeline.revoker.cancelling import Chunk, Cursor, begin_draining, cancel_chunk, consent_waits, end_waits
from pipeline.states import JobState, Wait
from pipeline.steps.replay import replay_job
from pipeline.tables import jobs
from pipeline.workflow import SERVICE, SKIP, USER, compensate, workflow
from tests.ledger.acts import SIGNER, done, open_, receipt_of, revoke, until_awaited
from tests.ledger.house import House, Opened, Say, account_scope, say_it
from tests.ledger.house import intent_of as intent
from tests.ledger.revokers import quiet_revoker

AS_SERVICE = Decision(kind=PrincipalKind.SERVICE, pattern=AccessPattern.SERVICE, reason="named by the workflow")


class Ask(Say):
    """Another action of the tests."""


@workflow(
    agent="tester",
    event=Opened,
    on=say_it.on,
    user=say_it.user,
    triggered_by=say_it.triggered_by,
    uses={
        Say: SERVICE.on_revoke(compensate(Say, lambda say, said: Say(text=f"{say.text} was undone"))),
        Ask: USER.on_revoke(SKIP),
    },
)
def _say_and_ask(run: Any, event: Opened) -> None:
    run.do(Say(text=event.text), as_=SERVICE)
    run.do(Ask(text=event.text), as_=run.user)


say_and_ask: Workflow = replace(_say_and_ask, name=say_it.name)


@pytest.fixture
def asking(database: Database) -> House:
    """A house whose jobs can do without ada, and are cancelled by a step of hers that says it is needed."""
    house = House(database)
    house.workflow = say_and_ask
    house.build()
    return house


def _by_service(house: House, job: ClaimedJob) -> Intent:
    asked = intent(house, job, named="service", decision=AS_SERVICE, principal="acme.service")
    return replace(asked, lease=replace(asked.lease, principal="acme.service"))


def _has_said(house: House) -> ClaimedJob:
    """A running job that has said something as the service."""
    job = house.claim(house.job())
    asked = _by_service(house, job)
    open_(house, asked)
    done(house, asked, {"id": "7"})
    return job


def _needs_ada(house: House, job: ClaimedJob) -> Intent:
    return intent(house, job, action="github.Ask", position=2)


def test_a_job_cancelled_between_the_compensations_and_the_receipt_is_compensated_too(asking: House) -> None:
    first, second = _has_said(asking), _has_said(asking)
    made = revoke(asking, account_scope())

    def refused_at(point: str, *, late: list[tuple[str, ClaimedJob]]) -> None:
        if late and point == late[0][0]:
            assert isinstance(open_(asking, _needs_ada(asking, late.pop(0)[1])), Ended)

    late = [("before_receipt", first), ("after_compensation", second)]
    revoker = quiet_revoker(
        asking.database,
        SIGNER,
        Registry([asking.workflow]),
        ids=asking.ids,
        reached=lambda point: refused_at(point, late=late),
    )
    assert revoker.advance(made)
    receipt = receipt_of(asking, made)
    assert (receipt["revision"], receipt["cancelled_jobs"]) == (1, [first.id, second.id])
    compensated = [(one["job"], one["action"], one["outcome"]) for one in receipt["compensations"]]
    assert compensated == [(job.id, "github.Say", "pending") for job in (first, second)]
    assert [asking.row(job.id).state for job in (first, second)] == [JobState.CANCELLED] * 2


@pytest.mark.parametrize("when", ["before_compensations", "before_receipt"])
def test_a_job_told_to_stop_before_the_receipt_delays_it_and_is_compensated(
    asking: House, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process told it to, which had read the revocation's state before draining began.

    Its page has a smaller number than one that is compensated already: it was drawn earlier, and committed later.
    """
    accepted, numbered = (asking.database.write(next_number) for _ in range(2))
    needing_ada = asking.claim(asking.job())
    made = revoke(asking, account_scope())
    assert isinstance(open_(asking, _needs_ada(asking, needing_ada)), Ended)
    effective = asking.database.read(lambda c: load(c, made))
    late = list[ClaimedJob]()

    def reach(c: Connection, job: str) -> None:
        c.execute(update(jobs).where(jobs.c.id == job).values(accepted=accepted))
        digest = c.execute(select(jobs.c.scopes_sha256).where(jobs.c.id == job)).scalar_one()
        reached = reach_jobs(c, effective, digest, since=0, limit=1, waits=False)
        assert [(one.id, one.state) for one in reached] == [(job, JobState.STOPPING)]
        assert numbered < min(page_numbers(c, made))
        with monkeypatch.context() as drawn:
            drawn.setattr(pages, "next_number", lambda _: numbered)
            assert write_page(c, made, [], [job])

    def stop_late(point: str) -> None:
        if point == when and not late:
            late.append(_has_said(asking))
            asking.database.write(partial(reach, job=late[0].id))

    revoker = quiet_revoker(asking.database, SIGNER, Registry([asking.workflow]), ids=asking.ids, reached=stop_late)
    assert not revoker.advance(made), "the job still runs"
    assert isinstance(open_(asking, _needs_ada(asking, late[0])), Ended)
    assert revoker.advance(made)
    receipt = receipt_of(asking, made)
    assert (receipt["revision"], receipt["cancelled_jobs"]) == (1, [needing_ada.id, late[0].id])
    assert [one["job"] for one in receipt["compensations"]] == [late[0].id]


@pytest.mark.parametrize("ends", [False, True], ids=["and is queued", "and is done"])
def test_a_job_replayed_before_the_receipt_is_on_it_as_cancelled(house: House, ends: bool) -> None:
    cancelled, finished = (house.claim(house.job(text=text)) for text in ("one", "other"))
    out = intent(house, finished)
    open_(house, out)
    made = revoke(house, account_scope())
    revoker = quiet_revoker(house.database, SIGNER)
    assert not revoker.advance(made), "a call is in flight"
    assert isinstance(open_(house, intent(house, cancelled)), Ended)
    house.database.write(partial(replay_job, job=cancelled.id, by="ops", at=datetime.now(UTC)))
    if ends:
        house.database.write(partial(finish, job=house.claim(cancelled.id)))
    done(house, out)
    house.database.write(partial(finish, job=finished))
    assert revoker.advance(made)
    receipt = receipt_of(house, made)
    assert (receipt["finished_jobs"], receipt["cancelled_jobs"]) == ([finished.id], [cancelled.id])
    assert receipt["cancelled_count"] == 1


@pytest.mark.parametrize(
    "scope", [account_scope(), Scope(kind=ScopeKind.USER, key="acme.ada")], ids=["account", "user"]
)
def test_a_wait_for_another_consent_than_the_revoked_goes_on(asking: House, scope: Scope) -> None:
    revoke(asking, account_scope("acme.service"))
    job = asking.claim(asking.job())
    open_(asking, _by_service(asking, job))
    before = asking.row(job.id)
    assert (before.state, before.wait) == (JobState.WAITING, Wait.CONSENT)
    assert quiet_revoker(asking.database, SIGNER, Registry([asking.workflow])).advance(revoke(asking, scope))
    assert asking.row(job.id) == before


def _waits_for_ada(house: House) -> ClaimedJob:
    revoke(house, account_scope())
    job = house.claim(house.job())
    open_(house, _needs_ada(house, job))
    assert house.row(job.id).wait == Wait.CONSENT
    return job


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_job_that_meanwhile_waits_for_something_else_waits_on(asking: House) -> None:
    """SQLite has one writer, so nothing happens there between the look and the move."""
    job = _waits_for_ada(asking)
    row = asking.row(job.id)
    look = partial(consent_waits, revocation=revoke(asking, account_scope()), sets=[row.scopes_sha256])
    ((waits_for, ids),) = asking.database.read(look).items()
    assert ids == [job.id]
    act = partial(end_waits, ids=ids, waits_for=waits_for)
    later = update(jobs).where(jobs.c.id == job.id).values(wait=Wait.UPSTREAM, waits_for="upstream/step-1")
    ending = threading.Thread(target=asking.database.write, args=(act,))
    until_awaited(asking.database, lambda c: c.execute(later).rowcount, by=ending)
    after = asking.row(job.id)
    assert (after.state, after.wait, after.expires_at) == (JobState.WAITING, Wait.UPSTREAM, row.expires_at)


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_page_written_while_draining_begins_is_counted(house: House) -> None:
    """SQLite has one writer, so nobody waits there for the revocation's row."""
    made = revoke(house, account_scope())
    draining = threading.Thread(target=house.database.write, args=(partial(begin_draining, revocation=made),))

    def write(c: Connection) -> bool:
        return write_page(c, made, [house.ids("job")], [])

    assert until_awaited(house.database, write, by=draining)
    counts = select(revocations.c.state, revocations.c.cancelled_jobs).where(revocations.c.id == made)
    assert house.database.read(lambda c: tuple(c.execute(counts).one())) == ("draining", 1)


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_chunk_that_another_process_begins_as_the_receipt_is_written_reaches_no_job(house: House) -> None:
    """A job committed late would be cancelled without being on a page, and its steps would not be compensated."""
    late = house.job()
    made = revoke(house, account_scope())
    cursor = Cursor((house.row(late).scopes_sha256,))
    chunks = list[Chunk]()

    def cancel() -> None:
        chunks.append(house.database.write(partial(cancel_chunk, revocation=made, cursor=cursor, limit=10)))

    def conclude(c: Connection) -> int:
        this = revocations.c.id == made
        c.execute(select(revocations.c.id).where(this).with_for_update())
        return c.execute(update(revocations).where(this).values(state=Stage.QUIESCED)).rowcount

    assert until_awaited(house.database, conclude, by=threading.Thread(target=cancel)) == 1
    assert [chunk.jobs for chunk in chunks] == [0]
    assert house.row(late).state == JobState.QUEUED


def test_a_job_committed_after_its_set_was_passed_is_reached(house: House) -> None:
    first = house.job()
    number = house.database.write(next_number)
    made = revoke(house, account_scope())
    late = list[str]()

    def commit_late(point: str) -> None:
        """After both passes over the set, the second being for jobs that others had locked."""
        chunks.append(point)
        if chunks == ["after_chunk"] * 2:
            late.append(house.job(text="late"))
            numbered = update(jobs).where(jobs.c.id == late[0]).values(accepted=number)
            house.database.write(lambda c: c.execute(numbered).rowcount)

    chunks = list[str]()
    assert quiet_revoker(house.database, SIGNER, reached=commit_late).advance(made)
    assert receipt_of(house, made)["cancelled_jobs"] == [first, *late]
    assert house.row(late[0]).state == JobState.CANCELLED
