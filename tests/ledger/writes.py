"""What the tests of the ledger's database write and read: tenants, which have a name and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import Connection, insert, literal, select

from identity.sql.prepared import Prepared
from identity.tables import tenants
from pipeline.db.database import Database

Act = Callable[[Callable[[], object]], object]  # calls a function
_SELECT_ONE = Prepared(select(literal(1)))


def select_one(c: Connection) -> int:
    return int(_SELECT_ONE.run(c).scalar_one())


def inserts(name: str) -> Callable[[Connection], str]:
    now = datetime.now(UTC)

    def write(c: Connection) -> str:
        c.execute(insert(tenants).values(id=name, name=name, created_at=now))
        return name

    return write


def names_in(database: Database) -> set[str]:
    return set(database.read(lambda c: c.execute(select(tenants.c.id)).scalars().all()))
