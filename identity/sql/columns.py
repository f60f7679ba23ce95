"""Column types shared by every table, the database's clock, partial indexes, and conditions that match them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Dialect,
    Index,
    bindparam,
    false,
    literal_column,
    text,
    type_coerce,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LAST = datetime(9999, 12, 31, tzinfo=UTC)  # a day before the last possible one, so that it has a date in every zone
_FURTHEST = timedelta(days=36500)  # ahead: every stored time remains a valid date


class Instant(TypeDecorator[datetime]):
    """An aware datetime, stored as microseconds since 1970 so that both databases compare it alike."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("naive datetime: times carry their zone")
        return in_microseconds(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """Clamp times beyond the last valid date, so that their rows can still be read."""
        return None if value is None else instant(min(value, in_microseconds(_LAST)))


def instant(microseconds: int) -> datetime:
    """Return the time that many microseconds after 1970. Raises OverflowError beyond all dates."""
    return _EPOCH + timedelta(microseconds=microseconds)


def in_microseconds(moment: datetime) -> int:
    """Return the microseconds from 1970 to an aware time: the inverse of `instant`."""
    return (moment - _EPOCH) // _MICROSECOND


class database_now(FunctionElement[datetime]):  # noqa: N801 - reads as the SQL function it is
    """The database's clock, the only clock that claims and due times are compared by."""

    type = Instant()
    inherit_cache = True
    name = "database_now"


@compiles(database_now, "postgresql")
def _postgresql_now(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    return "(extract(epoch from clock_timestamp()) * 1000000)::bigint"


@compiles(database_now, "sqlite")
def _sqlite_now(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    # unixepoch('subsec') needs SQLite 3.42; the Julian day is exact to about 0.05 ms.
    return "cast((julianday('now') - 2440587.5) * 86400000000.0 as integer)"


def microseconds(duration: timedelta) -> int:
    """Return a duration in the unit of `Instant`, for arithmetic inside SQL."""
    return duration // _MICROSECOND


def database_in(duration: timedelta) -> ColumnElement[datetime]:
    """Return the database's clock plus *duration*, a century at most."""
    ahead = microseconds(min(duration, _FURTHEST))
    return type_coerce(type_coerce(database_now(), BigInteger) + ahead, Instant)


def database_in_microseconds(parameter: str) -> ColumnElement[datetime]:
    """Return the database's clock plus the *parameter*, in `microseconds`, for a statement that is built once."""
    return type_coerce(type_coerce(database_now(), BigInteger) + bindparam(parameter, type_=BigInteger), Instant)


def partial_index(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    """Return an index of only the rows that meet a condition."""
    return Index(name, *columns, unique=unique, postgresql_where=text(where), sqlite_where=text(where))


# Conditions written as literals, so that both databases can match them to partial indexes; a bound value would prevent
# that. A list of parameters would also make SQLAlchemy render a prebuilt statement for each execution. The values are
# written out unescaped, so they are only our own enums.


def is_one(column: Column[Any], value: StrEnum) -> ColumnElement[bool]:
    """Return the condition that a column has this value, as a literal."""
    return column == _written(value)


def is_among(column: Column[Any], *values: StrEnum) -> ColumnElement[bool]:
    """Return the condition that a column has one of these values, as literals."""
    return column.in_([_written(value) for value in values]) if values else false()


def _written(value: StrEnum) -> ColumnElement[str]:
    return literal_column(f"'{value}'")
