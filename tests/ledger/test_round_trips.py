"""Statements sent together: written as if one by one, refused as if one by one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, func, insert, select, text
from sqlalchemy.exc import IntegrityError

from identity.round_trips import sent_together
from identity.tables import tenants
from pipeline.database import Database


def _add(c: Connection, *names: str) -> None:
    for name in names:
        c.execute(insert(tenants), {"id": name, "name": name, "created_at": datetime.now(UTC)})


def _together(*names: str) -> Callable[[Connection], int]:
    def write(c: Connection) -> int:
        with sent_together(c):
            _add(c, *names)
        return c.execute(select(func.count()).select_from(tenants)).scalar_one()

    return write


def test_what_is_sent_together_is_written_in_order_and_seen_by_the_next_statement(database: Database) -> None:
    assert database.write(_together("one", "two", "three")) == 3


def test_what_the_database_refuses_is_refused_as_if_it_were_sent_alone(database: Database) -> None:
    """Many times, so that the driver has prepared it when it is refused."""
    database.write(_together("there"))
    for number in range(12):
        with pytest.raises(IntegrityError) as refused:
            database.write(_together(f"before-{number}", "there", f"after-{number}"))
        assert f"before-{number}" not in str(refused.value)
        assert database.write(_together(f"next-{number}")) == number + 2


def test_what_the_block_raises_itself_comes_out_of_it_and_nothing_is_written(database: Database) -> None:
    class Refused(Exception):
        pass

    def write(c: Connection) -> None:
        with sent_together(c):
            _add(c, "half")
            raise Refused

    with pytest.raises(Refused):
        database.write(write)
    assert database.write(_together("one")) == 1


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_connection_that_is_lost_in_the_block_is_tried_again_on_another(database: Database) -> None:
    backends: list[int] = []

    def write(c: Connection) -> None:
        backends.append(c.execute(text("select pg_backend_pid()")).scalar_one())
        if len(backends) == 1:
            database.read(
                lambda other: other.execute(text("select pg_terminate_backend(:pid, 5000)"), {"pid": backends[0]})
            )
        with sent_together(c):
            _add(c, "one", "two")

    database.write(write)
    assert len(set(backends)) == len(backends) == 2
    assert database.read(lambda c: c.execute(select(func.count()).select_from(tenants)).scalar_one()) == 2


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_deadlock_in_the_block_is_tried_again(database: Database) -> None:
    database.write(_together("one", "two"))
    met = threading.Barrier(2, timeout=10)
    tries: list[str] = []

    def rename(first: str, second: str) -> Callable[[Connection], Any]:
        def write(c: Connection) -> None:
            tries.append(first)
            change = text("update tenants set name = name || :by where id = :id")
            c.execute(change, {"id": first, "by": first})
            if len(tries) <= 2:
                met.wait()
            with sent_together(c):
                c.execute(change, {"id": second, "by": first})

        return write

    other = threading.Thread(target=database.write, args=(rename("two", "one"),))
    other.start()
    database.write(rename("one", "two"))
    other.join()
    assert len(tries) == 3
    named = database.read(lambda c: set(c.execute(select(tenants.c.name)).scalars()))
    assert {len(name) for name in named} == {len("oneonetwo")}


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_nobody_waits_for_a_statement_before_the_end_of_the_block(database: Database) -> None:
    """The first waits for a row that another lets go of when the second has been sent."""
    database.write(_together("one"))
    held, sent = threading.Event(), threading.Event()
    rename = text("update tenants set name = :name where id = 'one'")
    waited: list[bool] = []

    def hold(c: Connection) -> None:
        c.execute(rename, {"name": "held"})
        held.set()
        waited.append(sent.wait(1.5))

    def send(c: Connection) -> None:
        with sent_together(c):
            c.execute(rename, {"name": "sent"})
            _add(c, "two")
            sent.set()

    holder = threading.Thread(target=database.write, args=(hold,))
    holder.start()
    held.wait()
    database.write(send)
    holder.join()
    assert waited == [True]
