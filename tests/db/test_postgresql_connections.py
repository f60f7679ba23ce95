"""The connections to PostgreSQL: which are kept, which are found dead, and how many write at once."""

from __future__ import annotations

import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import timedelta
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, literal, select, text

from deploy.environment import name_connections
from deploy.settings import Settings
from identity.errors import TookTooLong, Unavailable
from identity.model import Scope, ScopeKind
from identity.sql.prepared import Prepared
from identity.sql.sequence import lock_exclusive, lock_shared
from identity.tables import tenants
from pipeline.db.database import Database, WithTurn, open_database
from pipeline.db.postgresql import PostgresqlDatabase
from tests.ledger.writes import inserts, names_in, select_one
from tests.ledgers import open_ledger
from tests.waiting import eventually

pytestmark = [pytest.mark.as_owner, pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)]


def test_one_caller_after_the_other_is_given_the_same_connection(database: Database) -> None:
    """It has prepared its statements; after many at once, the others would have to."""
    together = threading.Barrier(4)

    def meet(c: Connection) -> None:
        c.execute(select(1))
        together.wait(60)

    threads = [threading.Thread(target=database.read, args=(meet,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    who = text("select pg_backend_pid()")
    assert len({database.read(lambda c: c.execute(who).scalar_one()) for _ in range(4)}) == 1


def test_what_a_connection_has_prepared_outlives_a_read(database: Database) -> None:
    """The server would plan each statement anew, which takes longer than to run it."""
    kept = text("select count(*) from pg_prepared_statements where statement like '%123456%'")

    def remarkable(c: Connection) -> object:
        return c.execute(text("select 123456")).scalar_one()

    for _ in range(8):
        database.read(remarkable)
        database.write(lambda c: None)
    assert database.read(lambda c: c.execute(kept).scalar_one()) == 1


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
        assert idle.read(select_one) == 1
        with pytest.raises(Unavailable):
            used.read(select_one)
        assert used.read(select_one) == 1


def test_one_connection_that_is_found_dead_has_all_others_asked(ledger_url: str, database: Database) -> None:
    """As after a restart of the server, or behind a proxy that went."""
    together = threading.Barrier(3)

    def pid_of(c: Connection) -> int:
        together.wait(60)  # so that each has a connection of its own
        return int(c.execute(text("select pg_backend_pid()")).scalar_one())

    def end(c: Connection) -> None:
        for pid in pids:
            assert c.execute(text("select pg_terminate_backend(:pid, 5000)"), {"pid": pid}).scalar_one()

    used = PostgresqlDatabase(ledger_url, idle_after=timedelta(hours=1))
    with closing(used), ThreadPoolExecutor(3) as pool:
        pids = list(pool.map(used.read, [pid_of] * 3))
        database.read(end)
        with suppress(Unavailable):  # unless another session than the one that stays is used: it notices that one's end
            used.read(select_one)
        now = list(pool.map(used.read, [pid_of] * 3))
    assert len({*pids, *now}) == 6


_ONE = Prepared(select(literal(1)))


def prepared_one(c: Connection) -> int:
    return int(_ONE.run(c).scalar_one())


@pytest.mark.parametrize("ask", [select_one, prepared_one], ids=["by SQLAlchemy", "past it"])
def test_a_connection_that_broke_has_the_next_one_asked(
    ledger_url: str, database: Database, ask: Callable[[Connection], int]
) -> None:
    """As where a proxy ended some, and the session that stays lives."""
    who = text("select pg_backend_pid()")
    used = PostgresqlDatabase(ledger_url, idle_after=timedelta(hours=1))
    with closing(used):
        opened = [used.engine.connect() for _ in range(3)]  # the first one stays
        pids = [one.execute(who).scalar_one() for one in opened]
        for one in opened:
            one.close()  # the last one is used next
        end = text("select pg_terminate_backend(pid, 5000) from unnest(:pids) as gone(pid)")
        assert all(database.read(lambda c: c.execute(end, {"pids": pids[1:]}).scalars().all()))
        with pytest.raises(Unavailable):
            used.read(ask)
        assert used.read(ask) == 1


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


def test_a_statement_that_took_too_long_is_not_tried_again(database: Database) -> None:
    tries: list[int] = []

    def too_long(c: Connection) -> object:
        tries.append(len(tries))
        c.exec_driver_sql("set local statement_timeout = 20")
        return c.execute(text("select pg_sleep(60)")).scalar_one()

    for run in (database.write, database.read):
        with pytest.raises(TookTooLong):
            run(too_long)
    assert tries == [0, 1]


@pytest.mark.usefixtures("database")
def test_a_few_threads_write_at_once_and_what_goes_ahead_waits_for_none(ledger_url: str) -> None:
    few = open_ledger(ledger_url, writes_at_once=4)
    with closing(few):
        _few_at_once(few)


def _few_at_once(database: Database) -> None:
    within, let_go = threading.Semaphore(0), threading.Event()

    def stay(_: Connection) -> None:
        within.release()
        let_go.wait(60)

    pool = ThreadPoolExecutor(6)
    staying = [pool.submit(database.write, stay) for _ in range(6)]
    try:
        for _ in range(4):
            assert within.acquire(timeout=60)
        assert not within.acquire(timeout=0.3)
        assert database.write(inserts("ahead"), ahead=True) == "ahead"
        assert names_in(database) == {"ahead"}  # nor does who reads
        with pytest.raises(Unavailable, match="no turn"):
            database.write(inserts("late"), until=time.monotonic() + 0.05)
    finally:
        let_go.set()
        pool.shutdown()
    assert [one.result() for one in staying] == [None] * 6
    assert database.write(inserts("after")) == "after"
    assert names_in(database) == {"ahead", "after"}


def test_reads_leave_two_connections_to_what_goes_ahead(ledger_url: str) -> None:
    """A revocation comes in the hour in which many pages are looked at, and they may be slow."""
    within, let_go = threading.Semaphore(0), threading.Event()

    def stay(_: Connection) -> None:
        within.release()
        let_go.wait(60)

    with closing(PostgresqlDatabase(ledger_url, connections=4, turn_timeout=timedelta(seconds=0.3))) as few:
        pool = ThreadPoolExecutor(2)
        staying = [pool.submit(few.read, stay) for _ in range(2)]
        try:
            for _ in range(2):
                assert within.acquire(timeout=60)
            with pytest.raises(Unavailable, match="every connection to the ledger is busy"):
                names_in(few)
            with pytest.raises(Unavailable, match="every connection to the ledger is busy"):
                few.write(inserts("ordinary"))
            revoking = WithTurn(few, ahead=True)
            assert revoking.write(inserts("ahead")) == "ahead"
            assert revoking.read(lambda _: "looked") == "looked"
        finally:
            let_go.set()
            pool.shutdown()
        assert [one.result() for one in staying] == [None, None]
        assert few.write(inserts("after")) == "after"


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

    tried: dict[int, list[float]] = defaultdict(list)

    def locked(c: Connection) -> str:
        tried[threading.get_ident()].append(time.monotonic())
        tries.release()
        lock_shared(c, [scope])
        return "locked"

    soon, late = timedelta(seconds=0.05), timedelta(seconds=60)
    few = PostgresqlDatabase(ledger_url, writes_at_once=2, turn_timeout=late, gives_way_after=soon)
    with closing(few), ThreadPoolExecutor(3) as pool:
        holder = pool.submit(database.write, hold)
        assert held.wait(60)
        waiters = [pool.submit(few.write, locked) for _ in range(2)]
        try:
            for _ in range(2):
                assert tries.acquire(timeout=60)
            assert few.write(inserts("another's")) == "another's"
            for _ in range(32):
                assert tries.acquire(timeout=60)
            assert not any(waiter.done() for waiter in waiters)
            # Less than who has no place to give waits for a lock. Opening the third connection may take longer.
            gaps = [later - earlier for times in tried.values() for earlier, later in pairwise(times)]
            assert median(gaps) < 1.5, gaps
        finally:
            let_go.set()
        assert [waiter.result() for waiter in waiters] == ["locked", "locked"]
        holder.result()


def test_the_options_of_the_url_are_kept_beside_ours(ledger_url: str) -> None:
    """Who sets how durable a commit is, or where the tables lie, is believed; what the ledger relies on holds."""
    more = "&options=-csynchronous_commit%3Dremote_apply&options=-csearch_path%3Daswhom%20-cstatement_timeout%3D0"
    has = text("select name, setting from pg_settings where name = any(:names)")
    names = ["synchronous_commit", "search_path", "statement_timeout", "lock_timeout"]
    for options in (more, more.replace("&options=", "%20").replace("%20", "&options=", 1)):
        with closing(open_ledger(ledger_url + options)) as database:
            rows = database.read(lambda c: c.execute(has, {"names": names}).all())
        expected = {"synchronous_commit": "remote_apply", "search_path": "aswhom"}
        assert {row.name: row.setting for row in rows} == expected | {
            "statement_timeout": "30000",
            "lock_timeout": "2000",
        }


@pytest.mark.parametrize(
    ("of_the_url", "told"), [("", "30s"), ("&options=-cstatement_timeout%3D10min%20-clock_timeout%3D0", "10min")]
)
def test_a_command_may_take_longer_for_a_statement_by_the_url_but_not_for_a_lock(
    ledger_url: str, of_the_url: str, told: str
) -> None:
    command = Settings(database_url=SecretStr(ledger_url + of_the_url)).database()
    with closing(open_database(command)) as database:
        shown = database.read(lambda c: [c.execute(text(f"show {name}")).scalar_one() for name in _TIMEOUTS])
    assert shown == [told, "2s"]
    assert not Settings(database_url=SecretStr(ledger_url)).database("worker").own_statement_timeout


_TIMEOUTS = ("statement_timeout", "lock_timeout")


@pytest.mark.parametrize(
    ("given", "of_the_url", "named"),
    [
        (None, "", "aswhom-worker-1"),
        ("aswhom-command", "", "aswhom-worker-1"),  # a parent's
        ("billing", "", "billing"),
        ("aswhom-eu", "", "aswhom-eu"),  # by which an operator tells two installations apart
        (None, "&application_name=agents", "agents"),
    ],
)
def test_the_server_knows_a_process_by_its_name(
    ledger_url: str, monkeypatch: pytest.MonkeyPatch, given: str | None, of_the_url: str, named: str
) -> None:
    monkeypatch.setenv("PGAPPNAME", given or "")
    if given is None:
        monkeypatch.delenv("PGAPPNAME")
    name_connections("worker-1")
    with closing(open_ledger(ledger_url + of_the_url)) as database:
        assert database.read(lambda c: c.execute(text("show application_name")).scalar_one()) == named
