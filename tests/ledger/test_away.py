"""What a worker does while the ledger is away, or does not confirm a commit: what it knows is not lost by that."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar, cast

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Connection

from identity.errors import Unavailable
from identity.sql.store import CommitUnknown
from pipeline.db.database import Database
from pipeline.execution.interruption import RunAgain
from pipeline.jobs.intents import Intent
from pipeline.run import Run, StepSkipped
from pipeline.states import AttemptState, JobState, StepState
from pipeline.steps.closings import Closed, Closing, close_attempt, close_unsent
from pipeline.steps.openings import open_attempt
from tests.ledger.acts import attempt_states, audit_kinds, open_, step_state, until_awaited
from tests.ledger.house import House, Say, intent_of
from tests.ledger.tries import says
from tests.ledger.workers import Workers, declare
from tests.ledgers import MOSTLY_SQLITE
from tests.properties.held import Ledger

T = TypeVar("T")


class Away(Ledger):
    """A ledger that is away for so many turns, be it to write or to read: the next ones, or those after a fault."""

    def __init__(self, workers: Workers) -> None:
        super().__init__(workers.house.database, lambda: None)
        self.turns = 0
        self._under_way: list[Callable[[Connection], object]] = []
        workers.house.database = cast("Database", self)

    def write(self, fn: Callable[[Connection], T]) -> T:
        if self.fault == "commit under way":  # no read sees it, and the next write waits for it
            self.fault = None
            self._under_way.append(fn)
            raise CommitUnknown("the connection broke in COMMIT")
        while self._under_way:
            self.inner.write(self._under_way.pop())
        self._take_turn()
        return super().write(fn)

    def read(self, fn: Callable[[Connection], T]) -> T:
        self._take_turn()
        return super().read(fn)

    def _take_turn(self) -> None:
        if self.turns and self.fault is None:
            self.turns -= 1
            raise Unavailable("no turn could be had")


def _steps_done() -> float:
    labels = {"action": "github.Say", "pattern": "delegated", "outcome": "done"}
    return REGISTRY.get_sample_value("aswhom_steps_total", labels) or 0


@pytest.mark.parametrize("fault", [None, "commit unseen", "commit lost"])
def test_an_answer_is_written_once_the_ledger_is_back(workers: Workers, fault: str | None) -> None:
    ledger, answered, before = Away(workers), workers.provider.call, _steps_done()

    def answer(token: str) -> Any:
        ledger.fault, ledger.turns = fault, 3
        return answered(token)

    workers.provider.call = answer
    declare(workers, partial(says, Say))
    job = workers.house.job()
    workers.work(job)
    assert (len(workers.tokens), workers.house.row(job).state) == (1, JobState.DONE)
    assert attempt_states(workers.house) == [AttemptState.EFFECT]
    kinds = [kind for kind in audit_kinds(workers.house) if kind.startswith("attempt.")]
    assert kinds == ["attempt.opened", "attempt.closed"]
    assert _steps_done() - before == 1


def _writes_twice(house: House, asked: Intent, **closing: Any) -> list[Closed]:
    """Whoever wrote it did not see the commit."""
    same = partial(close_attempt, intent=asked, closing=Closing(attempt=asked.attempt, **closing))
    return [house.database.write(same), house.database.write(same)]


@pytest.mark.parametrize(
    ("state", "ends", "more"),
    [
        (AttemptState.EFFECT, StepState.DONE, {"status": 200, "result": {"id": "7"}, "upstream_request_id": "r"}),
        (AttemptState.NO_EFFECT, StepState.FAILED, {"status": 422, "error": "no"}),
        (AttemptState.NO_EFFECT, StepState.OPEN, {"error": "not sent"}),
        (AttemptState.UNKNOWN, StepState.UNKNOWN, {"error": "no answer"}),
    ],
)
def test_a_closing_that_is_written_again_counts_as_before_and_is_recorded_once(
    house: House, state: AttemptState, ends: StepState, more: dict[str, Any]
) -> None:
    asked = intent_of(house, house.claim(house.job()))
    open_(house, asked)
    assert _writes_twice(house, asked, state=state, step_state=ends, **more) == [Closed(counts=True)] * 2
    assert (attempt_states(house), step_state(house, asked.step)) == ([state], ends)
    assert [kind for kind in audit_kinds(house) if kind.startswith("attempt.")] == ["attempt.opened", "attempt.closed"]


@pytest.mark.parametrize(
    ("fault", "turns"), [("commit unseen", 0), ("commit unseen", 3), ("commit under way", 0), ("commit under way", 3)]
)
def test_an_intent_of_which_nothing_was_sent_is_taken_back_whenever_its_commit_comes(
    workers: Workers, fault: str, turns: int
) -> None:
    ledger = Away(workers)

    def says_with_a_fault(run: Run[Any], event: Any) -> None:
        ledger.fault, ledger.turns = fault, turns
        run.do(Say(text="hello"), as_=run.user)

    declare(workers, says_with_a_fault)
    job = workers.house.job()
    workers.work(job)
    assert (workers.tokens, attempt_states(workers.house)) == ([], [AttemptState.NO_EFFECT])
    row = workers.house.row(job)
    assert (row.state, row.runs_spent) == (JobState.QUEUED, 0)


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_what_is_taken_back_waits_for_the_opening_that_is_under_way(house: House) -> None:
    """SQLite has one writer, and nothing of what it could not commit comes later."""
    asked = intent_of(house, house.claim(house.job()))
    taking = threading.Thread(target=lambda: house.database.write(partial(close_unsent, intent=asked)))
    until_awaited(house.database, partial(open_attempt, intent=asked), by=taking)
    assert (attempt_states(house), step_state(house, asked.step)) == ([AttemptState.NO_EFFECT], StepState.OPEN)


def _ends_while_away(ledger: Away, fault: str | None, end: BaseException | None, run: Run[Any], event: Any) -> None:
    ledger.fault, ledger.turns = fault, 3
    if end is not None:
        raise end


@MOSTLY_SQLITE
@pytest.mark.parametrize("fault", [None, "commit unseen", "commit lost"])
@pytest.mark.parametrize(
    ("end", "state"),
    [
        (None, JobState.DONE),
        (RunAgain("later", delay=timedelta()), JobState.QUEUED),
        (StepSkipped("revoked"), JobState.CANCELLED),
    ],
    ids=repr,
)
def test_a_run_that_ends_while_the_ledger_is_away_ends_once_it_is_back_and_is_not_spent(
    workers: Workers, end: BaseException | None, state: JobState, fault: str | None
) -> None:
    assert _comes_to(workers, end, fault) == (state, 0)


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_run_whose_end_postgresql_lost_ends_all_the_same(workers: Workers) -> None:
    assert _comes_to(workers, None, "commit lost") == (JobState.DONE, 0)


def _comes_to(workers: Workers, end: BaseException | None, fault: str | None) -> tuple[str, int]:
    declare(workers, partial(_ends_while_away, Away(workers), fault, end))
    job = workers.house.job()
    workers.work(job)
    row = workers.house.row(job)
    return row.state, row.runs_spent


def test_a_process_that_is_left_does_not_wait_for_a_ledger_that_is_away(workers: Workers) -> None:
    ledger = Away(workers)
    left: list[str] = []

    def leaves(run: Run[Any], event: Any) -> None:
        ledger.turns = 1
        worker.hand_back(besides=[])
        left.append(workers.house.row(job).state)

    declare(workers, leaves)
    worker, job = workers.worker(), workers.house.job()
    worker.handle(job)
    assert left == [JobState.RUNNING]
