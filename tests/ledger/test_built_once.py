"""The statements that every job and step goes through are built once: to build one anew takes longer than to run it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy import Engine, event

from pipeline.ledger import jobs, steps
from pipeline.ledger.closings import Closing, close_attempt
from pipeline.ledger.openings import open_attempt
from pipeline.states import AttemptState, StepState
from tests.ledger.house import House, intent_of


@contextmanager
def asked() -> Iterator[list[Any]]:
    """The statements that engines are given meanwhile, as objects."""
    heard: list[Any] = []

    def hear(connection: Any, statement: Any, many: Any, parameters: Any, options: Any) -> None:
        heard.append(statement)

    event.listen(Engine, "before_execute", hear)
    try:
        yield heard
    finally:
        event.remove(Engine, "before_execute", hear)


def _a_job_of_one_step(house: House, bell: str) -> None:
    job = house.claim(bell, hold=timedelta(minutes=1))
    house.database.read(lambda c: steps.load(c, job.id))
    intent = intent_of(house, job)
    house.database.write(lambda c: open_attempt(c, intent))
    done = Closing(
        attempt=intent.attempt,
        state=AttemptState.EFFECT,
        step_state=StepState.DONE,
        result={"id": "1"},
        resolves=AttemptState.ADOPTED,
    )
    house.database.write(lambda c: close_attempt(c, intent, done))
    house.database.write(lambda c: jobs.finish(c, job))


def test_a_second_job_is_given_no_statement_that_the_first_was_not(house: House) -> None:
    first, second = house.job(), house.job()
    with asked() as before:
        _a_job_of_one_step(house, first)
    with asked() as after:
        _a_job_of_one_step(house, second)
    known, dialect = {id(statement) for statement in before}, house.database.engine.dialect
    assert [str(statement.compile(dialect=dialect)) for statement in after if id(statement) not in known] == []
