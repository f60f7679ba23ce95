"""Statements that are kept compiled: they mean what they mean to SQLAlchemy, and fail as they do there."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    bindparam,
    event,
    func,
    insert,
    null,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError, MultipleResultsFound, NoResultFound, OperationalError, ProgrammingError

from identity.sql.columns import Instant, in_microseconds
from identity.sql.prepared import Prepared
from identity.sql.rows import insert_for
from pipeline.db.database import Database
from pipeline.states import JobState

pytestmark = pytest.mark.as_owner

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
TABLES = MetaData()
THINGS = Table(
    "prepared_things",
    TABLES,
    Column("id", String(64), primary_key=True),
    Column("at", Instant),
    Column("said", JSON(none_as_null=True)),
    Column("state", String(16)),
    Column("number", Integer),
    Column("sure", Boolean),
    Column("sealed", LargeBinary),
    Column("told", JSON),  # None is a null of JSON's
)
ADD = Prepared(insert(THINGS))
OF_ID = Prepared(select(THINGS).where(THINGS.c.id == bindparam("thing")))
ALL = Prepared(select(THINGS.c.id).order_by(THINGS.c.id))


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    """In a transaction that is taken back."""
    with database.engine.connect() as found:
        found.exec_driver_sql("PRAGMA query_only=0" if found.dialect.name == "sqlite" else "select 1")
        TABLES.create_all(found)
        yield found
        found.rollback()


def add(connection: Connection, *ids: str, **values: Any) -> None:
    for one in ids:
        ADD.run(connection, {"id": one, **values})


def test_a_row_is_what_sqlalchemy_makes_of_it(connection: Connection) -> None:
    add(connection, "one", at=NOON, said={"a": [1, None, "é"]}, state=JobState.QUEUED, number=7, sure=False)
    ADD.run(connection, {"id": "two", "sealed": b"\x00\xff", "told": None, "sure": True})
    for theirs in connection.execute(select(THINGS)):
        assert tuple(OF_ID.run(connection, {"thing": theirs.id}).one()) == tuple(theirs)
    assert connection.scalar(select(func.count()).where(THINGS.c.told.is_(null()))) == 1
    sealed = OF_ID.run(connection, {"thing": "two"}).one()
    assert (bytes(sealed.sealed), sealed.told, sealed.sure) == (b"\x00\xff", None, True)
    prepared = OF_ID.run(connection, {"thing": "one"}).one()
    assert prepared.sure is False
    assert (prepared.id, prepared.at, prepared.said, prepared.state) == ("one", NOON, {"a": [1, None, "é"]}, "queued")


def test_what_is_not_given_is_not_written(connection: Connection) -> None:
    add(connection, "one", number=1)
    add(connection, "two", state="new")
    add(connection, "three", said=None)
    rows = {row.id: tuple(row)[1:5] for row in Prepared(select(THINGS)).run(connection)}
    nothing = (None, None, None, None)
    assert rows == {"one": (None, None, None, 1), "two": (None, None, "new", None), "three": nothing}
    assert connection.scalar(select(func.count()).where(THINGS.c.said.is_(None))) == 3


def test_an_update_sets_what_is_given_beside_what_it_says(connection: Connection) -> None:
    add(connection, "one", "two", number=1)
    change = Prepared(update(THINGS).where(THINGS.c.id == bindparam("thing")).values(number=THINGS.c.number + 1))
    assert change.run(connection, {"thing": "one", "state": "new"}).rowcount == 1
    assert change.run(connection, {"thing": "three"}).rowcount == 0
    found = connection.execute(select(THINGS.c.number, THINGS.c.state).order_by(THINGS.c.id)).all()
    assert found == [(2, "new"), (1, None)]


def test_values_that_it_was_built_with_are_bound_as_their_columns_say(connection: Connection) -> None:
    add(connection, "one", at=NOON, number=1)
    at_noon = Prepared(update(THINGS).where(THINGS.c.at == NOON).values(said=["x"], state=JobState.DONE))
    returned = Prepared(at_noon.statement.returning(THINGS.c.said, THINGS.c.state, THINGS.c.at))
    assert at_noon.run(connection).rowcount == 1
    assert returned.run(connection).all() == [(["x"], "done", NOON)]


def test_how_many_rows_there_are_to_be_is_asked_for_by_name(connection: Connection) -> None:
    add(connection, "one", "two", number=1)
    both, none = ALL.run(connection), OF_ID.run(connection, {"thing": "three"})
    assert (both.scalars(), both.all(), both.first()) == (["one", "two"], [("one",), ("two",)], ("one",))
    assert [row.id for row in both] == ["one", "two"]
    assert (none.one_or_none(), none.first(), none.scalar_one_or_none(), none.scalars()) == (None, None, None, [])
    for ask in (both.one, both.one_or_none, both.scalar_one, both.scalar_one_or_none):
        with pytest.raises(MultipleResultsFound):
            ask()
    for ask in (none.one, none.scalar_one):
        with pytest.raises(NoResultFound):
            ask()


def test_two_columns_of_one_name_are_told_apart_as_sqlalchemy_does(connection: Connection) -> None:
    add(connection, "one", number=3)
    other = THINGS.alias("other")
    joined = select(THINGS.c.number, THINGS.c.id, other.c.id).join(other, other.c.id == THINGS.c.id)
    for found in (Prepared(joined).run(connection).one(), connection.execute(joined).one()):
        assert (tuple(found), found.number, found.id_1) == ((3, "one", "one"), 3, "one")


def test_two_columns_that_are_named_alike_in_a_text_have_no_name(connection: Connection) -> None:
    found = Prepared(text("select 1 as one, 2 as one, 3 as other")).run(connection).one()
    assert (tuple(found), found.other) == ((1, 2, 3), 3)
    assert not hasattr(found, "one")


def test_an_insert_tells_whether_it_wrote(connection: Connection) -> None:
    unless_there = Prepared(insert_for(connection.dialect.name, THINGS).on_conflict_do_nothing())
    statement = insert_for(connection.dialect.name, THINGS)
    newer = statement.on_conflict_do_update(
        index_elements=["id"], set_={"number": statement.excluded.number}, where=THINGS.c.number < bindparam("below")
    )
    rows = [{"id": "one", "number": number} for number in (1, 2)]
    assert [unless_there.run(connection, row).rowcount for row in rows] == [1, 0]
    changed = [Prepared(newer).run(connection, {**rows[1], "below": below}).rowcount for below in (1, 2)]
    assert changed == [0, 1]
    assert connection.scalar(select(THINGS.c.number)) == 2


def test_a_parameter_is_its_columns_wherever_it_stands(connection: Connection) -> None:
    add(connection, "one", at=NOON)
    same = select(bindparam("now", type_=Instant) == THINGS.c.at, func.abs(bindparam("now")))
    assert tuple(Prepared(same).run(connection, {"now": NOON}).one()) == (True, in_microseconds(NOON))


def test_a_text_of_sql_has_the_drivers_values(connection: Connection) -> None:
    assert tuple(Prepared(text("select 1 + :more as sum, '%' as sign")).run(connection, {"more": 2}).one()) == (3, "%")


@pytest.mark.parametrize("given", [{}, {"other": "one"}])
def test_a_parameter_that_is_missing_is_told(connection: Connection, given: dict[str, str]) -> None:
    with pytest.raises(KeyError, match="thing"):
        OF_ID.run(connection, given)


def test_a_list_and_a_default_that_is_a_function_are_refused(connection: Connection) -> None:
    of_ids = Prepared(select(THINGS).where(THINGS.c.id.in_(bindparam("ids", expanding=True))))
    with pytest.raises(TypeError, match="list"):
        of_ids.run(connection, {"ids": ["one"]})
    aged = Table("aged", MetaData(), Column("id", String, primary_key=True), Column("age", Integer, default=lambda: 3))
    with pytest.raises(TypeError, match="default"):
        Prepared(insert(aged)).run(connection, {"id": "one"})


def test_a_column_that_is_not_given_has_its_default(connection: Connection) -> None:
    aged = Table("aged", MetaData(), Column("id", String, primary_key=True), Column("age", Integer, default=3))
    aged.create(connection)
    add_one = Prepared(insert(aged))
    add_one.run(connection, {"id": "one"})
    add_one.run(connection, {"id": "two", "age": 4})
    assert connection.execute(select(aged).order_by(aged.c.id)).all() == [("one", 3), ("two", 4)]


def test_what_the_database_refuses_is_sqlalchemys_error_without_what_was_written(connection: Connection) -> None:
    add(connection, "one")
    with pytest.raises(IntegrityError) as raised:
        add(connection, "one", state="a secret")
    assert "prepared_things" in str(raised.value)
    assert "a secret" not in str(raised.value)
    assert raised.value.statement is not None
    assert not raised.value.connection_invalidated


def test_a_table_that_is_missing_is_told_as_sqlalchemy_does(database: Database) -> None:
    nowhere = Table("nowhere", MetaData(), Column("id", String, primary_key=True))
    statement = select(nowhere)
    kinds = (OperationalError, ProgrammingError)
    for run in (lambda c: c.execute(statement), Prepared(statement).run):
        with database.engine.connect() as found, pytest.raises(kinds) as raised:
            run(found)
        assert "nowhere" in str(raised.value.orig)


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_connection_that_is_gone_is_not_used_again(database: Database) -> None:
    with database.engine.connect() as found:
        pid = Prepared(select(func.pg_backend_pid())).run(found).scalar_one()
        with database.engine.connect() as other:
            other.execute(select(func.pg_terminate_backend(pid)))
        with pytest.raises(OperationalError) as raised:
            Prepared(select(func.pg_backend_pid())).run(found)
        assert raised.value.connection_invalidated
        assert found.invalidated
    with database.engine.connect() as another:
        assert Prepared(select(func.pg_backend_pid())).run(another).scalar_one() != pid


def test_whoever_listens_to_statements_hears_these(connection: Connection) -> None:
    heard: list[tuple[str, str]] = []
    event.listen(connection, "before_cursor_execute", lambda *given: heard.append(("before", given[2])))
    event.listen(connection, "after_cursor_execute", lambda *given: heard.append(("after", given[2])))
    ALL.run(connection)
    (before, asked), (after, _) = heard
    assert (before, after) == ("before", "after")
    assert asked.startswith("SELECT prepared_things.id")


def test_all_reads_of_a_function_see_one_state(database: Database) -> None:
    def add_meanwhile(thing: str) -> None:
        database.write(lambda c: add(c, thing))

    database.write(TABLES.create_all)
    try:
        seen: list[list[str]] = []

        def look(connection: Connection) -> None:
            seen.append(ALL.run(connection).scalars())
            add_meanwhile("one")
            seen.append(ALL.run(connection).scalars())

        database.read(look)
        assert seen == [[], [] if database.engine.dialect.name == "sqlite" else ["one"]]
    finally:
        database.write(TABLES.drop_all)
