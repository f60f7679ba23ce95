"""Whatever an upstream answers, the attempt that it answers is closed by it, and no run is spent."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import ClassVar

import pytest
from pydantic import BaseModel, ValidationError
from sqlalchemy import select

from identity.quoting import kept
from identity.tables import accounts
from pipeline.action import Call, Facts, Judgement, Recovery, Request, Response, Result, Verdict
from pipeline.limits import EndpointClass, Limits
from pipeline.states import AttemptState, JobState, StepState
from pipeline.workflow import USER
from tasks.actions.answers import parse
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


class Counted(Say):
    """Whoever wrote it reads what is left as if it were always said."""

    facts: ClassVar[Facts] = replace(Say.facts, endpoints=EndpointClass(name="says"))

    def limits(self, response: Response) -> Limits:
        raise KeyError("x-ratelimit-remaining")


@pytest.mark.parametrize("action", [Say, Overlong])
@pytest.mark.parametrize("named", ["300000000000", "1772366460", "999999999"])
def test_a_job_that_is_put_off_beyond_all_dates_comes_back_within_a_day(
    workers: Workers, action: type[Say], named: str
) -> None:
    workers.house.workflow = replace(workers.house.workflow, uses={action: USER})
    declare(workers, partial(says, action))
    workers.provider.call = lambda token: reply({}, 429, retry_after=named)
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


def test_limits_that_an_action_cannot_read_lose_no_answer(workers: Workers, caplog: pytest.LogCaptureFixture) -> None:
    workers.house.workflow = replace(workers.house.workflow, uses={Counted: USER})
    declare(workers, partial(says, Counted))
    answers(workers, 200, id="7")
    job = workers.house.job()
    workers.work(job)
    row, (step,) = workers.house.row(job), steps_of(workers.house)
    assert (row.state, row.runs_spent, step.state) == (JobState.DONE, 0, StepState.DONE)
    assert attempt_states(workers.house) == [AttemptState.EFFECT]
    assert "the limits that github.Counted was told cannot be read" in caplog.text


# What its author got wrong: the attempt is not left open for it, and what was not sent is not taken for sent.


class Unwritable(Say):
    facts: ClassVar[Facts] = replace(Say.facts, recovery=Recovery.ASK)

    def request(self, call: Call) -> Request:
        return Request(method="POST", path="/say", json={"amount": Decimal("1.5")})


class Unsearchable(Sought):
    def probe(self, call: Call) -> Request:
        raise KeyError("hello")


class Numbered(Unwritable):
    def request(self, call: Call) -> Request:
        return Request(method="POST", path="/say", headers={"X-Number": 7})  # type: ignore[dict-item]


class Halved(Unwritable):
    def request(self, call: Call) -> Request:
        return Request(method="POST", path="/\ud800")


class Elsewhere(Unwritable):
    def request(self, call: Call) -> Request:
        return Request(method="POST", path="/say/../steal")


class Asked(Unwritable):
    def request(self, call: Call) -> Request:
        return Request(method="POST", path="/say?loud=1", params={"after": "2"})


class NoAddress(Unwritable):
    def request(self, call: Call) -> Request:
        return Request(method="POST", path="/say\n")


@pytest.mark.parametrize(
    ("action", "bug"),
    [
        (Unwritable, "TypeError"),
        (Numbered, "TypeError"),
        (Halved, "UnicodeEncodeError"),
        (Elsewhere, "BadInput"),
        (Asked, "BadInput"),
        (NoAddress, "InvalidURL"),
    ],
)
def test_a_request_that_cannot_be_written_opens_nothing_and_ends_the_job_by_the_actions_name(
    workers: Workers, action: type[Say], bug: str
) -> None:
    workers.house.workflow = replace(workers.house.workflow, uses={action: USER})
    declare(workers, partial(says, action))
    job = workers.house.job()
    workers.work(job)
    row, name = workers.house.row(job), action.action_name()
    assert (row.state, row.runs_spent) == (JobState.DEAD, 0)
    assert row.reason == f"BadInput: step 1: {name}.request has nothing that can be sent: {bug}"
    assert (workers.tokens, attempt_states(workers.house), steps_of(workers.house)) == ([], [], [])


def test_a_search_that_cannot_be_written_leaves_its_step_in_doubt_and_says_whose_bug_it_is(workers: Workers) -> None:
    workers.house.workflow = replace(workers.house.workflow, uses={Unsearchable: USER})
    declare(workers, partial(says, Unsearchable))
    answers(workers, 500)
    job = workers.house.job()
    for _ in range(2):
        workers.work(job)
        time_passes(workers)
    row, (step,) = workers.house.row(job), steps_of(workers.house)
    assert (row.state, row.runs_spent, step.state) == (JobState.DEAD, 0, StepState.UNKNOWN)
    assert row.reason == "BadInput: step 1: github.Unsearchable.probe has nothing that can be sent: KeyError"
    assert attempt_states(workers.house) == [AttemptState.UNKNOWN]


class Lacking(Say):
    def read(self, response: Response) -> Said:
        return Said(id=response.json()["number"])


class Mistyping(Say):
    def read(self, response: Response) -> Said:
        return Said(id=response.json())


class Misjudging(Say):
    def judge(self, response: Response) -> Judgement:
        raise IndexError(response.body.decode())


class Misnaming(Say):
    def external_id(self, result: Said) -> str:
        return 5  # type: ignore[return-value]


class Raw(Said):
    id: str = ""
    body: bytes


class Undumpable(Say):
    result: ClassVar[type[Result]] = Raw

    def read(self, response: Response) -> Raw:
        return Raw(body=b"\xff")


@pytest.mark.parametrize(
    ("action", "bug"),
    [
        (Lacking, "KeyError"),
        (Mistyping, "ValidationError"),
        (Misjudging, "IndexError"),
        (Misnaming, "TypeError"),
        (Undumpable, "UnicodeDecodeError"),
    ],
)
def test_an_answer_that_its_action_fails_to_read_is_no_known_outcome_and_is_not_quoted(
    workers: Workers, action: type[Say], bug: str
) -> None:
    workers.house.workflow = replace(workers.house.workflow, uses={action: USER})
    declare(workers, partial(says, action))
    answers(workers, 200, id="secret")
    job = workers.house.job()
    workers.work(job)
    row, name = workers.house.row(job), action.action_name()
    assert (row.state, row.runs_spent) == (JobState.QUEUED, 0)
    assert row.reason == (
        f"{name} was sent and its outcome is not known: {name} cannot read the answer (status 200): {bug}"
    )
    assert attempt_states(workers.house) == [AttemptState.UNKNOWN]


def test_an_action_that_reads_nothing_leaves_no_attempt_open(workers: Workers) -> None:
    class Silent(Say):
        def read(self, response: Response) -> Said:
            return None  # type: ignore[return-value]

    workers.house.workflow = replace(workers.house.workflow, uses={Silent: USER})
    declare(workers, partial(says, Silent))
    job = workers.house.job()
    workers.work(job)
    row = workers.house.row(job)
    assert (row.state, row.runs_spent) == (JobState.QUEUED, 0)
    assert row.reason.endswith("github.Silent.read returned no result")
    assert attempt_states(workers.house) == [AttemptState.UNKNOWN]
