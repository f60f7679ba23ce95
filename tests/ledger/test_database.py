"""The one seam for writes: what is promised when things go wrong in it."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import Connection, event, insert, literal, make_url, select, text
from sqlalchemy.exc import DBAPIError

from identity.errors import Misconfigured, Unavailable
from identity.model import Scope, ScopeKind
from identity.prepared import Prepared
from identity.sequence import lock_exclusive, lock_shared
from identity.store import CommitUnknown
from identity.tables import tenants
from pipeline.database import Database, DatabaseSettings, open_database
from pipeline.postgresql import PostgresqlDatabase
from pipeline.sqlite import ROOM, SqliteDatabase
from pipeline.turnstile import Turnstile
from tests.ledger.house import House
from tests.ledgers import TURN, open_ledger, turn_taken
from tests.servers.postgres import Postgres
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
Act = Callable[[Callable[[], object]], object]  # calls a function
_SELECT_ONE = Prepared(select(literal(1)))


def _one(c: Connection) -> int:
    return int(_SELECT_ONE.run(c).scalar_one())


def _insert(name: str) -> Callable[[Connection], str]:
    now = datetime.now(UTC)

    def write(c: Connection) -> str:
        c.execute(insert(tenants).values(id=name, name=name, created_at=now))
        return name

    return write


def _names(database: Database) -> set[str]:
    return set(database.read(lambda c: c.execute(select(tenants.c.id)).scalars().all()))


def test_a_write_is_seen_once_it_has_returned(database: Database) -> None:
    assert database.write(_insert("one")) == "one"
    assert _names(database) == {"one"}


def test_a_function_that_raises_leaves_nothing_and_hurts_nobody_else(database: Database) -> None:
    class Refused(Exception):
        pass

    def half(c: Connection) -> None:
        _insert("half")(c)
        raise Refused

    threads = [threading.Thread(target=database.write, args=(_insert(f"t{n}"),)) for n in range(20)]
    for thread in threads:
        thread.start()
    with pytest.raises(Refused):
        database.write(half)
    for thread in threads:
        thread.join()
    assert _names(database) == {f"t{n}" for n in range(20)}


def test_a_function_that_raises_alone_leaves_nothing_and_the_next_one_is_written(database: Database) -> None:
    class Refused(Exception):
        pass

    def half(c: Connection) -> None:
        _insert("half")(c)
        raise Refused

    for name in ("one", "two"):
        with pytest.raises(Refused):
            database.write(half)
        assert database.write(_insert(name)) == name
    assert _names(database) == {"one", "two"}


def _poison(c: Connection) -> None:
    """Deferred to the COMMIT, which therefore fails: an agent of a tenant that does not exist."""
    c.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
    c.execute(text("insert into agents (id, tenant_id, name, created_at) values ('a', 'nobody', 'a', 0)"))


def _ended(c: Connection) -> None:
    """As SQLite ends it on a full disk."""
    _insert("ended")(c)
    c.exec_driver_sql("ROLLBACK")


def _ended_and_raised(c: Connection) -> None:
    _ended(c)
    raise ZeroDivisionError


@pytest.fixture(params=["in the main thread", "in a thread of its own"])
def from_there(request: pytest.FixtureRequest) -> Iterator[Act]:
    """Calls a function: what the main thread writes to SQLite is queued, what another writes is written at once."""
    with ThreadPoolExecutor(1) as pool:
        yield (lambda act: act()) if "main" in request.param else (lambda act: pool.submit(act).result(30))


@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
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
    assert from_there(partial(database.write, _insert("after"))) == "after"
    assert from_there(partial(database.write, _insert("ahead"), ahead=True)) == "ahead"
    with closing(open_ledger(ledger_url)) as other:
        assert other.write(_insert("another's")) == "another's"
    assert _names(database) == {"after", "ahead", "another's"}


def test_a_failed_commit_answers_every_caller_of_the_group_and_the_writer_goes_on(
    migrated_sqlite: Path, tmp_path: Path
) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(migrated_sqlite.read_bytes())
    database = SqliteDatabase(f"sqlite:///{path}")
    entered, together = threading.Event(), threading.Event()

    def hold(c: Connection) -> None:
        entered.set()
        assert together.wait(10)

    outcomes: dict[str, object] = {}

    def call(name: str, fn: Callable[[Connection], object]) -> None:
        try:
            outcomes[name] = database.write(fn)
        except CommitUnknown as unknown:
            outcomes[name] = unknown

    holder = threading.Thread(target=call, args=("holder", hold))
    holder.start()
    assert entered.wait(10)  # while it holds the writer, the others queue up behind it as one group
    others = {"poison": _poison, "innocent": _insert("innocent"), "another": _insert("another")}
    threads = [threading.Thread(target=call, args=item) for item in others.items()]
    for thread in threads:
        thread.start()
    eventually(partial(_are_queued, database, 3), what="they are queued")
    together.set()
    for thread in [holder, *threads]:
        thread.join(10)
    assert outcomes["holder"] is None
    assert all(isinstance(outcomes[name], CommitUnknown) for name in others)
    assert _names(database) == set()
    assert database.write(_insert("after")) == "after"
    assert _names(database) == {"after"}
    database.close()


def test_locks_that_cannot_be_had_are_told_to_the_caller_and_the_writer_goes_on(
    migrated_sqlite: Path, tmp_path: Path
) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(migrated_sqlite.read_bytes())
    with closing(SqliteDatabase(f"sqlite:///{path}", turn_timeout=timedelta(seconds=30))) as database:
        turnstile = cast("Turnstile", database._writer._gate)
        turn = os.dup(turnstile._turn)
        os.close(turnstile._turn)  # as a machine that has no locks left, whose flock raises OSError too
        with pytest.raises(CommitUnknown, match="failed"):
            database.write(_insert("unlocked"))
        turnstile._turn = turn
        assert database.write(_insert("after")) == "after"
        assert _names(database) == {"after"}


@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
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


@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
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
            one.result(10)
    assert order == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
def test_those_who_waited_are_before_the_one_that_writes_all_the_time(database: Database) -> None:
    """Whose thread comes back at once, while the writer's has to wake up first."""
    under_way, go_on = threading.Event(), threading.Event()
    order: list[int] = []

    def hold(c: Connection) -> None:
        under_way.set()
        assert go_on.wait(20)

    def write_all_the_time() -> None:
        database.write(hold)
        for n in range(1, 20):
            database.write(partial(_note, order, n))

    with ThreadPoolExecutor(2) as pool:
        at_it = pool.submit(write_all_the_time)
        assert under_way.wait(10)
        other = pool.submit(database.write, partial(_note, order, 0))
        eventually(partial(_are_queued, database, 1), what="the other waits")
        go_on.set()
        at_it.result(20)
        other.result(20)
    assert order == list(range(20))


