"""Detects Aswhom processes still connected to a ledger that is about to be migrated or restored.

PostgreSQL names the sessions of a process. A session may outlive its process: a COMMIT that waits for a standby does.
Heartbeats cover SQLite, sessions with a custom name, and a database that several installations share, because a session
does not show its schema to others.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, MetaData, func, inspect, select, text

from identity.errors import Unavailable
from identity.sql.store import Store
from pipeline.ledger.clock import ledger_now
from pipeline.model import HEARTBEAT
from pipeline.tables import heartbeats, jobs

_SILENT = 3 * HEARTBEAT  # longer silence means that the process is gone
_LEFT = timedelta(hours=1)  # an installation silent for this long is a copy, or was abandoned
_LOOKS_AGAIN = 0.5  # seconds
_NAMED = 5  # pids listed per session name; few are left once every process was stopped

#: The names that `deploy.environment` gives to the connections of processes; commands end by themselves.
_SESSIONS = text(
    "select application_name, pid, client_addr::text from pg_stat_activity where datname = current_database() "
    "and pid <> pg_backend_pid() "
    "and application_name ~ '^aswhom-(web|worker|revocations|housekeeping|beat)' order by backend_start"
)

#: Any program's table may share a name with one of ours; an installation has several of them, and the same heartbeats.
_OTHER_SCHEMAS = text(
    "select n.nspname, bool_and(has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select')) "
    "from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relname = any(:tables) "
    "and c.relkind = 'r' and n.nspname <> coalesce(current_schema(), '') "
    "and (c.relname <> :beats or exists (select from pg_attribute a where a.attrelid = c.oid "
    "and not a.attisdropped and a.attname = 'at' and a.atttypid = 'int8'::regtype)) "
    "group by n.nspname having count(*) = cardinality(:tables) order by n.nspname"
)

_Sessions = Mapping[str, Sequence[int]]
_Beats = Mapping[tuple[str, str], datetime]


def refuse_beside_processes(
    store: Store, *, because: str, tell: Callable[[str], None], otherwise: str | None = None
) -> None:
    """Return once no process of ours is seen on the ledger. Raises Unavailable, naming what runs there.

    *because*: what is to be done. *otherwise*: how to do it in spite of running processes, if possible. The last
    heartbeat of a process that just stopped is still fresh, so this waits to see that no other follows.
    """
    if others := store.read(_other_installations):
        tell(
            f"another installation lives in this database (schema {', '.join(others)}): heartbeats alone tell "
            "whether processes of this one run, so see for yourself that its web and workers are stopped"
        )

    def refuse(sessions: _Sessions) -> None:
        if sessions:
            seen = ", ".join(f"{name} (pid {_listed(pids)})" for name, pids in sorted(sessions.items()))
            ends = "a session whose process is gone ends by `select pg_terminate_backend(PID)` in the database"
            ways = ends if otherwise is None else f"{ends}; {otherwise}"
            raise refusal(because, f"sessions of processes are on it: {seen}", ways)

    sessions, known = store.read(_seen)
    refuse(sessions)
    pause, fresh = threading.Event(), known
    # a restored backup may hold a heartbeat from a clock ahead of this one
    silent = time.monotonic() + _SILENT.total_seconds()
    if fresh:
        tell(f"seeing whether what wrote a heartbeat just now has stopped, for {_SILENT.total_seconds():.0f} s at most")
    while fresh and time.monotonic() < silent:
        pause.wait(_LOOKS_AGAIN)
        sessions, fresh = store.read(_seen)
        refuse(sessions)  # a web process writes no heartbeat, and may have been started meanwhile
        if hosts := {host for (duty, host), at in fresh.items() if known.get((duty, host)) != at}:
            raise refusal(because, f"processes run on it: heartbeats come from {', '.join(sorted(hosts))}", otherwise)


def refusal(because: str, seen: str, otherwise: str | None) -> Unavailable:
    """Return the error that says that something was *seen* to run."""
    says = f"{because}, and {seen}. Nothing was changed. Stop every process on every host first, and then repeat it"
    return Unavailable(says if otherwise is None else f"{says}; {otherwise}")


def _listed(pids: Sequence[int]) -> str:
    more = f" and {len(pids) - _NAMED} more" if len(pids) > _NAMED else ""
    return ", ".join(map(str, pids[:_NAMED])) + more


def sessions_of_processes(connection: Connection) -> Counter[tuple[str, str | None]]:
    """Count PostgreSQL sessions of processes by name and address; sessions on other schemas are included."""
    return Counter((name, address) for name, _, address in connection.execute(_SESSIONS))


def _other_installations(connection: Connection) -> list[str]:
    """Return other schemas with a live installation, or with one whose heartbeats we are not allowed to read."""
    if connection.dialect.name != "postgresql":
        return []
    asked = {"tables": [heartbeats.name, jobs.name, "alembic_version"], "beats": heartbeats.name}
    found = connection.execute(_OTHER_SCHEMAS, asked).all()
    return [schema for schema, readable in found if not readable or _lives(connection, schema)]


def _lives(connection: Connection, schema: str) -> bool:
    theirs = heartbeats.to_metadata(MetaData(), schema=schema)
    newest: datetime | None = connection.execute(select(func.max(theirs.c.at, type_=theirs.c.at.type))).scalar()
    return newest is not None and newest > ledger_now(connection) - _LEFT


def _seen(connection: Connection) -> tuple[_Sessions, _Beats]:
    """Return the pids of our sessions by name, and the fresh heartbeats."""
    sessions = defaultdict[str, list[int]](list)
    if connection.dialect.name == "postgresql" and not _other_installations(connection):
        for name, pid, _ in connection.execute(_SESSIONS):
            sessions[name].append(pid)
    if not inspect(connection).has_table(heartbeats.name):
        return sessions, {}
    columns = heartbeats.c
    beats = select(columns.duty, columns.host, columns.at).where(columns.at > ledger_now(connection) - _SILENT)
    return sessions, {(duty, host): at for duty, host, at in connection.execute(beats)}
