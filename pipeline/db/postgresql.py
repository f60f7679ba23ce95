"""PostgreSQL behind `write(fn)`: one pooled READ COMMITTED transaction, repeated where that is certainly safe.

Only a few threads of a worker write at once; the others wait for a place without holding anything. More writers would
get no more done, because they share one interpreter, but each would hold its locks for as long as all of them take. A
writer waiting for a lock soon gives up its place (docs/decisions/0025).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import psycopg
from sqlalchemy import Connection, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry

from identity.backoff import spread
from identity.errors import Misconfigured, TookTooLong, Unavailable
from identity.sql.store import CommitUnknown
from pipeline.db.database import raise_if_late
from pipeline.db.fair_lock import FairLock
from pipeline.db.postgresql_pool import KeptSessions

T = TypeVar("T")

# Serialization failure, deadlock, lock timeout: PostgreSQL has rolled back the transaction.
_UNDONE = {"40001", "40P01", "55P03"}
_ATTEMPTS = 8  # not counting those that waited for a lock
_BUSY = "the ledger's locks were busy or its server away too long"

# Advice to the operator by SQLSTATE. The server's own text is left out: it may quote written data.
_SAID = {
    "53100": "the disk of the ledger's server is full: make room there",
    "25006": "the ledger's server is read-only: a standby, or default_transaction_read_only is on; "
    "see ASWHOM_DATABASE_URL",
}

_LOCK_TIMEOUT = 2.0  # seconds

#: This looks like a server that is away, and is waited for in the same way.
_CERTIFICATE = (
    "sslmode, sslrootcert and sslcert in ASWHOM_DATABASE_URL: a certificate is missing, or was not accepted. For a "
    "public authority sslrootcert is the system's list, /etc/ssl/certs/ca-certificates.crt on Debian"
)

#: Connections that reads and ordinary writes leave to those that go ahead of them: one to reads, of which anybody's
#: request needs one before it is known whose it is, and one to writes, which are revocations alone.
_AHEAD = 2

_ALL_BUSY = "every connection to the ledger is busy"
_WORDS = 400  # characters of the server's own message, enough to identify it

# A process stopped inside a transaction must not block a revocation, hence the idle timeout.
_STOPPED = "-c idle_in_transaction_session_timeout=2s"
# The server must also notice in minutes that a host vanished: its pinned session would block a restore for two hours.
_PROBED = "-c tcp_keepalives_idle=60 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=6"
# After the URL's own options: the last one wins. For a command the timeout of statements comes before them.
_OPTIONS = f"-c timezone=UTC {_STOPPED} {_PROBED}"
_STATEMENTS = "-c statement_timeout=30s"

# A standby that has the primary's address takes connections, and a pool would keep them after the address moved on.
_WRITABLE = {"target_session_attrs": "read-write"}

# A vanished host sends nothing more, and TCP would keep retrying for a quarter of an hour. All are seconds except
# tcp_user_timeout, which is milliseconds.
# https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
_NOTICED = {
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}


class PostgresqlDatabase:
    """The ledger of many hosts. Open it after any fork."""

    def __init__(
        self,
        url: str,
        *,
        threads: int = 34,
        connections: int | None = None,
        turn_timeout: timedelta = timedelta(seconds=5),
        writes_at_once: int | None = None,
        own_statement_timeout: bool = False,
        gives_way_after: timedelta = timedelta(seconds=0.5),
        idle_after: timedelta = timedelta(seconds=1),
        given_back_after: timedelta = timedelta(minutes=5),
    ) -> None:
        """Set up the pool; connections are opened on demand.

        *connections* is the most to open; None: one for each of *threads*. With *own_statement_timeout* the one in the
        URL's options is kept, for a report that takes longer than any statement of a process may. *gives_way_after* is
        how long a write waits for a lock before it gives up its place under *writes_at_once*. *idle_after* is how long
        an unused connection is trusted to be alive. *given_back_after* is how long one may idle before the server ends
        it.
        """
        self._timeout = turn_timeout.total_seconds()
        self._lock_timeout = _LOCK_TIMEOUT if writes_at_once is None else gives_way_after.total_seconds()
        size = threads if connections is None else connections
        writes = threads if writes_at_once is None else writes_at_once
        if connections is not None:
            writes = min(writes, max(connections - _AHEAD, 1))
        self._places = threading.BoundedSemaphore(writes)
        # Reads and ordinary writes share all connections but those that are left to revocations.
        self._ordinary = threading.BoundedSemaphore(size if connections is None else max(size - _AHEAD, 1))
        self._reads_ahead = FairLock()  # as any number of forged requests may ask for it again and again
        self._in_commit: dict[int, float] = {}
        self._url = make_url(url)
        said = self._url.query
        asked = {name: value for name, value in (_NOTICED | _WRITABLE).items() if name not in said}
        theirs = said.get("options", ())
        options = [theirs] if isinstance(theirs, str) else [*theirs]
        options.insert(0 if own_statement_timeout else len(options), _STATEMENTS)
        given_back = given_back_after.total_seconds()
        options += [_OPTIONS, f"-c lock_timeout={self._lock_timeout * 1000:.0f}"]
        options += [f"-c idle_session_timeout={given_back * 1000:.0f}"]
        self.engine = create_engine(
            url,
            pool_size=size,
            max_overflow=0,
            pool_timeout=self._timeout,
            pool_use_lifo=True,  # few are in use as a rule, and those have prepared statements
            hide_parameters=True,  # error texts must not contain written data
            connect_args={"options": " ".join(options), **asked},
        )

        # The server refuses writes here; `BEGIN READ ONLY` costs no further round trip.
        self._reading = self.engine.execution_options(postgresql_readonly=True)

        @event.listens_for(self.engine, "connect")
        def check(raw: Any, record: Any) -> None:
            level = raw.execute("show transaction_isolation").fetchone()[0]
            raw.rollback()
            if level != "read committed":
                raise Misconfigured(
                    f"PostgreSQL runs transactions as {level!r}: the rule needs 'read committed', "
                    "see default_transaction_isolation"
                )

        @event.listens_for(self.engine, "checkin")
        def forget_how_it_was_begun(raw: Any, record: ConnectionPoolEntry) -> None:
            # Otherwise SQLAlchemy would begin the next write with READ WRITE, which overrides
            # default_transaction_read_only and fails with another code on a standby.
            if raw is not None and raw.read_only is not None:
                raw.read_only = None

        KeptSessions(self.engine, believed=idle_after.total_seconds(), given_back=given_back)

    def write(self, fn: Callable[[Connection], T], *, until: float | None = None, ahead: bool = False) -> T:
        last: DBAPIError | None = None
        end = time.monotonic() + self._timeout
        end = end if until is None else min(end, until)
        failures = 0
        while failures < _ATTEMPTS and (last is None or time.monotonic() < end):
            if last is not None:
                # The rivals were told to retry too, and would collide again at once. The pause is at most 2.5 s after a
                # rollback by the server; after waiting for a lock it is only a few more ms, until time is up.
                time.sleep(spread(timedelta(milliseconds=10 * 2**failures)).total_seconds())
            try:
                # Ahead of the line, it waits only for holders of the locks it needs.
                with ExitStack() as places:
                    if not ahead:
                        places.enter_context(self._place(end, last))
                        places.enter_context(self._connection_place(end))
                    return self._once(fn, until)
            except DBAPIError as error:
                _raise_if_slow(error)
                if not _repeatable(error) and not _is_read_only(error):
                    raise
                last = error
                failures += not _was_locked(error)  # a lock takes its own time and may be free next time
            except PoolTimeout as error:
                raise Unavailable(_ALL_BUSY) from error
        raise self._refusal(last, _BUSY) from last

    @contextmanager
    def _place(self, end: float, last: DBAPIError | None) -> Iterator[None]:
        """Hold one of the writers' places; waiters get them in any order. Raises Unavailable.

        *last* is the error of an earlier try.
        """
        if not self._places.acquire(timeout=max(end - time.monotonic(), 0)):
            none = "the ledger had no turn for this write in time"
            raise self._refusal(last, none if last is None else _BUSY) from last
        try:
            yield
        finally:
            self._places.release()

    @contextmanager
    def _connection_place(self, end: float, *, ahead: bool = False) -> Iterator[None]:
        """Hold one of the places for ordinary connections. Raises Unavailable.

        *ahead*: if none is free, wait for the place of reads that go ahead, and not for those.
        """
        place: threading.Semaphore | FairLock = self._ordinary
        if not (ahead and self._ordinary.acquire(blocking=False)):
            place = self._reads_ahead if ahead else self._ordinary
            if not place.acquire(timeout=max(end - time.monotonic(), 0)):
                raise Unavailable(_ALL_BUSY)
        try:
            yield
        finally:
            place.release()

    def _once(self, fn: Callable[[Connection], T], until: float | None) -> T:
        raise_if_late(until)
        with self.engine.connect() as connection:
            transaction = connection.begin()
            try:
                if until is not None and (left := until - time.monotonic()) < self._lock_timeout:
                    wait = max(int(left * 1000), 1)  # 0 would mean no limit
                    connection.exec_driver_sql(f"set local lock_timeout = {wait}")
                outcome = fn(connection)
                raise_if_late(until)
            except BaseException as error:  # including an Interruption: nothing that raised was written
                if _is_read_only(error):
                    # the connection works, so the pool would keep it: the next try must reconnect
                    connection.invalidate()
                if not connection.invalidated:
                    transaction.rollback()
                raise
            thread = threading.get_ident()
            self._in_commit[thread] = time.monotonic()
            try:
                transaction.commit()
            except DBAPIError as error:
                if _undone(error):
                    raise
                raise CommitUnknown("the connection was lost in COMMIT; read again by your own key") from error
            finally:
                del self._in_commit[thread]
            return outcome

    def read(self, fn: Callable[[Connection], T], *, ahead: bool = False) -> T:
        with self._connection_place(time.monotonic() + self._timeout, ahead=ahead):
            return self._read(fn)

    def _read(self, fn: Callable[[Connection], T]) -> T:
        try:
            # Begun here, since prepared statements bypass SQLAlchemy, which would not know of a transaction. Ended by
            # COMMIT: on ROLLBACK psycopg forgets all prepared statements, and the server would plan each again.
            with self._reading.connect() as connection, connection.begin():
                return fn(connection)
        except PoolTimeout as error:
            raise Unavailable(_ALL_BUSY) from error
        except DBAPIError as error:
            _raise_if_slow(error)
            if not _repeatable(error):
                raise
            raise self._refusal(error, "the ledger's server does not answer, or ended the transaction") from error

    def _refusal(self, error: DBAPIError | None, otherwise: str) -> Unavailable:
        """Return the error that describes the last try.

        Without a connection, the server's own message tells a wrong URL from an absent server.
        """
        if error is None or not isinstance(error.orig, psycopg.Error):
            return Unavailable(otherwise)
        if error.statement is not None:
            return Unavailable(_SAID.get(error.orig.sqlstate or "", f"{otherwise} ({type(error.orig).__name__})"))
        # libpq's messages never contain the password
        lines = (" ".join(line.split()) for line in str(error.orig).splitlines())
        words = " ".join(line for line in lines if not line.startswith("Is the server running"))[:_WORDS]
        host = self._url.host or self._url.query.get("host") or "localhost"
        place = f"{host}:{self._url.port or self._url.query.get('port') or 5432}"
        what = "ASWHOM_DATABASE_URL" if "certificate" not in words else _CERTIFICATE
        return Unavailable(f"no connection to the ledger's server at {place}: {words}; see {what}")

    def check_fit(self) -> None:
        """Check nothing: the disk is the server's, which refuses writes when it is full."""

    def in_commit(self) -> Mapping[int, float]:
        """Return the waiting COMMITs. They wait for standbys without limit: statement_timeout does not apply."""
        return self._in_commit.copy()

    def close(self) -> None:
        self.engine.dispose()


def _undone(error: DBAPIError) -> bool:
    return isinstance(error.orig, psycopg.Error) and error.orig.sqlstate in _UNDONE


def _was_locked(error: DBAPIError) -> bool:
    return isinstance(error.orig, psycopg.errors.LockNotAvailable)


def _is_read_only(error: BaseException) -> bool:
    """True for a write that the server refused; a read fails this way by our own setting."""
    return isinstance(error, DBAPIError) and isinstance(error.orig, psycopg.errors.ReadOnlySqlTransaction)


def _raise_if_slow(error: DBAPIError) -> None:
    """Raise TookTooLong if the server cancelled the statement."""
    if isinstance(error.orig, psycopg.errors.QueryCanceled):
        raise TookTooLong("a statement took too long, and the ledger's server ended it") from error


def _repeatable(error: DBAPIError) -> bool:
    """True if nothing was written: rolled back by the server, or the connection broke before COMMIT was sent."""
    return _undone(error) or error.connection_invalidated or isinstance(error.orig, psycopg.OperationalError)
