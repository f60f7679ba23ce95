"""Whether processes of ours run on a ledger that is to change under them: its tables, or what it was put back to.

PostgreSQL names its sessions, which a process has for as long as it lives, or longer: a COMMIT that waits for a standby
outlives whoever asked for it. Elsewhere, and where a session bears a name of somebody's own, heartbeats tell. And
where another installation lives in the same database: of a session nobody else sees which schema it is on.
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

_SILENT = 3 * HEARTBEAT  # then whoever wrote it is gone
_LEFT = timedelta(hours=1)  # an installation that has been silent for so long is a copy, or was given up
_LOOKS_AGAIN = 0.5  # seconds
_NAMED = 5  # sessions of one name, by their pids: where every process was stopped, few are left

#: The names that `deploy.environment` gives to the connections of processes; commands end by themselves.
_SESSIONS = text(
    "select application_name, pid, client_addr::text from pg_stat_activity where datname = current_database() "
    "and pid <> pg_backend_pid() "
    "and application_name ~ '^aswhom-(web|worker|revocations|housekeeping|beat)' order by backend_start"
)

#: Any program's table may be called as one of ours: an installation has several.
_OTHER_SCHEMAS = text(
    "select n.nspname, bool_and(has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select')) "
    "from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relname = any(:tables) "
    "and c.relkind = 'r' and n.nspname <> coalesce(current_schema(), '') "
    "group by n.nspname having count(*) = cardinality(:tables) order by n.nspname"
)

_Sessions = Mapping[str, Sequence[int]]
_Beats = Mapping[tuple[str, str], datetime]


def refuse_beside_processes(
    store: Store, *, because: str, tell: Callable[[str], None], otherwise: str | None = None
) -> None:
    """Return once nothing of ours is seen on the ledger. Raises Unavailable for what runs there.

    *because* says what is to be done, and *otherwise*, if any, how it is done all the same.

    Of a process that was stopped just now the last heartbeat is still fresh: that it stays the last is waited for.
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
    silent = time.monotonic() + _SILENT.total_seconds()  # a backup may hold one of a clock that was ahead of this one
    if fresh:
        tell(f"seeing whether what wrote a heartbeat just now has stopped, for {_SILENT.total_seconds():.0f} s at most")
    while fresh and time.monotonic() < silent:
        pause.wait(_LOOKS_AGAIN)
        sessions, fresh = store.read(_seen)
        refuse(sessions)  # a web process writes no heartbeat, and may have been started meanwhile
        if hosts := {host for (duty, host), at in fresh.items() if known.get((duty, host)) != at}:
            raise refusal(because, f"processes run on it: heartbeats come from {', '.join(sorted(hosts))}", otherwise)


def refusal(because: str, seen: str, otherwise: str | None) -> Unavailable:
    """What says that something was *seen* to run."""
    says = f"{because}, and {seen}. Nothing was changed. Stop every process on every host first, and then repeat it"
    return Unavailable(says if otherwise is None else f"{says}; {otherwise}")


def _listed(pids: Sequence[int]) -> str:
    more = f" and {len(pids) - _NAMED} more" if len(pids) > _NAMED else ""
    return ", ".join(map(str, pids[:_NAMED])) + more


def sessions_of_processes(connection: Connection) -> Counter[tuple[str, str | None]]:
    """How many there are of each name and address, on PostgreSQL; one of another schema is not told apart."""
    return Counter((name, address) for name, _, address in connection.execute(_SESSIONS))


def _other_installations(connection: Connection) -> list[str]:
    """Other schemas of the database in which an installation lives, or may: its heartbeats are not for us to read."""
    if connection.dialect.name != "postgresql":
        return []
    found = connection.execute(_OTHER_SCHEMAS, {"tables": [heartbeats.name, jobs.name, "alembic_version"]}).all()
    return [schema for schema, readable in found if not readable or _lives(connection, schema)]


def _lives(connection: Connection, schema: str) -> bool:
    theirs = heartbeats.to_metadata(MetaData(), schema=schema)
    newest: datetime | None = connection.execute(select(func.max(theirs.c.at, type_=theirs.c.at.type))).scalar()
    return newest is not None and newest > ledger_now(connection) - _LEFT


def _seen(connection: Connection) -> tuple[_Sessions, _Beats]:
    """The pids of our sessions by their names, and the heartbeats that are fresh."""
    sessions = defaultdict[str, list[int]](list)
    if connection.dialect.name == "postgresql" and not _other_installations(connection):
        for name, pid, _ in connection.execute(_SESSIONS):
            sessions[name].append(pid)
    if not inspect(connection).has_table(heartbeats.name):
        return sessions, {}
    columns = heartbeats.c
    beats = select(columns.duty, columns.host, columns.at).where(columns.at > ledger_now(connection) - _SILENT)
    return sessions, {(duty, host): at for duty, host, at in connection.execute(beats)}