def _note(order: list[int], n: int, _: Connection) -> None:
    order.append(n)


def _are_queued(database: Database, number: int) -> bool:
    return len(cast("SqliteDatabase", database)._writer._queue) == number


ENDED = """
import signal, sys, threading
from sqlalchemy import text
from pipeline.database import DatabaseSettings, open_database

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


def test_a_signal_that_ends_the_main_thread_does_so_while_it_writes(migrated_sqlite: Path, tmp_path: Path) -> None:
    """As SIGTERM ends Celery's beat, which writes in its main thread: SQLAlchemy would make another error of it."""
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(migrated_sqlite.read_bytes())
    command = [sys.executable, "-c", ENDED, f"sqlite:///{path}"]
    ran = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=60, check=False)
    assert ran.stdout.split() == ["told", "ended", "told", "ended"], ran.stderr


@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
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
        assert waits.result(10) is body
        del waits, body
    eventually(lambda: gone() is None, what="nothing holds it")


def test_a_closed_ledger_takes_no_more_and_says_so_at_once(migrated_sqlite: Path, tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(migrated_sqlite.read_bytes())
    database = SqliteDatabase(f"sqlite:///{path}")
    entered, release = threading.Event(), threading.Event()

    def hold(c: Connection) -> str:
        entered.set()
        assert release.wait(10)
        return _insert("held")(c)

    with ThreadPoolExecutor(2) as pool:
        holder = pool.submit(database.write, hold)
        assert entered.wait(10)
        ending = pool.submit(database.close)
        eventually(lambda: database._writer._ending, what="it is being closed")
        with pytest.raises(Unavailable, match="closed"):
            database.write(_insert("late"))
        assert not ending.done()
        release.set()
        assert holder.result(10) == "held"
        ending.result(10)
    with closing(SqliteDatabase(f"sqlite:///{path}")) as again:
        assert _names(again) == {"held"}


def test_a_write_that_gets_no_turn_in_time_is_unavailable_and_is_not_done_later(
    migrated_sqlite: Path, tmp_path: Path
) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(migrated_sqlite.read_bytes())
    database = SqliteDatabase(f"sqlite:///{path}", turn_timeout=timedelta(seconds=3))
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
            database.write(_insert("late"))
        with pytest.raises(CommitUnknown, match="in time"):
            holder.result(30)  # it holds on for longer than its own patience
        release.set()
    assert database.write(lambda c: True)
    assert _names(database) == set()
    database.close()


def test_what_is_late_before_its_commit_is_not_written(database: Database, from_there: Act) -> None:
    until = time.monotonic() + 0.1

    def slow(c: Connection) -> None:
        _insert("slow")(c)
        eventually(lambda: time.monotonic() > until)

    for late in (slow, _insert("later")):
        with pytest.raises(Unavailable, match="in time"):
            from_there(partial(database.write, late, until=until))
    in_time = partial(database.write, _insert("in time"), until=time.monotonic() + 60)
    assert from_there(in_time) == "in time"
    assert _names(database) == {"in time"}


def test_what_two_processes_write_at_once_is_all_kept(ledger_url: str) -> None:
    first, second = (open_ledger(ledger_url) for _ in range(2))
    threads = [
        threading.Thread(target=database.write, args=(_insert(f"{name}{n}"),))
        for name, database in (("a", first), ("b", second))
        for n in range(25)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(_names(first)) == 50
    first.close()
    second.close()


@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
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
                assert go_on.wait(20)

        database.write(one)

    def write_all_the_time() -> None:
        for n in range(20):
            write(busy, f"busy {n}")

    at_it, asking = threading.Thread(target=write_all_the_time), threading.Thread(target=write, args=(other, "other"))
    at_it.start()
    assert under_way.wait(10)
    asking.start()
    turn = Path(f"{ledger_url.removeprefix('sqlite:///')}.turn")
    try:
        eventually(lambda: _is_locked(turn), seconds=10, what="the other process has the turn and waits for the gate")
    finally:
        go_on.set()
        asking.join()
        at_it.join()
        busy.close()
        other.close()
    assert order == ["busy 0", "other", *(f"busy {n}" for n in range(1, 20))]


def test_what_goes_ahead_waits_for_nobodys_turn_not_even_for_its_own_process(ledger_url: str) -> None:
    with (
        closing(open_ledger(ledger_url)) as database,
        closing(open_database(DatabaseSettings(url=ledger_url, turn_timeout=timedelta(milliseconds=50)))) as hasty,
    ):
        waits = threading.Thread(target=database.write, args=[_insert("waits")])
        with turn_taken(database):
            if ledger_url.startswith("sqlite"):
                with pytest.raises(Unavailable):
                    hasty.write(_insert("hasty"))
            waits.start()
            assert database.write(_insert("ahead"), ahead=True) == "ahead"
            assert "ahead" in _names(database)
        waits.join(10)
        assert {"ahead", "waits"} <= _names(database)


def _is_locked(file: Path) -> bool:
    with file.open("r+") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_readers_keep_their_connections(ledger_url: str) -> None:
    """As many as read at once do: each new one opens the file, and reads the whole schema, anew."""
    readers, opened = 20, []
    with closing(open_ledger(ledger_url, threads=readers)) as database:
        event.listen(database.engine, "connect", lambda raw, record: opened.append(raw))
        together = threading.Barrier(readers)

        def read(c: Connection) -> None:
            c.execute(select(1))
            together.wait(10)  # so that each needs one of its own

        for _ in range(2):
            threads = [threading.Thread(target=database.read, args=(read,)) for _ in range(readers)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert len(opened) == readers


@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
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
        database.write(_insert(name))
    assert log.stat().st_size <= ROOM


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_one_caller_after_the_other_is_given_the_same_connection(database: Database) -> None:
    """It has prepared its statements; after many at once, the others would have to."""
    together = threading.Barrier(4)

    def meet(c: Connection) -> None:
        c.execute(select(1))
        together.wait(10)

    threads = [threading.Thread(target=database.read, args=(meet,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    who = text("select pg_backend_pid()")
    assert len({database.read(lambda c: c.execute(who).scalar_one()) for _ in range(4)}) == 1


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_what_a_connection_has_prepared_outlives_a_read(database: Database) -> None:
    """The server would plan each statement anew, which takes longer than to run it."""
    kept = text("select count(*) from pg_prepared_statements where statement like '%123456%'")

    def remarkable(c: Connection) -> object:
        return c.execute(text("select 123456")).scalar_one()

    for _ in range(8):
        database.read(remarkable)
        database.write(lambda c: None)
    assert database.read(lambda c: c.execute(kept).scalar_one()) == 1


def test_readers_cannot_write(database: Database, house: House) -> None:
    with pytest.raises((Unavailable, DBAPIError), match=r"read-?only"):
        database.read(_insert("sneaked"))
    assert database.write(_insert("wrote")) == "wrote"
    assert "sneaked" not in _names(database)


def test_another_kind_of_database_is_refused_with_the_two_that_are_not() -> None:
    with pytest.raises(Misconfigured, match="sqlite:///path or postgresql"):
        open_database(DatabaseSettings(url="mysql://host/name"))


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_read_whose_transaction_the_server_ended_is_unavailable(database: Database) -> None:
    """As PostgreSQL ends one that stood still for too long."""
    there = text("select count(*) from pg_stat_activity where pid = :pid")

    def stand_still(c: Connection) -> object:
        pid = c.execute(text("select pg_backend_pid()")).scalar_one()
        c.exec_driver_sql("set idle_in_transaction_session_timeout = 20")
        eventually(lambda: database.read(lambda other: other.execute(there, {"pid": pid}).scalar_one()) == 0)
        return c.execute(select(tenants.c.id)).all()

    with pytest.raises(Unavailable, match="ended the transaction"):
        database.read(stand_still)


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_connection_that_died_while_it_was_idle_is_replaced_and_one_used_just_now_is_believed(
    ledger_url: str, database: Database
) -> None:
    who = text("select pg_backend_pid()")

    def end(pid: int, c: Connection) -> bool:
        return bool(c.execute(text("select pg_terminate_backend(:pid, 5000)"), {"pid": pid}).scalar_one())

    idle = PostgresqlDatabase(ledger_url, idle_after=timedelta(0))
    used = PostgresqlDatabase(ledger_url, idle_after=timedelta(hours=1))
    with closing(idle), closing(used):
        for one in (idle, used):
            pid = one.read(lambda c: c.execute(who).scalar_one())
            assert database.read(partial(end, pid))
        assert idle.read(_one) == 1
        with pytest.raises(Unavailable):
            used.read(_one)
        assert used.read(_one) == 1


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_one_connection_that_is_found_dead_has_all_others_asked(ledger_url: str, database: Database) -> None:
    """As after a restart of the server, or behind a proxy that went."""
    together = threading.Barrier(3)

    def pid_of(c: Connection) -> int:
        together.wait(10)  # so that each has a connection of its own
        return int(c.execute(text("select pg_backend_pid()")).scalar_one())

    def end(c: Connection) -> None:
        for pid in pids:
            assert c.execute(text("select pg_terminate_backend(:pid, 5000)"), {"pid": pid}).scalar_one()

    used = PostgresqlDatabase(ledger_url, idle_after=timedelta(hours=1))
    with closing(used), ThreadPoolExecutor(3) as pool:
        pids = list(pool.map(used.read, [pid_of] * 3))
        database.read(end)
        with pytest.raises(Unavailable):
            used.read(_one)
        now = list(pool.map(used.read, [pid_of] * 3))
    assert len({*pids, *now}) == 6


def test_a_server_that_takes_connections_and_never_answers_is_unavailable_after_one_try() -> None:
    tried: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):  # the test is over
                while True:
                    tried.append(listener.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        url = f"postgresql+psycopg://aswhom@127.0.0.1:{listener.getsockname()[1]}/aswhom?connect_timeout=2"
        with closing(open_database(DatabaseSettings(url=url, turn_timeout=timedelta(seconds=1)))) as database:
            for ask in (database.write, database.read):
                with pytest.raises(Unavailable):
                    ask(lambda c: None)
        listener.shutdown(socket.SHUT_RDWR)
    for one in tried:
        one.close()
    assert len(tried) == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"database": "aswhon"}, 'FATAL: database "aswhon" does not exist'),
        ({"username": "nobody-there"}, 'FATAL: .*"nobody-there"'),
        ({"host": "127.0.0.1", "port": 1}, r"127\.0\.0\.1:1: .*Connection refused"),
        ({"host": "no-such-host.invalid", "port": 7}, r"no-such-host\.invalid:7: .*no-such-host"),
    ],
)
def test_a_wrong_url_is_explained_in_the_servers_words_and_without_the_password(
    postgres: Postgres, change: dict[str, Any], says: str
) -> None:
    url = make_url(postgres.url())
    url = url.set(query={} if "host" in change else url.query, password="hunter2", **change)
    settings = DatabaseSettings(url=url.render_as_string(hide_password=False), turn_timeout=timedelta(0))
    with closing(open_database(settings)) as database:
        for ask in (database.write, database.read):
            with pytest.raises(Unavailable, match=says) as caught:
                ask(lambda c: None)
            assert "ASWHOM_DATABASE_URL" in str(caught.value)
            assert "hunter2" not in str(caught.value)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    ("attributes", "says", "reads"),
    [("", "session is read-only", False), ("&target_session_attrs=any", "the ledger's server is read-only", True)],
)
def test_a_server_that_turned_read_only_is_unavailable_and_is_connected_to_anew_until_it_is_not(
    postgres: Postgres, database_url: str, attributes: str, says: str, reads: bool
) -> None:
    """A pool would keep the connections to a standby for ever: nothing is broken about them."""
    settings = DatabaseSettings(url=database_url + attributes, turn_timeout=timedelta(seconds=1))
    insert_one = text("insert into kept values (1)")

    def turn(read_only: str) -> None:
        with postgres.connect() as connection:
            name = make_url(database_url).database
            connection.execute(f'alter database "{name}" set default_transaction_read_only = {read_only}'.encode())

    with closing(open_database(settings)) as database:
        database.write(lambda c: c.execute(text("create table kept (it integer)")))
        turn("on")
        # That is for whoever connects from now on, and a standby is so for those that are connected.
        database.write(lambda c: c.exec_driver_sql("set session characteristics as transaction read only"))
        for _ in range(2):
            if reads:
                assert database.read(_one) == 1
            with pytest.raises(Unavailable, match=says):
                database.write(lambda c: c.execute(insert_one))
        turn("off")
        database.write(lambda c: c.execute(insert_one))
        assert database.read(lambda c: c.execute(text("select it from kept")).scalars().all()) == [1]


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("53100", "the disk of the ledger's server is full"),
        ("40P01", r"locks were busy or its server away too long \(DeadlockDetected\)"),
        ("53200", r"locks were busy or its server away too long \(OutOfMemory\)"),
    ],
)
def test_what_ended_the_last_try_is_told_without_what_the_server_said_of_it(
    database: Database, code: str, says: str
) -> None:
    raised = text(f"do $$ begin raise exception 'of hunter2' using errcode = '{code}'; end $$")
    for ask in (database.write, database.read):
        with pytest.raises(Unavailable) as caught:
            ask(lambda c: c.execute(raised))
        assert "hunter2" not in str(caught.value)
        if ask == database.write or code == "53100":
            assert re.search(says, str(caught.value))


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_server_that_vanishes_is_noticed_in_seconds_unless_the_url_says_when(ledger_url: str) -> None:
    """Without these, TCP goes on sending for a quarter of an hour."""

    def parameters_of(c: Connection) -> dict[str, str]:
        driver: Any = c.connection.driver_connection
        return dict(driver.info.get_parameters())

    noticed = {"tcp_user_timeout": "10000", "keepalives_idle": "5", "keepalives_interval": "2", "keepalives_count": "3"}
    joint = "&" if "?" in ledger_url else "?"
    said = f"{ledger_url}{joint}keepalives_idle=60&connect_timeout=9"
    for url, changed in (
        (ledger_url, {"connect_timeout": "5"}),
        (said, {"keepalives_idle": "60", "connect_timeout": "9"}),
    ):
        with closing(open_ledger(url)) as database:
            parameters = database.read(parameters_of)
        expected = noticed | changed
        assert {name: parameters.get(name) for name in expected} == expected


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_statement_that_took_too_long_is_not_tried_again(database: Database) -> None:
    tries: list[int] = []

    def too_long(c: Connection) -> object:
        tries.append(len(tries))
        c.exec_driver_sql("set local statement_timeout = 20")
        return c.execute(text("select pg_sleep(60)")).scalar_one()

    for run in (database.write, database.read):
        with pytest.raises(Unavailable, match="took too long"):
            run(too_long)
    assert tries == [0, 1]


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_few_threads_write_at_once_and_what_goes_ahead_waits_for_none(ledger_url: str, database: Database) -> None:
    few = open_ledger(ledger_url, writes_at_once=4)
    with closing(few):
        _few_at_once(few)


