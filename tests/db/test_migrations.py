"""The migrations and the tables in the code are the same schema."""

from __future__ import annotations

import secrets
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, event, text

from identity.errors import Misconfigured, Unavailable
from identity.ids import Ids
from identity.keys.vault import Vault
from pipeline.db.database import Database, DatabaseSettings, open_database
from pipeline.deliveries.intake import Intake
from pipeline.ledger.revision import newest, revision_of
from pipeline.migrations import upgrade, upgrade_at
from pipeline.migrations.declared import metadata
from pipeline.migrations.shape import lacks, triggers, triggers_there
from pipeline.migrations.touched import touched
from tests.ledgers import open_ledger
from tests.waiting import eventually

pytestmark = pytest.mark.as_owner


def test_the_migrated_schema_is_the_one_the_code_declares(database: Database) -> None:
    def differences(c: Connection) -> list[object]:
        context = MigrationContext.configure(c, opts={"compare_type": True})
        found: list[object] = compare_metadata(context, metadata)
        return found

    assert database.read(differences) == []


def test_a_migrated_ledger_lacks_nothing_and_has_no_trigger_that_is_not_looked_for(database: Database) -> None:
    assert database.read(lacks) == []
    assert database.read(triggers_there) == triggers(database.engine.dialect.name)


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        ("drop index ix_jobs_due", "index ix_jobs_due is not there"),
        ("alter table scopes drop constraint pk_scopes", "table scopes lacks its primary key"),
        ("drop trigger audit_no_change on audit", "trigger audit_no_change is not there, or disabled"),
        ("alter table audit disable trigger audit_no_change", "trigger audit_no_change is not there, or disabled"),
        ("drop table heartbeats", "table heartbeats is not there"),
        ("alter table tenants drop column name", "column tenants.name is not there"),
        ("alter table tenants alter column name drop not null", "column tenants.name is of another kind"),
        ("alter table audit_seals drop constraint uq_audit_seals_audit_id", "uq_audit_seals_audit_id is not there"),
        ("alter table principals drop constraint fk_principals_tenant_id", "fk_principals_tenant_id is not there"),
        ("update pg_index set indisvalid = false where indexrelid = 'ix_jobs_due'::regclass", "ix_jobs_due is not val"),
        ("drop sequence ledger_number_sequence", "sequence ledger_number_sequence is not there"),
    ],
)
@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_what_a_ledger_lacks_is_said(database: Database, spoilt: str, said: str) -> None:
    with database.engine.connect() as connection:  # which undoes it at its end
        connection.exec_driver_sql(spoilt)
        assert [one for one in lacks(connection) if said in one]


def test_upgrading_twice_is_once(ledger_url: str) -> None:
    database = open_ledger(ledger_url)
    upgrade(database)
    assert revision_of(database) == newest()
    database.close()


def test_the_tables_that_an_upgrade_goes_through_are_foretold_and_those_it_makes_or_only_adds_to_are_not() -> None:
    due = touched("0065")
    assert list(due)[-1] == newest()
    assert due["0068"] == ["accounts", "attempts", "deliveries", "jobs", "refresh_intents"]  # their rows are rewritten
    assert due["0071"] == ["attempts"]  # for a new index
    assert due["0073"] == []  # a column that may be empty
    assert touched(newest()) == {}


def test_a_ledger_of_a_newer_version_is_neither_upgraded_nor_ready_and_both_say_why(ledger_url: str) -> None:
    database = open_ledger(ledger_url)
    web = Intake(database, Vault({1: bytes(32)}, secrets.token_bytes), Ids(), clock=lambda: datetime.now(UTC))
    database.write(lambda c: c.execute(text("update alembic_version set version_num = '9000'")).rowcount)
    said = "the ledger is at revision 9000, of a newer Aswhom: install that version, or restore a backup"
    with pytest.raises(Misconfigured, match=said):
        upgrade_at(DatabaseSettings(url=ledger_url))
    with pytest.raises(Unavailable, match=said):
        web.ready()
    assert revision_of(database) == "9000"
    ours = text("update alembic_version set version_num = :ours")  # other tests have this database after this one
    database.write(lambda c: c.execute(ours, {"ours": newest()}).rowcount)
    database.close()


def test_an_older_ledger_is_not_ready_and_its_schedules_keep_their_slots(database_url: str) -> None:
    database = open_database(DatabaseSettings(url=database_url, turn_timeout=timedelta(minutes=1)))
    web = Intake(database, Vault({1: bytes(32)}, secrets.token_bytes), Ids(), clock=lambda: datetime.now(UTC))
    with pytest.raises(Unavailable, match="without tables, and this version needs"):
        web.ready()
    upgrade(database, "0006")
    with pytest.raises(Unavailable, match="at revision 0006"):
        web.ready()
    rows = (
        "insert into tenants (id, name, created_at) values ('acme', 'Acme', 0)",
        "insert into schedules values ('acme:digest', 'acme', 'digest', '0 9 * * *', 'UTC', true, 5)",
        "insert into slots (schedule_id, slot, job_id, fired_at) values ('acme:digest', 3, 'job_1', 4)",
    )

    def fill(c: Connection) -> None:
        for row in rows:
            c.execute(text(row))

    database.write(fill)
    upgrade(database)
    web.ready()
    kept = "select name, origin, catch_up, paused, next_at, slot, job_id from schedules join slots on schedule_id = id"
    assert database.read(lambda c: c.execute(text(kept)).all()) == [("digest", "code", "once", 1, 5, 3, "job_1")]
    database.close()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite limits no statement
