"""Puts many queued jobs into a ledger as their acceptance would have left them, in one statement."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, String, cast, func, insert, literal, select, update

from identity.sql.columns import microseconds
from identity.sql.metadata import ledger_numbers
from identity.sql.sequence import NUMBERS, next_number
from pipeline.jobs import scope_sets
from pipeline.jobs.tenant_setup import setup_of
from pipeline.tables import jobs as table
from tests.bench.ground import Ledger

AT_ONCE = 5_000  # rows: a write of the ledger has to end in seconds


def queue(ledger: Ledger, wanted: Mapping[str, int]) -> None:
    """Queue so many jobs for ada of each tenant, due now."""
    template = ledger.house.job()  # an accepted one, with everything that acceptance writes
    for tenant, number in wanted.items():
        for first in range(0, number, AT_ONCE):
            rows = min(AT_ONCE, number - first)
            act = partial(_insert, ledger=ledger, template=template, tenant=tenant, rows=rows)
            ledger.write(partial(act, prefix=ledger.house.ids("job"), now=datetime.now(UTC)))
    ledger.write(_look)


def _numbers(c: Connection, number: int) -> int:
    """The ledger number before the next *number* of them, which are taken."""
    taken = next_number(c)
    if c.dialect.name == "postgresql":
        c.execute(select(func.setval(NUMBERS.name, taken + number)))
    else:
        c.execute(update(ledger_numbers).values(value=taken + number))
    return taken


def _look(c: Connection) -> None:
    """In a ledger that grew job by job the database knows how it looks."""
    if c.dialect.name == "sqlite":
        c.exec_driver_sql("PRAGMA analysis_limit = 1000")  # as PostgreSQL, of a sample
    c.exec_driver_sql("ANALYZE")


def _insert(
    c: Connection, *, ledger: Ledger, template: str, tenant: str, rows: int, prefix: str, now: datetime
) -> None:
    here = setup_of(c, tenant, [ledger.house.workflow])
    scopes = scope_sets.scope_set(here, ledger.house.workflow, f"{tenant}.ada")
    scope_sets.store(c, scopes)
    number = select(literal(1).label("number")).cte("numbers", recursive=True)
    numbers = number.union_all(select(number.c.number + 1).where(number.c.number < rows))
    # Each in its own microsecond, as those that were accepted one by one.
    began = literal(microseconds(now - timedelta(microseconds=rows) - datetime.fromtimestamp(0, UTC)), BigInteger)
    moment = began + numbers.c.number
    own: dict[str, ColumnElement[Any]] = {
        "id": literal(f"{prefix}.") + cast(numbers.c.number, String),
        "tenant_id": literal(tenant),
        "user_id": literal(f"{tenant}.ada"),
        "delivery_id": literal(None, String),
        "scopes_sha256": literal(scopes.sha256),
        "accepted": literal(_numbers(c, rows)) + numbers.c.number,
        "due_at": moment,
        "created_at": moment,
        "rung_until": literal(None, table.c.rung_until.type),
    }
    values = [own.get(column.name, column) for column in table.c]
    source = select(*values).select_from(table.join(numbers, literal(True))).where(table.c.id == template)
    c.execute(insert(table).from_select([column.name for column in table.c], source))
