"""What whoever wrote an action got wrong: no attempt stays open for it, and what was not sent is not taken for sent."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any, ClassVar

import pytest
from sqlalchemy import select

from identity.audit import Act
from identity.audit.tables import audit
from identity.capability import audiences
from identity.capability.model import Algorithm, Audience
from identity.errors import Unavailable
from identity.model import Effect
from identity.policy.ledger import apply_policy
from identity.secret import Secret
from pipeline.action import Call, Facts, Judgement, Recovery, Request, Response, Result
from pipeline.approvals.tables import approvals
from pipeline.execution.services import StepSettings
from pipeline.jobs.calls import word_wanted
from pipeline.run import ActionFailed, Run
from pipeline.states import AttemptState, JobState, StepState, Wait
from pipeline.tables import attempts, jobs, steps
from pipeline.throttle.limits import EndpointClass, Limits
from pipeline.workflow import USER
from tests.ledger.acts import attempt_states, steps_of
from tests.ledger.house import Said, Say
from tests.ledger.tries import Sought, answers, says, time_passes
from tests.ledger.workers import Workers, declare
from tests.ledgers import MOSTLY_SQLITE

APPROVED = 'format = 1\n[[rule]]\nname = "all"\napproval = { approvers = ["ada"] }\n'


def _takes_capabilities(workers: Workers) -> None:
    """The upstream takes capabilities too, whose steps come as far as to ask for one."""
    one = Audience(
        id="say",
        uri="https://say.example",
        tenant="acme",
        connection="gh",
        algorithm=Algorithm.ED25519,
        passes_to=(),
    )
    act = Act(audit_id="aud-say", by="test", now=datetime.now(UTC))
    workers.house.database.write(lambda c: audiences.add(c, one, Secret("awr_secret"), act))


class Counted(Say):
    """Whoever wrote it reads what is left as if it were always said."""

    facts: ClassVar[Facts] = replace(Say.facts, endpoints=EndpointClass(name="says"))

    def limits(self, response: Response) -> Limits:
        raise KeyError("x-ratelimit-remaining")


def test_limits_that_an_action_cannot_read_lose_no_answer(workers: Workers, caplog: pytest.LogCaptureFixture) -> None:
    workers.house.workflow = replace(workers.house.workflow, uses={Counted: USER})
    declare(workers, partial(says, Counted))
    answers(workers, 200, id="7")
    job = workers.house.job()
    workers.work(job)
    row, (step,) = workers.house.row(job), steps_of(workers.house)
    assert (row.state, row.runs_spent, step.state) == (JobState.DONE, 0, StepState.DONE)
    assert attempt_states(workers.house) == [AttemptState.EFFECT]
    assert "the limits that github.Counted was told cannot be read: KeyError at " in caplog.text
    assert "x-ratelimit-remaining" not in caplog.text


class Unwritable(Say):
    facts: ClassVar[Facts] = replace(Say.facts, recovery=Recovery.ASK)

    def request(self, call: Call) -> Request:
        return Request(method="POST", path="/say", json={"amount": Decimal("1.5")})


class Unsearchable(Sought):
    def probe(self, call: Call) -> Request:
        raise KeyError("hello")


class Secretive(Unwritable):
    def request(self, call: Call) -> Request:
        raise KeyError("another secret") from ValueError("an upstream's secret")


class Requested(Unwritable):
    """Makes the request of a test."""

    made: ClassVar[Request]

    def request(self, call: Call) -> Request:
        return self.made


def _post(**other: Any) -> Request:
    return Request(**{"method": "POST", "path": "/say", **other})


class ByCapability(Requested):
    facts: ClassVar[Facts] = replace(Requested.facts, capability=True)

    def resource(self) -> str | None:
        return "said/7"


UNWRITABLE = {
    "a number in a header": (_post(headers={"X-Number": 7}), " has nothing that can be sent: TypeError"),
    "no ASCII in a header": (_post(headers={"X-Name": "\xe9"}), " has nothing that can be sent: UnicodeEncodeError"),
    "half a character": (_post(path="/\ud800"), " has nothing that can be sent: UnicodeEncodeError"),
    "a control character": (_post(path="/a\tb"), " has nothing that can be sent: InvalidURL"),
    "too long": (_post(path="/" + "a" * 65_536), " has nothing that can be sent: InvalidURL"),
    "another host": (_post(path="//elsewhere.example"), ": an action's path begins with one slash"),
    "a segment of dots": (_post(path="/say/../steal"), ": an action's path begins with one slash"),
    "two queries": (_post(path="/say?loud=1", params={"after": "2"}), ": an action's path begins with one slash"),
    "a truth in params": (_post(params={"draft": True}), ": the field 'draft' of an action's request is a bool"),
    "a line break": (
        _post(headers={"X-Note": "secret\r\nX-Other: 7"}),
        ": the header X-Note of an action's request has",
    ),
    "a NUL": (
        _post(headers={"X-Note": "secret\0"}),
        ": the header X-Note of an action's request has a line break, a NUL",
    ),
    "space around it": (_post(headers={"X-Note": "secret "}), ": the header X-Note of an action's request has"),
    "a header of two words": (_post(headers={"X Note": "7"}), ": a header of an action's request is named 'X Note'"),
    "no method": (_post(method=""), ": the method of an action's request is one word"),
    "a method of two words": (_post(method="GET /"), ": the method of an action's request is one word"),
}


@MOSTLY_SQLITE
@pytest.mark.parametrize("action", [Requested, ByCapability])
@pytest.mark.parametrize("case", UNWRITABLE)
def test_a_request_that_cannot_be_written_opens_nothing_and_ends_the_job_by_the_actions_name(
    workers: Workers, case: str, action: type[Requested], monkeypatch: pytest.MonkeyPatch
) -> None:
    request, sentence = UNWRITABLE[case]
    monkeypatch.setattr(Requested, "made", request, raising=False)
    _takes_capabilities(workers)
    workers.house.workflow = replace(workers.house.workflow, uses={action: USER})
    declare(workers, partial(says, action))
    job = workers.house.job()
    workers.work(job)
    row, name = workers.house.row(job), action.action_name()
    assert (row.state, row.runs_spent) == (JobState.DEAD, 0)
    assert row.reason.startswith(f"BadInput: step 1: {name}.request{sentence}")
    assert "secret" not in row.reason
    assert (workers.tokens, attempt_states(workers.house), steps_of(workers.house)) == ([], [], [])


def test_nobody_is_asked_to_approve_a_request_that_cannot_be_written(workers: Workers) -> None:
    house = workers.house
    apply = partial(apply_policy, over=None, act=Act(audit_id="aud-1", by="cli:test", now=datetime.now(UTC)))
    house.database.write(lambda c: apply(c, "acme", APPROVED))
    house.workflow = replace(house.workflow, uses={Unwritable: USER})
    declare(workers, partial(says, Unwritable))
    job = house.job()
    workers.work(job)
    assert house.row(job).reason == (
        "BadInput: step 1: github.Unwritable.request has nothing that can be sent: TypeError"
    )
    assert house.database.read(lambda c: c.execute(select(approvals)).all()) == []


def test_a_request_is_written_once_for_what_is_sent_and_for_its_capability(workers: Workers) -> None:
    written = []

    class Tallied(ByCapability):
        def request(self, call: Call) -> Request:
            written.append(call)
            return _post()

        def confined_to(self) -> str | None:
            """Asked last before the step opens."""
            raise Unavailable("enough")

    _takes_capabilities(workers)
    workers.house.workflow = replace(workers.house.workflow, uses={Tallied: USER})
    declare(workers, partial(says, Tallied))
    job = workers.house.job()
    workers.work(job)
    assert (workers.house.row(job).reason, len(written)) == ("enough", 1)


@pytest.mark.parametrize(
    ("action", "bug", "place"),
    [(Unwritable, "TypeError", "/pipeline/upstream.py:"), (Secretive, "KeyError", f"{__file__}:")],
    ids=["in writing it", "in making it"],
)
def test_a_bug_in_making_a_request_is_told_by_its_class_and_place_alone(
    workers: Workers, caplog: pytest.LogCaptureFixture, action: type[Say], bug: str, place: str
) -> None:
    workers.house.workflow = replace(workers.house.workflow, uses={action: USER})
    declare(workers, partial(says, action))
    job = workers.house.job()
    workers.work(job)
    row, name = workers.house.row(job), f"{action.action_name()}.request"
    assert row.reason == f"BadInput: step 1: {name} has nothing that can be sent: {bug}"
    (told,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert told.getMessage().startswith(f"{name} has nothing that can be sent: {bug} at ")
    assert place in told.getMessage()
    assert (told.exc_info, "secret" in caplog.text) == (None, False)


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
    assert row.reason == (
        "BadInput: step 1: github.Unsearchable.probe has nothing that can be sent: KeyError; github.Unsearchable was "
        f"sent before and no answer came: {word_wanted('github')}"
    )
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
    workers: Workers, caplog: pytest.LogCaptureFixture, action: type[Say], bug: str
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
    written = workers.house.database.read(
        lambda c: [c.execute(select(table)).all() for table in (attempts, steps, jobs, audit)]
    )
    assert (bug in caplog.text, bug in str(written)) == (True, True)
    assert ("secret" in caplog.text, "secret" in str(written)) == (False, False)


class Looking(Lacking):
    facts: ClassVar[Facts] = replace(Say.facts, effect=Effect.READ)


def catches_a_failure(run: Run[Any], event: Any) -> None:
    with suppress(ActionFailed):
        run.do(Looking(text="hello"), as_=run.user)


def test_a_read_that_its_action_fails_to_read_is_no_failure_of_the_upstreams(
    workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    house = workers.house
    house.workflow = replace(house.workflow, uses={Looking: USER})
    declare(workers, catches_a_failure)
    answers(workers, 200, id="secret")
    job = house.job()
    for tries in (1, 2):
        workers.work(job, StepSettings(attempts=2))
        assert attempt_states(house) == [AttemptState.NO_EFFECT] * tries
        time_passes(workers)
    row, (step,) = house.row(job), steps_of(house)
    assert (row.state, row.runs_spent, step.state) == (JobState.DEAD, 0, StepState.OPEN)
    why = "github.Looking cannot read the answer (status 200): KeyError"
    assert row.reason == f"BadInput: step 1: {why}, after 2 attempts"
    assert f"{why} at " in caplog.text
    assert (f"{__file__}:" in caplog.text, "'number'" in caplog.text) == (True, False)


class Misfinding(Sought):
    def found(self, response: Response, call: Call) -> Said | None:
        raise KeyError(response.body.decode())


def test_a_search_whose_answer_its_action_fails_to_read_asks_a_person(
    workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    house = workers.house
    house.workflow = replace(house.workflow, uses={Misfinding: USER})
    declare(workers, partial(says, Misfinding))
    answers(workers, 500)
    job = house.job()
    workers.work(job, StepSettings(attempts=1))
    time_passes(workers)
    answers(workers, 200, id="secret")
    workers.work(job, StepSettings(attempts=1))
    row, (step,) = house.row(job), steps_of(house)
    assert (row.state, row.wait, row.runs_spent, step.state) == (JobState.WAITING, Wait.UNKNOWN, 0, StepState.UNKNOWN)
    assert row.reason == (
        "whether github.Misfinding had its effect cannot be looked up: github.Misfinding cannot read the answer "
        "(status 200): KeyError"
    )
    assert "github.Misfinding cannot read the answer (status 200): KeyError at " in caplog.text
    assert "secret" not in caplog.text


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
