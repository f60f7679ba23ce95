"""The statements that every job goes through are built once: to build one anew takes longer than to run it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.sql.compiler import SQLCompiler

from tests.ledger.plans import statements_of
from tests.ledger.workers import Workers


@contextmanager
def asked_of_sqlalchemy() -> Iterator[list[str]]:
    """The statements that it is given meanwhile: those that are prepared go past it."""
    heard: list[str] = []

    def hear(connection: Any, statement: Any, many: Any, parameters: Any, options: Any) -> None:
        heard.append(str(statement))

    event.listen(Engine, "before_execute", hear)
    try:
        yield heard
    finally:
        event.remove(Engine, "before_execute", hear)


def test_a_second_job_is_given_no_statement_that_the_first_was_not(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = workers.house.job(), workers.house.job()
    workers.work(first)
    compiled: list[str] = []
    compile_anew = SQLCompiler.__init__

    def note(compiler: SQLCompiler, dialect: Any, statement: Any, *given: Any, **more: Any) -> None:
        compiled.append(str(type(statement)))
        compile_anew(compiler, dialect, statement, *given, **more)

    monkeypatch.setattr(SQLCompiler, "__init__", note)
    with asked_of_sqlalchemy() as asked:
        run = statements_of(lambda: workers.work(second))
    assert len(run) > 10
    assert (asked, compiled) == ([], [])
