"""Detects what a ledger lacks although its revision says that it has it.

A restore that was interrupted, or continued after an error, restores the revision but not everything that belongs to
it: a table without its unique index takes the same delivery twice, an audit without its triggers can be rewritten.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, text

from pipeline.migrations.declared import metadata

_APPEND_ONLY = ("audit", "audit_prunings", "audit_seals", "signing_handovers")  # migrations 0014 and 0019
_TRIGGERS = {"sqlite": ("no_delete", "no_replace", "no_update"), "postgresql": ("no_change", "no_truncate")}
_TRIGGERS_THERE = {
    "sqlite": "select name from sqlite_master where type = 'trigger'",
    # A disabled trigger, as an interrupted `pg_restore --disable-triggers` leaves it, refuses nothing.
    "postgresql": "select t.tgname from pg_trigger t join pg_class c on c.oid = t.tgrelid"
    " where not t.tgisinternal and t.tgenabled in ('O', 'A') and c.relnamespace = current_schema()::regnamespace",
}
_IN_VAIN = """
    select 'index ' || i.indexrelid::regclass || ' is not valid' from pg_index i
    join pg_class c on c.oid = i.indexrelid
    where not i.indisvalid and c.relnamespace = current_schema()::regnamespace
    union all
    select 'constraint ' || conname || ' was not checked against the rows' from pg_constraint
    where not convalidated and connamespace = current_schema()::regnamespace
"""


def triggers(dialect: str) -> frozenset[str]:
    """Return the triggers by which the append-only tables refuse changes."""
    return frozenset(f"{table}_{name}" for table in _APPEND_ONLY for name in _TRIGGERS[dialect])


def triggers_there(connection: Connection) -> frozenset[str]:
    return frozenset(connection.execute(text(_TRIGGERS_THERE[connection.dialect.name])).scalars())


def lacks(connection: Connection) -> list[str]:
    """Return in words what a ledger at this version's revision lacks; additions by others are ignored."""
    if connection.dialect.name == "postgresql":  # comparing takes seconds on a busy machine, and blocks nobody
        connection.execute(text("set local idle_in_transaction_session_timeout = '1min'"))
    return sorted(_lacks(connection))


def _lacks(connection: Connection) -> Iterator[str]:
    dialect = connection.dialect.name
    for difference in compare_metadata(MigrationContext.configure(connection), metadata):
        # Changes of one column come as a list of tuples, shaped like the other differences.
        for one in difference if isinstance(difference, list) else [difference]:
            yield from _in_words(*one)
    there = inspect(connection)
    for table in metadata.sorted_tables:
        if not there.has_table(table.name):
            continue  # already reported
        if there.get_pk_constraint(table.name)["constrained_columns"] != [column.name for column in table.primary_key]:
            yield f"table {table.name} lacks its primary key"
    yield from (f"trigger {name} is not there, or disabled" for name in triggers(dialect) - triggers_there(connection))
    if dialect == "postgresql":
        yield from connection.execute(text(_IN_VAIN)).scalars()
        if not there.has_sequence("ledger_number_sequence"):
            yield "sequence ledger_number_sequence is not there"


def _in_words(what: str, *of: Any) -> Iterator[str]:
    """Yield one difference, as Alembic reports it, in words.

    https://alembic.sqlalchemy.org/en/latest/api/autogenerate.html
    """
    match what:
        case "add_table":
            yield f"table {of[0].name} is not there"
        case "add_column":
            yield f"column {of[1]}.{of[2].name} is not there"
        case "add_index" | "add_constraint" | "add_fk":
            yield f"{what.removeprefix('add_').replace('fk', 'foreign key')} {of[0].name} is not there"
        case "modify_nullable" | "modify_type":
            yield f"column {of[1]}.{of[2]} is of another kind"
