"""Copies a whole SQLite ledger into an empty PostgreSQL database, in one transaction that also compares all rows.

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
from sqlalchemy.exc import DataError, DBAPIError

from identity import audit
from identity.audit import Act, AsWhom
from identity.errors import BadInput, Misconfigured, Unavailable
from identity.sql.columns import Instant
from identity.sql.metadata import ledger_numbers
from identity.sql.store import Store
from pipeline.ledger.numbering import last_given, move_numbers
from pipeline.ledger.revision import newest, revision_in
from pipeline.migrations import refuse_without_rights, take_time_alone
from pipeline.migrations.declared import metadata

#: The kind of the audit record.
IMPORTED = "ledger.imported"
_TABLES = [table for table in metadata.sorted_tables if table is not ledger_numbers]  # PostgreSQL has a sequence
_PAGE = 100  # rows in memory at a time; a delivery's body may have megabytes

#: Called after each table with its name and its number of rows.
Progress = Callable[[str, int], None]


@dataclass(frozen=True)
class Content:
    """The rows of a table: their number, and the sum of their digests, which depends on no order."""

    rows: int = 0
    digests: int = 0

    def with_rows(self, rows: Sequence[Row[Any]]) -> Content:
        digests = sum(int.from_bytes(sha256(repr(tuple(row)).encode()).digest(), "big") for row in rows)
        return Content(self.rows + len(rows), self.digests + digests)


def import_sqlite(source: Store, connection: Connection, act: Act, *, origin: str, progress: Progress) -> int:
    """Copy every row of the ledger *source*, which nothing else uses, and return how many there were.

    *connection* is a write transaction of an empty PostgreSQL ledger with the same tables; *origin* names the source
    in the audit. Ledger numbers continue where those of the source end. Raises BadInput if the target is not empty,
    Misconfigured if PostgreSQL refuses a value or a statement, or returns a value changed, and Unavailable if the
    source was used after all.
    """
    take_time_alone(connection)
    refuse_used(connection)
    with refuse_without_rights():
        # First the numbers, which need the owner's rights: copying may take hours.
        last = source.read(last_given)
        move_numbers(connection, to=last or 1)
        copied = source.read(lambda old: _copy_all(old, connection, progress))
        if source.read(last_given) != last:
            raise Unavailable("a process still writes to the old ledger: stop it, and repeat this. Nothing was copied")
        audit.record_act(connection, IMPORTED, AsWhom(tenant=None), act, outcome="copied", detail={"from": origin})
        connection.execute(text("analyze"))
    return copied


def refuse_used(connection: Connection) -> None:
    """Raise BadInput if the database is not empty or not in UTF-8. Another program's tables count if named like ours.

    Called before anything is changed as well: the upgrade that makes the tables would upgrade an older ledger.
    """
    encoding = connection.execute(text("show server_encoding")).scalar_one()
    if encoding != "UTF8":
        raise BadInput(f"the database's encoding is {encoding}, which lacks characters. Name an empty one in UTF8")
    revision = revision_in(connection)
    if revision is None:
        if taken := sorted(metadata.tables.keys() & set(inspect(connection).get_table_names())):
            raise BadInput(
                f"the database is not empty: another program has a table {taken[0]} in it. Name an empty one"
            )
        return
    if revision != newest():
        raise BadInput(f"the database is not empty: it has tables at revision {revision}. Name an empty one")
    for table in _TABLES:
        if connection.execute(select(literal(1)).select_from(table).limit(1)).first() is not None:
            raise BadInput(f"the database is not empty: its table {table.name} has rows. Name an empty one")


def _copy_all(source: Connection, to: Connection, progress: Progress) -> int:
    return sum(_copy(source, table, to, progress) for table in _TABLES)


def _copy(source: Connection, table: Table, to: Connection, progress: Progress) -> int:
    written = _insertion(table)
    content = Content()
    for page in _pages(source, table):
        try:
            to.execute(written, [row._asdict() for row in page])
        except DBAPIError as error:
            if not _is_of_values(error):
                raise
            keys = [tuple(getattr(row, column.name) for column in table.primary_key) for row in (page[0], page[-1])]
            raise Misconfigured(
                f"PostgreSQL refuses a row of {table.name} between the keys {keys[0]} and {keys[1]}: "
                f"{str(error.orig).splitlines()[0]}. Nothing was copied"
            ) from error
        content = content.with_rows(page)
    if (there := _content(_pages(to, table))) != content:
        raise Misconfigured(
            f"the copy of {table.name} is not the original: {there.rows} row(s) of {content.rows}, or another content. "
            "Nothing was copied"
        )
    progress(table.name, content.rows)
    return content.rows


def _is_of_values(error: DBAPIError) -> bool:
    """True if PostgreSQL refuses the values, which SQLite took: it would refuse them again."""
    too_large = str(getattr(error.orig, "sqlstate", None)).startswith("54")  # for an index, for example
    return too_large or isinstance(error, DataError)


def _content(pages: Iterable[Sequence[Row[Any]]]) -> Content:
    content = Content()
    for page in pages:
        content = content.with_rows(page)
    return content


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
