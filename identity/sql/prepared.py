"""Hot statements: compiled once, then passed straight to the driver (docs/decisions/0024).

SQLAlchemy needs more time to run a statement than SQLite does: each time it looks up the compiled text, adapts the
parameters and builds a result of its own. Its compilation is kept here, and only the necessary steps are repeated.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from sqlalchemy import Connection, Dialect
from sqlalchemy.exc import DBAPIError, MultipleResultsFound, NoResultFound
from sqlalchemy.sql.compiler import SQLCompiler

_Process = Callable[[Any], Any]


class Rows:
    """The result of a statement: all of its rows, by position and by name, or the number of rows written."""

    __slots__ = ("_rows", "rowcount")

    def __init__(self, rows: list[Any], rowcount: int) -> None:
        self._rows = rows
        self.rowcount = rowcount  # for a statement that returns no rows

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def all(self) -> list[Any]:
        return self._rows

    def first(self) -> Any | None:
        return self._rows[0] if self._rows else None

    def one_or_none(self) -> Any | None:
        """Return the row, or None. Raises MultipleResultsFound."""
        if len(self._rows) > 1:
            raise MultipleResultsFound("the statement gave more than one row")
        return self.first()

    def one(self) -> Any:
        """Return the only row. Raises NoResultFound, MultipleResultsFound."""
        if not self._rows:
            raise NoResultFound("the statement gave no row")
        return self.one_or_none()

    def scalars(self) -> list[Any]:
        """Return the first column of all rows."""
        return [row[0] for row in self._rows]

    def scalar_one(self) -> Any:
        """Return the first column of the only row. Raises NoResultFound, MultipleResultsFound."""
        return self.one()[0]

    def scalar_one_or_none(self) -> Any | None:
        """Return the first column of the row, or None. Raises MultipleResultsFound."""
        row = self.one_or_none()
        return None if row is None else row[0]


class Prepared:
    """A SQLAlchemy statement to be kept, as a module constant or the result of a cached function.

    It keeps SQLAlchemy's meaning and runs in the connection's transaction. Not for statements with a list, which is
    rendered at each run, nor for columns whose defaults are Python functions.
    """

    __slots__ = ("_plans", "statement")

    def __init__(self, statement: Any) -> None:
        self.statement = statement
        self._plans: dict[tuple[str, ...], _Plan] = {}

    def run(self, connection: Connection, parameters: Mapping[str, Any] | None = None) -> Rows:
        """Run the statement. Raises what SQLAlchemy would: DBAPIError, without the parameters."""
        given = parameters or {}
        dialect = connection.dialect
        key = (dialect.name, *given)  # an INSERT covers only the columns that it is given
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = _Plan(self.statement, dialect, list(given))
        return plan.run(connection, plan.bound(given))


def _processes(compiled: SQLCompiler, dialect: Dialect) -> dict[str, _Process]:
    """Return the bind processor of each parameter, by name, as its column defines it."""
    found: dict[str, _Process] = {}
    for parameter, name in compiled.bind_names.items():
        process = parameter.type.dialect_impl(dialect).bind_processor(dialect)
        if process is not None:
            found[name] = process
    return found


class _Plan:
    """A statement compiled for one dialect and one set of parameter names."""

    def __init__(self, statement: Any, dialect: Dialect, names: Sequence[str]) -> None:
        compiled: SQLCompiler = statement.compile(dialect=dialect, column_keys=names)
        defaults: dict[str, Any] = {column.key: column.default for column in compiled.insert_prefetch}
        if compiled.update_prefetch or not all(default.is_scalar for default in defaults.values()):
            raise TypeError("a column has a default that is a function of Python's, which nobody would call here")
        if compiled.escaped_bind_names:
            raise TypeError("a parameter has a name that PostgreSQL's driver does not take")
        if compiled.post_compile_params or compiled.literal_execute_params:
            raise TypeError("it has a list, which is written out each time that the statement runs")
        self._text = compiled.string
        self._rest: Any
        self._given: list[tuple[Any, str, _Process | None]] = []
        named = {name: parameter for parameter, name in compiled.bind_names.items()}
        processes = _processes(compiled, dialect)
        places: list[tuple[Any, str]]
        if compiled.positiontup is not None:
            self._rest, places = [None] * len(compiled.positiontup), list(enumerate(compiled.positiontup))
        else:
            self._rest, places = {}, [(name, name) for name in named]
        for place, name in places:
            parameter, process = named[name], processes.get(name)
            if name in names or parameter.required:
                self._given.append((place, name, process))
            else:  # a value that the statement was built with, or the column's default
                value = defaults[name].arg if name in defaults else parameter.effective_value
                self._rest[place] = value if process is None else process(value)
        returned = getattr(statement, "exported_columns", ())
        found = (column.type.dialect_impl(dialect).result_processor(dialect, None) for column in returned)
        self._processes = [(place, process) for place, process in enumerate(found) if process is not None]
        self._width = len(returned)
        # Learned in the first run: psycopg rebuilds a cursor's description each time it is read.
        self._returns: bool | None = None
        self._row: Callable[[Any], Any] = tuple

    def bound(self, given: Mapping[str, Any]) -> Any:
        """Return the parameters as the driver takes them. Raises KeyError for a missing one."""
        bound = self._rest.copy()
        for place, name, process in self._given:
            value = given[name]
            bound[place] = value if process is None else process(value)
        return tuple(bound) if isinstance(bound, list) else bound

    def run(self, connection: Connection, bound: Any) -> Rows:
        text = self._text
        raw: Any = connection.connection.driver_connection
        cursor = None
        try:
            cursor = raw.cursor()
            # Listeners to SQLAlchemy's statements hear these as well.
            for hear in connection.dispatch.before_cursor_execute:
                hear(connection, cursor, text, bound, None, False)
            cursor.execute(text, bound)
            if self._returns is None:
                self._returns = self._described(cursor.description)
            rows = cursor.fetchall() if self._returns else []
        except connection.dialect.loaded_dbapi.Error as error:
            self._raise(connection, cursor, error)
        for hear in connection.dispatch.after_cursor_execute:
            hear(connection, cursor, text, bound, None, False)
        if self._processes:
            rows = [self._processed(row) for row in rows]
        return Rows([self._row(row) for row in rows], cursor.rowcount)

    def _processed(self, row: Sequence[Any]) -> list[Any]:
        values = list(row)
        for place, process in self._processes:
            values[place] = process(values[place])
        return values

    def _described(self, description: Sequence[Sequence[Any]] | None) -> bool:
        """True if it returns rows, whose names are kept. Two columns of one name have none."""
        if description is None:
            return False
        if self._width not in (0, len(description)):
            raise TypeError("the statement returns other columns than it says")
        names = [column[0] for column in description]
        fields = [name if names.count(name) == 1 else "_" for name in names]
        row: Any = namedtuple("Row", fields, rename=True)  # type: ignore[misc]  # noqa: PYI024 - known when it runs
        self._row = row._make
        return True

    def _raise(self, connection: Connection, cursor: Any, error: Any) -> NoReturn:
        dialect = connection.dialect
        gone = dialect.is_disconnect(error, connection.connection.dbapi_connection, cursor)
        raised = DBAPIError.instance(
            self._text,
            None,
            error,
            dialect.loaded_dbapi.Error,
            hide_parameters=True,
            connection_invalidated=gone,
            dialect=dialect,
        )
        if gone:
            connection.invalidate(error)
        raise raised from error
