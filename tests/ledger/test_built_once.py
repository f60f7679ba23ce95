"""The statements that every job goes through are built once: to build one anew takes longer than to run it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event

from tests.ledger.workers import Workers


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


def test_a_second_job_is_given_no_statement_that_the_first_was_not(workers: Workers) -> None:
    first, second = workers.house.job(), workers.house.job()
    with asked() as before:
        workers.work(first)
    with asked() as after:
        workers.work(second)
    assert after
    known, dialect = {id(statement) for statement in before}, workers.house.database.engine.dialect
    assert [str(statement.compile(dialect=dialect)) for statement in after if id(statement) not in known] == []
