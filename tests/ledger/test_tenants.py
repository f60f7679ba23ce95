"""Tenants that are added: of two who add the same one, one has."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection, func, select, text

from identity.audit_tables import audit
from identity.errors import BadInput
from pipeline.database import Database
from pipeline.desk import tenants


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_whoever_adds_a_tenant_while_it_is_added_is_told_that_it_is_there(database: Database) -> None:
    """Neither has seen the other's row. SQLite has one writer anyway."""
    told: list[str] = []

    def add(c: Connection, name: str) -> str:
        return tenants.add(c, "mill", name=name, audit_id=f"aud-{name}", by="test", now=datetime.now(UTC))

    def add_late() -> None:
        try:
            told.append(database.write(lambda c: add(c, "late")))
        except BadInput as error:
            told.append(str(error))

    late = threading.Thread(target=add_late)
    waiting = text("select count(*) from pg_locks where locktype = 'transactionid' and not granted")

    def add_slowly(c: Connection) -> str:
        service = add(c, "early")
        late.start()
        while late.is_alive() and not c.execute(waiting).scalar_one():
            late.join(0.01)
        return service

    assert database.write(add_slowly) == "mill.service"
    late.join()
    assert told == ["there is a tenant mill already: choose another id"]
    assert database.read(lambda c: c.execute(select(func.count()).select_from(audit)).scalar_one()) == 1