def test_a_long_index_is_not_cut_off_by_the_limit_of_steps(database_url: str) -> None:
    database = open_ledger(database_url)
    limits: set[tuple[str, ...]] = set()
    named = ("statement_timeout", "idle_in_transaction_session_timeout")

    def look(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if statement.lstrip().upper().startswith("CREATE INDEX"):
            limits.add(tuple(cursor.connection.execute(f"show {one}").fetchone()[0] for one in named))

    event.listen(database.engine, "before_cursor_execute", look)
    upgrade(database)
    assert limits == {("0", "0")}
    event.remove(database.engine, "before_cursor_execute", look)
    assert database.read(lambda c: [c.execute(text(f"show {one}")).scalar_one() for one in named]) == ["30s", "2s"]
    database.close()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite has one lock for all
def test_an_upgrade_that_gets_no_lock_says_who_may_hold_the_table(database_url: str) -> None:
    database = open_database(DatabaseSettings(url=database_url, turn_timeout=timedelta(seconds=1)))
    upgrade(database, "0042")
    with database.engine.connect() as another:
        another.execute(text("set idle_in_transaction_session_timeout = 0"))
        another.execute(text("lock table scopes in row exclusive mode"))
        with pytest.raises(Unavailable, match=r"another process holds a table .*an old Aswhom.*pg_dump"):
            upgrade(database)
    upgrade(database)
    database.close()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite's writes take turns anyhow
def test_an_upgrade_waits_for_another_however_long_its_index_takes(database_url: str) -> None:
    first = open_ledger(database_url)
    second: list[object] = []

    def upgrade_too() -> None:
        upgrade_at(DatabaseSettings(url=database_url))
        second.append(revision_of(first))

    other = threading.Thread(target=upgrade_too)
    # Longer than a step's statement waits for a lock.
    waits = text(
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'advisory' "
        "and clock_timestamp() - query_start > interval '3 s'"
    )
    with first.engine.connect() as c:
        c.execute(text("set idle_in_transaction_session_timeout = 0"))
        c.execute(text("select pg_advisory_xact_lock(hashtext('aswhom migrations'))"))
        other.start()
        eventually(lambda: first.read(lambda c: c.execute(waits).scalar_one()), what="it still waits")
    other.join(60)
    assert second == [revision_of(first)] == [newest()]
    first.close()


def test_an_upgrade_has_more_time_than_a_step(database_url: str) -> None:
    hasty = DatabaseSettings(url=database_url, turn_timeout=timedelta(milliseconds=1))
    upgrade_at(hasty)
    database = open_ledger(database_url)
    assert revision_of(database) == newest()
    database.close()


def test_a_connection_that_listed_once_keeps_to_its_list_after_the_upgrade_though_that_is_empty(
    database_url: str,
) -> None:
    database = open_database(DatabaseSettings(url=database_url, turn_timeout=timedelta(minutes=1)))
    upgrade(database, "0049")

    def fill(c: Connection) -> None:
        c.execute(
            text("insert into tenants (id, name, created_at) values ('acme', 'Acme', 0), ('globex', 'Globex', 0)")
        )
        columns = "id, tenant_id, provider, client_id, scopes, api_url, authorize_url, token_url, config, created_at"
        for id, tenant in (("ours", "'acme'"), ("never", "'acme'"), ("platform", "null"), ("theirs", "'globex'")):
            values = f"'{id}', {tenant}, 'github', 'c', '[]', 'https://a', 'https://a', 'https://a', '{{}}', 0"
            c.execute(text(f"insert into provider_connections ({columns}) values ({values})"))
        row = text(
            "insert into audit (id, at, number, kind, tenant_id, detail) values (:id, 0, 1, :kind, 'acme', :detail)"
        )
        for kind, named in (
            ("installation.added", "ours"),
            ("installation.added", "platform"),
            ("installation.removed", "theirs"),  # of a tenant whose it no longer is
            ("connection.added", "never"),
        ):
            c.execute(row, {"id": named, "kind": kind, "detail": f'{{"connection": "{named}", "external_id": "7"}}'})

    database.write(fill)
    upgrade(database)
    listed = text("select id from provider_connections where only_listed")
    assert database.read(lambda c: list(c.execute(listed).scalars())) == ["ours"]
    database.close()


def test_a_revocation_that_has_its_receipt_is_not_looked_through_again_after_the_upgrade(database_url: str) -> None:
    database = open_database(DatabaseSettings(url=database_url, turn_timeout=timedelta(minutes=1)))
    upgrade(database, "0039")
    columns = (
        "id, number, kind, key, source, requested_by, reason, state, effective_at, moved_at, quiesced_at, revision"
    )
    columns += ", cancelled_jobs, stopped_jobs, open_ends"
    both = ("'told', 1, {}, 'quiesced', 5, 6, 7, 2", "'draining', 2, {}, 'draining', 5, 6, null, 0")
    of = "'tenant', 'acme', 'cli', 'op', 'left'"
    rows = ", ".join(f"({row.format(of)}, 0, 0, 0)" for row in both)
    database.write(lambda c: c.execute(text(f"insert into revocations ({columns}) values {rows}")).rowcount)
    upgrade(database)
    collected = text("select id, collected_at from revocations order by number")
    assert database.read(lambda c: [tuple(row) for row in c.execute(collected)]) == [("told", 7), ("draining", None)]
    database.close()
