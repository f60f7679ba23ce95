"""Whatever an upstream answers, the attempt that it answers is closed by it, and no run is spent."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import ClassVar

import pytest
from pydantic import BaseModel, ValidationError
from sqlalchemy import select

from identity.quoting import kept
from identity.tables import accounts
from pipeline.action import Call, Facts, Judgement, Recovery, Request, Response, Result, Verdict
from pipeline.reading import parse
from pipeline.states import AttemptState, JobState, StepState
from pipeline.workflow import USER
from tasks.actions.salesforce import UpdateOpportunity
from tests.identity.providers import JSON, reply
from tests.ledger.acts import attempt_states, steps_of
from tests.ledger.house import Said, Say
from tests.ledger.tries import answers, says, time_passes
from tests.ledger.workers import ADA, Workers, declare

DEEP = b'{"a":' * 20_000


class Sought(Say):
    facts: ClassVar[Facts] = replace(Say.facts, recovery=Recovery.PROBE)

    def probe(self, call: Call) -> Request:
        return Request(method="POST", path="/search")

    def found(self, response: Response, call: Call) -> Said | None:
        response.json()
        return None


class Named(Say):
    def external_id(self, result: Said) -> str:
        return result.id


class Weighed(Said):
    id: str = ""
    weight: float


class Weigh(Say):
    result: ClassVar[type[Result]] = Weighed

    def read(self, response: Response) -> Weighed:
        return parse(response, Weighed)


class Keyed(BaseModel):
    id: dict[str, int]


class Overlong(Say):
    """Whoever wrote it hands on whatever the upstream says."""

    def judge(self, response: Response) -> Judgement:
        return Judgement(verdict=Verdict.RETRY, reason="later", retry_after=timedelta(days=20_000))


@pytest.mark.parametrize("action", [Say, Overlong])
def test_a_job_that_is_put_off_beyond_all_dates_comes_back_within_a_day(workers: Workers, action: type[Say]) -> None:
    workers.house.workflow = replace(workers.house.workflow, uses={action: USER})
    declare(workers, partial(says, action))
    workers.provider.call = lambda token: reply({}, 429, retry_after="300000000000")
    job = workers.house.job()
    workers.work(job)
    row = workers.house.row(job)
    assert (row.state, row.runs_spent) == (JobState.QUEUED, 0)
    assert row.due_at - datetime.now(UTC) <= timedelta(days=1)
    assert attempt_states(workers.house) == [AttemptState.NO_EFFECT]


def test_a_body_that_is_nested_too_deep_to_be_read_is_no_known_outcome(workers: Workers) -> None:
    workers.house.workflow = replace(workers.house.workflow, uses={Sought: USER})
    declare(workers, partial(says, Sought))
    workers.provider.call = lambda token: (200, JSON, DEEP)
    job = workers.house.job()
    for _ in range(2):  # the call, and the search for its effect
        workers.work(job)
        row = workers.house.row(job)
        assert (row.state, row.runs_spent) == (JobState.QUEUED, 0)
        assert "is not JSON" in row.reason
        time_passes(workers)
    assert attempt_states(workers.house) == [AttemptState.UNKNOWN, AttemptState.NO_EFFECT]


@pytest.mark.parametrize("weight", [b"1e999", b"-Infinity", b"NaN"])
def test_a_number_that_no_json_can_hold_is_no_result(workers: Workers, weight: bytes) -> None:
    workers.house.workflow = replace(workers.house.workflow, uses={Weigh: USER})
    declare(workers, partial(says, Weigh))
    workers.provider.call = lambda token: (200, JSON, b'{"weight": ' + weight + b"}")
    job = workers.house.job()
    workers.work(job)
    row = workers.house.row(job)
    assert (row.state, row.runs_spent) == (JobState.QUEUED, 0)
    assert row.reason.endswith("lacks or mistypes: weight")


@pytest.mark.parametrize("amount", [float("inf"), float("nan")])
def test_a_number_that_no_json_can_hold_is_no_parameter(amount: float) -> None:
    with pytest.raises(ValidationError, match="amount"):
        UpdateOpportunity(id="006000000000001", stage="Closed Won", amount=amount)


@pytest.mark.parametrize("id", ["7\0", "7\ud800", "7" * 300], ids=["nul", "half-a-character", "too-long"])
def test_an_id_that_no_ledger_can_hold_is_kept_as_far_as_it_can(workers: Workers, id: str) -> None:
    workers.house.workflow = replace(workers.house.workflow, uses={Named: USER})
    declare(workers, partial(says, Named))
    answers(workers, 200, id=id)
    job = workers.house.job()
    workers.work(job)
    row, (step,) = workers.house.row(job), steps_of(workers.house)
    assert (row.state, row.runs_spent, step.state) == (JobState.DONE, 0, StepState.DONE)
    assert step.external_id == kept(id)


def test_a_reason_may_name_a_field_that_no_ledger_can_hold(workers: Workers) -> None:
    class Strict(Say):
        def read(self, response: Response) -> Said:
            return Said(id=str(parse(response, Keyed).id))

    workers.house.workflow = replace(workers.house.workflow, uses={Strict: USER})
    declare(workers, partial(says, Strict))
    workers.provider.call = lambda token: reply({"id": {"a\0": "none"}})
    job = workers.house.job()
    workers.work(job)
    row = workers.house.row(job)
    assert (row.state, row.runs_spent) == (JobState.QUEUED, 0)
    assert row.reason.endswith("lacks or mistypes: id.a\ufffd")


@pytest.mark.parametrize("login", ["a\0da", "a" * 300], ids=["nul", "too-long"])
def test_a_login_that_no_ledger_can_hold_keeps_nobody_from_connecting(workers: Workers, login: str) -> None:
    workers.ada_connects_anew(login=login)
    which = select(accounts.c.external_login).where(accounts.c.id == ADA)
    assert workers.house.database.read(lambda c: c.execute(which).scalar_one()) == kept(login)
