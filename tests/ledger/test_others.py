"""Tables are not changed under running processes: what is seen of them, and what is waited for."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest

from identity.errors import Unavailable
from pipeline.database import Database
from pipeline.ledger.clock import clock
from pipeline.migrations.others import refuse_beside_others
from tests.heartbeats import ticked
from tests.servers.postgres import Emptied


def test_a_heartbeat_that_moves_is_of_a_process_that_runs(database: Database) -> None:
    now = database.read(clock)
    ticked(database, "dispatch", "wake", at=now, host="a")

    def still_there(_line: str) -> None:
        ticked(database, "wake", at=now + timedelta(seconds=1), host="a")

    with pytest.raises(Unavailable, match=r"heartbeats come from a.*--while-others-run"):
        refuse_beside_others(database, tell=still_there)


def test_a_web_process_that_is_started_meanwhile_is_seen_though_it_writes_no_heartbeat(
    migrated_postgres: Emptied,
) -> None:
    from pipeline.postgresql import PostgresqlDatabase

    ledger = PostgresqlDatabase(migrated_postgres.url)
    address = migrated_postgres.url.replace("postgresql+psycopg:", "postgresql:")
    ticked(ledger, "dispatch", at=ledger.read(clock), host="a")
    begun: list[psycopg.Connection] = []
    try:
        with pytest.raises(Unavailable, match=r"aswhom-web \(1 sessions\)"):
            refuse_beside_others(
                ledger, tell=lambda _: begun.append(psycopg.connect(address, application_name="aswhom-web"))
            )
    finally:
        for one in begun:
            one.close()
        ledger.close()


def test_a_heartbeat_that_stays_the_last_is_waited_out(database: Database) -> None:
    ticked(database, "dispatch", at=database.read(clock) - timedelta(seconds=14), host="a")
    told: list[str] = []
    refuse_beside_others(database, tell=told.append)
    assert len(told) == 1


def test_an_old_heartbeat_is_of_nobody(database: Database) -> None:
    ticked(database, "dispatch", at=database.read(clock) - timedelta(seconds=16), host="a")
    refuse_beside_others(database, tell=pytest.fail)


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
    from pipeline.postgresql import PostgresqlDatabase

    ledger = PostgresqlDatabase(migrated_postgres.url)
    address = migrated_postgres.url.replace("postgresql+psycopg:", "postgresql:")
    try:
        with psycopg.connect(address, application_name=f"aswhom-{name}"):
            if refused:
                with pytest.raises(Unavailable, match=rf"aswhom-{name} \(1 sessions\)"):
                    refuse_beside_others(ledger, tell=lambda line: None)
            else:
                refuse_beside_others(ledger, tell=lambda line: None)
    finally:
        ledger.close()
