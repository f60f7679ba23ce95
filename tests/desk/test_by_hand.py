"""A workflow that an operator starts: by its own event, for whom that means, and as one who has asked for it."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select, update

from identity.audit import Act
from identity.audit.tables import audit
from identity.errors import BadInput
from identity.model import PrincipalKind
from identity.principals import ensure_principal
from pipeline.approvals.requesters import requesters, unheld_key
from pipeline.authoring.declared_workflow import Workflow
from pipeline.desk import jobs as job_acts
from pipeline.desk import workflows as acts
from pipeline.jobs.new_jobs import NewJob, insert_job
from pipeline.model import Bell
from pipeline.steps.replay import replay_job
from pipeline.tables import jobs
from pipeline.views.operator_queries import any_job
from pipeline.views.wording import started_by
from pipeline.workflow import SERVICE, Daily, Tick, workflow
from tests.ledger.house import House, Say, say_it


@workflow(agent="tester", uses={Say: SERVICE}, schedule=Daily(cron="30 2 * * *"))
def nightly(run: Any, event: Tick) -> None:
    run.do(Say(text=event.slot), as_=run.service)


def start(house: House, declared: Workflow, event: object | None = None, *, tenant: str = "acme") -> str:
    job = house.ids("job")
    act = Act(audit_id=house.ids("aud"), by="cli:grace", now=datetime.now(UTC))
    begin = partial(acts.start, tenant=tenant, workflow=declared, act=act, event=event, job=job)
    rung: tuple[Bell, ...] = house.database.write(begin)
    assert [bell.job for bell in rung] == [job]
    return job


def enable(house: House, declared: Workflow) -> None:
    act = Act(audit_id=house.ids("aud"), by="cli:grace", now=datetime.now(UTC))
    house.database.write(lambda c: acts.enable(c, "acme", declared, act, config=None))


def recorded(house: House) -> list[Any]:
    found = select(audit).where(audit.c.kind == "job.started")
    return list(house.database.read(lambda c: c.execute(found).all()))


def test_it_is_accepted_for_whom_its_event_means_and_nobody_has_sent_it(house: House) -> None:
    job = start(house, say_it, {"author": "1001", "text": "now"})
    row = house.row(job)
    assert (row.user_id, row.event, row.state) == ("acme.ada", {"author": "1001", "text": "now"}, "queued")
    assert (row.triggered_by, row.delivery_id, row.agent_id) == (None, None, "tester")
    (said,) = recorded(house)
    assert (said.job_id, said.on_behalf_of, said.reason) == (job, "acme.ada", "by cli:grace")


def test_who_started_it_has_asked_for_it(house: House) -> None:
    grace = partial(ensure_principal, id="acme.grace", tenant="acme", kind=PrincipalKind.USER, name="grace")
    house.database.write(partial(grace, now=datetime.now(UTC)))
    job = start(house, say_it, {"author": "1001"})
    assert house.database.read(lambda c: requesters(c, job, ["acme.ada", "acme.grace"])) == {"acme.ada", "acme.grace"}


def test_it_is_told_who_started_it_and_who_had_it_accepted_anew(house: House) -> None:
    job, now = start(house, say_it, {"author": "1001"}), datetime.now(UTC)

    def told() -> str:
        return house.database.read(lambda c: started_by(c, any_job(c, job)))

    assert told() == "an operator, by cli:grace"
    cancel = Act(audit_id=house.ids("aud"), by="cli:grace", now=now)
    house.database.write(lambda c: job_acts.cancel(c, job, cancel))
    house.database.write(lambda c: replay_job(c, job, by="cli:ada", at=now, why="the text was wrong"))
    assert told() == "an operator, by cli:grace; replayed by cli:ada: the text was wrong"


def test_of_many_replays_the_newest_are_told_and_how_many_more_so_that_a_question_is_short(house: House) -> None:
    job, now = start(house, say_it, {"author": "1001"}), datetime.now(UTC)
    told = []
    for number in range(6):
        house.database.write(lambda c: c.execute(update(jobs).values(state="dead")))
        why = f"{number}{'y' * 500}"
        house.database.write(partial(replay_job, job=job, by="cli:ada", at=now, why=why))
        told.append(house.database.read(lambda c: started_by(c, any_job(c, job))))
    assert [len(said.split("; ")) for said in told] == [2, 3, 4, 5, 5, 5]
    assert told[3].split("; ")[1] == "replayed 1 more time before"
    start_of_it, more, *newest = told[5].split("; ")
    assert (start_of_it, more) == ("an operator, by cli:grace", "replayed 3 more times before")
    assert [said[:23] for said in newest] == [f"replayed by cli:ada: {n}y" for n in (3, 4, 5)]
    assert len(told[5]) < 600


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"request_id": "req_7"}, "request req_7 of the agent"),
        ({"workflow": "triage.compensation"}, "a revocation, which wants compensated what another job did"),
        ({}, "a schedule, an operator, or what became of another job"),
    ],
    ids=["tool", "compensation", "schedule"],
)
def test_whoever_may_not_approve_a_job_is_not_told_to_have_asked_for_it_and_who_replayed_it_is(
    house: House, values: dict[str, str], says: str
) -> None:
    job, now = house.ids("job"), datetime.now(UTC)
    config = {"prefix": "said: "}
    barred = NewJob(id=job, tenant="acme", workflow=nightly, event={}, config=config, replayed_by=["acme.maker"])
    house.database.write(lambda c: insert_job(c, barred, now=now))
    house.database.write(lambda c: c.execute(update(jobs).values(state="dead", **values)))
    house.database.write(lambda c: replay_job(c, job, by="cli:ada", at=now))
    assert house.row(job).replayed_by == ["acme.maker", "cli:ada"]
    assert house.database.read(lambda c: started_by(c, any_job(c, job))) == f"{says}; replayed by cli:ada"


def test_a_key_by_which_it_was_accepted_anew_is_known_whatever_started_it(house: House) -> None:
    job = start(house, say_it, {"author": "1001"})
    now = datetime.now(UTC)
    assert house.database.read(lambda c: unheld_key(c, job)) is None
    cancel = Act(audit_id=house.ids("aud"), by="cli:grace", now=now)
    house.database.write(lambda c: job_acts.cancel(c, job, cancel))
    house.database.write(lambda c: replay_job(c, job, by="api:acme.bot:key_of_nobody", at=now))
    assert house.database.read(lambda c: unheld_key(c, job)) == "key_of_nobody"


def test_one_that_takes_a_tick_gets_one_of_now(house: House) -> None:
    enable(house, nightly)
    before = datetime.now(UTC)
    event = house.row(start(house, nightly)).event
    assert before <= datetime.fromisoformat(event["slot"]) <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("event", "says"),
    [
        (None, "say_it takes a Opened: give it one with --event FILE"),
        ({"author": 7}, "this is no Opened of say_it: author"),
        ([], "this is no Opened of say_it"),
        ({"author": "2002"}, "nobody of acme is github:2002"),
        ({"author": "10\x0001"}, "takes for user a text with a NUL"),
    ],
)
def test_what_it_could_not_be_for_is_refused_and_starts_nothing(house: House, event: object, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        start(house, say_it, event)
    assert house.states() == {}
    assert recorded(house) == []


def test_one_that_is_off_is_not_started(house: House) -> None:
    act = Act(audit_id=house.ids("aud"), by="cli:grace", now=datetime.now(UTC))
    house.database.write(lambda c: acts.disable(c, "acme", "say_it", act))
    with pytest.raises(BadInput, match="say_it is not switched on for acme"):
        start(house, say_it, {"author": "1001"})
    assert house.states() == {}
