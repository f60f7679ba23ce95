"""How threads and processes that write to one SQLite ledger take turns, and what is promised where that goes wrong."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import cast

import pytest
from sqlalchemy import Connection, select, text

from identity.errors import Unavailable
from identity.sql.store import CommitUnknown
from identity.tables import tenants
from pipeline.db.database import Database, DatabaseSettings, open_database
from pipeline.db.sqlite import ROOM, SqliteDatabase
from pipeline.db.turnstile import Turnstile
from tests.ledger.writes import Act, inserts, names_in
from tests.ledgers import TURN, open_ledger, turn_taken
from tests.waiting import PATIENCE, eventually

pytestmark = pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)


ROOT = Path(__file__).parents[2]


def _poison(c: Connection) -> None:
    """Deferred to the COMMIT, which therefore fails: an agent of a tenant that does not exist."""
    c.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
    c.execute(text("insert into agents (id, tenant_id, name, created_at) values ('a', 'nobody', 'a', 0)"))


def _ended(c: Connection) -> None:
    """As SQLite ends it on a full disk."""
    inserts("ended")(c)
    c.exec_driver_sql("ROLLBACK")


def _ended_and_raised(c: Connection) -> None:
    _ended(c)
    raise ZeroDivisionError


@pytest.mark.parametrize("fails", [_poison, _ended, _ended_and_raised])
def test_a_transaction_that_failed_is_no_answer_and_is_in_nobody_s_way(
    ledger_url: str,
    database: Database,
    from_there: Act,
    fails: Callable[..., None],
) -> None:
    """Though one function was alone in it."""
    with pytest.raises(CommitUnknown):
        from_there(partial(database.write, fails))
    assert from_there(partial(database.write, inserts("after"))) == "after"
    assert from_there(partial(database.write, inserts("ahead"), ahead=True)) == "ahead"
    with closing(open_ledger(ledger_url)) as other:
        assert other.write(inserts("another's")) == "another's"
    assert names_in(database) == {"after", "ahead", "another's"}


def test_a_failed_commit_answers_every_caller_of_the_group_and_the_writer_goes_on(ledger_url: str) -> None:
    database = SqliteDatabase(ledger_url, turn_timeout=TURN)
    entered, together = threading.Event(), threading.Event()

    def hold(c: Connection) -> None:
        entered.set()
        assert together.wait(60)

    outcomes: dict[str, object] = {}

    def call(name: str, fn: Callable[[Connection], object]) -> None:
        try:
            outcomes[name] = database.write(fn)
        except CommitUnknown as unknown:
            outcomes[name] = unknown

    holder = threading.Thread(target=call, args=("holder", hold))
    holder.start()
    assert entered.wait(60)  # while it holds the writer, the others queue up behind it as one group
    others = {"poison": _poison, "innocent": inserts("innocent"), "another": inserts("another")}
    threads = [threading.Thread(target=call, args=item) for item in others.items()]
    for thread in threads:
        thread.start()
    eventually(partial(_are_queued, database, 3), what="they are queued")
    together.set()
    for thread in [holder, *threads]:
        thread.join(60)
    assert outcomes["holder"] is None
    assert all(isinstance(outcomes[name], CommitUnknown) for name in others)
    assert names_in(database) == set()
    assert database.write(inserts("after")) == "after"
    assert names_in(database) == {"after"}
    database.close()


def test_locks_that_cannot_be_had_are_told_to_the_caller_and_the_writer_goes_on(ledger_url: str) -> None:
    with closing(SqliteDatabase(ledger_url, turn_timeout=timedelta(seconds=30))) as database:
        turnstile = cast("Turnstile", database._writer._gate)
        turn = os.dup(turnstile._turn)
        os.close(turnstile._turn)  # as a machine that has no locks left, whose flock raises OSError too
        with pytest.raises(CommitUnknown, match="failed"):
            database.write(inserts("unlocked"))
        turnstile._turn = turn
        assert database.write(inserts("after")) == "after"
        assert names_in(database) == {"after"}


@pytest.mark.parametrize("ahead", [False, True])
def test_who_has_to_wait_for_nobody_writes_in_its_own_thread_unless_it_is_the_main_one(
    database: Database, ahead: bool
) -> None:
    def whose() -> threading.Thread:
        return database.write(lambda c: threading.current_thread(), ahead=ahead)

    with ThreadPoolExecutor(1) as pool:
        mine = pool.submit(threading.current_thread).result()
        for _ in range(3):
            assert pool.submit(whose).result() is mine
    assert threading.current_thread() is threading.main_thread()
    assert whose() is not threading.main_thread()


def test_nobody_overtakes_those_of_its_process_who_wait_for_a_turn(ledger_url: str) -> None:
    settings = DatabaseSettings(url=ledger_url, turn_timeout=TURN)
    order: list[int] = []
    with closing(open_database(settings)) as database, ThreadPoolExecutor(5) as pool:
        with turn_taken(database):
            asked = []
            for n in range(5):
                asked.append(pool.submit(database.write, partial(_note, order, n)))
                eventually(partial(_are_queued, database, n + 1), what="it waits")
        for one in asked:
            one.result(60)
    assert order == [0, 1, 2, 3, 4]


def test_those_who_waited_are_before_the_one_that_writes_all_the_time(database: Database) -> None:
    """Whose thread comes back at once, while the writer's has to wake up first."""
    under_way, go_on = threading.Event(), threading.Event()
    order: list[int] = []

    def hold(c: Connection) -> None:
        under_way.set()
        assert go_on.wait(60)

    def write_all_the_time() -> None:
        database.write(hold)
        for n in range(1, 20):
            database.write(partial(_note, order, n))

    with ThreadPoolExecutor(2) as pool:
        at_it = pool.submit(write_all_the_time)
        assert under_way.wait(60)
        other = pool.submit(database.write, partial(_note, order, 0))
        eventually(partial(_are_queued, database, 1), what="the other waits")
        go_on.set()
        at_it.result(60)
        other.result(60)
    assert order == list(range(20))


