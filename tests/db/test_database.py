"""The one seam for writes: what is promised when things go wrong in it."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import Connection, event, select
from sqlalchemy.exc import DBAPIError

from identity.errors import Misconfigured, Unavailable
from pipeline.db.database import Database, DatabaseSettings, open_database
from tests.ledger.writes import Act, inserts, names_in
from tests.ledgers import open_ledger, turn_taken
from tests.waiting import eventually


def test_a_write_is_seen_once_it_has_returned(database: Database) -> None:
    assert database.write(inserts("one")) == "one"
    assert names_in(database) == {"one"}


def test_a_function_that_raises_leaves_nothing_and_hurts_nobody_else(database: Database) -> None:
    class Refused(Exception):
        pass

    def half(c: Connection) -> None:
        inserts("half")(c)
        raise Refused

    threads = [threading.Thread(target=database.write, args=(inserts(f"t{n}"),)) for n in range(20)]
    for thread in threads:
        thread.start()
    with pytest.raises(Refused):
        database.write(half)
    for thread in threads:
        thread.join()
    assert names_in(database) == {f"t{n}" for n in range(20)}


def test_a_function_that_raises_alone_leaves_nothing_and_the_next_one_is_written(database: Database) -> None:
    class Refused(Exception):
        pass

    def half(c: Connection) -> None:
        inserts("half")(c)
        raise Refused

    for name in ("one", "two"):
        with pytest.raises(Refused):
            database.write(half)
        assert database.write(inserts(name)) == name
    assert names_in(database) == {"one", "two"}


def test_what_is_late_before_its_commit_is_not_written(database: Database, from_there: Act) -> None:
    until = time.monotonic() + 0.1

    def slow(c: Connection) -> None:
        inserts("slow")(c)
        eventually(lambda: time.monotonic() > until)

    for late in (slow, inserts("later")):
        with pytest.raises(Unavailable, match="in time"):
            from_there(partial(database.write, late, until=until))
    in_time = partial(database.write, inserts("in time"), until=time.monotonic() + 60)
    assert from_there(in_time) == "in time"
    assert names_in(database) == {"in time"}


def test_what_two_processes_write_at_once_is_all_kept(ledger_url: str) -> None:
    first, second = (open_ledger(ledger_url) for _ in range(2))
    threads = [
        threading.Thread(target=database.write, args=(inserts(f"{name}{n}"),))
        for name, database in (("a", first), ("b", second))
        for n in range(25)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names_in(first)) == 50
    first.close()
    second.close()


def test_what_goes_ahead_waits_for_nobodys_turn_not_even_for_its_own_process(ledger_url: str) -> None:
    with (
        closing(open_ledger(ledger_url)) as database,
        closing(open_database(DatabaseSettings(url=ledger_url, turn_timeout=timedelta(milliseconds=50)))) as hasty,
    ):
        waits = threading.Thread(target=database.write, args=[inserts("waits")])
        with turn_taken(database):
            if ledger_url.startswith("sqlite"):
                with pytest.raises(Unavailable):
                    hasty.write(inserts("hasty"))
            waits.start()
            assert database.write(inserts("ahead"), ahead=True) == "ahead"
            assert "ahead" in names_in(database)
        waits.join(60)
        assert {"ahead", "waits"} <= names_in(database)


def test_readers_keep_their_connections(ledger_url: str) -> None:
    """As many as read at once do: each new one opens the file, and reads the whole schema, anew."""
    readers, opened = 20, []
    with closing(open_ledger(ledger_url, threads=readers)) as database:
        event.listen(database.engine, "connect", lambda raw, record: opened.append(raw))
        together = threading.Barrier(readers)

        def read(c: Connection) -> None:
            c.execute(select(1))
            together.wait(60)  # so that each needs one of its own

        for _ in range(2):
            threads = [threading.Thread(target=database.read, args=(read,)) for _ in range(readers)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert len(opened) == readers


def test_readers_cannot_write(database: Database) -> None:
    with pytest.raises((Unavailable, DBAPIError), match=r"read-?only"):
        database.read(inserts("sneaked"))
    assert database.write(inserts("wrote")) == "wrote"
    assert "sneaked" not in names_in(database)


def test_another_kind_of_database_is_refused_with_the_two_that_are_not() -> None:
    with pytest.raises(Misconfigured, match="sqlite:///path or postgresql"):
        open_database(DatabaseSettings(url="mysql://host/name"))
