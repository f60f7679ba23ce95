"""Copies a whole SQLite ledger into an empty PostgreSQL database.

One transaction makes the tables, copies all rows, and compares them. No other session can write to them meanwhile.

Values are copied as they are stored. Reading and writing them again could change them: JSON's null would become SQL's
NULL, and a time beyond the last valid date would be clamped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Insert,
    Row,
    Select,
    Table,
    Text,
    bindparam,
    cast,
    insert,
    inspect,
    literal,
    select,
    text,
    type_coerce,
)
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from identity import audit
from identity.audit import Act, AsWhom
from identity.audit.tables import audit as audit_rows
from identity.errors import BadInput, Misconfigured, Unavailable
from identity.hold import Hold, find_hold, hold_anew
from identity.sql.columns import Instant
from identity.sql.metadata import ledger_numbers
from identity.sql.store import Store
from pipeline.ledger.numbering import last_given, move_numbers
from pipeline.ledger.revision import newest, revision_in
from pipeline.migrations import refuse_without_rights, sqlstate, take_time_alone, upgrade_in, without_right
from pipeline.migrations.declared import metadata

#: The kind of the audit record.
IMPORTED = "ledger.imported"
_TABLES = [table for table in metadata.sorted_tables if table is not ledger_numbers]  # PostgreSQL has a sequence
_PAGE = 100  # rows in memory at a time; a delivery's body may have megabytes
_NOT_OF_ROWS = ("42501", "25006")  # a right is lacking, the server is read-only
_MAY_CREATE = text("select current_schema(), has_schema_privilege(current_schema(), 'create')")

#: Called with the name of a table and how many more of its rows were copied, and later compared.
Progress = Callable[[str, int], None]


@dataclass(frozen=True)
class Content:
    """The rows of a table: their number, and the sum of their digests, which depends on no order."""

    rows: int = 0
    digests: int = 0

    def with_rows(self, rows: Sequence[Row[Any]]) -> Content:
        digests = sum(int.from_bytes(sha256(repr(tuple(row)).encode()).digest(), "big") for row in rows)
        return Content(self.rows + len(rows), self.digests + digests)


def hold_for_move(connection: Connection, act: Act) -> Hold | None:
    """Hold the old ledger for the reason the act gives, and return the hold of somebody else that this replaces."""
    standing = find_hold(connection)
    if standing is not None and standing.why == act.why:
        return None  # of an earlier try; a second record would number the ledger on, and hide that it was moved
    hold_anew(connection, act)
    detail = {"held_before": None if standing is None else standing.sentence}
    audit.record_act(connection, "hold.set", AsWhom(tenant=None), act, outcome="held", detail=detail)
    return standing


def import_sqlite(source: Store, connection: Connection, act: Act, *, origin: str, progress: Progress) -> int:
    """Copy every row of the ledger *source*, which nothing else uses, and return how many there were.

    *connection* is a write transaction of PostgreSQL; *origin* names the source in the audit. Ledger numbers continue
    where those of the source end. The copy is held for the reason the act gives. Does nothing if an earlier import did
    all that. Raises BadInput if the target is not empty, Misconfigured if PostgreSQL refuses a value or a statement, or
    returns a value changed, and Unavailable if the source was used after all.
    """
    take_time_alone(connection)
    last = source.read(last_given)
    refuse_unfit(connection)
    if (before := rows_moved(connection, origin=origin, last=last)) is not None:
        return before
    with refuse_without_rights():
        upgrade_in(connection)
        # Nobody sees tables made in this transaction. Those that were there already have to be kept from processes.
        names = map(connection.dialect.identifier_preparer.format_table, _TABLES)
        connection.execute(text(f"lock table {', '.join(names)} in share row exclusive mode"))
        refuse_rows(connection)
        # First the numbers, which need the owner's rights: copying may take hours.
        move_numbers(connection, to=last or 1)
        copied = source.read(lambda old: _copy_all(old, connection, progress))
        if source.read(last_given) != last:
            raise Unavailable("a process still writes to the old ledger: stop it, and repeat this. Nothing was copied")
        hold_anew(connection, act)
        detail = {"from": origin, "last_number": last, "rows": copied}
        audit.record_act(connection, IMPORTED, AsWhom(tenant=None), act, outcome="copied", detail=detail)
        connection.execute(text("analyze"))
    return copied


def refuse_unfit(connection: Connection) -> None:
    """Raise BadInput if the database is another program's, at another revision, or not in UTF-8.

    Raise Misconfigured if it lacks tables and the role may not make them.
    """
    encoding = connection.execute(text("show server_encoding")).scalar_one()
    if encoding != "UTF8":
        raise BadInput(f"the database's encoding is {encoding}, which lacks characters. Name an empty one in UTF8")
    revision = revision_in(connection)
    if revision not in (None, newest()):
        raise BadInput(f"the database is not empty: it has tables at revision {revision}. Name an empty one")
    if revision is not None:
        return
    if taken := sorted(metadata.tables.keys() & set(inspect(connection).get_table_names())):
        raise BadInput(f"the database is not empty: another program has a table {taken[0]} in it. Name an empty one")
    schema, may = connection.execute(_MAY_CREATE).one()
    if not may:
        raise without_right(f"to make tables in the schema {schema}")


def refuse_rows(connection: Connection) -> None:
    """Raise BadInput if a table of the ledger, at this version's revision, has rows."""
    for table in _TABLES if revision_in(connection) is not None else ():
        if connection.execute(select(literal(1)).select_from(table).limit(1)).first() is not None:
            raise BadInput(f"the database is not empty: its table {table.name} has rows. Name an empty one")