def _note(order: list[int], n: int, _: Connection) -> None:
    order.append(n)


def _are_queued(database: Database, number: int) -> bool:
    return len(cast("SqliteDatabase", database)._writer._queue) == number


ENDED = """
import signal, sys, threading
from sqlalchemy import text
from pipeline.db.database import DatabaseSettings, open_database

SOME = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 3000) select count(*) from n"
database = open_database(DatabaseSettings(url=sys.argv[1]))
def end(number, frame):
    print("told", flush=True)
    told.set()
    raise SystemExit(3)
signal.signal(signal.SIGALRM, end)
def until(told):
    def write(connection):
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        while not told.is_set():
            connection.execute(text(SOME)).all()
    return write
for ahead in (False, True):
    told = threading.Event()
    try:
        database.write(until(told), ahead=ahead)
    except SystemExit:
        print("ended", flush=True)
"""


def test_a_signal_that_ends_the_main_thread_does_so_while_it_writes(ledger_url: str) -> None:
    """As SIGTERM ends Celery's beat, which writes in its main thread: SQLAlchemy would make another error of it."""
    command = [sys.executable, "-c", ENDED, ledger_url]
    ran = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=PATIENCE, check=False)
    assert ran.stdout.split() == ["told", "ended", "told", "ended"], ran.stderr


def test_what_was_written_in_a_group_is_not_kept(database: Database) -> None:
    class Body:
        pass

    body = Body()
    gone = weakref.ref(body)

    def write(c: Connection, body: Body) -> Body:
        return body

    with ThreadPoolExecutor(1) as pool:
        with turn_taken(database):
            waits = pool.submit(database.write, partial(write, body=body))
            eventually(partial(_are_queued, database, 1), what="it waits")
        assert waits.result(60) is body
        del waits, body
    eventually(lambda: gone() is None, what="nothing holds it")


