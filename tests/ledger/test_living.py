"""A ledger is not changed under running processes: what is seen of them, and what is waited for."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest

from identity.errors import Unavailable
from pipeline.db.database import Database
from pipeline.ledger import running_processes
from pipeline.ledger.clock import ledger_now
from pipeline.ledger.running_processes import refuse_beside_processes
from tests.heartbeats import ticked
from tests.servers.postgres import Emptied

WHY = "the ledger is to change"


def test_a_heartbeat_that_moves_is_of_a_process_that_runs(database: Database) -> None:
    now = database.read(ledger_now)
    ticked(database, "dispatch", "wake", at=now, host="a")

    def still_there(_line: str) -> None:
        ticked(database, "wake", at=now + timedelta(seconds=1), host="a")

    with pytest.raises(Unavailable, match=r"heartbeats come from a\..*; `--all-the-same`"):
        refuse_beside_processes(database, because=WHY, tell=still_there, otherwise="`--all-the-same`")


def test_a_heartbeat_that_stays_the_last_is_waited_out(database: Database) -> None:
    ticked(database, "dispatch", at=database.read(ledger_now) - timedelta(seconds=14), host="a")
    told: list[str] = []
    refuse_beside_processes(database, because=WHY, tell=told.append)
    assert len(told) == 1


def test_a_heartbeat_of_a_clock_that_was_ahead_is_waited_for_no_longer(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_processes, "_SILENT", timedelta(seconds=1))
    ticked(database, "dispatch", at=database.read(ledger_now) + timedelta(hours=1), host="a")
    refuse_beside_processes(database, because=WHY, tell=lambda line: None)


def test_an_old_heartbeat_is_of_nobody(database: Database) -> None:
    ticked(database, "dispatch", at=database.read(ledger_now) - timedelta(seconds=16), host="a")
    refuse_beside_processes(database, because=WHY, tell=pytest.fail)


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("web", True),
        ("worker-2", True),
        ("revocations", True),
        ("housekeeping", True),
        ("beat", True),
        ("command", False),
    ],
)
def test_a_session_of_a_process_is_seen_at_postgresql(migrated_postgres: Emptied, name: str, refused: bool) -> None:
    from pipeline.db.postgresql import PostgresqlDatabase

    ledger = PostgresqlDatabase(migrated_postgres.url)
    address = migrated_postgres.url.replace("postgresql+psycopg:", "postgresql:")
    try:
        with psycopg.connect(address, application_name=f"aswhom-{name}"):
            if refused:
                with pytest.raises(Unavailable, match=rf"aswhom-{name} \(pid \d+\).*pg_terminate_backend"):
                    refuse_beside_processes(ledger, because=WHY, tell=lambda line: None)
            else:
                refuse_beside_processes(ledger, because=WHY, tell=lambda line: None)
    finally:
        ledger.close()


@pytest.mark.usefixtures("ledger_url")  # emptied after it
@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_web_process_that_is_started_meanwhile_is_seen_though_it_writes_no_heartbeat(
    migrated_postgres: Emptied,
) -> None:
    from pipeline.db.postgresql import PostgresqlDatabase

    ledger = PostgresqlDatabase(migrated_postgres.url)
    address = migrated_postgres.url.replace("postgresql+psycopg:", "postgresql:")
    ticked(ledger, "dispatch", at=ledger.read(ledger_now), host="a")
    begun: list[psycopg.Connection] = []

    def begin(line: str) -> None:
        begun.append(psycopg.connect(address, application_name="aswhom-web"))

    try:
        with pytest.raises(Unavailable, match=r"aswhom-web \(pid \d+\)"):
            refuse_beside_processes(ledger, because=WHY, tell=begin)
    finally:
        for one in begun:
            one.close()
        ledger.close()


@pytest.mark.usefixtures("ledger_url")  # emptied after it
@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("columns", ["id int", "at timestamptz", "duty text, host text, at text"])
def test_another_programs_tables_of_our_names_are_no_installation(migrated_postgres: Emptied, columns: str) -> None:
    from pipeline.db.postgresql import PostgresqlDatabase

    address = migrated_postgres.owners_url.replace("postgresql+psycopg:", "postgresql:")
    ledger = PostgresqlDatabase(migrated_postgres.url)
    try:
        with psycopg.connect(address, autocommit=True, application_name="aswhom-web") as other:
            other.execute("create schema theirs")
            try:
                other.execute(f"create table theirs.heartbeats ({columns})".encode())
                for table in ("jobs", "alembic_version"):
                    other.execute(f"create table theirs.{table} (id int)".encode())
                other.execute("grant usage on schema theirs to public")
                other.execute("grant select on all tables in schema theirs to public")
                with pytest.raises(Unavailable, match="aswhom-web"):
                    refuse_beside_processes(ledger, because=WHY, tell=pytest.fail)
            finally:
                other.execute("drop schema theirs cascade")
    finally:
        ledger.close()


@pytest.mark.usefixtures("ledger_url")  # emptied after it
@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_where_another_installation_is_in_the_same_database_its_sessions_are_none_of_ours(
    migrated_postgres: Emptied,
) -> None:
    from pipeline.db.postgresql import PostgresqlDatabase

    address = migrated_postgres.owners_url.replace("postgresql+psycopg:", "postgresql:")
    ledger = PostgresqlDatabase(migrated_postgres.url)
    told: list[str] = []
    try:
        with psycopg.connect(address, autocommit=True, application_name="aswhom-web") as other:
            other.execute("create schema staging")
            try:
                for table in ("heartbeats", "jobs", "alembic_version"):
                    with pytest.raises(Unavailable, match="aswhom-web"):  # somebody's tables of such names
                        refuse_beside_processes(ledger, because=WHY, tell=pytest.fail)
                    other.execute(f"create table staging.{table} (like {table})".encode())
                refuse_beside_processes(ledger, because=WHY, tell=told.append)  # whether it lives is not ours to read
                assert "schema staging" in told.pop()
                other.execute("grant usage on schema staging to public")
                other.execute("grant select on all tables in schema staging to public")
                with pytest.raises(Unavailable, match="aswhom-web"):  # one that was copied, or given up
                    refuse_beside_processes(ledger, because=WHY, tell=pytest.fail)
                beat = "insert into staging.heartbeats (duty, host, at) values ('wake', 'b', %s)"
                other.execute(beat, [int(ledger.read(ledger_now).timestamp() * 1_000_000)])
                refuse_beside_processes(ledger, because=WHY, tell=told.append)
                now = ledger.read(ledger_now)
                ticked(ledger, "dispatch", at=now, host="a")

                def still_there(line: str) -> None:
                    if line.startswith("seeing whether"):
                        ticked(ledger, "dispatch", at=now + timedelta(seconds=1), host="a")

                with pytest.raises(Unavailable, match="heartbeats come from a"):
                    refuse_beside_processes(ledger, because=WHY, tell=still_there)
            finally:
                other.execute("drop schema staging cascade")
    finally:
        ledger.close()
    (line,) = told
    assert "schema staging" in line