def rows_moved(connection: Connection, *, origin: str, last: int | None) -> int | None:
    """Return how many rows the database has from *origin*, whose last ledger number is *last*.

    None: *origin* was not moved here, or was written to since.
    """
    if revision_in(connection) is None:
        return None
    imports = select(audit_rows.c.detail).where(audit_rows.c.tenant_id == "", audit_rows.c.kind == IMPORTED)
    detail = connection.execute(imports.order_by(audit_rows.c.number.desc()).limit(1)).scalar()
    if detail is None or (detail["from"], detail.get("last_number")) != (origin, last):
        return None
    return int(detail["rows"])


def _copy_all(source: Connection, to: Connection, progress: Progress) -> int:
    return sum(_copy(source, table, to, progress) for table in _TABLES)


def _copy(source: Connection, table: Table, to: Connection, progress: Progress) -> int:
    written = _insertion(table)
    content = there = Content()
    for page in _pages(source, table):
        try:
            to.execute(written, [row._asdict() for row in page])
        except DBAPIError as error:
            if not _is_of_rows(error):
                raise
            keys = [tuple(getattr(row, column.name) for column in table.primary_key) for row in (page[0], page[-1])]
            raise Misconfigured(
                f"PostgreSQL refuses a row of {table.name} between the keys {keys[0]} and {keys[1]}: "
                f"{str(error.orig).splitlines()[0]}. Nothing was copied"
            ) from error
        content = content.with_rows(page)
        progress(table.name, len(page))
    for page in _pages(to, table):
        there = there.with_rows(page)
        progress(f"{table.name} (comparing)", len(page))
    if there != content:
        raise Misconfigured(
            f"the copy of {table.name} is not the original: {there.rows} row(s) of {content.rows}, or another content. "
            "Nothing was copied"
        )
    return content.rows


def _is_of_rows(error: DBAPIError) -> bool:
    """True if PostgreSQL refuses the rows, by their values, a constraint or a trigger: it would refuse them again."""
    state = str(sqlstate(error))
    if isinstance(error, OperationalError | InterfaceError):
        return state.startswith("54")  # too large for an index, for example
    return state not in _NOT_OF_ROWS


def _pages(connection: Connection, table: Table) -> Iterable[Sequence[Row[Any]]]:
    return connection.execute(_all_stored(table).execution_options(yield_per=_PAGE)).partitions()


def _all_stored(table: Table) -> Select[Any]:
    return select(*(_stored(column).label(column.name) for column in table.c)).order_by(*table.primary_key)


def _stored(column: Column[Any]) -> ColumnElement[Any]:
    match column.type:
        case JSON():
            return cast(column, Text)  # the type `json` keeps the text
        case Instant():
            return type_coerce(column, BigInteger)
    return column


def _insertion(table: Table) -> Insert:
    return insert(table).values({column.name: _written(column) for column in table.c})


def _written(column: Column[Any]) -> ColumnElement[Any]:
    match column.type:
        case JSON():
            return cast(bindparam(column.name, type_=Text), JSON)
        case Instant():
            return bindparam(column.name, type_=BigInteger)
    return bindparam(column.name, type_=column.type)
