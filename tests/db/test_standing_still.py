"""A process that stands still inside a transaction: PostgreSQL takes its locks back, wherever it stands."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, text

from pipeline.revocation import declaration
from pipeline.steps.openings import open_attempt
from tests.ledger.acts import listening
from tests.ledger.house import House, account_scope
from tests.ledger.house import intent_of as intent
from tests.waiting import eventually

pytestmark = pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
_THERE = text("select count(*) from pg_stat_activity where pid = :pid")


def _stands_still(house: House, write: Callable[[Connection], Any], *, after: int) -> int:
    """Of how many statements *write* is. Its process stands still, at the first try, when so many of them have run."""
    tries, statements = 0, 0

    def one(c: Connection) -> Any:
        nonlocal tries, statements
        tries, statements = tries + 1, 0
        if after and tries == 1:
            c.exec_driver_sql("set local idle_in_transaction_session_timeout = 20")
        pid = c.execute(text("select pg_backend_pid()")).scalar_one()

        def stand(conn: Connection, *_: object) -> None:
            nonlocal statements
            statements += conn is c
            if conn is c and (tries, statements) == (1, after):
                eventually(lambda: not _is_there(house, pid), what="the server ended it")

        with listening(house.database.engine, "after_cursor_execute", stand):
            return write(c)

    house.database.write(one)
    assert tries == (2 if after else 1)
    return statements


def _is_there(house: House, backend: int) -> bool:
    return bool(house.database.read(lambda c: c.execute(_THERE, {"pid": backend}).scalar_one()))


def test_an_opening_is_done_again_whose_session_ends_between_any_two_statements(house: House) -> None:
    def opening() -> Callable[[Connection], Any]:
        return partial(open_attempt, intent=intent(house, house.claim(house.job())))

    _stands_still(house, opening(), after=0)  # the first use of an account is written down
    statements = _stands_still(house, opening(), after=0)
    assert statements > 5
    for after in range(1, statements):
        _stands_still(house, opening(), after=after)


def test_a_revocation_is_declared_again_whose_session_ends_between_any_two_statements(house: House) -> None:
    def declaring() -> Callable[[Connection], Any]:
        declare = partial(declaration.declare, scope=account_scope(), id=house.ids("rev"), tenant="acme")
        cause = declaration.Cause(source="test", by="test", reason="test")
        return partial(declare, cause=cause, now=datetime.now(UTC))

    statements = _stands_still(house, declaring(), after=0)
    assert statements > 3
    for after in range(1, statements):
        _stands_still(house, declaring(), after=after)