def test_a_closed_ledger_takes_no_more_and_says_so_at_once(ledger_url: str) -> None:
    database = SqliteDatabase(ledger_url, turn_timeout=TURN)
    entered, release = threading.Event(), threading.Event()

    def hold(c: Connection) -> str:
        entered.set()
        assert release.wait(60)
        return inserts("held")(c)

    with ThreadPoolExecutor(2) as pool:
        holder = pool.submit(database.write, hold)
        assert entered.wait(60)
        ending = pool.submit(database.close)
        eventually(lambda: database._writer._ending, what="it is being closed")
        with pytest.raises(Unavailable, match="closed"):
            database.write(inserts("late"))
        assert not ending.done()
        release.set()
        assert holder.result(60) == "held"
        ending.result(60)
    with closing(SqliteDatabase(ledger_url)) as again:
        assert names_in(again) == {"held"}


def test_a_write_that_gets_no_turn_in_time_is_unavailable_and_is_not_done_later(ledger_url: str) -> None:
    database = SqliteDatabase(ledger_url, turn_timeout=timedelta(seconds=3))
    entered, release = threading.Event(), threading.Event()

    def hold(c: Connection) -> None:
        entered.set()
        assert release.wait(30)

    with ThreadPoolExecutor(1) as pool:
        with turn_taken(database):
            holder = pool.submit(database.write, hold)
            eventually(partial(_are_queued, database, 1), what="it waits")
        assert entered.wait(30)
        with pytest.raises(Unavailable):
            database.write(inserts("late"))
        with pytest.raises(CommitUnknown, match="in time"):
            holder.result(30)  # it holds on for longer than its own patience
        release.set()
    assert database.write(lambda c: True)
    assert names_in(database) == set()
    database.close()


def test_a_process_that_asked_for_a_turn_is_before_the_one_that_writes_all_the_time(ledger_url: str) -> None:
    """SQLite's own lock goes to whoever tries at the right moment, which is nearly always who has just let go of it."""
    settings = DatabaseSettings(url=ledger_url, turn_timeout=TURN)
    busy, other = (open_database(settings) for _ in range(2))
    under_way, go_on = threading.Event(), threading.Event()
    order: list[str] = []

    def write(database: Database, name: str) -> None:
        def one(c: Connection) -> None:
            order.append(name)
            if name == "busy 0":
                under_way.set()
                assert go_on.wait(60)

        database.write(one)

    def write_all_the_time() -> None:
        for n in range(20):
            write(busy, f"busy {n}")

    at_it, asking = threading.Thread(target=write_all_the_time), threading.Thread(target=write, args=(other, "other"))
    at_it.start()
    assert under_way.wait(60)
    asking.start()
    turn = Path(f"{ledger_url.removeprefix('sqlite:///')}.turn")
    try:
        eventually(lambda: _is_locked(turn), what="the other process has the turn and waits for the gate")
    finally:
        go_on.set()
        asking.join()
        at_it.join()
        busy.close()
        other.close()
    assert order == ["busy 0", "other", *(f"busy {n}" for n in range(1, 20))]


def _is_locked(file: Path) -> bool:
    with file.open("r+") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_what_the_log_has_grown_while_somebody_read_is_given_back(database: Database) -> None:
    log = Path(f"{cast('SqliteDatabase', database).path}-wal")

    def fill(c: Connection) -> None:
        c.execute(text("create table filling (what blob)"))
        c.execute(text("insert into filling values (zeroblob(:size))"), {"size": 3 * ROOM})
        c.execute(text("drop table filling"))

    def grow_meanwhile(c: Connection) -> None:
        c.execute(select(tenants.c.id)).all()
        database.write(fill)

    database.read(grow_meanwhile)
    assert log.stat().st_size > 2 * ROOM
    for name in ("one", "two", "three"):
        database.write(inserts(name))
    assert log.stat().st_size <= ROOM