def _few_at_once(database: Database) -> None:
    within, let_go = threading.Semaphore(0), threading.Event()

    def stay(_: Connection) -> None:
        within.release()
        let_go.wait(20)

    pool = ThreadPoolExecutor(6)
    staying = [pool.submit(database.write, stay) for _ in range(6)]
    try:
        for _ in range(4):
            assert within.acquire(timeout=10)
        assert not within.acquire(timeout=0.3)
        assert database.write(_insert("ahead"), ahead=True) == "ahead"
        assert _names(database) == {"ahead"}  # nor does who reads
        with pytest.raises(Unavailable, match="no turn"):
            database.write(_insert("late"), until=time.monotonic() + 0.05)
    finally:
        let_go.set()
        pool.shutdown()
    assert [one.result() for one in staying] == [None] * 6
    assert database.write(_insert("after")) == "after"
    assert _names(database) == {"ahead", "after"}


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_who_waits_for_a_lock_lets_others_have_its_place_and_is_tried_until_its_time_is_up(
    ledger_url: str, database: Database
) -> None:
    held, let_go, tries = threading.Event(), threading.Event(), threading.Semaphore(0)
    scope = Scope(kind=ScopeKind.TENANT, key="one")

    def hold(c: Connection) -> None:
        lock_exclusive(c, scope)
        held.set()
        while not let_go.wait(0.5):
            c.execute(text("select 1"))  # it does something, and is not ended for standing still

    def locked(c: Connection) -> str:
        tries.release()
        lock_shared(c, [scope])
        return "locked"

    soon, late = timedelta(seconds=0.05), timedelta(seconds=60)
    few = PostgresqlDatabase(ledger_url, writes_at_once=2, turn_timeout=late, gives_way_after=soon)
    with closing(few), ThreadPoolExecutor(3) as pool:
        holder = pool.submit(database.write, hold)
        assert held.wait(10)
        waiters = [pool.submit(few.write, locked) for _ in range(2)]
        try:
            for _ in range(2):
                assert tries.acquire(timeout=10)
            until = time.monotonic() + 1.5  # less than a lock is waited for by who has no place to give
            assert few.write(_insert("another's"), until=until) == "another's"
            for _ in range(32):
                assert tries.acquire(timeout=10)
            assert not any(waiter.done() for waiter in waiters)
        finally:
            let_go.set()
        assert [waiter.result() for waiter in waiters] == ["locked", "locked"]
        holder.result()
