"""The migrations and the tables in the code are the same schema."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

import pipeline.tables  # noqa: F401 - adds its tables
from identity.tables import metadata
from pipeline.database import Database, DatabaseSettings, open_database
from pipeline.migrations import revisions, upgrade


def test_the_migrated_schema_is_the_one_the_code_declares(database: Database) -> None:
    def differences(c: Connection) -> list[object]:
        context = MigrationContext.configure(c, opts={"compare_type": True})
        found: list[object] = compare_metadata(context, metadata)
        return found

    assert database.read(differences) == []


def test_upgrading_twice_is_once(ledger_url: str) -> None:
    database = open_database(DatabaseSettings(url=ledger_url))
    upgrade(database)
    current, newest = revisions(database)
    assert current == newest is not None
    database.close()
